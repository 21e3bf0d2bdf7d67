//! What the shim publishes: repeated until it is stored, and held back while it is not known whether this incarnation is
//! still the current one.

use std::time::{Duration, Instant};

use broker::{
    AnswerEnd, Broker, BrokerError, EventBatch, FinalOutcome, Passed, QuestionState, Recalled,
    Requested, Retries, Standing, Stepped, StepsOf, Turns, Unreadable,
};
use common::log::LogLine;
use common::message::{Final, MessageKey, Outcome};
use common::question::{Answered, Asked};
use common::step::Step;
use common::{AgentName, ConversationTag, RequestTag, Timestamp};
use tokio::sync::watch;

use crate::book::Person;
use crate::people::{Act, Acted};
use crate::pump::Unread;
use crate::standing::{Consumer, Found};

/// How long storing a record is tried before the gate is checked again and storing is retried (which is harmless).
pub(crate) const STORE_WITHIN: Duration = Duration::from_secs(5);
/// How long a worker waits for a step to be stored.
const STEP_WITHIN: Duration = Duration::from_secs(600);
/// How long supervisors may refuse to tell of steps: others may know of them.
const REFUSED_WITHIN: Duration = Duration::from_secs(10);
/// How long the broker may take to tell of a consumer.
const LOOK_WITHIN: Duration = Duration::from_secs(2);
/// How long reading what a connection lost may take, at a time.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Open while this incarnation is known to be the current one.
#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Receiver<bool>);

impl Gate {
    pub(crate) fn new(open: watch::Receiver<bool>) -> Self {
        Self(open)
    }

    /// Says something once the gate is open, to its end; none if the gate was closed meanwhile: a publish repeats itself over
    /// reconnects, and by then somebody else may speak.
    pub(crate) async fn through<T>(&mut self, saying: impl Future<Output = T>) -> Option<T> {
        self.until(true).await;
        tokio::select! {
            biased;
            () = self.until(false) => None,
            said = saying => Some(said),
        }
    }

