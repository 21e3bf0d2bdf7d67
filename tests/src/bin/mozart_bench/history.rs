//! Goals 16 to 18: a million finished messages cost nothing at a start, and are found at once.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broker::{ArchiveOptions, Archiver, Broker};
use common::message::{Envelope, Final, Kind, Outcome};
use common::{AgentName, ConversationId, MessageId, SenderName};
use futures_util::StreamExt as _;
use serde::Deserialize;
use tempfile::TempDir;

use crate::figure::{Figure, Goal, Report, note};
use crate::fleet::{self, ECHO};
use crate::memory::kilobytes;
use crate::outcome::{Result, fail};
use crate::process::{mozart, shim};
use crate::rig::{Plan, Rig};

const AGENTS: usize = 20;
/// Messages that are sent and finished at once.
const AT_ONCE: usize = 256;
/// So many stay in the journal.
const HOT: u64 = 20_000;
/// Every agent's messages are of so many conversations,
const TALKS: usize = 50;
/// and the first one has a long one.
const TURNS: usize = 10_000;
/// As long as other messages are.
const TEXT: usize = 256;
/// Rounds of the archiver that may be refused.
const REFUSED: usize = 100;
/// How often each command is run.
const RUNS: usize = 50;

/// A fleet of `mozart up`, with the nats-server that it brings.
struct Up {
    folder: TempDir,
}

/// What `mozart up` says about itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    url: String,
    namespace: common::Namespace,
    nats_pid: u32,
}

/// What was sent.
struct Filled {
    first: MessageId,
    last: MessageId,
}

impl Up {
    fn new(plan: &Plan) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("mozart-bench-").tempdir_in(&plan.data)?;
        let souls = folder.path().join("souls");
        std::fs::create_dir_all(&souls)?;
        for agent in fleet::names(AGENTS)? {
            std::fs::write(souls.join(format!("{agent}.soul")), ECHO)?;
        }
        Ok(Self { folder })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Runs a command; how long it took.
    fn run(&self, args: &[&str]) -> Result<Duration> {
        let mut command = Command::new(mozart()?);
        command.args(args).env("MOZART_DIR", self.home()).env("MOZART_SHIM", shim()?);
        command.env_remove("NATS_URL").env_remove("MOZART_NAMESPACE");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = Instant::now();
        let ended = command.output()?;
        let took = began.elapsed();
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr).into_owned();
            return fail(format!("mozart {}: {said}", args.join(" ")));
        }
        Ok(took)
    }

    fn start(&self) -> Result<Duration> {
        let souls = self.folder.path().join("souls");
        let Some(souls) = souls.to_str() else { return fail("a folder that is not text") };
        // The supervisor archives nothing by itself: two at once would be in each other's way.
        self.run(&["up", souls, "-d", "--sync", "lazy", "--hot-messages", "1000000000"])
    }

    fn running(&self) -> Result<Running> {
        Ok(serde_json::from_slice(&std::fs::read(self.home().join("mozart.json"))?)?)
    }

    async fn broker(&self) -> Result<Broker> {
        let running = self.running()?;
        Ok(Broker::connect(&Rig::connect(&running.url, &running.namespace)).await?)
    }

    /// Stops everything and starts it again: how long until the next answer, and the server's memory then, in MB.
    fn restart(&self) -> Result<(f64, f64)> {
        self.run(&["down"])?;
        let began = Instant::now();
        self.start()?;
        let agents = fleet::names(1)?;
        let Some(agent) = agents.first() else { return fail("no agent") };
        self.run(&["send", agent.as_str(), "still there?", "--wait", "--timeout", "120s"])?;
        let took = began.elapsed().as_secs_f64();
        let status = format!("/proc/{}/status", self.running()?.nats_pid);
        let Some(memory) = kilobytes(Path::new(&status), "VmRSS:") else {
            return fail("nats-server is gone");
        };
        Ok((took, memory * 1024.0 / 1e6))
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.run(&["down"]));
    }
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let up = Up::new(plan)?;
    up.start()?;
    let messages = usize::try_from(plan.messages)?;
    let filled = fill(&up, messages, true).await?;
    let name = |what: &str| format!("{messages} finished messages: {what}");
    let (took, memory) = up.restart()?;
    let figure = Figure::alone(16, &name("stop, start, and the next answer"), took, "s");
    report.add(figure.wanting(Goal::AtMost(3.0)))?;
    if plan.wants(17) {
        commands(&up, &filled, report)?;
    }
    if plan.wants(18) {
        let figure = Figure::alone(18, &name("nats-server's memory after a restart"), memory, "MB");
        report.add(figure.wanting(Goal::AtMost(400.0)))?;
        fill(&up, messages, false).await?;
        let (_, twice) = up.restart()?;
        let name = format!("{} finished messages: its memory, in MB, to that", 2 * messages);
        report.add(Figure::alone(18, &name, twice / memory, "x").wanting(Goal::AtMost(1.3)))?;
    }
    Ok(())
}

