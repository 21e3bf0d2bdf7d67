//! Room on the disks.

use std::path::Path;

use super::{Check, Health, check};

/// Less free space than this is a warning, in bytes.
const SPACE: u64 = 1 << 30;

/// The disk of the data folder.
pub(super) fn space(dir: &Path) -> Check {
    let existing = dir.ancestors().find(|folder| folder.exists()).unwrap_or(dir);
    match free(existing) {
        Ok(free) => {
            let try_ = "free some, or --dir DIR: a full disk takes no messages";
            judge(free, &dir.display().to_string(), try_)
        }
        Err(error) => check("disk", Health::Warn, format!("{}: {error}", dir.display()), ""),
    }
}

/// The disk of the engine's images and containers; none where that is not to be seen, as of one in another machine.
pub(super) fn of_engine(root: &Path) -> Option<Check> {
    let try_ = "free some: a full disk starts no containers";
    Some(judge(free(root).ok()?, &format!("{}, the engine's", root.display()), try_))
}

fn free(folder: &Path) -> rustix::io::Result<u64> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn judge(free: u64, place: &str, try_: &str) -> Check {
    let found = format!("{} MiB free in {place}", free >> 20);
    match free {
        0..SPACE => check("disk", Health::Warn, found, try_),
        _ => check("disk", Health::Ok, found, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_room_is_a_warning_and_a_foreign_disk_nothing() {
        assert_eq!(judge(SPACE - 1, "/x", "t").health, Health::Warn);
        assert_eq!(judge(SPACE, "/x", "t").health, Health::Ok);
        assert!(of_engine(Path::new("/nowhere/at/all")).is_none());
        assert!(of_engine(Path::new("/")).is_some());
    }
}