    /// Never returns once nobody can move it any more.
    async fn until(&mut self, open: bool) {
        if self.0.wait_for(|is_open| *is_open == open).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What came of a publish or a look-up.
#[derive(Debug)]
pub(crate) enum Done {
    LookedUp {
        seq: u64,
        final_: Option<Box<Final>>,
        attempts: u32,
        /// Whether there are steps.
        steps: bool,
    },
    /// The text of a message, if its request can still be read.
    Fetched {
        seq: u64,
        text: Option<String>,
    },
    /// With the final state as it was stored.
    Settled {
        seq: u64,
        won: bool,
        final_: Box<Final>,
    },
    Batch {
        seq: u64,
    },
    /// What earlier attempts have stored.
    Recalled {
        seq: u64,
        recalled: Recalled,
    },
    /// A step is stored, or why not.
    Stepped {
        seq: u64,
        attempt: u32,
        ended: Result<Stepped, String>,
    },
    /// With the sizes of the records that were stored, and whether what came before the last of them was removed.
    Logs {
        sizes: Vec<usize>,
        trimmed: bool,
    },
    Buried {
        reply: String,
        /// Whether there was none before.
        stored: bool,
    },
    Refused {
        reply: String,
    },
    Answered {
        request_id: String,
        answer: Result<String, String>,
        key: MessageKey,
        /// Whether nothing of it is open in the journal any more.
        is_final: bool,
    },
    /// What was said in a conversation.
    /// The turns before a message were counted; none if nobody could.
    Counted {
        seq: u64,
        turns: Option<u64>,
        /// Whether anybody was asked.
        asked: bool,
    },
    HistoryRead {
        request_id: String,
        history: Result<Turns, Unread>,
    },
    /// What came of something about a question to a person.
    Person {
        of: (u64, u32),
        request_id: String,
        acted: Acted,
    },
    /// The questions of a message that has ended are removed, or others will do that.
    Closed,
    /// Questions that have their final states.
    Finished(Vec<MessageKey>),
    /// The turn that asked is over.
    NotAsked,
    /// What became of this incarnation's consumer, with what it gave out and never came.
    Looked {
        look: Look,
        found: Found,
        lost: Vec<Requested>,
        /// After which sequence there may be more, or since what was said of the consumer is old by now: to be looked at again.
        again: Option<u64>,
        /// How many deliveries the consumer had made that were all looked for; none if some were not.
        given: Option<u64>,
    },
}

/// Looks for a message's final state, its attempts on record, and whether it has steps.
pub(crate) async fn look_up(broker: Broker, seq: u64, key: MessageKey) -> Done {
    let mut retries = Retries::new("looking up a message");
    loop {
        let (standing, mark, steps) = tokio::join!(
            broker.standing_of(&key),
            broker.last_mark(&key),
            broker.has_steps_of(&key)
        );
        // Supervisors of the version before know of no steps: there may be some.
        let steps = if let Err(BrokerError::Refused(_)) = steps { Ok(true) } else { steps };
        match (standing, mark, steps) {
            (Ok(standing), Ok(mark), Ok(steps)) => {
                let attempts = mark.map_or(0, |mark| mark.attempt);
                let final_ = match standing {
                    Standing::Open => None,
                    Standing::Final(stored) => Some(Box::new(stored.value)),
                    // Whoever delivered it had it: it was finished since, and is not kept.
                    Standing::Gone => Some(Box::new(gone(broker.now()))),
                };
                return Done::LookedUp { seq, final_, attempts, steps };
            }
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                retries.pause(&error).await;
            }
        }
    }
}

/// The end of a message that no longer exists.
fn gone(at: Timestamp) -> Final {
    Final {
        status: Outcome::Cancelled,
        response: None,
        reason: Some("it is no longer kept".to_owned()),
        attempts: 0,
        incarnation: None,
        at,
        tail: Vec::new(),
    }
}

/// Reads the text of a message again.
pub(crate) async fn fetch(broker: Broker, seq: u64, key: MessageKey) -> Done {
    let mut retries = Retries::new("reading a message again");
    loop {
        match broker.request_of(&key).await {
            Ok(request) => return Done::Fetched { seq, text: request.map(|it| it.value.message) },
            Err(BrokerError::Malformed { .. }) => return Done::Fetched { seq, text: None },
            Err(error) => retries.pause(&error).await,
        }
    }
}

/// Which of these messages are final.
pub(crate) async fn finished(broker: Broker, keys: Vec<MessageKey>) -> Done {
    let mut finished = Vec::new();
    for key in keys {
        match broker.final_of(&key).await {
            Ok(Some(_)) | Err(BrokerError::Malformed { .. }) => finished.push(key),
            // One that was given up before it was stored.
            Ok(None) if matches!(broker.request_of(&key).await, Ok(None)) => finished.push(key),
            Ok(None) => {}
            // They are asked for again, with those that come until then.
            Err(error) => {
                tracing::warn!("cannot look up the final states of questions: {error}");
                break;
            }
        }
    }
    Done::Finished(finished)
}

/// Stores a final state.
pub(crate) async fn settle(
    broker: Broker,
    mut gate: Gate,
    seq: u64,
    (key, conversation): (MessageKey, ConversationTag),
    author: String,
    mut final_: Box<Final>,
) -> Done {
    let mut retries = Retries::new("storing a final state");
    loop {
        let publish = broker.settle(&key, &conversation, seq, &final_, &author, STORE_WITHIN);
        let Some(published) = gate.through(publish).await else { continue };
        match published {
            Ok(FinalOutcome::Won) => return Done::Settled { seq, won: true, final_ },
            Ok(FinalOutcome::Lost(_) | FinalOutcome::Gone) => {
                return Done::Settled { seq, won: false, final_ };
            }
            Err(error) => {
                let Err(error) = retries.after(error).await else { continue };
                if final_.response.is_none() && final_.tail.is_empty() {
                    // Nothing is left to cut: no repetition of it can be stored.
                    tracing::error!("gave up on storing a final state: {error}");
                    return Done::Settled { seq, won: false, final_ };
                }
                final_.status = Outcome::Failed;
                final_.response = None;
                final_.tail.clear();
                final_.reason = Some(format!("the answer cannot be stored: {error}"));
            }
        }
    }
}

/// Stores the final state of a request that cannot be read. If there is one already, the request is only acknowledged.
pub(crate) async fn refuse(broker: Broker, mut gate: Gate, unreadable: Unreadable) -> Done {
    let final_ = Final {
        status: Outcome::Failed,
        response: None,
        reason: Some(format!("the request cannot be read: {}", unreadable.reason)),
        attempts: 0,
        incarnation: None,
        at: broker.now(),
        tail: Vec::new(),
    };
    let Unreadable { key, conversation, seq, reply, .. } = unreadable;
    let mut retries = Retries::new("storing the final state of a request that cannot be read");
    loop {
        let publish = broker.settle(&key, &conversation, seq, &final_, "refused", STORE_WITHIN);
        let Some(published) = gate.through(publish).await else { continue };
        match published {
            Ok(_) => return Done::Refused { reply },
            Err(error) => {
                if let Err(error) = retries.after(error).await {
                    tracing::error!(
                        "cannot store the final state of a request that cannot be read: {error}"
                    );
                    return Done::Refused { reply };
                }
            }
        }
    }
}

/// Reads what earlier attempts have stored, and keeps earlier incarnations from adding to it.
pub(crate) async fn recall(broker: Broker, mut gate: Gate, seq: u64, of: StepsOf) -> Done {
    let mut retries = Retries::new("reading the steps of earlier attempts");
    let began = Instant::now();
    loop {
        let recalling = broker.recall_steps(&of, STORE_WITHIN);
        let Some(recalled) = gate.through(recalling).await else { continue };
        match recalled {
            Ok(recalled) => return Done::Recalled { seq, recalled },
            // Supervisors of the version before know of no steps.
            Err(BrokerError::Refused(why)) if began.elapsed() > REFUSED_WITHIN => {
                tracing::error!("the turn begins without its steps: {why}");
                return Done::Recalled { seq, recalled: Recalled::default() };
            }
            Err(error) => retries.pause(&error).await,
        }
    }
}

/// Stores a step.
pub(crate) async fn step(
    broker: Broker,
    gate: Gate,
    seq: u64,
    of: StepsOf,
    step: Step,
    after: u64,
) -> Done {
    let attempt = of.attempt;
    let storing = storing(broker, gate, of, step, after);
    let ended = tokio::time::timeout(STEP_WITHIN, storing).await.unwrap_or_else(|_| {
        Err(format!("the broker did not confirm it within {STEP_WITHIN:?}: it may be stored"))
    });
    Done::Stepped { seq, attempt, ended }
}

async fn storing(
    broker: Broker,
    mut gate: Gate,
    of: StepsOf,
    step: Step,
    after: u64,
) -> Result<Stepped, String> {
    let mut retries = Retries::new("storing a step");
    loop {
        let storing = broker.store_step(&of, &step, after, STORE_WITHIN);
        let Some(stored) = gate.through(storing).await else { continue };
        match stored {
            Ok(stepped) => return Ok(stepped),
            // It may pass, but the worker can do something about it: go on without.
            Err(error @ BrokerError::Full(_)) => return Err(error.to_string()),
            Err(error) => retries.after(error).await.map_err(|error| error.to_string())?,
        }
    }
}

/// Does something about a question to a person.
pub(crate) async fn person(broker: Broker, mut gate: Gate, seq: u64, person: Person) -> Done {
    let Person { key, asked, act } = person;
    let (of, request_id) = ((seq, asked.attempt), asked.question.request_id.clone());
    let told = async {
        match act {
            Act::Ask => asking(&broker, &mut gate, &key, &asked).await,
            Act::Look => {
                let tag = RequestTag::of(&asked.question.request_id);
                broker.question(&key, &tag).await.map_err(|error| error.to_string())
            }
            Act::End => Ok(ending(&broker, &mut gate, &key, asked).await),
        }
    };
    let acted = match (tokio::time::timeout(STEP_WITHIN, told).await, act) {
        (Ok(Ok(state)), _) => {
            let left = match (&state, broker.now_at_least()) {
                (QuestionState::Open { until, .. }, Some(now)) => until.since(now),
                // Late is better than early.
                (QuestionState::Open { asked, .. }, None) => {
                    Duration::from_millis(asked.question.timeout_ms)
                }
                _ => Duration::ZERO,
            };
            Acted::Is(Box::new(state), left)
        }
        (Ok(Err(why)), Act::Ask) => Acted::Refused(why),
        (Err(_), Act::Ask) => Acted::Refused(format!(
            "the broker did not confirm the question within {STEP_WITHIN:?}: it may be open"
        )),
        (Ok(Err(_)) | Err(_), Act::Look | Act::End) => Acted::NotKnown,
    };
    Done::Person { of, request_id, acted }
}

async fn asking(
    broker: &Broker,
    gate: &mut Gate,
    key: &MessageKey,
    asked: &Asked,
) -> Result<QuestionState, String> {
    let mut retries = Retries::new("storing a question");
    loop {
        let asking = broker.ask_person(key, asked, STORE_WITHIN);
        let Some(state) = gate.through(asking).await else { continue };
        match state {
            Ok(state) => return Ok(state),
            // It may pass, but the worker can do something about it: go on without.
            Err(error @ BrokerError::Full(_)) => return Err(error.to_string()),
            Err(error) => retries.after(error).await.map_err(|error| error.to_string())?,
        }
    }
}

/// Nobody has answered in time: that is stored, unless somebody just has.
async fn ending(broker: &Broker, gate: &mut Gate, key: &MessageKey, asked: Asked) -> QuestionState {
    let nobody = Answered::nobody(asked.question, uuid::Uuid::now_v7().to_string());
    let mut retries = Retries::new("ending a question");
    loop {
        let ending = broker.answer_question(key, &asked.conversation_id, &nobody, STORE_WITHIN);
        let Some(end) = gate.through(ending).await else { continue };
        match end {
            Ok(AnswerEnd::Stored) => return QuestionState::Answered(nobody),
            Ok(AnswerEnd::Already(first)) => return QuestionState::Answered(*first),
            Err(error) => {
                if let Err(error) = retries.after(error).await {
                    // The worker gets what it would get; another attempt ends it again.
                    tracing::error!("cannot store how a question has ended: {error}");
                    return QuestionState::Answered(nobody);
                }
            }
        }
    }
}

/// Removes the questions of a message that has ended. What stays is removed by whoever lists it.
pub(crate) async fn close_questions(broker: Broker, key: MessageKey) -> Done {
    if let Err(error) = broker.close_questions(&key).await {
        tracing::debug!(%error, "the questions of a message stay for now");
    }
    Done::Closed
}

/// Stores events.
pub(crate) async fn events(broker: Broker, mut gate: Gate, seq: u64, batch: EventBatch) -> Done {
    let mut retries = Retries::new("storing events");
    loop {
        let Some(published) = gate.through(broker.publish_events(&batch)).await else { continue };
        match published {
            Ok(()) => return Done::Batch { seq },
            Err(error) => {
                // The final state carries the whole text; a batch that can never be stored must not stop the turn.
                if let Err(error) = retries.after(error).await {
                    tracing::error!("dropped events: {error}");
                    return Done::Batch { seq };
                }
            }
        }
    }
}

/// Stores a dead letter with what every attempt ended with.
pub(crate) async fn bury(
    broker: Broker,
    mut gate: Gate,
    key: MessageKey,
    final_: Box<Final>,
    log: Vec<String>,
    reply: String,
) -> Done {
    let mut retries = Retries::new("storing a dead letter");
    loop {
        let burying = broker.bury_failed(&key, &final_, log.clone());
        let Some(buried) = gate.through(burying).await else { continue };
        match buried {
            Ok(stored) => return Done::Buried { reply, stored },
            Err(error) => {
                // The final state says why it failed; a letter that can never be stored must not keep the message.
                if let Err(error) = retries.after(error).await {
                    tracing::error!("dropped a dead letter: {error}");
                    return Done::Buried { reply, stored: false };
                }
            }
        }
    }
}

/// What is to be looked up.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) number: u64,
    pub(crate) agent: AgentName,
    pub(crate) incarnation: u64,
    pub(crate) name: String,
    /// Read what was given out after this sequence, too.
    pub(crate) after: Option<u64>,
    /// What is known to have been given out: a consumer with replicas says so a little later.
    pub(crate) passed: Option<Passed>,
}

