//! The disk under nats-server, by what its log says: full, or without files that it needs.
//!
//! Full: A stream whose write failed refuses every later one, also when there is room again: only a
//! restart of the server helps then, and loses nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::log;

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
    /// The streams of which files are missing, as far as that was told.
    missing: BTreeSet<String>,
}

impl Disk {
    /// Looks from the end of the log on.
    pub(super) fn new(log: PathBuf, data: PathBuf) -> Self {
        let read = log.metadata().map_or(0, |meta| meta.len());
        Self { log, data, read, full: false, missing: BTreeSet::new() }
    }

    /// Returns once a write has failed for lack of space, and there is some again.
    pub(super) async fn has_room_again(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            match self.news() {
                Ok(news) => {
                    self.full |= news.contains("no space left on device");
                    self.tell_missing(&news);
                }
                Err(error) => tracing::debug!("reading {}: {error}", self.log.display()),
            }
            if self.full && free(&self.data) >= ROOM {
                self.full = false;
                return;
            }
        }
    }

    /// Files of the data that were removed while it runs: the server goes on without what was in them.
    fn tell_missing(&mut self, news: &str) {
        for stream in log::streams_with_missing_blocks(news) {
            if self.missing.insert(stream.to_owned()) {
                tracing::error!(
                    "files of {stream} are missing in {}, and the records in them are lost; try: `mozart down`; put the data back from a backup, if there is one; `mozart up`",
                    self.data.display()
                );
            }
        }
    }

    /// What it has said since the last look.
    fn news(&mut self) -> io::Result<String> {
        let mut log = File::open(&self.log)?;
        let end = log.metadata()?.len();
        // A shorter one is a new one: the server rotates its log.
        let from = if end < self.read { 0 } else { self.read };
        log.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL))))?;
        let mut bytes = Vec::new();
        log.take(TAIL).read_to_end(&mut bytes)?;
        self.read = end;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
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
        let says_full =
            |disk: &mut Disk| disk.news().expect("readable").contains("no space left on device");
        assert!(!says_full(&mut disk), "an earlier server's");
        let mut file = File::options().append(true).open(&log).expect("it is there");
        file.write_all(FULL).expect("written");
        assert!(says_full(&mut disk));
        assert!(!says_full(&mut disk), "said already");
        // A rotated log begins anew.
        std::fs::write(&log, &FULL[..FULL.len() - 1]).expect("written");
        assert!(says_full(&mut disk));
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
