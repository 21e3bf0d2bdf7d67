//! What the logs in a data folder say: those of `up -d` and of the nats-server that it starts.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// The last so many bytes of a log; all of it if it is shorter.
///
/// # Errors
/// When it is not there, or cannot be read.
pub fn tail(log: &Path, bytes: u64) -> io::Result<String> {
    let mut log = File::open(log)?;
    let end = log.metadata()?.len();
    log.seek(SeekFrom::Start(end.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    log.take(bytes).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).into_owned())
}

/// The parts of the last error in a log: what, cause, what to try.
pub fn error_in(log: &str) -> Option<(&str, &str, &str)> {
    const MARK: &str = "error: ";
    let start = log.rfind(&format!("\n{MARK}")).map(|at| at + 1).unwrap_or(0);
    let text = log.get(start..)?.strip_prefix(MARK)?.trim_end();
    let (text, try_) = text.rsplit_once("; try: ").unwrap_or((text, ""));
    let (what, cause) = text.split_once("; cause: ").unwrap_or((text, ""));
    Some((what, cause, try_))
}

/// The error that a log ends with. Where it goes on with lines that have a time, a later `up` wrote them, and did not end with an error.
pub fn last_error(log: &str) -> Option<(&str, &str, &str)> {
    let is_dated = |line: &str| {
        let mut date = line.bytes().take(5);
        line.len() > 20 && date.by_ref().take(4).all(|it| it.is_ascii_digit()) && date.eq(*b"-")
    };
    let said = error_in(log)?;
    (!log.rsplit_once("\nerror: ").map_or(log, |(_, last)| last).lines().any(is_dated))
        .then_some(said)
}

/// The streams of which a nats-server, by what it logged, misses blocks that it needs.
pub fn streams_with_missing_blocks(log: &str) -> BTreeSet<&str> {
    let missing = log.lines().filter(|line| line.contains("message block data missing"));
    let named = missing.filter_map(|line| line.split_once("Filestore [")?.1.split_once(']'));
    named.map(|(stream, _)| stream).collect()
}

/// Why a nats-server ended at its start, by its log; none if the last one that began has served.
pub fn fatal(log: &str) -> Option<&str> {
    const MARK: &str = "[FTL] ";
    let mut began = log.lines().rev().take_while(|line| !line.contains("Server is ready"));
    began.find_map(|line| {
        let said = line.split_once(MARK).map(|(_, said)| said);
        said.or_else(|| line.strip_prefix("nats-server: "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_did_not_start_has_said_why() {
        let failed = "[7] x [INF] Server is ready\n[9] x [INF] Starting\n[9] x [FTL] Error listening on port: a\n";
        assert_eq!(fatal(failed), Some("Error listening on port: a"));
        assert_eq!(fatal(&format!("{failed}[10] x [INF] Server is ready\n")), None);
        assert_eq!(fatal(""), None);
    }

    #[test]
    fn the_last_error_of_a_log_is_taken_apart() {
        let log = "INFO x\nerror: old\nINFO y\nerror: no shim; cause: a\nb; try: install it\n";
        assert_eq!(error_in(log), Some(("no shim", "a\nb", "install it")));
        assert_eq!(error_in("error: bare\n"), Some(("bare", "", "")));
        assert_eq!(error_in("INFO x\n"), None);
    }

    #[test]
    fn only_an_error_at_the_end_is_how_it_ended() {
        let ended = "2026-11-30T05:07:55.207678Z  INFO x\nerror: no shim; cause: a\nb\n";
        assert_eq!(last_error(ended), Some(("no shim", "a\nb", "")));
        let later = format!("{ended}2026-11-30T05:07:56.207678Z  INFO started\n");
        assert_eq!(last_error(&later), None);
        assert_eq!(last_error("2026-11-30T05:07:55.207678Z  INFO x\n"), None);
        assert_eq!(last_error(""), None);
    }

    #[test]
    fn the_end_of_a_log_is_read() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let log = temp.path().join("log");
        std::fs::write(&log, "one two").expect("written");
        assert_eq!(tail(&log, 3).expect("readable"), "two");
        assert_eq!(tail(&log, 100).expect("readable"), "one two");
        assert!(tail(&temp.path().join("none"), 1).is_err());
    }

    #[test]
    fn a_server_names_the_streams_whose_files_it_misses() {
        let log = "[7] 2026/11/30 05:13:28.731969 [WRN] Filestore [MOZART_default_JOURNAL_2] loadBlock error: message block data missing\n\
                   [7] 2026/11/30 05:13:29.731969 [INF] Filestore [X] fine\n";
        let streams = streams_with_missing_blocks(log);
        assert_eq!(streams.into_iter().collect::<Vec<_>>(), ["MOZART_default_JOURNAL_2"]);
    }
}