/// Looks whether this incarnation's consumer is there, and reads from the journal what it gave out and never came: that was lost
/// with a connection, and would come again only after later messages of its conversations.
pub(crate) async fn look(broker: Broker, look: Look) -> Done {
    let asked = Instant::now();
    let looking = async {
        let of_it = broker.consumer_of_current(&look.agent, look.incarnation);
        let Some(consumer) = within(LOOK_WITHIN, of_it).await? else {
            return Ok((Found::Gone, Vec::new(), None, None));
        };
        let delivered = look.passed.map_or(0, |passed| passed.seq).max(consumer.delivered);
        // What is before its start, it gave out to nobody.
        let after = look.after.map(|after| after.max(consumer.start.saturating_sub(1)));
        let (lost, again) = match after {
            Some(after) if delivered > after => {
                let lost = broker.requests_between(&look.agent, after + 1, delivered);
                let (lost, more) = within(READ_WITHIN, lost).await?;
                let last = lost.last().map(Requested::seq).filter(|_| more);
                // However long reading took, it is over, and the next look-up is quick.
                let is_old = asked.elapsed() > LOOK_WITHIN;
                (lost, last.or(is_old.then_some(delivered)))
            }
            _ => (Vec::new(), None),
        };
        let (name, created) = (look.name.clone(), Some(consumer.created));
        // All up to there was looked for.
        let passed = look.passed.map_or(0, |passed| passed.given);
        let given = after.filter(|_| again.is_none()).map(|_| consumer.given.max(passed));
        Ok::<_, BrokerError>((Found::There(Consumer { name, created }), lost, again, given))
    };
    let (found, lost, again, given) = looking.await.unwrap_or_else(|error| {
        tracing::warn!("cannot look up the consumer: {error}");
        if matches!(error, BrokerError::Timeout(_)) {
            broker.consumer_is_unseen(asked.elapsed());
        }
        (Found::NoAnswer, Vec::new(), None, None)
    });
    Done::Looked { look, found, lost, again, given }
}

