//! Agents that were away for long: each has thousands of open messages when it is started again. How long until each has answered its
//! first one, what the leader needs for that, and whether people who look meanwhile wait.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use broker::Broker;
use broker::reference::client;
use common::api::{Query, Reply};
use common::message::{Envelope, Kind};
use common::{AgentName, ConversationId, SenderName};

use crate::drive::text;
use crate::figure::{Figure, Goal, Report, note};
use crate::fleet::{ECHO, Fleet};
use crate::outcome::{Result, fail};
use crate::process;
use crate::recover::Peak;
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 100;
/// The leader's memory, in MB.
const MEMORY: f64 = 100.0;
/// How long whoever looks may wait, in seconds.
const LOOKS: f64 = 1.0;
/// What is waited for takes no longer.
const LONGEST: Duration = Duration::from_secs(300);

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let agents = plan.agents.unwrap_or(AGENTS);
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let fleet = Fleet::start(&rig, "ours", agents, ECHO).await?;
    let broker = Broker::connect(&Rig::connect(&fleet.url, &fleet.namespace)).await?;
    all(&fleet, &broker, "stopped", |agent| Query::Stop { agent }).await?;
    let began = Instant::now();
    fill(&fleet, &broker, plan.open).await?;
    note(&format!("  {} messages for each in {:.1?}", plan.open, began.elapsed()));
    // The archiver reads what was stored just now; after a week it has.
    calm(&[fleet.pid()?, rig.server.pid()]).await?;

    let sender = SenderName::new("bench")?;
    let mut finals = broker.subscribe(broker.subjects().done_for(&sender), None).await?;
    broker.flush(LONGEST).await?;
    let leader = Peak::since_now(fleet.pid()?)?;
    let began = Instant::now();
    let mut first = HashMap::<AgentName, Duration>::new();
    let answering = async {
        while first.len() < agents {
            let Some(message) = finals.next().await else { return fail("the client is closed") };
            if let Some(subject) = broker.subjects().parse_done(&message.subject) {
                first.entry(subject.key.agent).or_insert_with(|| began.elapsed());
            }
        }
        Ok(())
    };
    let starting = async {
        for agent in &fleet.agents {
            ask(&broker, &Query::Start { agent: agent.clone() }).await?;
        }
        Ok(began.elapsed())
    };
    let mut looks = Vec::new();
    let looking = async {
        loop {
            let mut ps = fleet.command();
            let asked = Instant::now();
            // One that gives up has waited for as long as people do.
            if let Err(error) = fleet.run(ps.args(["ps", "-o", "json"])).await {
                note(&format!("  {error}"));
            }
            looks.push(asked.elapsed().as_secs_f64());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let both = async { tokio::try_join!(starting, answering) };
    let started = tokio::select! {
        done = tokio::time::timeout(LONGEST, both) => match done {
            Ok(done) => done?.0,
            Err(_) => return fail(format!("not all have answered within {LONGEST:?}")),
        },
        () = looking => return fail("it looks for ever"),
    };
    let mut took: Vec<_> = first.into_values().map(|took| took.as_secs_f64()).collect();
    took.sort_by(f64::total_cmp);
    let (Some(middle), Some(last)) = (took.get(agents / 2), took.last()) else {
        return fail("no agents");
    };
    note(&format!(
        "  all told to start after {started:.2?}, half have answered after {middle:.2} s"
    ));
    let name = format!("{agents} agents with {} open messages each, started: ", plan.open);
    let figure = Figure::alone(20, &format!("{name}all have answered one"), *last, "s");
    report.add(figure)?;
    let figure =
        Figure::alone(20, &format!("{name}leader's memory, peak"), leader.megabytes()?, "MB");
    report.add(figure.wanting(Goal::AtMost(MEMORY)))?;
    let server = Peak(rig.server.pid()).megabytes()?;
    report.add(Figure::alone(20, &format!("{name}nats-server's memory, peak"), server, "MB"))?;
    let name = format!("{name}slowest `ps` of {}", looks.len());
    let slowest = looks.into_iter().fold(0.0, f64::max);
    report.add(Figure::alone(20, &name, slowest, "s").wanting(Goal::AtMost(LOOKS)))
}

/// Waits until processes have nothing to do.
async fn calm(processes: &[u32]) -> Result<()> {
    let used = || -> Result<u64> {
        let mut ticks = 0;
        for pid in processes {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
            let rest = stat.rsplit(')').next().unwrap_or_default();
            // Those in user and in kernel mode, in hundredths of a second.
            for field in rest.split_whitespace().skip(11).take(2) {
                ticks += field.parse::<u64>()?;
            }
        }
        Ok(ticks)
    };
    process::until("a calm fleet", LONGEST, async || {
        let before = used()?;
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok((used()? < before + 20).then_some(()))
    })
    .await
}

/// Asks a supervisor for something to be done.
async fn ask(broker: &Broker, query: &Query) -> Result<()> {
    let body = serde_json::to_vec(query)?;
    let answer =
        broker.ask(broker.subjects().query(), body.into(), Duration::from_secs(30)).await?;
    match serde_json::from_slice(&answer)? {
        Reply::Error(error) => fail(format!("{query:?}: {error:?}")),
        Reply::Agents(_)
        | Reply::Ps(_)
        | Reply::PsPage(_)
        | Reply::Inspect(_)
        | Reply::Hello(_)
        | Reply::Nodes(_)
        | Reply::Moves(_)
        | Reply::Carried(_)
        | Reply::Schedules(_)
        | Reply::Questions(_)
        | Reply::AnswerTaken(_)
        | Reply::Done => Ok(()),
    }
}

/// Has something done to all agents, and waits until they are so.
async fn all(
    fleet: &Fleet,
    broker: &Broker,
    state: &str,
    query: impl Fn(AgentName) -> Query,
) -> Result<()> {
    for agent in &fleet.agents {
        ask(broker, &query(agent.clone())).await?;
    }
    process::until(&format!("all {state}"), LONGEST, async || {
        let mut ps = fleet.command();
        let said = fleet.run(ps.args(["ps", "-a", "-o", "json"])).await?;
        let rows: Vec<serde_json::Value> = serde_json::from_str(&said)?;
        Ok(rows.iter().all(|row| row["state"] == state).then_some(()))
    })
    .await
}

/// Stores messages for every agent, as plain records: no publish is awaited.
async fn fill(fleet: &Fleet, broker: &Broker, open: u32) -> Result<()> {
    /// Records on their way to the server: it takes that many without an answer.
    const BATCH: u64 = 4_000;
    let raw = client::connect(&fleet.url).await?;
    let mut sent = 0;
    for _ in 0..open {
        for agent in &fleet.agents {
            let envelope = envelope(agent)?;
            let subject = broker.subjects().request(&envelope.key(), &envelope.tag());
            raw.publish(subject, serde_json::to_vec(&envelope)?.into()).await?;
            sent += 1;
            if sent % BATCH == 0 {
                stored(fleet, broker, &raw, sent).await?;
            }
        }
    }
    stored(fleet, broker, &raw, sent).await
}

/// Waits until so many are stored.
async fn stored(fleet: &Fleet, broker: &Broker, raw: &client::Client, sent: u64) -> Result<()> {
    raw.flush().await?;
    let Some(agent) = fleet.agents.first() else { return fail("no agents") };
    // One shard holds them all.
    process::until("the messages are stored", LONGEST, async || {
        Ok((broker.journal_last_seq(agent).await? >= sent).then_some(()))
    })
    .await
}

fn envelope(agent: &AgentName) -> Result<Envelope> {
    let id = uuid::Uuid::now_v7();
    Ok(Envelope {
        message_id: id.into(),
        agent: agent.clone(),
        sender: SenderName::new("bench")?,
        kind: Kind::Chat,
        conversation_id: ConversationId::new(id.to_string())?,
        message: text(0),
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
