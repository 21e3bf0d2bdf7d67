//! The supervisors' answers to shims, which look up nothing by themselves (`asked.rs`). A shim gets what concerns its own agent, and what its
//! agent has sent.

use common::AgentName;
use common::codec;
use common::frame::ask::{ShimAnswer, ShimAsk, Told, ToldRecord};
use common::message::{Final, MessageKey};

use crate::api::Record;
use crate::asked::told;
use crate::attempts::AttemptMark;
use crate::connection::Broker;
use crate::consumer::ConsumerState;
use crate::error::{BrokerError, Result};
use crate::find::Standing;
use crate::journal::encode;
use crate::memory::Page;

/// The most bytes of requests in one answer, unless the first alone has more: an answer is one message.
const RECORDS: u32 = 256 << 10;

/// Whose shim asks, as the subject of its question says: nobody else may publish there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The agent.
    pub agent: AgentName,
    /// The incarnation.
    pub incarnation: u64,
}

/// What is asked, once it is known that the asker may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MayAsk {
    asker: Asker,
    ask: ShimAsk,
    /// Whether it is known that the incarnation was replaced or has ended.
    is_over: bool,
}

impl MayAsk {
    /// Reads a question.
    ///
    /// # Errors
    /// What is wrong with it: it cannot be read, or is about something of another agent.
    pub fn parse(asker: Asker, payload: &[u8]) -> std::result::Result<Self, String> {
        let ask: ShimAsk = codec::decode(payload).map_err(|error| error.to_string())?;
        let is_own = |key: &MessageKey| key.agent == asker.agent;
        let is_sent = |key: &MessageKey| key.sender.as_str() == asker.agent.as_str();
        let of_another = match &ask {
            ShimAsk::Standing(key) | ShimAsk::Last { key, .. } | ShimAsk::Message(key) => {
                (!is_own(key) && !is_sent(key)).then_some(key)
            }
            ShimAsk::Mark(key)
            | ShimAsk::Bury { key, .. }
            | ShimAsk::Steps { key, .. }
            | ShimAsk::Question { key, .. }
            | ShimAsk::CloseQuestions(key) => (!is_own(key)).then_some(key),
            ShimAsk::Time
            | ShimAsk::Consumer
            | ShimAsk::Between { .. }
            | ShimAsk::TrimLog { .. }
            | ShimAsk::TakesAttempts { .. }
            | ShimAsk::Reach
            | ShimAsk::IsRegistered(_)
            | ShimAsk::Room(_)
            // Its own agent's, whatever the conversation.
            | ShimAsk::Turns { .. }
            | ShimAsk::CountTurns(_) => None,
        };
        match of_another {
            Some(key) => {
                Err(format!("message {} of {} from {}", key.message_id, key.agent, key.sender))
            }
            None => Ok(Self { asker, ask, is_over: false }),
        }
    }

    /// The same, of an incarnation that was replaced or has ended: it is told nothing, and not that it reaches anybody.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn though_over(self) -> std::result::Result<Self, String> {
        if self.ask == ShimAsk::Reach {
            return Ok(Self { is_over: true, ..self });
        }
        Err("it was replaced, or has ended".to_owned())
    }
}

impl Broker {
    /// Answers a shim's question.
    ///
    /// # Errors
    /// When the broker does not answer: the shim asks again.
    pub async fn answer_shim(&self, question: &MayAsk, to: String) -> Result<()> {
        let MayAsk { asker, ask, is_over } = question;
        let told = match self.look_for(asker, ask).await {
            _ if *is_over => Told::Reached(None),
            Err(error) if !error.passes() => Told::Refused(error.to_string()),
            told => told?,
        };
        self.tell_answer(told, to).await
    }

    /// Tells a shim that its question is not answered.
    ///
    /// # Errors
    /// When the client's queue stays full.
    pub async fn refuse_shim(&self, why: String, to: String) -> Result<()> {
        self.tell_answer(Told::Refused(why), to).await
    }

    async fn tell_answer(&self, told: Told, to: String) -> Result<()> {
        let answer = ShimAnswer { at: self.now(), told };
        let frame = codec::encode(&answer).map_err(BrokerError::other)?;
        self.tell(to, frame.into()).await
    }

