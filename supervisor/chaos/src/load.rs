//! The load: a sender for each agent, which says each message until it is accepted, and keeps a ledger.

use std::time::{Duration, SystemTime};

use broker::{Broker, SendOutcome};
use checker::Accepted;
use common::message::{Envelope, Kind, MessageKey};
use common::{AgentName, ConversationId, SenderName, Timestamp};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::random::Random;
use crate::worker::{answer, text};

/// How long one try may take.
const TRY: Duration = Duration::from_secs(3);
/// The pause after a failed try.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a message may be said again and again.
const LONGEST: Duration = Duration::from_secs(60);
/// When a message would expire, in milliseconds from when it is made: never, unless somebody asks another clock.
const DEADLINE: u64 = 20 * 60 * 1000;
/// Conversations of an agent at a time, and messages of one.
const OPEN: usize = 4;
const MESSAGES: u64 = 6;
/// How long a turn takes, in milliseconds: mostly, and in so many of 100 cases long enough that a fault falls into it.
const QUICK: u64 = 60;
const SLOW: u64 = 1500;
const SLOW_SHARE: u64 = 15;

/// What a sender has to tell.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// What was accepted, in order.
    pub(crate) accepted: Vec<Accepted>,
    /// What should never be said to a sender.
    pub(crate) problems: Vec<String>,
}

/// Conversations with an agent, each of which goes on for a few messages.
#[derive(Debug)]
pub struct Conversations {
    agent: AgentName,
    open: Vec<(String, u64)>,
}

impl Conversations {
    /// With this agent; none yet.
    #[must_use]
    pub fn new(agent: AgentName) -> Self {
        Self { agent, open: Vec::new() }
    }

    /// That of the next message, the `number`th: one of up to four. None: the name of the agent is too long for that of a conversation.
    pub fn next(&mut self, random: &mut Random, number: usize) -> Option<ConversationId> {
        if self.open.len() < OPEN {
            let id = format!("{}:{number}", self.agent);
            self.open.push((id, random.between(1, MESSAGES)));
        }
        let chosen = random.below(self.open.len());
        let (id, left) = &mut self.open[chosen];
        *left -= 1;
        let (id, is_last) = (ConversationId::new(id.as_str()).ok(), *left == 0);
        if is_last {
            self.open.remove(chosen);
        }
        id
    }
}

/// A chat message.
#[must_use]
pub fn chat(key: &MessageKey, conversation_id: ConversationId, message: String) -> Envelope {
    let created_at = Timestamp::from(SystemTime::now());
    Envelope {
        message_id: key.message_id.clone(),
        agent: key.agent.clone(),
        sender: key.sender.clone(),
        kind: Kind::Chat,
        conversation_id,
        message,
        created_at,
        request_id: None,
        deadline: Some(Timestamp::from_millis(created_at.as_millis() + DEADLINE)),
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: None,
        traceparent: None,
        scheduled_for: None,
        deliver_at: None,
    }
}

/// Sends a message until it is accepted, for as long as `longest`; how many tries it took.
///
/// # Errors
/// What should never be said to a sender.
pub async fn insist(
    broker: &Broker,
    envelope: &Envelope,
    longest: Duration,
) -> Result<usize, String> {
    let until = Instant::now() + longest;
    let mut tries = 0;
    loop {
        tries += 1;
        let sent = match tries {
            1 => broker.send(envelope, TRY).await,
            // It may be stored, answered and archived by now.
            _ => broker.send_again(envelope, TRY).await,
        };
        match sent {
            Ok(SendOutcome::Stored { .. } | SendOutcome::Already { .. }) => return Ok(tries),
            Ok(SendOutcome::Conflict { stored }) => {
                return Err(format!("a conflict with {stored:?}"));
            }
            Err(error) if Instant::now() > until => {
                return Err(format!("not accepted for {longest:?}: {error}"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Sends to an agent until `stop`; the last message is seen through.
pub(crate) async fn send(
    broker: &Broker,
    agent: AgentName,
    mut random: Random,
    every: Duration,
    mut stop: watch::Receiver<bool>,
) -> Sent {
    let mut sent = Sent::default();
    let mut conversations = Conversations::new(agent.clone());
    let mut clock = interval(every);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 1.. {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            _ = clock.tick() => {}
        }
        let Some(conversation_id) = conversations.next(&mut random, number) else { break };
        let Ok(sender) = SenderName::new("chaos") else { break };
        let longest = if random.chance(SLOW_SHARE) { SLOW } else { QUICK };
        let rest = format!("message {number} of {conversation_id}");
        let text = text(random.between(0, longest), &rest);
        let message_id = uuid::Uuid::now_v7().into();
        let key = MessageKey { agent: agent.clone(), sender, message_id };
        let envelope = chat(&key, conversation_id.clone(), text.clone());
        match insist(broker, &envelope, LONGEST).await {
            Ok(_) => {
                let answer = answer(&agent, &text);
                sent.accepted.push(Accepted { key, conversation_id, text, answer });
            }
            Err(problem) => sent
                .problems
                .push(format!("message {} to {agent} was refused: {problem}", key.message_id)),
        }
    }
    sent
}
