//! Goal 21: a supervisor starts with a control log of a million records: a hundred agents that have been started again and again.
//!
//! Beside it the same log without a snapshot. What is measured goes from the process's start to the moment at which it has folded all
//! that there is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use broker::reference::client;
use broker::{Broker, StreamOptions};
use common::control::{ControlEvent, ControlRecord, Timer};
use common::shim::Exit;
use common::spec::AgentSpec;
use common::{AgentName, Namespace, NodeName, Timestamp, soul};

use crate::figure::{Figure, Goal, Report, median, note};
use crate::fleet::names;
use crate::outcome::{Result, fail};
use crate::process::{self, Owned};
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 100;
const WANTED: f64 = 2.0;
/// A leader takes a snapshot after so many records: so many may be younger than it.
const YOUNGER: u64 = 9_900;
/// Records on their way to the server: it takes that many without an answer.
const BATCH: u64 = 4_000;
/// What is waited for takes no longer.
const LONGEST: Duration = Duration::from_secs(300);
const SOUL: &str = "MODEL bench/echo\nSOUL You echo.\nRESTART always max=0/1m backoff=1s..1s\n";

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let namespace = Namespace::new("long-log")?;
    let options = Rig::connect(&rig.server.url, &namespace);
    let streams = StreamOptions { journal_shards: 1, replicas: None };
    let broker = Broker::connect_and_create(&options, &streams).await?;
    let mut log = Log::new(&broker, &rig.server.url).await?;
    let began = Instant::now();
    log.grow(plan.records.max(YOUNGER + BATCH)).await?;
    note(&format!("  {} records written in {:.1?}", log.written, began.elapsed()));
    let starts = Starts {
        mozart: process::mozart()?,
        url: rig.server.url.clone(),
        namespace,
        folder: rig.folder.path(),
    };

    let mut whole = Vec::new();
    for number in 0..plan.pairs.min(2) {
        whole.push(starts.start(&format!("whole{number}"), None).await?.1);
    }
    // One that goes on leads, and takes a snapshot.
    let (leader, _) = starts.start("leader", None).await?;
    let seq = process::until("a snapshot", LONGEST, async || {
        let (_, judged) = broker.judge_snapshots(|_, _| Ok(())).await?;
        Ok(judged.into_iter().find(|(_, doubt)| doubt.is_none()).map(|(seq, _)| seq))
    })
    .await?;
    note(&starts.said("leader", "taking snapshot"));
    drop(leader);
    log.grow((seq + YOUNGER).saturating_sub(broker.control_last_seq().await?)).await?;
    let younger = broker.control_last_seq().await? - seq;
    let mut times = Vec::new();
    for number in 0..plan.pairs {
        times.push(starts.start(&format!("snapshot{number}"), Some(seq)).await?.1);
    }
    let records = broker.control_last_seq().await?;
    let name = format!("supervisor's start, {records} records, {younger} after the snapshot, p50");
    report.add(Figure::alone(21, &name, median(times), "s").wanting(Goal::AtMost(WANTED)))?;
    let name = "the same without a snapshot, p50";
    report.add(Figure::alone(21, name, median(whole), "s"))
}

/// Supervisors of one namespace, one after the other.
struct Starts<'a> {
    mozart: PathBuf,
    url: String,
    namespace: Namespace,
    folder: &'a Path,
}

impl Starts<'_> {
    fn log(&self, id: &str) -> PathBuf {
        self.folder.join(format!("{id}.log"))
    }

    /// The first line of its log with these words.
    fn said(&self, id: &str, words: &str) -> String {
        let log = process::read(&self.log(id)).unwrap_or_default();
        log.lines().find(|line| line.contains(words)).unwrap_or_default().to_owned()
    }

    /// Starts one; it runs, and the seconds that it took to fold the log. `from`: the snapshot from which it has to go on, if any.
    async fn start(&self, id: &str, from: Option<u64>) -> Result<(Owned, f64)> {
        let log = self.log(id);
        let mut command = std::process::Command::new(&self.mozart);
        command.args(["--nats", &self.url, "--namespace", self.namespace.as_str(), "--dir"]);
        command.arg(self.folder.join("home")).args(["supervisor", "--id", id]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let began = Instant::now();
        let mut started = Owned::start(&mut command)?;
        let took = process::until("a supervisor", LONGEST, async || {
            let said = process::read(&log).unwrap_or_default();
            if said.contains("follows the log") {
                return Ok(Some(began.elapsed()));
            }
            if started.has_ended() { fail(said) } else { Ok(None) }
        })
        .await?;
        let goes_on = from.map(|seq| format!("continues from snapshot {seq} "));
        let said = self.said(id, goes_on.as_deref().unwrap_or("continues from snapshot"));
        if said.is_empty() == goes_on.is_some() {
            return fail(format!("supervisor {id} was to start from {from:?}: {said:?}"));
        }
        Ok((started, took.as_secs_f64()))
    }
}

