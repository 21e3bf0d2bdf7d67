//! The end of nats-server's log, as it grows.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;

/// How many bytes of new log are read at most: what matters is also at the end.
const TAIL: u64 = 64 * 1024;

/// What a server says from now on.
#[derive(Debug)]
pub(super) struct Tail {
    log: PathBuf,
    /// The log up to here is of an earlier server, or was read.
    read: u64,
}

impl Tail {
    /// Looks from the end of the log on.
    pub(super) fn new(log: PathBuf) -> Self {
        let read = log.metadata().map_or(0, |meta| meta.len());
        Self { log, read }
    }

    /// What it has said since the last look; nothing if that cannot be read.
    pub(super) fn news(&mut self) -> String {
        self.read().unwrap_or_else(|error| {
            tracing::debug!("reading {}: {error}", self.log.display());
            String::new()
        })
    }

    fn read(&mut self) -> io::Result<String> {
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const LINE: &[u8] = b"[ERR] something\n";

    #[test]
    fn only_what_is_new_in_the_log_counts() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = folder.path().join("nats.log");
        std::fs::write(&log, LINE).expect("written");
        let mut tail = Tail::new(log.clone());
        let mut says = || tail.news().contains("something");
        assert!(!says(), "an earlier server's");
        let mut file = File::options().append(true).open(&log).expect("it is there");
        file.write_all(LINE).expect("written");
        assert!(says());
        assert!(!says(), "said already");
        // A rotated log begins anew.
        std::fs::write(&log, &LINE[..LINE.len() - 1]).expect("written");
        assert!(says());
    }
}
