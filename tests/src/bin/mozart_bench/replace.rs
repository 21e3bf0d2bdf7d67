//! Goal 13: agents are replaced again and again while they are talked to. Nothing may be lost, doubled or out of order, and the
//! gap between the last answer of the old incarnation and the first turn of the new one is what people notice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use broker::{Broker, ControlItem};
use bytes::Bytes;
use checker::{Accepted, Facts, judge};
use common::api::{Query, Reply};
use common::control::ControlEvent;
use common::event::{Event, EventBody};
use common::message::MessageKey;
use common::{AgentName, ConversationId};
use futures_util::future::{try_join, try_join_all};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::drive::text;
use crate::figure::{Figure, Goal, Report, note, quantile};
use crate::fleet::{ECHO, Fleet, Runtime};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 4;
/// Conversations of each agent, side by side.
const LANES: usize = 2;
/// How often a lane says something: there is always something to do when an incarnation takes over.
const EVERY: Duration = Duration::from_millis(20);
/// Messages of a lane that wait for their answers, at most.
const OPEN: usize = 64;
/// No replacement takes longer, unless something is broken.
const LONGEST: Duration = Duration::from_secs(60);

const SOUL: &str = "CONCURRENCY 2\nREPLACE start-first\nTIMEOUT drain=10s\n";

pub(crate) async fn run(plan: &Plan, report: &mut Report, runtime: Runtime) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let soul = format!("{ECHO}{SOUL}");
    let fleet = Fleet::start_in(&rig, "ours", AGENTS, &soul, runtime).await?;
    let ours = Ours::connect(&fleet).await?;
    let (stop, left) = (AtomicBool::new(false), AtomicU32::new(plan.replacements));
    let lanes = (0..AGENTS).flat_map(|agent| (0..LANES).map(move |lane| (agent, lane)));
    let talk = lanes.map(|(agent, lane)| talk(&ours, (agent, lane), EVERY, &stop));
    let talk = try_join_all(talk);
    let replace = async {
        let all = ours.agents.iter().map(|agent| replace(&ours.broker, agent, &left));
        let replaced = try_join_all(all).await;
        stop.store(true, Ordering::Relaxed);
        replaced
    };
    let (said, _) = try_join(talk, replace).await?;
    let Outcome { gaps, completed, faults } = outcome(&ours, said).await?;
    let (name, made) = (runtime.name(), gaps.len());
    let what = |what: &str| format!("{name}: {made} replacements amid {completed} chats: {what}");
    let count = f64::from(u32::try_from(faults)?);
    let add = |name: &str, value, unit| Figure::alone(13, &what(name), value, unit);
    report
        .add(add("lost, doubled or out of order", count, "messages").wanting(Goal::AtMost(0.0)))?;
    report.add(add("gap, p50", quantile(&gaps, 50), "ms"))?;
    report.add(add("gap, p99", quantile(&gaps, 99), "ms").wanting(Goal::AtMost(250.0)))
}

/// What the journal says of the replacements.
pub(crate) struct Outcome {
    /// In ms.
    pub(crate) gaps: Vec<f64>,
    /// Messages.
    pub(crate) completed: usize,
    /// What was lost, doubled or out of order.
    pub(crate) faults: usize,
}

/// Judges what the lanes had accepted.
pub(crate) async fn outcome(ours: &Ours, said: Vec<Vec<Accepted>>) -> Result<Outcome> {
    let accepted: Vec<_> = said.into_iter().flatten().collect();
    let attempts = ours.agents.iter().map(|agent| (agent.clone(), 3)).collect();
    let (injected, notes) = (BTreeMap::new(), BTreeMap::new());
    let mut facts = Facts::collect(&ours.broker, accepted, attempts, injected, notes).await?;
    for life in facts.lives.values_mut() {
        // The echo writes no notes of its own: what is on record stands for them.
        life.believe_the_record();
    }
    let verdict = judge(&facts);
    for fault in verdict.faults.iter().take(10) {
        note(&format!("  {fault}"));
    }
    let faults = verdict.faults.len();
    Ok(Outcome { gaps: gaps(&facts), completed: verdict.completed, faults })
}

