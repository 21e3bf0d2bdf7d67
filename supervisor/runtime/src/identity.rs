//! The identity of a data folder. A copy, next to the original or restored from a backup, holds the same notes: of processes,
//! containers, ports and a fleet that belong to the original.
//!
//! So a folder has an id, in a file that identifies itself by its inode. A copy is another file: it gets its own id, and its notes
//! about what runs are dropped. A folder that was moved keeps its id.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use common::api::ApiError;
use common::failure;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::home::Home;
use crate::{labels, processes};

const FILE: &str = "identity";
/// How long another process may take to claim the folder.
const HELD: Duration = Duration::from_secs(5);

/// What is kept of a data folder's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    id: String,
    of: Mark,
    /// Where the folder was when it was last used.
    path: PathBuf,
    /// Whether it was copied, and its broker's data still says that it is the original's fleet.
    #[serde(default)]
    is_copied_fleet: bool,
}

/// What tells a file from every copy of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    inode: u64,
    /// When it was made, in nanoseconds since 1970, where the file system says so: an inode's number alone may come up again in
    /// another one.
    made: u64,
    /// The file system, as this start of the machine numbers it: a snapshot has the same inodes.
    device: u64,
    boot: String,
}

impl Mark {
    fn read(of: &Metadata) -> Self {
        let made = of.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let made = made.and_then(|at| u64::try_from(at.as_nanos()).ok()).unwrap_or_default();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { inode: of.ino(), made, device: of.dev(), boot }
    }

    fn is_of(&self, other: &Self) -> bool {
        let is_same_device = self.device == other.device || self.boot != other.boot;
        self.inode == other.inode && self.made == other.made && is_same_device
    }
}

/// What the file says.
enum Found {
    Nothing,
    Ours(Kept),
    /// Of the folder that this one is a copy of.
    Copied(Kept),
}

fn find(dir: &Path) -> io::Result<Found> {
    let path = dir.join(FILE);
    let of = match fs::metadata(&path) {
        Ok(of) => of,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let kept: Kept = serde_json::from_slice(&fs::read(&path)?)?;
    let is_ours = kept.of.is_of(&Mark::read(&of));
    Ok(if is_ours { Found::Ours(kept) } else { Found::Copied(kept) })
}

/// Rewrites the file, completely or not at all. It is then another file, and records that.
fn write(dir: &Path, mut kept: Kept) -> io::Result<()> {
    let draft = dir.join(format!("{FILE}.{}", std::process::id()));
    let _left = fs::remove_file(&draft);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
    kept.of = Mark::read(&file.metadata()?);
    let written = serde_json::to_vec(&kept).map_err(io::Error::other).and_then(|bytes| {
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&draft, dir.join(FILE))
    });
    written.inspect_err(|_| drop(fs::remove_file(&draft)))
}

