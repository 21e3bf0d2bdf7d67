//! The storm: the blows of a schedule, each at its time.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use super::ground::{Ground, agent_name};
use super::schedule::{Blow, Deed, LONGEST_STOP, Target};
use super::{Problem, containers, now};
use crate::harness::{Signal, kill, started_at};

/// How long a supervisor may need to be back, with a server that is stopped for seconds.
const BACK: Duration = Duration::from_secs(60);
/// A shim that is frozen for longer may be taken for hung, and ended: it is after 30 s of silence, and its last word may be some
/// seconds older than the blow. What is frozen for less ends for no reason.
const HUNG: Duration = Duration::from_secs(25);

/// What became of a campaign's blows.
#[derive(Debug, Default)]
pub(super) struct Struck {
    pub(super) kills: usize,
    pub(super) stops: usize,
    /// Agents that were replaced or restarted.
    pub(super) handovers: usize,
    /// Containers that were killed, removed, paused or disconnected.
    pub(super) containers: usize,
    /// Blows that found nobody: what they were meant for was down already.
    pub(super) missed: usize,
    /// Freezes of `mozart up` and of nats-server that found nobody: such a campaign proves nothing.
    pub(super) unfrozen: Vec<Blow>,
    /// What happened, for the history of a message: when, and what.
    pub(super) log: Vec<(common::Timestamp, String)>,
    /// What reasons each agent's incarnations were given to end.
    pub(super) reasons: BTreeMap<String, Reasons>,
}

/// The reasons that an agent's incarnations were given to end.
#[derive(Debug, Default)]
pub(super) struct Reasons {
    /// Those that were hit themselves, by their numbers.
    pub(super) hit: BTreeSet<u64>,
    /// How often somebody asked for a new one, whichever was the newest.
    pub(super) asked: usize,
}

/// What goes on beside the storm: stopped processes wait to be woken, a supervisor to be started.
type Aftermath<'a> = FuturesUnordered<BoxFuture<'a, Result<(), Problem>>>;

/// Lets the blows fall, then heals what they did.
pub(super) async fn rage(
    ground: &Ground,
    blows: &[Blow],
    out: &mut impl Write,
) -> Result<Struck, Problem> {
    let began = Instant::now();
    let mut struck = Struck::default();
    let mut aftermath = Aftermath::new();
    for blow in blows {
        let mut due = std::pin::pin!(sleep_until(began + blow.at));
        loop {
            tokio::select! {
                () = &mut due => break,
                Some(ended) = aftermath.next(), if !aftermath.is_empty() => tell(out, began, ended)?,
            }
        }
        let whom = strike(ground, blow, &mut struck, &aftermath);
        writeln!(out, "{:>6.1} s  {blow}: {whom}", began.elapsed().as_secs_f32())?;
        struck.log.push((now(), format!("{blow}: {whom}")));
    }
    while let Some(ended) = aftermath.next().await {
        tell(out, began, ended)?;
    }
    ground.up(ground.patience(BACK)).await?;
    Ok(struck)
}

/// A later blow may have hit what was about to come back: all is tried again at the end, and counts then.
fn tell(out: &mut impl Write, began: Instant, ended: Result<(), Problem>) -> std::io::Result<()> {
    match ended {
        Ok(()) => Ok(()),
        Err(error) => writeln!(out, "{:>6.1} s  {error}", began.elapsed().as_secs_f32()),
    }
}

/// Lets a blow fall, and tells whom it hit.
fn strike<'a>(
    ground: &'a Ground,
    blow: &Blow,
    struck: &mut Struck,
    aftermath: &Aftermath<'a>,
) -> String {
    let (found, agent) = match blow.target {
        Target::Worker(agent) => (ground.worker(agent), Some(agent)),
        Target::Shim(agent) => (ground.shim(agent), Some(agent)),
        // They are nobody's incarnation.
        Target::Supervisor => (ground.supervisor().map(|pid| (0, pid)), None),
        Target::Server => (ground.server().map(|pid| (0, pid)), None),
        Target::Agent(agent) | Target::Container(agent) => (None, Some(agent)),
    };
    let name = agent.map(agent_name).unwrap_or_default();
    let verb = match blow.deed {
        Deed::Replace => Some("replace"),
        Deed::Restart => Some("restart"),
        Deed::Kill(_) | Deed::Stop(_) | Deed::Pause | Deed::Disconnect | Deed::Remove => None,
    };
    if let Some(verb) = verb {
        struck.handovers += 1;
        struck.reasons.entry(name.clone()).or_default().asked += 1;
        aftermath.push(Box::pin(async move {
            match ground.cli(&[verb, &name]).await? {
                (0, _) => Ok(()),
                (code, said) => Err(format!("`mozart {verb}` ends with {code}: {said}").into()),
            }
        }));
        return "asked for".to_owned();
    }
    if let (Target::Container(number), Some(engine)) = (blow.target, ground.engine()) {
        let Some((incarnation, container)) = ground.container(number) else {
            struck.missed += 1;
            return "nobody is there".to_owned();
        };
        struck.containers += 1;
        struck.reasons.entry(name).or_default().hit.insert(incarnation);
        let (id, deed) = (container.clone(), blow.deed);
        aftermath.push(Box::pin(async move {
            containers::strike(engine, &id, deed).await;
            Ok(())
        }));
        return format!("container {}", container.get(..12).unwrap_or(&container));
    }
    let Some((incarnation, pid)) = found else {
        let fleets = matches!(blow.target, Target::Supervisor | Target::Server);
        if fleets && matches!(blow.deed, Deed::Stop(length) if length > LONGEST_STOP) {
            struck.unfrozen.push(*blow);
        }
        struck.missed += 1;
        return "nobody is there".to_owned();
    };
    if let Deed::Stop(length) = blow.deed {
        struck.stops += 1;
        if length >= HUNG && matches!(blow.target, Target::Shim(_)) {
            struck.reasons.entry(name.clone()).or_default().hit.insert(incarnation);
        }
        let same = started_at(pid);
        kill(pid, Signal::STOP);
        aftermath.push(Box::pin(async move {
            sleep(length).await;
            if started_at(pid) == same {
                kill(pid, Signal::CONT);
            }
            Ok(())
        }));
    }
    if let Deed::Kill(again) = blow.deed {
        struck.kills += 1;
        kill(pid, Signal::KILL);
        if agent.is_some() {
            struck.reasons.entry(name).or_default().hit.insert(incarnation);
        }
        if blow.target == Target::Supervisor {
            aftermath.push(Box::pin(async move {
                sleep(again).await;
                ground.up(ground.patience(BACK)).await
            }));
        }
    }
    format!("process {pid}")
}
