//! The load: a sender per agent that says each message until it is accepted, and keeps a ledger.

use std::time::Duration;

use broker::Broker;
use checker::Accepted;
use common::message::MessageKey;
use common::{AgentName, ConversationId, MessageId, SenderName};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::Problem;
use super::ground::{Ground, answer};
use chaos::{Conversations, Random, chat, insist};

/// The pause after a failed try.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a message may be said again and again.
const LONGEST: Duration = Duration::from_secs(120);

/// What a sender has to tell.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// What was accepted, in order.
    pub(super) accepted: Vec<Accepted>,
    /// Tries beyond each message's first.
    pub(super) retries: usize,
    /// Messages sent with the command line.
    pub(super) by_cli: usize,
    /// What should never be said to a sender.
    pub(super) problems: Vec<String>,
}

/// One agent's sender.
pub(super) struct Sender<'a> {
    pub(super) ground: &'a Ground,
    pub(super) broker: &'a Broker,
    pub(super) agent: AgentName,
    /// Whom the agent asks now and then. Nobody asks back: agents that wait for each other would have to time out.
    pub(super) asks: Option<AgentName>,
    pub(super) random: Random,
    pub(super) every: Duration,
}

impl Sender<'_> {
    /// Sends until `stop`; the last message is seen through.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Ledger, Problem> {
        let mut ledger = Ledger::default();
        let mut conversations = Conversations::new(self.agent.clone());
        let mut clock = interval(self.every);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut number = 0;
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(ledger),
                _ = clock.tick() => {}
            }
            number += 1;
            let conversation_id = conversations.next(&mut self.random, number);
            let conversation_id = conversation_id.ok_or("no name for a conversation")?;
            // Mostly quick, now and then long enough that a blow falls into it.
            let longest = if self.random.chance(15) { 1500 } else { 60 };
            let (took, pieces) = (self.random.between(0, longest), self.random.between(1, 5));
            let asks = match &self.asks {
                Some(other) if self.random.chance(4) => format!("ask:{other} "),
                Some(_) | None => String::new(),
            };
            let text = format!("{took} {pieces} {asks}message {number} of {conversation_id}");
            let by_cli = self.random.chance(4);
            let key = MessageKey {
                agent: self.agent.clone(),
                sender: SenderName::new(if by_cli { "user" } else { "chaos" })?,
                message_id: uuid::Uuid::now_v7().into(),
            };
            let sent = if by_cli {
                ledger.by_cli += 1;
                self.send_by_cli(&key.message_id, &conversation_id, &text, &mut ledger).await?
            } else {
                self.send(&key, &conversation_id, &text, &mut ledger).await
            };
            match sent {
                Ok(()) => ledger.accepted.push(Accepted {
                    answer: answer(&key.agent, &text),
                    key,
                    conversation_id,
                    text,
                }),
                Err(problem) => {
                    ledger.problems.push(format!("message {}: {problem}", key.message_id))
                }
            }
        }
    }

    async fn send(
        &self,
        key: &MessageKey,
        conversation_id: &ConversationId,
        text: &str,
        ledger: &mut Ledger,
    ) -> Result<(), String> {
        let envelope = chat(key, conversation_id.clone(), text.to_owned());
        let tries = insist(self.broker, &envelope, self.ground.patience(LONGEST)).await?;
        ledger.retries += tries - 1;
        Ok(())
    }

    async fn send_by_cli(
        &self,
        message: &MessageId,
        conversation: &ConversationId,
        text: &str,
        ledger: &mut Ledger,
    ) -> Result<Result<(), String>, Problem> {
        let (message, conversation) = (message.as_str(), conversation.as_str());
        let longest = self.ground.patience(LONGEST);
        let until = Instant::now() + longest;
        loop {
            let agent = self.agent.as_str();
            let args = ["send", agent, text, "--id", message, "--conversation", conversation];
            match self.ground.cli(&[&args[..], &["--timeout", "3s"]].concat()).await? {
                (0, _) => return Ok(Ok(())),
                // Unreachable, too late, or cut off: said again with the same id.
                (-1 | 5 | 6, said) if Instant::now() > until => {
                    return Ok(Err(format!("not accepted for {longest:?}: {said}")));
                }
                (-1 | 5 | 6, _) => {
                    ledger.retries += 1;
                    sleep(PAUSE).await;
                }
                (code, said) => {
                    return Ok(Err(format!("`mozart send` ends with {code}: {said}")));
                }
            }
        }
    }
}