/// Takes a lock that every process holds only briefly. A process that holds it longer is suspended.
fn hold(lock: &File) -> io::Result<()> {
    let until = Instant::now() + HELD;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(Errno::WOULDBLOCK) if Instant::now() < until => pause(),
            Err(Errno::WOULDBLOCK) => {
                let cause = format!("another mozart has held `identity.lock` for {HELD:?}");
                return Err(io::Error::new(ErrorKind::WouldBlock, cause));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a lock can only be tried again, and nothing else runs yet"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}

fn random() -> io::Result<String> {
    let mut bytes = [0_u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The processes that were started from a folder at this path.
fn started_from(dir: &Path) -> Vec<u32> {
    let conf = dir.join("nats/nats.conf");
    let conf = conf.as_os_str().as_encoded_bytes();
    let serves = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|one| one == conf)
    };
    let shims = labels::find(&dir.join("run")).into_iter().map(|one| one.pid);
    shims.chain(processes::all().filter(serves)).collect()
}

impl Home {
    /// The id of this folder; none of one that nothing was started in, or that is a copy and was not used yet.
    pub fn id(&self) -> Option<String> {
        match find(&self.dir) {
            Ok(Found::Ours(kept)) => Some(kept.id),
            Ok(Found::Nothing | Found::Copied(_)) | Err(_) => None,
        }
    }

    /// Whether its notes about what runs belong to another folder, of which this one is a copy.
    pub fn is_unclaimed_copy(&self) -> bool {
        matches!(find(&self.dir), Ok(Found::Copied(_)))
    }

    /// If this folder is a copy, makes it independent before any of its notes are trusted. Returns its id.
    ///
    /// # Errors
    /// When something runs that was started from where the folder was, or from another folder in its place; when the file system
    /// does not allow it.
    pub fn claim(&self) -> Result<String, ApiError> {
        let failed = |cause: io::Error| {
            let what = format!("cannot tell which data folder {} is", self.dir.display());
            failure::file(
                what,
                &cause,
                "check the disk space and permissions there, and the file `identity`",
            )
        };
        // Two that start here at the same time have one id. Held for a moment only.
        let lock = self.dir.join("identity.lock");
        let mut options = File::options();
        let opened = options.create(true).truncate(false).write(true).mode(0o600).open(&lock);
        // To be locked, it need not be written; and where nothing can be written, nobody writes.
        let _held = match opened.or_else(|cause| File::open(&lock).map_err(|_none| cause)) {
            Ok(lock) => {
                hold(&lock).map_err(failed)?;
                Some(lock)
            }
            Err(cause) if cause.kind() == ErrorKind::ReadOnlyFilesystem => None,
            Err(cause) => return Err(failed(cause)),
        };
        match find(&self.dir).map_err(failed)? {
            Found::Ours(kept) if kept.path == self.dir => Ok(kept.id),
            Found::Ours(kept) => {
                // What runs there may be another one's that is there now.
                if !matches!(find(&kept.path), Ok(Found::Ours(_))) {
                    nothing_runs(&kept.path, "the folder was moved")?;
                }
                tracing::info!("this data folder was {}", kept.path.display());
                let id = kept.id.clone();
                write(&self.dir, Kept { path: self.dir.clone(), ..kept }).map_err(failed)?;
                Ok(id)
            }
            Found::Nothing => self.begin(false).map_err(failed),
            Found::Copied(original) => {
                nothing_runs(&self.dir, "the folder was replaced by a copy")?;
                tracing::warn!(
                    "this data folder is a copy of {} (or was restored), and is independent from now on: what runs there is not touched",
                    original.path.display()
                );
                self.forget_what_runs().map_err(failed)?;
                self.begin(true).map_err(failed)
            }
        }
    }

    fn begin(&self, is_copied_fleet: bool) -> io::Result<String> {
        let id = random()?;
        self.identify(id.clone(), is_copied_fleet)?;
        Ok(id)
    }

    fn identify(&self, id: String, is_copied_fleet: bool) -> io::Result<()> {
        let of = Mark { inode: 0, made: 0, device: 0, boot: String::new() };
        write(&self.dir, Kept { id, of, path: self.dir.clone(), is_copied_fleet })
    }

    /// The notes about what runs, and the broker's port and password: the original's shims know them.
    fn forget_what_runs(&self) -> io::Result<()> {
        let gone = |removed: io::Result<()>| match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
        gone(fs::remove_file(self.running_file()))?;
        gone(fs::remove_file(self.nats().join("access.json")))?;
        gone(fs::remove_dir_all(self.run()))
    }

    /// Restores the folder's identity file, if it was removed while the folder is in use.
    ///
    /// # Errors
    /// When the file system does not allow it.
    pub fn keep_id(&self, id: &str) -> io::Result<()> {
        match find(&self.dir)? {
            Found::Ours(_) | Found::Copied(_) => Ok(()),
            Found::Nothing => self.identify(id.to_owned(), false),
        }
    }

    /// Whether its broker's data still has the identity of the original's fleet, if this folder is a copy.
    pub fn has_copied_fleet(&self) -> bool {
        matches!(find(&self.dir), Ok(Found::Ours(Kept { is_copied_fleet: true, .. })))
    }

    /// Records that the fleet is independent of the original now.
    ///
    /// # Errors
    /// When the file system does not allow it.
    pub fn fleet_is_its_own(&self) -> Result<(), ApiError> {
        let done = match find(&self.dir) {
            Ok(Found::Ours(kept)) => write(&self.dir, Kept { is_copied_fleet: false, ..kept }),
            Ok(Found::Nothing | Found::Copied(_)) => Ok(()),
            Err(error) => Err(error),
        };
        done.map_err(|error| {
            failure::file("cannot record the fleet", &error, "check the disk space and permissions")
        })
    }
}

fn nothing_runs(path: &Path, why: &str) -> Result<(), ApiError> {
    let pids: Vec<_> = started_from(path).iter().map(u32::to_string).collect();
    if pids.is_empty() {
        return Ok(());
    }
    let what = format!("what was started from {} is still running", path.display());
    let cause = format!("{why}; processes {}", pids.join(", "));
    let try_ = format!(
        "move the folder back to {} and run `mozart down`; or end these processes",
        path.display()
    );
    Err(failure::error(failure::CONFLICT, what, cause, try_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(dir: &Path) -> Home {
        fs::create_dir_all(dir).expect("made");
        Home::locate(Some(dir)).expect("given")
    }

    fn copy(from: &Home, to: &Path) -> Home {
        let to = home(to);
        fs::create_dir_all(to.nats()).expect("made");
        for file in ["identity", "mozart.json", "nats/access.json"] {
            fs::copy(from.dir.join(file), to.dir.join(file)).expect("copied");
        }
        fs::create_dir_all(to.run().join("default/n/a-1")).expect("made");
        to
    }

    fn used(dir: &Path) -> (Home, String) {
        let home = home(dir);
        let id = home.claim().expect("claimed");
        fs::create_dir_all(home.nats()).expect("made");
        for file in [home.running_file(), home.nats().join("access.json")] {
            fs::write(file, b"{}").expect("written");
        }
        (home, id)
    }

    #[test]
    fn a_folder_keeps_its_id_also_where_it_is_moved_to() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (first, id) = used(&temp.path().join("first"));
        assert_eq!(first.claim().expect("claimed"), id);
        assert_eq!(first.id(), Some(id.clone()));
        let moved = temp.path().join("moved");
        fs::rename(&first.dir, &moved).expect("moved");
        let moved = home(&moved);
        assert_eq!(moved.id(), Some(id.clone()));
        assert_eq!(moved.claim().expect("claimed"), id);
        assert_eq!(moved.claim().expect("once more"), id);
        assert!(moved.running_file().exists() && !moved.has_copied_fleet());
    }

    #[test]
    fn a_copy_is_another_folder_and_knows_nothing_of_what_runs() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (first, id) = used(&temp.path().join("first"));
        let copy = copy(&first, &temp.path().join("copy"));
        assert_eq!((copy.id(), copy.is_unclaimed_copy()), (None, true));
        let own = copy.claim().expect("claimed");
        assert_ne!(own, id);
        for file in [copy.running_file(), copy.nats().join("access.json"), copy.run()] {
            assert!(!file.exists(), "{}", file.display());
        }
        assert!(copy.has_copied_fleet() && !copy.is_unclaimed_copy());
        copy.fleet_is_its_own().expect("noted");
        assert!(!copy.has_copied_fleet());
        assert_eq!(copy.claim().expect("once more"), own);
        assert_eq!(first.claim().expect("it is as it was"), id);
        assert!(first.running_file().exists());
    }

    #[test]
    fn a_snapshot_is_another_folder_and_a_machine_that_was_started_anew_has_the_same() {
        let mark =
            |inode, made, device, boot: &str| Mark { inode, made, device, boot: boot.into() };
        let kept = mark(1, 2, 3, "a");
        for (now, is_it) in [
            (mark(1, 2, 3, "a"), true),
            (mark(1, 2, 4, "a"), false),
            (mark(1, 2, 4, "b"), true),
            (mark(1, 9, 3, "a"), false),
            (mark(9, 2, 3, "b"), false),
        ] {
            assert_eq!(kept.is_of(&now), is_it, "{now:?}");
        }
    }

    #[test]
    fn whoever_stands_still_amid_a_claim_holds_up_no_other_for_ever() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = home(temp.path());
        let held = File::create(home.dir.join("identity.lock")).expect("made");
        flock(&held, FlockOperation::LockExclusive).expect("held");
        let began = Instant::now();
        let error = home.claim().expect_err("it is held");
        assert!(error.cause.contains("another mozart"), "{}", error.cause);
        assert!(began.elapsed() >= HELD);
        drop(held);
        home.claim().expect("it is free");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_not_a_new_folder() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = home(temp.path());
        fs::write(home.dir.join(FILE), b"{").expect("written");
        home.claim().expect_err("it is damaged");
        assert_eq!(home.id(), None);
    }
}