/// A log as a fleet writes it.
struct Log<'a> {
    broker: &'a Broker,
    client: client::Client,
    agents: Vec<AgentSpec>,
    written: u64,
    /// That of the last election, whoever it was: an older one's records would not be folded.
    term: u64,
    /// The incarnation of the round that is being written.
    round: u64,
}

impl<'a> Log<'a> {
    async fn new(broker: &'a Broker, url: &str) -> Result<Self> {
        let spec = |name: AgentName| {
            let parsed = soul::parse(name, Path::new("bench.soul"), SOUL);
            parsed.map_err(|errors| format!("{errors:?}").into())
        };
        let agents: Result<Vec<_>> = names(AGENTS)?.into_iter().map(spec).collect();
        let client = client::connect(url).await?;
        Ok(Self { broker, client, agents: agents?, written: 0, term: 1, round: 0 })
    }

    /// Writes so many records, and some more to the end of a round.
    async fn grow(&mut self, records: u64) -> Result<()> {
        let until = self.broker.control_last_seq().await? + records;
        let node: NodeName = "n".parse()?;
        if self.round == 0 {
            let (supervisor, run) = ("bench".to_owned(), "bench".to_owned());
            let rules = 3;
            self.say(ControlEvent::LeaderElected { supervisor, run, rules }).await?;
            let runtimes = vec!["process".to_owned()];
            let node = node.clone();
            let (labels, capacity) = (Vec::new(), common::Capacity::default());
            self.say(ControlEvent::NodeSeen { node, instance: 1, runtimes, labels, capacity })
                .await?;
            for spec in self.agents.clone() {
                let spec = Box::new(spec);
                self.say(ControlEvent::AgentApplied { spec, force: false, asked: None }).await?;
            }
        }
        self.settle().await?;
        self.term = self.broker.newest_term().await?;
        let mut last = 0;
        while last < until {
            self.round += 1;
            for name in self.agents.iter().map(|spec| spec.name.clone()).collect::<Vec<_>>() {
                for event in life(&name, self.round, &node) {
                    self.say(event).await?;
                }
            }
            last = self.settle().await?;
        }
        Ok(())
    }

    async fn say(&mut self, event: ControlEvent) -> Result<()> {
        self.written += 1;
        let (subjects, at) = (self.broker.subjects(), Timestamp::from_millis(self.written));
        let subject = match event.agent() {
            Some(agent) => subjects.control(agent),
            None => subjects.control_fleet(),
        };
        let is_election = matches!(event, ControlEvent::LeaderElected { .. });
        let term = (event.is_leaders() && !is_election).then_some(self.term);
        let id = Some(format!("01937f3e-7a10-7cc0-8b5e-2f6a1d0c9e41.{}", self.written));
        let record = ControlRecord { id, at, term, author: "bench".to_owned(), event };
        // Without an id for the server: it would remember a million of them for ten minutes.
        self.client.publish(subject, serde_json::to_vec(&record)?.into()).await?;
        if self.written.is_multiple_of(BATCH) {
            self.settle().await?;
        }
        Ok(())
    }

    /// Waits until all that was written is stored; the log's last sequence.
    async fn settle(&mut self) -> Result<u64> {
        self.client.flush().await?;
        let mut before = None;
        process::until("the records are stored", LONGEST, async || {
            let last = self.broker.control_last_seq().await?;
            // Supervisors that ran have written some as well.
            let is_still = before.replace(last) == Some(last);
            Ok((last >= self.written && is_still).then_some(last))
        })
        .await
    }
}

/// What the log says of one incarnation, from its number to the timer of the next.
fn life(agent: &AgentName, incarnation: u64, node: &NodeName) -> [ControlEvent; 5] {
    let agent = || agent.clone();
    let exit = Exit { code: Some(1), ..Exit::default() };
    [
        ControlEvent::IncarnationAllocated {
            agent: agent(),
            incarnation,
            generation: 1,
            node: node.clone(),
        },
        ControlEvent::IncarnationReady { agent: agent(), incarnation, floor: incarnation },
        ControlEvent::IncarnationBegun { agent: agent(), incarnation },
        ControlEvent::IncarnationExited { agent: agent(), incarnation, exit, clean: true },
        ControlEvent::TimerFired { agent: agent(), timer: Timer::Restart, incarnation, said: None },
    ]
}
