//! Copies of the data folder that are started beside the original: each is a fleet of its own, and touches nothing of the original.
//! What it did to the original nevertheless is found at the end: incarnations that ended for no reason.

use std::time::Duration;

use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Problem;
use super::ground::Ground;
use super::storm::Teller;
use crate::harness::running;

/// When the first copy is made, and the pause after each.
const EVERY: Duration = Duration::from_secs(25);
/// How long a copy runs.
const RUNS: Duration = Duration::from_secs(3);

/// What became of the copies.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// How many were started and taken down.
    pub(super) ran: usize,
    /// What is wrong.
    pub(super) faults: Vec<String>,
}

/// Makes copies until `stop`, one after the other.
pub(super) async fn copy(
    ground: &Ground,
    out: &Teller<'_>,
    mut stop: watch::Receiver<bool>,
) -> Result<Copied, Problem> {
    let (mut copied, mut tried) = (Copied::default(), 0);
    for number in 0.. {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = sleep(EVERY) => {}
        }
        let home = ground.folder.join(format!("copy-{number}"));
        // A file that goes meanwhile is none of the copy; and whoever copies what is being written may get half of it.
        Command::new("cp")
            .arg("-a")
            .arg(ground.home())
            .arg(&home)
            .kill_on_drop(true)
            .output()
            .await?;
        let (code, said) = ground.cli_in(&home, &["up", "-d"]).await?;
        out.tell(format_args!("start a copy of the data folder: `mozart up` ends with {code}"))?;
        if code == 0 {
            sleep(RUNS).await;
            copied.ran += 1;
        } else if !said.contains("try:") {
            copied.faults.push(format!("the copy's `mozart up` ends with {code}: {said}"));
        }
        let (code, said) = ground.cli_in(&home, &["down"]).await?;
        if code != 0 {
            copied.faults.push(format!("the copy's `mozart down` ends with {code}: {said}"));
        }
        let left = running::running(&home);
        if !left.is_empty() {
            copied.faults.push(format!("the copy's `mozart down` left {left:?}"));
        }
        ground.end_in(&home);
        // What was just killed may still be writing: it is in the campaign's folder, which goes as a whole.
        let _left = tokio::fs::remove_dir_all(&home).await;
        tried += 1;
    }
    if tried > 0 && copied.ran == 0 {
        copied.faults.push(format!("none of {tried} copies of the data folder ran"));
    }
    Ok(copied)
}
