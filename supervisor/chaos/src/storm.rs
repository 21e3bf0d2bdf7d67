//! The faults of a schedule, each at its time, and what undoes them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use broker::Broker;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::ground::Ground;
use crate::part::Part;
use crate::schedule::{Blow, Deed, Target, agent_name};

/// How long a role may take to end in order: a node drains its agents.
const ENDS: Duration = Duration::from_secs(30);
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// A role that ends by itself is started again after this time, as a service manager does.
const AGAIN: Duration = Duration::from_millis(500);

/// Something that was done, and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Seconds since the load began.
    pub at: f64,
    /// What.
    pub what: String,
}

/// How often something was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Processes that were killed, by what they were: `supervisor`, `leader`, `node`, `shim`, `worker`.
    pub kills: BTreeMap<String, usize>,
    /// Processes that were frozen.
    pub freezes: usize,
    /// Cuts between a process and the broker.
    pub cuts: usize,
    /// Orderly restarts.
    pub restarts: usize,
    /// Replacements of agents.
    pub replaces: usize,
    /// Faults that found nobody.
    pub missed: usize,
    /// Supervisors and nodes that ended by themselves, and were started again.
    pub ended: usize,
}

/// What happens, as it does.
pub(crate) struct Log<'a> {
    began: Instant,
    entries: RefCell<Vec<Entry>>,
    tell: &'a dyn Fn(&str),
}

impl<'a> Log<'a> {
    pub(crate) fn begin(tell: &'a dyn Fn(&str)) -> Self {
        Self { began: Instant::now(), entries: RefCell::default(), tell }
    }

    fn tell(&self, what: String) {
        let at = self.began.elapsed().as_secs_f64();
        (self.tell)(&format!("{at:7.1}s  {what}"));
        // As exact as it is shown.
        self.entries.borrow_mut().push(Entry { at: (at * 1000.0).round() / 1000.0, what });
    }

    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries.into_inner()
    }
}

/// What goes on beside the storm: what is frozen waits to go on, what is down to be started.
type Aftermath<'a> = FuturesUnordered<LocalBoxFuture<'a, Result<(), String>>>;

/// Who does it, to whom, and what was done.
pub(crate) struct Storm<'a> {
    ground: &'a Ground,
    broker: &'a Broker,
    log: &'a Log<'a>,
    counts: Counts,
    aftermath: Aftermath<'a>,
}

impl<'a> Storm<'a> {
    pub(crate) fn new(ground: &'a Ground, broker: &'a Broker, log: &'a Log<'a>) -> Self {
        let (counts, aftermath) = (Counts::default(), Aftermath::new());
        Self { ground, broker, log, counts, aftermath }
    }

    /// Does everything at its time, until `until`, and undoes it.
    pub(crate) async fn rage(mut self, blows: &[Blow], length: Duration) -> Counts {
        for blow in blows {
            self.until(self.log.began + blow.at).await;
            let done = self.strike(blow.deed).await;
            if done.is_none() {
                self.counts.missed += 1;
            }
            let whom = done.unwrap_or_else(|| "nobody is there".to_owned());
            self.log.tell(format!("{}: {whom}", blow.deed));
        }
        self.until(self.log.began + length).await;
        while let Some(ended) = self.aftermath.next().await {
            self.note(ended);
        }
        self.counts
    }

    async fn until(&mut self, at: Instant) {
        let mut due = std::pin::pin!(sleep_until(at));
        loop {
            tokio::select! {
                () = &mut due => return,
                Some(ended) = self.aftermath.next(), if !self.aftermath.is_empty() => self.note(ended),
            }
        }
    }

    fn note(&self, ended: Result<(), String>) {
        if let Err(problem) = ended {
            self.log.tell(problem);
        }
    }

