//! Earlier processes of a node. The holder of its folder's lock knows that they are dead, and a leader that is told so need
//! not wait for their reports to time out.
//!
//! A copy of the folder, or of the whole machine, holds the same list as the running original. The list is trusted only if it is the
//! very file that was written, and was written since the machine last started.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "processes.json";

/// Processes that are remembered: those that no leader has heard of, too.
const KEPT: usize = 8;

#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    /// The file itself: device and inode.
    file: (u64, u64),
    /// Changes with each start of the machine.
    boot: String,
    /// The newest last.
    instances: Vec<u64>,
}

/// Records a new process of the node, and returns the earlier ones. The caller must hold the folder's lock.
pub(crate) fn succeed(folder: &Path, instance: u64) -> Vec<u64> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let path = folder.join(FILE);
    let before = read(&path, &boot);
    if let Err(error) = write(&path, boot, &before, instance) {
        // The next one then waits for our silence.
        tracing::warn!("cannot record this process in {}: {error}", path.display());
    }
    before
}

fn read(path: &Path, boot: &str) -> Vec<u64> {
    let noted = || {
        let noted: Noted = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let is_the_one = noted.file == identity(path).ok()? && noted.boot == boot;
        is_the_one.then_some(noted.instances)
    };
    noted().unwrap_or_default()
}

fn write(path: &Path, boot: String, before: &[u64], instance: u64) -> io::Result<()> {
    fs::File::options().create(true).append(true).open(path)?;
    let mut instances = before.to_vec();
    instances.push(instance);
    let excess = instances.len().saturating_sub(KEPT);
    instances.drain(..excess);
    let noted = Noted { file: identity(path)?, boot, instances };
    // In place: a file put there by renaming would be another one.
    fs::write(path, serde_json::to_vec(&noted)?)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let of = fs::metadata(path)?;
    Ok((of.dev(), of.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_succeeds_those_that_held_the_lock_before_it() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        assert_eq!(succeed(temp.path(), 1), Vec::<u64>::new());
        assert_eq!(succeed(temp.path(), 2), [1]);
        assert_eq!(succeed(temp.path(), 3), [1, 2]);
        for instance in 4..20 {
            succeed(temp.path(), instance);
        }
        assert_eq!(succeed(temp.path(), 20), [12, 13, 14, 15, 16, 17, 18, 19]);
    }

    #[test]
    fn a_copy_succeeds_nobody_and_what_was_moved_does() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = |name: &str| {
            let folder = temp.path().join(name);
            fs::create_dir(&folder).expect("made");
            folder
        };
        let (first, copy) = (folder("first"), folder("copy"));
        succeed(&first, 1);
        fs::copy(first.join(FILE), copy.join(FILE)).expect("copied");
        assert_eq!(succeed(&copy, 2), Vec::<u64>::new());
        let moved = temp.path().join("moved");
        fs::rename(&first, &moved).expect("moved");
        assert_eq!(succeed(&moved, 3), [1]);
    }

    #[test]
    fn nothing_is_believed_over_a_start_of_the_machine_or_of_a_damaged_file() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join(FILE);
        write(&path, "another start".to_owned(), &[], 1).expect("written");
        assert_eq!(succeed(temp.path(), 2), Vec::<u64>::new());
        fs::write(&path, b"{\"file\":").expect("written");
        assert_eq!(succeed(temp.path(), 3), Vec::<u64>::new());
        assert_eq!(succeed(temp.path(), 4), [3]);
    }
}
