//! The storm: the blows of a schedule, each at its time.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep, sleep_until};

use super::ground::{Ground, Part, agent_name, node_name};
use super::schedule::{Blow, Deed, LONGEST_STOP, Target};
use super::siege::Besieged;
use super::{Problem, containers, now};
use crate::harness::{Signal, kill, started_at};
use common::Timestamp;

/// How long a supervisor may need to be back, with a server that is stopped for seconds.
const BACK: Duration = Duration::from_secs(60);
/// A shim that is frozen for longer may be taken for hung, and ended: it is after 30 s of silence, and its last word may be some
/// seconds older than the blow. What is frozen for less ends for no reason.
pub(super) const HUNG: Duration = Duration::from_secs(25);

/// What was killed or stopped is back this long after it may run again, at the latest: it connects, and says what it has.
const RETURN: Duration = Duration::from_secs(5);

/// Where it is told what happens: by several at once.
pub(super) struct Teller<'a> {
    out: RefCell<&'a mut dyn Write>,
    began: Instant,
}

impl<'a> Teller<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { out: RefCell::new(out), began: Instant::now() }
    }

    /// When the storm began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// Tells something, with the time.
    pub(super) fn tell(&self, what: fmt::Arguments<'_>) -> io::Result<()> {
        writeln!(self.out.borrow_mut(), "{:>6.1} s  {what}", self.began.elapsed().as_secs_f32())
    }
}

/// Somebody whom the broker may not have heard for a while, by its connection's name: nobody is to blame for what follows from that.
#[derive(Debug, Clone)]
pub(super) struct Away {
    pub(super) who: String,
    pub(super) from: Timestamp,
    pub(super) until: Timestamp,
}

