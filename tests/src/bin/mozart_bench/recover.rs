//! Goal 20: a broker that is killed forgets the consumers of a large fleet. How long until every agent takes messages again, and what
//! the leader needs for that.
//!
//! Beside it what a bare broker takes: until it answers for the journals' streams. What is measured begins when the server is started
//! again, and ends with the last agent's answer to a message that was sent after that.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use broker::reference::client;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;

use crate::drive::text;
use crate::figure::{Figure, Goal, Pairs, Report, median, note};
use crate::fleet::{ECHO, Fleet};
use crate::memory::kilobytes;
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process;
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 2000;
const WANTED: f64 = 10.0;
/// The leader's memory, in MB.
const MEMORY: f64 = 100.0;
/// Messages on their way to the journal at once.
const AT_ONCE: usize = 64;
/// What is waited for takes no longer.
const LONGEST: Duration = Duration::from_secs(120);

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let agents = plan.agents.unwrap_or(AGENTS);
    let mut rig = Rig::new(plan, Sync::Always).await?;
    let began = Instant::now();
    let (fleet, ours) = rig.ours(agents, ECHO).await?;
    note(&format!("  {agents} agents run after {:.1?}", began.elapsed()));
    ask_all(&ours, began).await?;
    drop(ours);
    let (mut times, mut leaders, mut servers) = (Pairs::default(), vec![], vec![]);
    for _ in 0..plan.pairs.min(3) {
        let leader = Peak::since_now(fleet.pid()?)?;
        rig.server.kill_and_start()?;
        let began = Instant::now();
        let bare = restored(&fleet, rig.sync).await? - began;
        // One that did not see the restart: a client's own patience is not the fleet's.
        let ours = Ours::connect(&fleet).await?;
        let (stored, answered) = ask_all(&ours, began).await?;
        let (Some(middle), Some(last)) = (answered.get(agents / 2), answered.last()) else {
            return fail("no agents");
        };
        note(&format!(
            "  streams there after {bare:.2?}, all messages stored after {stored:.2?}, half of them answered after {middle:.2?}, all after {last:.2?}"
        ));
        times.push(last.as_secs_f64(), bare.as_secs_f64());
        leaders.push(leader.megabytes()?);
        servers.push(Peak(rig.server.pid()).megabytes()?);
    }
    let name = format!("{agents} agents, broker killed, all take messages: streams restored");
    report.add(times.figure(20, &name, "s", Goal::None).wanting(Goal::AtMost(WANTED)))?;
    let figure = Figure::alone(20, "leader's memory meanwhile, peak", median(leaders), "MB");
    report.add(figure.wanting(Goal::AtMost(MEMORY)))?;
    report.add(Figure::alone(20, "nats-server's memory meanwhile, peak", median(servers), "MB"))
}

/// When the server answers for every journal stream.
async fn restored(fleet: &Fleet, sync: Sync) -> Result<Instant> {
    let raw = process::until("a connection", LONGEST, async || {
        Ok(client::connect(&fleet.url).await.ok())
    })
    .await?;
    let subjects = common::subject::Subjects::new(fleet.namespace.clone(), sync.shards());
    for shard in 0..sync.shards() {
        let subject = format!("$JS.API.STREAM.INFO.{}", subjects.journal_stream(shard));
        process::until("a stream", LONGEST, async || {
            let Ok(answer) = raw.request(subject.clone(), "".into()).await else { return Ok(None) };
            let answer: serde_json::Value = serde_json::from_slice(&answer.payload)?;
            Ok(answer.get("state").map(drop))
        })
        .await?;
    }
    Ok(Instant::now())
}

/// Sends a message to every agent; since a moment, how long until all are stored, and until each is answered, the first one first.
pub(crate) async fn ask_all(ours: &Ours, since: Instant) -> Result<(Duration, Vec<Duration>)> {
    let sent = (0..ours.agents.len())
        .map(|agent| async move { ours.send(&ours.envelope(agent, &text(0))?).await });
    let sent: Vec<_> = futures_util::stream::iter(sent).buffer_unordered(AT_ONCE).collect().await;
    let waiters = sent.into_iter().collect::<Result<Vec<_>>>()?;
    let stored = since.elapsed();
    let answers = waiters.into_iter().map(|waiter| async {
        let at = waiter.answered().await?;
        Ok(at.duration_since(since))
    });
    let answered: Result<Vec<_>> = try_join_all(answers).await;
    let mut answered = answered?;
    answered.sort_unstable();
    Ok((stored, answered))
}

/// The most memory that a process has had.
pub(crate) struct Peak(pub(crate) u32);

impl Peak {
    /// From now on.
    pub(crate) fn since_now(pid: u32) -> Result<Self> {
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        Ok(Self(pid))
    }

    pub(crate) fn megabytes(&self) -> Result<f64> {
        let status = PathBuf::from(format!("/proc/{}/status", self.0));
        match kilobytes(&status, "VmHWM:") {
            Some(kilobytes) => Ok(kilobytes * 1024.0 / 1e6),
            None => fail(format!("process {} is gone", self.0)),
        }
    }
}
