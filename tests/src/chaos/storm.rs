//! The storm: the blows of a schedule, each at its time.

use std::io::Write;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::ground::Ground;
use super::schedule::{Blow, Deed, Target};
use super::{Problem, now};
use crate::harness::{Signal, kill, started_at};

/// How long a supervisor may need to be back, with a server that is stopped for seconds.
const BACK: Duration = Duration::from_secs(60);

/// What became of a campaign's blows.
#[derive(Debug, Default)]
pub(super) struct Struck {
    pub(super) kills: usize,
    pub(super) stops: usize,
    /// Blows that found nobody: what they were meant for was down already.
    pub(super) missed: usize,
    /// What happened, for the history of a message: when, and what.
    pub(super) log: Vec<(common::Timestamp, String)>,
}

/// Lets the blows fall, then heals what they did.
pub(super) async fn rage(
    ground: &Ground,
    blows: &[Blow],
    out: &mut impl Write,
) -> Result<Struck, Problem> {
    let began = Instant::now();
    let mut struck = Struck::default();
    let mut healing = JoinSet::new();
    let mut restarts = futures_util::stream::FuturesUnordered::new();
    for blow in blows {
        let due = sleep_until(began + blow.at);
        tokio::pin!(due);
        loop {
            use futures_util::StreamExt as _;
            tokio::select! {
                () = &mut due => break,
                Some(restarted) = restarts.next(), if !restarts.is_empty() => {
                    // It is tried again at the end: a later blow may have hit the one that was starting.
                    if let Err(error) = restarted {
                        let error: Problem = error;
                        writeln!(out, "{:>6.1} s  not back: {error}", began.elapsed().as_secs_f32())?;
                    }
                }
                Some(_) = healing.join_next(), if !healing.is_empty() => {}
            }
        }
        let pid = match blow.target {
            Target::Worker(agent) => ground.worker(agent),
            Target::Shim(agent) => ground.shim(agent),
            Target::Supervisor => ground.supervisor(),
            Target::Server => ground.server(),
        };
        let whom = pid.map_or_else(|| "nobody is there".to_owned(), |pid| format!("process {pid}"));
        writeln!(out, "{:>6.1} s  {blow}: {whom}", began.elapsed().as_secs_f32())?;
        struck.log.push((now(), format!("{blow}: {whom}")));
        let Some(pid) = pid else {
            struck.missed += 1;
            continue;
        };
        match blow.deed {
            Deed::Kill(again) => {
                struck.kills += 1;
                kill(pid, Signal::KILL);
                if blow.target == Target::Supervisor {
                    restarts.push(async move {
                        sleep(again).await;
                        ground.up(BACK).await
                    });
                }
            }
            Deed::Stop(length) => {
                struck.stops += 1;
                let same = started_at(pid);
                kill(pid, Signal::STOP);
                healing.spawn(async move {
                    sleep(length).await;
                    if started_at(pid) == same {
                        kill(pid, Signal::CONT);
                    }
                });
            }
        }
    }
    while healing.join_next().await.is_some() {}
    drop(restarts);
    ground.up(BACK).await?;
    Ok(struck)
}