    /// Whom it hit; none: nobody was there.
    async fn strike(&mut self, deed: Deed) -> Option<String> {
        let ground = self.ground;
        match deed {
            Deed::Kill(target, back) => {
                let pid = match ground.role_of(target) {
                    Some(part) => self.kill(part, back)?,
                    None => {
                        let (pid, process) = ground.process(target)?;
                        process.signal(Signal::KILL).then_some(pid)?
                    }
                };
                self.count(word(target));
                Some(format!("process {pid}"))
            }
            Deed::Leader(back) => {
                let leader = self.broker.lease_holder().await.ok()??;
                let part = ground.supervisor(&leader)?;
                let pid = self.kill(part, back)?;
                self.count("leader");
                Some(format!("{leader}, process {pid}"))
            }
            Deed::Freeze(target, length) => {
                let pid = self.freeze(target, length)?;
                self.counts.freezes += 1;
                Some(format!("process {pid}"))
            }
            Deed::Cut(target, cut, length) => {
                ground.cut(target, Some(cut)).then_some(())?;
                self.counts.cuts += 1;
                self.aftermath.push(Box::pin(async move {
                    sleep(length).await;
                    ground.cut(target, None);
                    Ok(())
                }));
                Some("its connection".to_owned())
            }
            Deed::Restart(target) => {
                let part = ground.role_of(target)?;
                let pid = part.signal(Signal::TERM)?;
                self.counts.restarts += 1;
                self.aftermath.push(Box::pin(async move {
                    let in_order = part.ended(ENDS).await;
                    if !in_order {
                        part.signal(Signal::KILL);
                    }
                    start_again(part).await?;
                    match in_order {
                        true => Ok(()),
                        false => Err(format!("{} has not ended within {ENDS:?}", part.name)),
                    }
                }));
                Some(format!("process {pid}"))
            }
            Deed::Replace(agent) => {
                self.counts.replaces += 1;
                let name = agent_name(agent);
                self.aftermath.push(Box::pin(async move {
                    let words = ["replace".into(), name.clone().into()];
                    // Nobody may lead for a while.
                    ground.cli(words).await.map_err(|said| format!("replace {name}: {said}"))
                }));
                Some("asked for".to_owned())
            }
        }
    }

    fn count(&mut self, whom: &str) {
        *self.counts.kills.entry(whom.to_owned()).or_default() += 1;
    }

    fn kill(&mut self, part: &'a Part, back: Duration) -> Option<u32> {
        let pid = part.signal(Signal::KILL)?;
        self.aftermath.push(Box::pin(async move {
            sleep(back).await;
            start_again(part).await
        }));
        Some(pid)
    }

    fn freeze(&mut self, target: Target, length: Duration) -> Option<u32> {
        if let Some(part) = self.ground.role_of(target) {
            let pid = part.signal(Signal::STOP)?;
            self.aftermath.push(Box::pin(async move {
                sleep(length).await;
                part.go_on(pid);
                Ok(())
            }));
            return Some(pid);
        }
        let (pid, process) = self.ground.process(target)?;
        process.signal(Signal::STOP).then_some(())?;
        self.aftermath.push(Box::pin(async move {
            sleep(length).await;
            process.signal(Signal::CONT);
            Ok(())
        }));
        Some(pid)
    }
}

async fn start_again(part: &Part) -> Result<(), String> {
    part.ended(GONE).await;
    part.start().map_err(|error| format!("cannot start {} again: {error}", part.name))
}

fn word(target: Target) -> &'static str {
    match target {
        Target::Supervisor(_) => "supervisor",
        Target::Node(_) => "node",
        Target::Shim(_) => "shim",
        Target::Worker(_) => "worker",
    }
}

/// Starts again whoever ends by itself, until `stop`; how many did.
pub(crate) async fn keep(ground: &Ground, log: &Log<'_>, mut stop: watch::Receiver<bool>) -> usize {
    let mut ended = 0;
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return ended,
            () = sleep(AGAIN) => {}
        }
        for part in ground.roles() {
            let Some(how) = part.has_ended() else { continue };
            ended += 1;
            log.tell(format!("{} ended by itself ({how}), and is started again", part.name));
            if let Err(error) = part.start() {
                log.tell(format!("cannot start {} again: {error}", part.name));
            }
        }
    }
}