/// The same, as a timeout if it takes longer.
async fn within<T>(
    time: Duration,
    call: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    tokio::time::timeout(time, call).await.unwrap_or(Err(BrokerError::Timeout(time)))
}

/// Stores log lines: they wait for a connection, and are lost with it if it breaks just then. Done once they are with the server,
/// so that no more than these wait in the client. `keep`: of the records before, only so many are to stay.
pub(crate) async fn logs(
    broker: Broker,
    agent: AgentName,
    incarnation: u64,
    lines: Vec<LogLine>,
    keep: Option<usize>,
) -> Done {
    let (mut sizes, mut trimmed) = (Vec::new(), false);
    if broker.link().wait_for(|link| link.up).await.is_ok() {
        let published = broker.publish_logs(&agent, incarnation, &lines).await;
        match published {
            Ok(published) => sizes = published,
            Err(error) => tracing::warn!("{} log lines may be lost: {error}", lines.len()),
        }
        if let Err(error) = broker.flush(STORE_WITHIN).await {
            tracing::warn!("{} log lines may be lost: {error}", lines.len());
        } else if let Some(keep) = keep {
            match broker.keep_logs(&agent, incarnation, keep + sizes.len()).await {
                Ok(()) => trimmed = true,
                Err(error) => tracing::warn!("cannot trim the log: {error}"),
            }
        }
    }
    Done::Logs { sizes, trimmed }
}
