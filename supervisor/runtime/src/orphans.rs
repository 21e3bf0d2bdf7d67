//! Reaping orphans: as PID 1 of a container, a role gets every orphan, and an orphan that has ended stays in the process
//! table until its parent asks for its status.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::processes::is_zombie;

/// Who waits for a child of its own has its status by then.
const OTHERS: Duration = Duration::from_secs(5);

/// Reaps ended children for as long as it is polled. One that another task waits for is left to that task.
pub async fn collect() {
    let Ok(mut ended) = signal(SignalKind::child()) else {
        return tracing::warn!("cannot listen to SIGCHLD: ended orphans stay in the process table");
    };
    while ended.recv().await.is_some() {
        let before = zombies();
        tokio::time::sleep(OTHERS).await;
        for pid in zombies().intersection(&before) {
            if let Some(pid) = Pid::from_raw(*pid) {
                // Somebody was faster: as good.
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// Our children that have ended.
fn zombies() -> BTreeSet<i32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    let pids = children.iter().flat_map(|pids| pids.split_whitespace());
    let pids = pids.filter_map(|pid| pid.parse::<u32>().ok()).filter(|pid| is_zombie(*pid));
    pids.filter_map(|pid| i32::try_from(pid).ok()).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn an_ended_child_that_nobody_waits_for_is_collected() {
        let mut collecting = tokio::task::JoinSet::new();
        collecting.spawn(collect());
        // Until it listens.
        tokio::task::yield_now().await;
        let child = Command::new("true").spawn().expect("it starts").id();
        let is_there = || std::path::Path::new(&format!("/proc/{child}")).exists();
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if !is_there() {
                break;
            }
        }
        assert!(!is_there(), "it is still there");
    }
}
