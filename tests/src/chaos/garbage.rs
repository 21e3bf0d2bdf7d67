//! Requests that nobody can read: each must be refused, and none may hold up another.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::Broker;
use common::message::MessageKey;
use common::{AgentName, ConversationTag, SenderName};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::Problem;
use chaos::Random;

/// The pause between two of them.
const EVERY: Duration = Duration::from_secs(1);
/// How long the stream may take to confirm one. It is not said again: without a condition, it would be stored twice.
const CONFIRMED: Duration = Duration::from_secs(3);

/// No envelope at all, half of one, and one of a kind that does not exist yet.
const KINDS: [&[u8]; 5] = [
    b"garbage",
    b"",
    b"{}",
    b"{\"v\":1,\"messageId\":\"half",
    b"\xff\xfe\x00{\"kind\":\"telepathy\"}",
];

/// What a stream answers.
#[derive(Debug, Deserialize)]
struct Stored {
    /// Its sequence; none beside an error.
    seq: Option<u64>,
}

/// Injects one every now and then until `stop`. All of them; true where the stream confirmed it.
pub(super) async fn inject(
    broker: &Broker,
    agents: &[AgentName],
    mut random: Random,
    mut stop: watch::Receiver<bool>,
) -> Result<BTreeMap<MessageKey, bool>, Problem> {
    let mut injected = BTreeMap::new();
    let mut clock = interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for kind in KINDS.iter().cycle() {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = clock.tick() => {}
        }
        let last = u64::try_from(agents.len().max(1) - 1)?;
        let chosen = usize::try_from(random.between(0, last))?;
        let Some(agent) = agents.get(chosen) else { break };
        let key = MessageKey {
            agent: agent.clone(),
            sender: SenderName::new("garbage")?,
            message_id: uuid::Uuid::now_v7().into(),
        };
        let subject = broker.subjects().request(&key, &ConversationTag::none());
        let answer = broker.ask(subject, (*kind).into(), CONFIRMED).await;
        let stored = answer.ok().and_then(|answer| serde_json::from_slice::<Stored>(&answer).ok());
        injected.insert(key, stored.is_some_and(|stored| stored.seq.is_some()));
    }
    Ok(injected)
}