/// Talks in one conversation until the replacements are over; what was accepted.
pub(crate) async fn talk(
    ours: &Ours,
    (agent, lane): (usize, usize),
    every: Duration,
    stop: &AtomicBool,
) -> Result<Vec<Accepted>> {
    let conversation = ConversationId::new(format!("c{agent}-{lane}"))?;
    let (mut accepted, mut open) = (Vec::new(), std::collections::VecDeque::new());
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        number += 1;
        let mut envelope = ours.envelope(agent, &text(number))?;
        envelope.conversation_id = conversation.clone();
        open.push_back(ours.send(&envelope).await?);
        accepted.push(Accepted {
            key: MessageKey {
                agent: envelope.agent.clone(),
                sender: envelope.sender.clone(),
                message_id: envelope.message_id.clone(),
            },
            conversation_id: conversation.clone(),
            text: envelope.message.clone(),
            answer: envelope.message,
        });
        while open.len() > OPEN
            && let Some(waiter) = open.pop_front()
        {
            waiter.answer().await?;
        }
    }
    for waiter in open {
        waiter.answer().await?;
    }
    Ok(accepted)
}

/// Replaces one agent as long as any replacement is left.
async fn replace(broker: &Broker, agent: &AgentName, left: &AtomicU32) -> Result<()> {
    let mut log = broker.follow_control(1, Some(agent)).await?;
    let mut begun = 0;
    loop {
        match log.next().await? {
            ControlItem::Record { record, .. } => begun = begun.max(begins(&record.event)),
            ControlItem::Malformed { seq, cause, .. } => {
                return fail(format!("record {seq}: {cause}"));
            }
            ControlItem::CaughtUp => break,
        }
    }
    let take = |left: u32| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        let query = Query::Replace { agent: agent.clone(), image: None };
        let query = Bytes::from(serde_json::to_vec(&query)?);
        let reply = broker.ask(broker.subjects().query(), query, LONGEST).await?;
        if let Reply::Error(error) = serde_json::from_slice(&reply)? {
            return fail(format!("replacing {agent}: {error}: {}", error.cause));
        }
        let before = begun;
        let next = async {
            while begun == before {
                if let ControlItem::Record { record, .. } = log.next().await? {
                    begun = begun.max(begins(&record.event));
                }
            }
            Ok::<_, broker::BrokerError>(())
        };
        match timeout(LONGEST, next).await {
            Ok(followed) => followed?,
            Err(_) => return fail(format!("{agent} was not replaced within {LONGEST:?}")),
        }
    }
    Ok(())
}

/// The incarnation that takes messages as of a record; 0 for every other one.
fn begins(event: &ControlEvent) -> u64 {
    if let ControlEvent::IncarnationBegun { incarnation, .. } = event { *incarnation } else { 0 }
}

/// The times between the last answer of an incarnation and the first turn of the next, in ms.
fn gaps(facts: &Facts) -> Vec<f64> {
    // By agent and incarnation: the first turn and the last answer.
    let mut spans: BTreeMap<(&AgentName, u64), (u64, u64)> = BTreeMap::new();
    for (key, life) in &facts.lives {
        for last in life.finals.iter().map(|placed| &placed.value) {
            let Some(incarnation) = last.incarnation else { continue };
            let delivered = |event: &&Event| matches!(event.body, EventBody::Delivered { .. });
            let begins = last.tail.iter().find(delivered).map(|event| event.at);
            let (begin, end) = (begins.unwrap_or(last.at).as_millis(), last.at.as_millis());
            let span = spans.entry((&key.agent, incarnation)).or_insert((begin, end));
            *span = (span.0.min(begin), span.1.max(end));
        }
    }
    let spans: Vec<_> = spans.into_iter().collect();
    let gaps = spans.windows(2).filter(|pair| pair[0].0.0 == pair[1].0.0);
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of one run")]
    gaps.map(|pair| pair[1].1.0.saturating_sub(pair[0].1.1) as f64).collect()
}
