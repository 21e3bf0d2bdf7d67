//! How full the broker's disk is, and what follows from that.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words::bytes;

/// From this share of a disk or of a stream on people are warned, in percent.
pub const WARN: u64 = 80;

/// From this share on new messages are refused, in percent: final states and the control log have the rest.
pub const REFUSE: u64 = 95;

/// A large disk is not nearly full with this many bytes free, whatever share that is:
const ENOUGH: u64 = 20 << 30;

/// nor full with these.
const LEAST: u64 = 5 << 30;

/// A server that writes files of 8 MiB, several at a time, needs so many bytes free, however small the disk.
pub const ROOM: u64 = 16 << 20;

/// A file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// The bytes that can be used, used or not.
    pub total: u64,
    /// Those that are free.
    pub free: u64,
    /// Why nothing can be stored on it, however many are free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Why nothing can be stored on a disk that has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// The broker's files were removed or replaced under it. What it stores it loses with its end.
    Removed,
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Self::Removed => "the broker's data was removed or replaced while it runs",
        })
    }
}

/// How full something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is room.
    Fine,
    /// Something has to be done before long.
    Low,
    /// New messages are refused.
    Full,
}

impl Level {
    /// Of a bound that is used up to some share.
    #[must_use]
    pub fn of(used: u64, limit: u64) -> Self {
        let percent = u128::from(used) * 100 / u128::from(limit.max(1));
        if percent >= u128::from(REFUSE) {
            Self::Full
        } else if percent >= u128::from(WARN) {
            Self::Low
        } else {
            Self::Fine
        }
    }
}

impl Disk {
    /// As a file system tells it: blocks in all, free ones, those of them that are not for root alone, and their size.
    #[must_use]
    pub fn of_blocks(all: u64, free: u64, available: u64, size: u64) -> Self {
        // What is for root alone makes the disk smaller for everybody else.
        let used = all.saturating_sub(free);
        let in_bytes = |blocks: u64| blocks.saturating_mul(size);
        let total = in_bytes(used.saturating_add(available));
        Self { total, free: in_bytes(available), fault: None }
    }

    /// The bytes that are used.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.total.saturating_sub(self.free)
    }

    /// How much of it is used, in percent.
    #[must_use]
    pub fn percent(&self) -> u64 {
        u64::try_from(u128::from(self.used()) * 100 / u128::from(self.total.max(1))).unwrap_or(100)
    }

    /// What is kept free of new messages, in bytes.
    #[must_use]
    pub fn margin(&self) -> u64 {
        (self.total - self.total / 100 * REFUSE).clamp(ROOM, LEAST)
    }

    /// That too little is free for the server to store anything for long, and how much is needed; none if there is enough.
    #[must_use]
    pub fn shortage(&self) -> Option<String> {
        let is_short = self.fault.is_none() && self.total > 0 && self.free < ROOM;
        let (free, room) = (bytes(self.free), bytes(ROOM));
        is_short.then(|| format!("{free} are free on the broker's disk, and {room} are needed"))
    }

    /// Whether not even all of what is kept free of new messages can be stored: a server writes files of 8 MiB, and several at a time.
    #[must_use]
    pub fn is_used_up(&self) -> bool {
        const FILES: u64 = 32 << 20;
        self.fault.is_none() && self.free < FILES && self.level() == Level::Full
    }

    /// How full it is.
    #[must_use]
    pub fn level(&self) -> Level {
        if self.fault.is_some() {
            return Level::Full;
        }
        let at_most = match self.free {
            ENOUGH.. => Level::Fine,
            LEAST..ENOUGH => Level::Low,
            ROOM..LEAST => Level::Full,
            0..ROOM => return if self.total > 0 { Level::Full } else { Level::Fine },
        };
        Level::of(self.used(), self.total).min(at_most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn level(total: u64, free: u64) -> Level {
        Disk { total, free, fault: None }.level()
    }

    #[test]
    fn a_disk_is_low_at_80_percent_and_full_at_95() {
        for total in [400 << 20, 50 * GIB] {
            let part = total / 100;
            assert_eq!(level(total, 21 * part), Level::Fine);
            assert_eq!(level(total, 20 * part), Level::Low);
            assert_eq!(level(total, 6 * part), Level::Low);
            assert_eq!(level(total, 5 * part), Level::Full);
            assert_eq!(level(total, 0), Level::Full);
        }
        assert_eq!(Disk { total: 200, free: 50, fault: None }.percent(), 75);
        assert_eq!(level(0, 0), Level::Fine, "no such disk");
        let low = Disk { total: 100 << 20, free: 15 << 20, fault: None };
        assert_eq!((low.level(), low.margin(), low.is_used_up()), (Level::Full, ROOM, true));
        let said = "15 MiB are free on the broker's disk, and 16 MiB are needed";
        assert_eq!(low.shortage().as_deref(), Some(said));
        assert_eq!(Disk { free: ROOM, ..low }.shortage(), None);
        let broken = Disk { total: 100, free: 100, fault: Some(Fault::Removed) };
        assert_eq!(broken.level(), Level::Full);
        assert!(!broken.is_used_up(), "it has room");
        let used_up = |free| Disk { total: GIB, free, fault: None }.is_used_up();
        assert!(used_up(0) && used_up(31 << 20) && !used_up(33 << 20));
    }

    #[test]
    fn a_large_disk_has_room_with_less() {
        assert_eq!(level(1000 * GIB, 100 * GIB), Level::Fine);
        assert_eq!(level(1000 * GIB, 19 * GIB), Level::Low);
        assert_eq!(level(1000 * GIB, 4 * GIB), Level::Full);
        assert_eq!(Disk { total: 1000 * GIB, free: 0, fault: None }.margin(), LEAST);
        assert_eq!(Disk { total: GIB, free: 0, fault: None }.margin() / (1 << 20), 51);
    }

    #[test]
    fn bounds_have_the_same_levels() {
        assert_eq!(Level::of(79, 100), Level::Fine);
        assert_eq!(Level::of(80, 100), Level::Low);
        assert_eq!(Level::of(95, 100), Level::Full);
        assert_eq!(Level::of(u64::MAX, u64::MAX), Level::Full);
    }
}
