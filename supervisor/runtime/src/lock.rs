//! Locks on folders. The folder itself is locked, not a file in it: nothing can remove the lock, it needs no disk space and no
//! right to write, and systemd-tmpfiles leaves alone what is in a locked folder
//! (<https://systemd.io/TEMPORARY_DIRECTORIES>).
//!
//! Whoever has the lock of a folder that was removed still has it, also where another folder is in its place by now: what was started
//! there still runs.

use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use common::api::ApiError;
use common::failure;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::processes;

/// Takes the lock of a folder; none if another process has it. It goes with its process, however that ends.
///
/// # Errors
/// When there is no such folder, or its file system has no locks for folders, as NFS.
pub fn take(folder: &Path) -> Result<Option<File>, ApiError> {
    let opened = File::open(folder).map_err(|error| {
        let what = format!("cannot open {}", folder.display());
        failure::file(what, &error, "--dir DIR for another folder")
    })?;
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if others().any(|pid| holds(pid, folder, None)) => Ok(None),
        Ok(()) => Ok(Some(opened)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => {
            let what = format!("cannot lock {}", folder.display());
            Err(failure::error(failure::FAILED, what, error, "--dir DIR on a local disk"))
        }
    }
}

/// Whether another process has the lock of a folder.
pub fn is_held(folder: &Path) -> bool {
    match take(folder) {
        Ok(taken) => taken.is_none(),
        Err(_) => holder(folder).is_some(),
    }
}

/// The process that has the lock of a folder, as the kernel says; none if nobody has it, or one that is not to be seen from here.
pub fn holder(folder: &Path) -> Option<u32> {
    let of = fs::metadata(folder).ok();
    others().find(|pid| holds(*pid, folder, of.as_ref()))
}

fn others() -> impl Iterator<Item = u32> {
    processes::all().filter(|pid| *pid != std::process::id())
}

/// Whether a process has the lock of a folder.
pub fn is_holder(folder: &Path, pid: u32) -> bool {
    holds(pid, folder, fs::metadata(folder).ok().as_ref())
}

/// `of` is what is at this path, if that counts; what was there before and was removed always does.
fn holds(pid: u32, folder: &Path, of: Option<&Metadata>) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    // As the kernel names what was removed.
    let removed = [folder.as_os_str().as_bytes(), b" (deleted)"].concat();
    open.into_iter().any(|fd| {
        let is_it = of
            .zip(fs::metadata(fd.path()).ok())
            .is_some_and(|(of, open)| open.ino() == of.ino() && open.dev() == of.dev());
        let was_it = || {
            let path = fs::read_link(fd.path()).unwrap_or_default();
            path.as_os_str().as_bytes() == removed
        };
        (is_it || was_it()) && {
            let info = format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_string_lossy());
            let info = fs::read_to_string(info).unwrap_or_default();
            info.lines().any(|line| line.starts_with("lock:") && line.contains("FLOCK"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_lock_is_held_by_one_and_leaves_nothing_behind() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let held = take(temp.path()).expect("allowed").expect("free");
        assert!(take(temp.path()).expect("allowed").is_none());
        assert!(is_held(temp.path()));
        drop(held);
        assert!(!is_held(temp.path()));
        assert_eq!(fs::read_dir(temp.path()).expect("readable").count(), 0);
        assert!(take(&temp.path().join("none")).is_err());
    }

    #[test]
    fn the_process_that_holds_it_is_found_also_when_the_lock_was_handed_to_it() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(holder(temp.path()), None);
        let held = take(temp.path()).expect("allowed").expect("free");
        assert_eq!(holder(temp.path()), None, "ourselves");
        // One that has the folder open holds nothing.
        let folder = File::open(temp.path()).expect("it opens");
        let mut looks = Command::new("sleep").arg("60").stdin(folder).spawn().expect("it runs");
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(held)).spawn();
        let child = child.as_mut().expect("it runs");
        assert_eq!(holder(temp.path()), Some(child.id()));
        for child in [&mut looks, child] {
            child.kill().expect("it is killed");
            let _status = child.wait().expect("it ends");
        }
        assert_eq!(holder(temp.path()), None);
        assert!(!is_held(temp.path()));
    }

    #[test]
    fn whoever_has_the_lock_of_a_removed_folder_still_has_it() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = temp.path().canonicalize().expect("it is there").join("home");
        fs::create_dir(&folder).expect("made");
        let held = take(&folder).expect("allowed").expect("free");
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(held)).spawn();
        let child = child.as_mut().expect("it runs");
        fs::remove_dir(&folder).expect("removed");
        assert_eq!(holder(&folder), Some(child.id()));
        assert!(is_held(&folder) && is_holder(&folder, child.id()));
        // Another one in its place.
        fs::create_dir(&folder).expect("made");
        assert_eq!(holder(&folder), Some(child.id()));
        assert!(take(&folder).expect("allowed").is_none());
        child.kill().expect("it is killed");
        let _status = child.wait().expect("it ends");
        assert!(take(&folder).expect("allowed").is_some());
    }
}