/// Sends messages and finishes them, and archives all but the last.
async fn fill(up: &Up, messages: usize, long: bool) -> Result<Filled> {
    let began = Instant::now();
    let broker = up.broker().await?;
    let agents = fleet::names(AGENTS)?;
    let mut brokers = Vec::new();
    for _ in 0..4 {
        brokers.push(up.broker().await?);
    }
    // Each is made as it is sent, as people make them: the index goes by the time in its id.
    let finished = (0..messages).map(|n| {
        let (broker, agents) = (&brokers[n % brokers.len()], &agents);
        async move {
            let envelope = envelope(agents, n, messages, long)?;
            finish(broker, &envelope).await?;
            Ok::<_, Box<dyn Error + Send + Sync>>((n, envelope.message_id))
        }
    });
    let mut finished = futures_util::stream::iter(finished).buffer_unordered(AT_ONCE);
    let (mut first, mut last) = (None, None);
    while let Some(done) = finished.next().await {
        match done? {
            (0, id) => first = Some(id),
            (n, id) if n + 1 == messages => last = Some(id),
            _ => {}
        }
    }
    let (Some(first), Some(last)) = (first, last) else {
        return fail("too few messages");
    };
    let filled = Filled { first, last };
    note(&format!("  {messages} messages in {:.0?}", began.elapsed()));
    let began = Instant::now();
    let hot = Duration::from_secs(3600);
    let options = ArchiveOptions { hot, most: HOT, settled: Duration::ZERO };
    let mut archiver = Archiver::new(broker, options);
    let (mut archived, mut refused) = (0, 0);
    loop {
        let round = match archiver.round().await {
            Ok(round) => round,
            // The supervisor looks after the same streams. As there, the next round begins with what is there then.
            Err(error) if refused < REFUSED => {
                refused += 1;
                note(&format!("  {error}"));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        archived += round.archived;
        if !round.more {
            break;
        }
    }
    let took = began.elapsed();
    note(&format!("  {archived} archived in {took:.0?}, without a pause"));
    Ok(filled)
}

/// The nth of a number of messages.
fn envelope(agents: &[AgentName], n: usize, of: usize, long: bool) -> Result<Envelope> {
    let agent = agents[n % agents.len()].clone();
    // The long conversation goes through all of the first agent's messages.
    let every = (of / agents.len() / TURNS).max(1);
    let nth = n / agents.len();
    let is_long = long && n.is_multiple_of(agents.len()) && nth.is_multiple_of(every);
    let talk = if is_long { "long".to_owned() } else { format!("talk-{}", nth % TALKS) };
    Ok(Envelope {
        message_id: uuid::Uuid::now_v7().into(),
        agent,
        sender: SenderName::new("user")?,
        kind: Kind::Chat,
        conversation_id: ConversationId::new(talk)?,
        message: "x".repeat(TEXT),
        created_at: std::time::SystemTime::now().into(),
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: None,
        traceparent: None,
        scheduled_for: None,
        deliver_at: None,
    })
}

async fn finish(broker: &Broker, envelope: &Envelope) -> Result<()> {
    const WITHIN: Duration = Duration::from_secs(60);
    broker.send(envelope, WITHIN).await?;
    let final_ = Final {
        status: Outcome::Completed,
        response: Some(envelope.message.clone()),
        reason: None,
        attempts: 1,
        incarnation: Some(1),
        at: envelope.created_at,
        tail: Vec::new(),
    };
    broker.publish_final(&envelope.key(), &envelope.tag(), &final_, "bench", WITHIN).await?;
    Ok(())
}

/// How long people wait for what they ask.
fn commands(up: &Up, filled: &Filled, report: &mut Report) -> Result<()> {
    let (cold, hot) = (filled.first.as_str(), filled.last.as_str());
    let agents = fleet::names(1)?;
    let Some(agent) = agents.first().map(AgentName::as_str) else { return fail("no agent") };
    let commands: [(&str, &[&str], f64); 7] = [
        ("journal ls --limit 50", &["journal", "ls", "--limit", "50"], 100.0),
        ("journal show, hot", &["journal", "show", hot], 100.0),
        ("journal show, cold", &["journal", "show", cold], 100.0),
        ("explain, cold", &["explain", cold], 100.0),
        ("explain of an agent", &["explain", agent], 100.0),
        ("ps", &["ps"], 100.0),
        (
            "the last 20 of a conversation of 10,000",
            &["history", agent, "--conversation", "long", "--limit", "20"],
            50.0,
        ),
    ];
    for (name, args, wanted) in commands {
        let mut took = Vec::new();
        for _ in 0..RUNS {
            took.push(up.run(args)?.as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let p99 = took.get(RUNS * 99 / 100).copied().unwrap_or_default();
        let figure = Figure::alone(17, &format!("{name}, p99 of {RUNS}"), p99, "ms");
        report.add(figure.wanting(Goal::AtMost(wanted)))?;
    }
    Ok(())
}
