//! The disk under nats-server, by what its log says: full, or without files that it needs.
//!
//! Full: A stream whose write failed refuses every later one, also when there is room again: only a
//! restart of the server helps then, and loses nothing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::storage::ROOM;
use runtime::log;

use super::tail::Tail;

/// How often the server's log is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What a server's log says about its disk.
#[derive(Debug)]
pub(super) struct Disk {
    log: Tail,
    data: PathBuf,
    full: bool,
    /// The streams of which files are missing, as far as that was told.
    missing: BTreeSet<String>,
}

impl Disk {
    /// Looks from the end of the log on.
    pub(super) fn new(log: PathBuf, data: PathBuf) -> Self {
        Self { log: Tail::new(log), data, full: false, missing: BTreeSet::new() }
    }

    /// Returns once a write has failed for lack of space, and there is enough for a restart to make sense.
    pub(super) async fn has_room_again(&mut self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let news = self.log.news();
            self.full |= news.contains("no space left on device");
            self.tell_missing(&news);
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
}

fn free(data: &Path) -> u64 {
    rustix::fs::statvfs(data).map_or(0, |of| of.f_bavail.saturating_mul(of.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &[u8] =
        b"[ERR] JetStream failed to store a msg: write 1.blk: no space left on device\n";

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
