//! A full disk under nats-server. A stream whose write failed refuses every later one, also when there is room again: only a
//! restart of the server helps then, and loses nothing.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the server's log is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How many bytes of new log are read at most: the error is also at the end.
const TAIL: u64 = 64 * 1024;
/// How many bytes must be free before a restart makes sense.
const ROOM: u64 = 16 << 20;

/// What a server's log says about its disk.
#[derive(Debug)]
pub(super) struct Disk {
    log: PathBuf,
    data: PathBuf,
    /// The log up to here is of an earlier server, or was read.
    read: u64,
    full: bool,
}

impl Disk {
    /// Looks from the end of the log on.
    pub(super) fn new(log: PathBuf, data: PathBuf) -> Self {
        let read = log.metadata().map_or(0, |meta| meta.len());
        Self { log, data, read, full: false }
    }

    /// Returns once a write has failed for lack of space, and there is some again.
    pub(super) async fn has_room_again(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.says_full() {
                Ok(full) => self.full |= full,
                Err(error) => tracing::debug!("reading {}: {error}", self.log.display()),
            }
            if self.full && free(&self.data) >= ROOM {
                self.full = false;
                return;
            }
        }
    }

    fn says_full(&mut self) -> io::Result<bool> {
        let mut log = File::open(&self.log)?;
        let end = log.metadata()?.len();
        // A shorter one is a new one: the server rotates its log.
        let from = if end < self.read { 0 } else { self.read };
        log.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        log.take(TAIL).read_to_end(&mut bytes)?;
        self.read = end;
        Ok(String::from_utf8_lossy(&bytes).contains("no space left on device"))
    }
}

fn free(data: &Path) -> u64 {
    rustix::fs::statvfs(data).map_or(0, |of| of.f_bavail.saturating_mul(of.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    const FULL: &[u8] =
        b"[ERR] JetStream failed to store a msg: write 1.blk: no space left on device\n";

    #[test]
    fn only_what_is_new_in_the_log_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("nats.log");
        std::fs::write(&log, FULL).expect("written");
        let mut disk = Disk::new(log.clone(), folder.path().to_owned());
        assert!(!disk.says_full().expect("readable"), "an earlier server's");
        let mut file = File::options().append(true).open(&log).expect("it is there");
        file.write_all(FULL).expect("written");
        assert!(disk.says_full().expect("readable"));
        assert!(!disk.says_full().expect("readable"), "said already");
        // A rotated log begins anew.
        std::fs::write(&log, &FULL[..FULL.len() - 1]).expect("written");
        assert!(disk.says_full().expect("readable"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_disk_with_room_is_told_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("nats.log");
        let mut disk = Disk::new(log.clone(), folder.path().to_owned());
        std::fs::write(&log, FULL).expect("written");
        disk.has_room_again().await;
        let again = tokio::time::timeout(LOOK * 5, disk.has_room_again()).await;
        assert!(again.is_err(), "nothing new was said");
    }
}