impl Away {
    /// From now on, for so long, and until it is back.
    pub(super) fn new(who: String, length: Duration) -> Self {
        let from = now();
        let until = Timestamp::from_millis(from.as_millis() + millis(length + RETURN));
        Self { who, from, until }
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

/// What became of a campaign's blows.
#[derive(Debug, Default)]
pub(super) struct Struck {
    pub(super) kills: usize,
    pub(super) stops: usize,
    /// Servers that lost their disks.
    pub(super) wipes: usize,
    /// Links that were cut.
    pub(super) cuts: usize,
    /// The longest that a cluster took to be current.
    pub(super) slowest: Duration,
    /// Agents that were replaced or restarted.
    pub(super) handovers: usize,
    /// Containers that were killed, removed, paused or disconnected.
    pub(super) containers: usize,
    /// Blows that found nobody: what they were meant for was down already.
    pub(super) missed: usize,
    /// Freezes of roles and servers that found nobody: such a campaign proves nothing.
    pub(super) unfrozen: Vec<Blow>,
    /// Who was away, and when.
    pub(super) away: Vec<Away>,
    /// What happened, for the history of a message: when, and what.
    pub(super) log: Vec<(common::Timestamp, String)>,
    /// What reasons each agent's incarnations were given to end.
    pub(super) reasons: BTreeMap<String, Reasons>,
}

impl Struck {
    /// Adds what became of the blows at servers; what is wrong with these.
    pub(super) fn merge(&mut self, other: Besieged) -> Vec<String> {
        let Besieged { kills, stops, wipes, cuts, hit, away, faults, log, slowest } = other;
        self.cuts += cuts;
        for (agent, incarnation) in hit {
            self.reasons.entry(agent).or_default().hit.insert(incarnation);
        }
        self.kills += kills;
        self.stops += stops;
        self.wipes += wipes;
        self.slowest = slowest;
        self.away.extend(away);
        self.log.extend(log);
        faults
    }
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
    out: &Teller<'_>,
) -> Result<Struck, Problem> {
    let mut struck = Struck::default();
    let mut aftermath = Aftermath::new();
    for blow in blows {
        let mut due = std::pin::pin!(sleep_until(out.began() + blow.at));
        loop {
            tokio::select! {
                () = &mut due => break,
                Some(ended) = aftermath.next(), if !aftermath.is_empty() => tell(out, ended)?,
            }
        }
        let whom = strike(ground, blow, &mut struck, &aftermath)?;
        out.tell(format_args!("{blow}: {whom}"))?;
        struck.log.push((now(), format!("{blow}: {whom}")));
    }
    while let Some(ended) = aftermath.next().await {
        tell(out, ended)?;
    }
    Ok(struck)
}

/// Starts what is not there after the storm.
pub(super) async fn heal(ground: &Ground) -> Result<(), Problem> {
    ground.start(ground.patience(BACK)).await
}

/// A later blow may have hit what was about to come back: all is tried again at the end, and counts then.
fn tell(out: &Teller<'_>, ended: Result<(), Problem>) -> io::Result<()> {
    match ended {
        Ok(()) => Ok(()),
        Err(error) => out.tell(format_args!("{error}")),
    }
}

/// Lets a blow fall, and tells whom it hit.
fn strike<'a>(
    ground: &'a Ground,
    blow: &Blow,
    struck: &mut Struck,
    aftermath: &Aftermath<'a>,
) -> Result<String, Problem> {
    let agent = match blow.target {
        Target::Worker(agent)
        | Target::Shim(agent)
        | Target::Agent(agent)
        | Target::Container(agent) => Some(agent),
        Target::Up
        | Target::Supervisor(_)
        | Target::Node(_)
        | Target::Server(_)
        | Target::Host(_) => None,
    };
    let name = agent.map(agent_name).unwrap_or_default();
    let verb = match blow.deed {
        Deed::Replace => Some("replace"),
        Deed::Restart => Some("restart"),
        Deed::Kill(_)
        | Deed::Wipe(_)
        | Deed::Stop(_)
        | Deed::Pause
        | Deed::Disconnect
        | Deed::Remove
        | Deed::Isolate(_)
        | Deed::Exclude(_)
        | Deed::Mute(_)
        | Deed::Deafen(_)
        | Deed::Part(_)
        | Deed::PowerCut(_) => None,
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
        return Ok("asked for".to_owned());
    }
    if let (Target::Container(number), Some(engine)) = (blow.target, ground.engine()) {
        let Some((incarnation, container)) = ground.container(number) else {
            struck.missed += 1;
            return Ok("nobody is there".to_owned());
        };
        struck.containers += 1;
        struck.reasons.entry(name).or_default().hit.insert(incarnation);
        let (id, deed) = (container.clone(), blow.deed);
        aftermath.push(Box::pin(async move {
            containers::strike(engine, &id, deed).await;
            Ok(())
        }));
        return Ok(format!("container {}", container.get(..12).unwrap_or(&container)));
    }
    let Some((incarnation, pid)) = ground.process(blow.target) else {
        if agent.is_none() && matches!(blow.deed, Deed::Stop(length) if length > LONGEST_STOP) {
            struck.unfrozen.push(*blow);
        }
        struck.missed += 1;
        return Ok("nobody is there".to_owned());
    };
    if let (Target::Node(number), Deed::Stop(length) | Deed::Kill(length)) =
        (blow.target, blow.deed)
    {
        struck.away.push(Away::new(format!("node {}", node_name(number)), length));
    }
    if let Deed::Stop(length) = blow.deed {
        struck.stops += 1;
        if length >= HUNG && matches!(blow.target, Target::Shim(_)) {
            struck.reasons.entry(name.clone()).or_default().hit.insert(incarnation);
        }
        aftermath.push(Box::pin(stop(pid, length)));
    }
    if let Deed::Kill(again) = blow.deed {
        struck.kills += 1;
        if agent.is_some() {
            struck.reasons.entry(name).or_default().hit.insert(incarnation);
        }
        let part = match (ground.apart(), blow.target) {
            (Some(apart), Target::Supervisor(number)) => Some(apart.supervisor(number)),
            (Some(apart), Target::Node(number)) => Some(apart.node(number)),
            _ => None,
        };
        match part {
            Some(part) => part.kill()?,
            None => kill(pid, Signal::KILL),
        }
        match (part, blow.target) {
            (Some(part), _) => aftermath.push(Box::pin(restart(part, again))),
            (None, Target::Up) => aftermath.push(Box::pin(async move {
                sleep(again).await;
                ground.start(ground.patience(BACK)).await
            })),
            (None, _) => {}
        }
    }
    Ok(format!("process {pid}"))
}

async fn restart(part: &Part, after: Duration) -> Result<(), Problem> {
    sleep(after).await;
    Ok(part.start()?)
}

/// Stops a process for a time.
pub(super) fn stop(pid: u32, length: Duration) -> impl Future<Output = Result<(), Problem>> {
    let same = started_at(pid);
    kill(pid, Signal::STOP);
    async move {
        sleep(length).await;
        // By then it may be another's number.
        if started_at(pid) == same {
            kill(pid, Signal::CONT);
        }
        Ok(())
    }
}