    async fn look_for(&self, asker: &Asker, ask: &ShimAsk) -> Result<Told> {
        let Asker { agent, incarnation } = asker;
        Ok(match ask {
            ShimAsk::Time => Told::Done,
            ShimAsk::Standing(key) => match self.standing_of(key).await? {
                Standing::Open => Told::Open,
                Standing::Gone => Told::Nothing,
                Standing::Final(stored) => told(self.subjects().final_of(key), &stored)?,
            },
            ShimAsk::Last { key, is_final } => {
                record_or_nothing(self.last_journal(key, *is_final).await?.as_ref())
            }
            ShimAsk::Message(key) => match self.message_of(key).await? {
                Some(stored) => told(self.subjects().request_of(key), &stored)?,
                None => Told::Nothing,
            },
            ShimAsk::Mark(key) => match self.last_mark(key).await? {
                Some(AttemptMark { attempt, incarnation, ended }) => {
                    Told::Mark { attempt, incarnation, ended }
                }
                None => Told::Nothing,
            },
            ShimAsk::Consumer => match self.consumer_of_current(agent, *incarnation).await? {
                Some(state) => consumer(state),
                None => Told::Nothing,
            },
            ShimAsk::Between { from, to } => {
                let (records, more) = self.records_between(agent, *from, *to, RECORDS).await?;
                bounded(records, more)
            }
            ShimAsk::Bury { key, final_, log } => {
                let final_: Final = serde_json::from_slice(final_)
                    .map_err(|error| BrokerError::Refused(format!("its final state: {error}")))?;
                self.bury_failed(key, &final_, log.clone()).await?;
                Told::Done
            }
            ShimAsk::TrimLog { keep } => {
                let keep = usize::try_from(*keep).unwrap_or(usize::MAX);
                self.keep_logs(agent, *incarnation, keep).await?;
                Told::Done
            }
            ShimAsk::TakesAttempts { within } => {
                Told::Is(self.takes_attempts((*within).min(crate::wire::CALL)).await)
            }
            ShimAsk::Reach => Told::Reached(self.leader_reached(agent).await),
            ShimAsk::IsRegistered(agent) => Told::Is(self.is_there(agent).await?),
            ShimAsk::Steps { key, after } => {
                let (records, more) = self.page_of_steps(key, *after, RECORDS).await?;
                bounded(records, more)
            }
            ShimAsk::Question { key, tag } => {
                let records = self.records_of_question(key, tag).await?;
                Told::Records(records.iter().map(ToldRecord::from).collect(), false)
            }
            ShimAsk::CloseQuestions(key) => {
                self.close_questions(key).await?;
                Told::Done
            }
            ShimAsk::Room(shard) => {
                let (left, cause) = self.room_left(*shard).await?;
                Told::Room { left, cause }
            }
            ShimAsk::Turns { conversation, before, limit } => {
                let page = self.page_of_turns(agent, conversation, before.as_deref(), *limit);
                let Page { turns, next } = page.await?;
                Told::Turns { turns: encode(&turns)?.to_vec(), next }
            }
            ShimAsk::CountTurns(conversation) => {
                Told::Count(self.count_turns(agent, conversation).await?)
            }
        })
    }
}

fn record_or_nothing(record: Option<&Record>) -> Told {
    record.map_or(Told::Nothing, |record| Told::Record(record.into()))
}

fn consumer(state: ConsumerState) -> Told {
    let ConsumerState { start, ack_floor, delivered, given, pending, ack_pending, created } = state;
    Told::Consumer { start, ack_floor, delivered, given, pending, ack_pending, created }
}

/// As many of the records as one answer takes, and whether there may be more. One alone always fits: the rest of a message is for headers.
fn bounded(records: Vec<Record>, mut more: bool) -> Told {
    let mut bytes = 0;
    let mut told: Vec<ToldRecord> = Vec::with_capacity(records.len());
    for record in &records {
        bytes += record.payload.len();
        if bytes > RECORDS as usize && !told.is_empty() {
            more = true;
            break;
        }
        told.push(record.into());
    }
    Told::Records(told, more)
}

#[cfg(test)]
mod tests {
    use common::{MessageId, SenderName};

    use super::*;

    fn key(agent: &str, sender: &str) -> MessageKey {
        MessageKey {
            agent: AgentName::new(agent).expect("valid"),
            sender: SenderName::new(sender).expect("valid"),
            message_id: MessageId::new("m1").expect("valid"),
        }
    }

    fn may(ask: &ShimAsk) -> bool {
        let asker = Asker { agent: AgentName::new("a").expect("valid"), incarnation: 3 };
        MayAsk::parse(asker, &codec::encode(ask).expect("small")).is_ok()
    }

    #[test]
    fn a_shim_is_told_of_its_own_agents_messages_and_of_those_that_its_agent_sent() {
        let bury = |key| ShimAsk::Bury { key, final_: Vec::new(), log: Vec::new() };
        for ask in [ShimAsk::Standing, ShimAsk::Message] {
            assert!(may(&ask(key("a", "user"))));
            assert!(may(&ask(key("b", "a"))));
            assert!(!may(&ask(key("b", "user"))));
        }
        for is_final in [false, true] {
            assert!(may(&ShimAsk::Last { key: key("b", "a"), is_final }));
            assert!(!may(&ShimAsk::Last { key: key("b", "c"), is_final }));
        }
        let steps = |key| ShimAsk::Steps { key, after: 0 };
        let question = |key| ShimAsk::Question { key, tag: common::RequestTag::of("q") };
        for ask in [ShimAsk::Mark, bury, steps, question, ShimAsk::CloseQuestions] {
            assert!(may(&ask(key("a", "user"))));
            assert!(
                !may(&ask(key("b", "a"))),
                "another agent's attempts and letters are not its own"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let asker = || Asker { agent: AgentName::new("a").expect("valid"), incarnation: 3 };
        for garbage in [&b""[..], b"\x03", b"{}", b"\xff\xff\xff"] {
            assert!(MayAsk::parse(asker(), garbage).is_err());
        }
    }

    #[test]
    fn an_answer_has_as_many_requests_as_fit_and_at_least_one() {
        let record = |size: usize| Record {
            subject: "s".into(),
            seq: 1,
            at: common::Timestamp::default(),
            headers: async_nats::HeaderMap::new(),
            payload: vec![0; size].into(),
        };
        let fits = |sizes: &[usize]| {
            let told = bounded(sizes.iter().copied().map(record).collect(), false);
            let Told::Records(records, more) = told else { panic!("{told:?}") };
            (records.len(), more)
        };
        assert_eq!(fits(&[]), (0, false));
        assert_eq!(fits(&[900_000]), (1, false));
        assert_eq!(fits(&[900_000, 1]), (1, true));
        assert_eq!(fits(&[100_000, 100_000, 100_000]), (2, true));
    }
}
