//! Locks on folders. The folder itself is locked, not a file in it: nothing can remove the lock, it needs no disk space and no
//! right to write, and systemd-tmpfiles leaves alone what is in a locked folder
//! (<https://systemd.io/TEMPORARY_DIRECTORIES>).

use std::fs::{self, File, Metadata};
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
    matches!(take(folder), Ok(None))
}

/// The process that has the lock of a folder, as the kernel says; none if nobody has it, or one that is not to be seen from here.
pub fn holder(folder: &Path) -> Option<u32> {
    let of = fs::metadata(folder).ok()?;
    processes::all().find(|pid| *pid != std::process::id() && holds(*pid, &of))
}

/// Whether a process has the lock of a folder.
pub fn is_holder(folder: &Path, pid: u32) -> bool {
    fs::metadata(folder).is_ok_and(|of| holds(pid, &of))
}

fn holds(pid: u32, of: &Metadata) -> bool {
    let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    open.into_iter().any(|fd| {
        let is_it = fs::metadata(fd.path())
            .is_ok_and(|open| open.ino() == of.ino() && open.dev() == of.dev());
        is_it && {
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
}
