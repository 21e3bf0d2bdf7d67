//! Room on the disks.

use std::path::Path;

use common::storage::{Disk, Level};
use runtime::home::Home;
use runtime::log;

use super::{Check, Health, check};
use crate::table;

/// Less free space than this is a warning, in bytes, however small the disk.
const SPACE: u64 = 1 << 30;

/// The disk of the data folder.
pub(super) fn space(dir: &Path) -> Check {
    let existing = dir.ancestors().find(|folder| folder.exists()).unwrap_or(dir);
    if let Err(error) = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        let found = format!("cannot write to {}: {error}", existing.display());
        let try_ = "make it writable, then `mozart down` and `mozart up`";
        return check("disk", Health::Fail, found, try_);
    }
    match measure(existing) {
        Ok(disk) => {
            let try_ = format!(
                "free some space, or use --dir DIR: new messages are refused when less than {} are free",
                table::bytes(disk.margin())
            );
            judge(disk, &dir.display().to_string(), &try_)
        }
        Err(error) => check("disk", Health::Warn, format!("{}: {error}", dir.display()), ""),
    }
}

/// Whether the data of the nats-server that `up` has started is still there. A server whose files are removed does not notice.
pub(super) fn data(home: &Home) -> Option<Check> {
    let data = home.nats().join("data");
    let found = format!(
        "{} was removed while nats-server is running: what is stored now is lost when it ends",
        data.display()
    );
    let try_ = "`mozart down`; put the folder back from a backup, if there is one; `mozart up`";
    (!data.join("jetstream").is_dir()).then(|| check("data", Health::Fail, found, try_))
}

/// Whether the data of a nats-server that `up` had started is missing, where nothing runs: the next `up` would make an empty fleet.
pub(super) fn missing(home: &Home) -> Option<Check> {
    let (fleets, data) = (home.fleets(), home.nats().join("data"));
    let fleet = fleets.first()?;
    // Without an address, it was another server's fleet.
    let is_own = home.nats().join("access.json").exists();
    let found = format!(
        "the data of fleet {fleet} is missing in {}: `mozart up` would begin with an empty fleet",
        data.display()
    );
    let try_ = "put the folder back from a backup, if there is one; then `mozart up`";
    (is_own && !data.join("jetstream").is_dir()).then(|| check("data", Health::Fail, found, try_))
}

/// What the broker's streams have lost while nothing ran, until somebody accepts that.
pub(super) fn lost(home: &Home) -> Option<Check> {
    let file = home.dir.join(runtime::home::LOST);
    let lost = std::fs::read_to_string(&file).ok()?;
    let lost = lost.lines().collect::<Vec<_>>().join("; ");
    let try_ = format!(
        "`mozart down`; put the data back from a backup; `mozart up`; or `rm {}` if it is to be lost",
        file.display()
    );
    (!lost.is_empty()).then(|| check("lost", Health::Fail, lost, &try_))
}

/// Whether the nats-server of that process has come across blocks of its data that are missing: files of which it still needs what was in
/// them. Which, only the server knows: it removes files itself, once nothing in them is needed.
pub(super) fn blocks(home: &Home, server: u32) -> Option<Check> {
    const TAIL: u64 = 4 << 20;
    let path = home.nats().join("nats.log");
    let log = log::tail(&path, TAIL).ok()?;
    let its = format!("[{server}] ");
    let its: String =
        log.lines().filter(|line| line.starts_with(&its)).collect::<Vec<_>>().join("\n");
    let streams: Vec<_> = log::streams_with_missing_blocks(&its).into_iter().collect();
    let found = format!(
        "files of {} are missing, and the records in them are lost ({})",
        streams.join(", "),
        path.display()
    );
    let try_ = "`mozart down`; put the data back from a backup, if there is one; `mozart up`";
    (!streams.is_empty()).then(|| check("data", Health::Fail, found, try_))
}

/// The disk of the engine's images and containers; none where that is not to be seen, as of one in another machine.
pub(super) fn of_engine(root: &Path) -> Option<Check> {
    let try_ = "free some space: containers do not start when the disk is full";
    Some(judge(measure(root).ok()?, &format!("{}, the engine's", root.display()), try_))
}

fn measure(folder: &Path) -> rustix::io::Result<Disk> {
    let stat = rustix::fs::statvfs(folder)?;
    Ok(Disk::of_blocks(stat.f_blocks, stat.f_bfree, stat.f_bavail, stat.f_frsize))
}

fn judge(disk: Disk, place: &str, try_: &str) -> Check {
    let (percent, free) = (disk.percent(), table::bytes(disk.free));
    let found = format!("{percent} % full, {free} free in {place}");
    match disk.level() {
        Level::Full => check("disk", Health::Fail, found, try_),
        Level::Low => check("disk", Health::Warn, found, try_),
        Level::Fine if disk.free < SPACE => check("disk", Health::Warn, found, try_),
        Level::Fine => check("disk", Health::Ok, found, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_that_is_missing_is_told_of_where_there_was_some() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        let found = || missing(&home).map(|check| check.found).unwrap_or_default();
        assert_eq!(found(), "", "a new folder");
        std::fs::create_dir_all(home.nats().join("data/jetstream")).expect("made");
        home.put("nats/access.json", b"{}").expect("written");
        home.put(runtime::home::FLEET, b"f2\nf1\n").expect("written");
        assert_eq!(found(), "");
        std::fs::remove_dir_all(home.nats().join("data")).expect("removed");
        assert!(found().starts_with("the data of fleet f2 is missing"), "{}", found());
    }

    #[test]
    fn what_is_lost_is_told_until_the_note_is_removed() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        assert!(lost(&home).is_none());
        home.put(runtime::home::LOST, b"records of A\nrecords of B\n").expect("written");
        let told = lost(&home).expect("told");
        assert_eq!((told.health, &*told.found), (Health::Fail, "records of A; records of B"));
    }

    #[test]
    fn little_room_is_a_warning_and_a_foreign_disk_nothing() {
        let health = |total, free| judge(Disk { total, free, fault: None }, "/x", "t").health;
        assert_eq!(health(10 * SPACE, 9 * SPACE), Health::Ok);
        assert_eq!(health(10 * SPACE, 2 * SPACE), Health::Warn);
        assert_eq!(health(10 * SPACE, SPACE / 4), Health::Fail);
        assert_eq!(health(SPACE, SPACE - 1), Health::Warn);
        assert!(of_engine(Path::new("/nowhere/at/all")).is_none());
        assert!(of_engine(Path::new("/")).is_some());
    }
}
