//! Sending messages.

use std::time::Duration;

use broker::{Attempt as _, Broker, ListQuery, SendOutcome};
use common::api::{AgentRow, AgentState, ApiError};
use common::message::{Envelope, Final, Kind, MAX_TEXT, Outcome, Status};
use common::{
    AgentName, ConversationId, MessageId, SenderName, Timestamp, TraceParent, failure, later,
};
use serde::Serialize;
use tokio::time::Instant;

use crate::client::{Client, now};

/// What somebody wants to say to an agent.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The agent.
    pub agent: AgentName,
    /// Who says it.
    pub sender: SenderName,
    /// The text.
    pub text: String,
    /// The conversation; none: one of its own.
    pub conversation: Option<ConversationId>,
    /// The id of the message; none: a new one.
    pub id: Option<MessageId>,
    /// Expires when no worker has started it within this time.
    pub deadline: Option<Duration>,
    /// The trace that it belongs to.
    pub traceparent: Option<TraceParent>,
    /// Not to be delivered before this time, by the broker's clock; none: at once.
    pub deliver_at: Option<Timestamp>,
}

impl Draft {
    /// The message.
    #[must_use]
    pub fn envelope(self) -> Envelope {
        let Self { agent, sender, text, conversation, id, deadline, traceparent, deliver_at } =
            self;
        let created_at = now();
        // One that should have been delivered already is delivered now.
        let from = deliver_at.map_or(created_at, |at| at.max(created_at));
        let message_id = id.unwrap_or_else(|| uuid::Uuid::now_v7().into());
        Envelope {
            agent,
            sender,
            kind: Kind::Chat,
            conversation_id: conversation.unwrap_or_else(|| ConversationId::from(&message_id)),
            message_id,
            message: text,
            created_at,
            request_id: None,
            deadline: deadline.map(|within| from.after(within)),
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent,
            scheduled_for: None,
            deliver_at,
        }
    }
}

/// That a message has more text than fits.
#[must_use]
pub fn too_large(cause: &str) -> ApiError {
    let what = "the message is too large";
    let cause = format!("{cause}, at most {MAX_TEXT} fit");
    failure::error(failure::LIMIT, what, cause, "send a reference to the data instead")
}

/// What has become of a message that was sent.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Sent<'a> {
    /// Its id.
    pub message_id: &'a MessageId,
    /// Its agent.
    pub agent: &'a AgentName,
    /// Its status.
    pub status: Status,
    /// When it is to be delivered, if it was sent for later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deliver_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// The answer.
    pub response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// Why there is no answer.
    pub reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    /// How many attempts it took.
    pub attempts: Option<u32>,
}

impl<'a> Sent<'a> {
    /// A message with its status and, once there is one, its final state.
    #[must_use]
    pub fn new(envelope: &'a Envelope, status: Status, final_: Option<&'a Final>) -> Self {
        Self {
            message_id: &envelope.message_id,
            agent: &envelope.agent,
            status,
            deliver_at: envelope.deliver_at,
            response: final_.and_then(|final_| final_.response.as_deref()),
            reason: final_.and_then(|final_| final_.reason.as_deref()),
            attempts: final_.map(|final_| final_.attempts),
        }
    }
}

/// Whether a message is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It is.
    New,
    /// It was stored before.
    Already,
}

/// Demands that the sender has not given the id of a message to one for another agent: the journal's subjects begin with the agent, so that would be
/// another message, but whoever names one means one.
///
/// # Errors
/// 4 when there is such a message; what the broker says.
pub async fn only_here(client: &Client, envelope: &Envelope) -> Result<(), ApiError> {
    let id = &envelope.message_id;
    let found = client.broker.find(id).await.attempt(format!("cannot look up message {id}"))?;
    let other = found.iter().map(|stored| &stored.value).find(|one| is_other(one, envelope));
    match other {
        None => Ok(()),
        Some(other) => {
            let what = format!("another message has the id {id}");
            let cause = match client.sees(&other.agent) {
                true => format!("it is to {}", other.agent),
                // Sent when the sender could see more agents than now.
                false => "it is to another agent".to_owned(),
            };
            Err(failure::error(failure::CONFLICT, what, cause, "another id"))
        }
    }
}

/// Whether a message with the same id is one of the same sender to another agent.
fn is_other(one: &Envelope, envelope: &Envelope) -> bool {
    one.sender == envelope.sender && one.agent != envelope.agent
}

/// Stores a message: on disk when this returns. `again`: it may have been sent before under this id. One that is to be delivered later waits until
/// then, by the broker's clock.
///
/// # Errors
/// 2 when its time is too far ahead; 4 when another message has this id; what the broker says.
pub async fn store(
    broker: &Broker,
    envelope: &Envelope,
    again: bool,
    timeout: Duration,
) -> Result<Known, ApiError> {
    if let Some(deliver_at) = envelope.deliver_at
        && waits(broker, deliver_at).await?
    {
        return store_later(broker, envelope, again, timeout).await;
    }
    let sent = match again {
        true => broker.send_again(envelope, timeout).await,
        false => broker.send(envelope, timeout).await,
    };
    known(envelope, sent.attempt(cannot(envelope)).map_err(|error| unclear(envelope, error))?)
}

/// A message that was sent, as it was stored: of one that had been stored before, the first time of delivery counts.
///
/// # Errors
/// When the broker does not answer.
pub async fn as_stored(
    broker: &Broker,
    envelope: Envelope,
    known: Known,
) -> Result<Envelope, ApiError> {
    let there = match known {
        Known::New => None,
        Known::Already => {
            let what = format!("cannot look up message {}", envelope.message_id);
            broker.message_of(&envelope.key()).await.attempt(what)?
        }
    };
    Ok(there.map_or(envelope, |there| there.value))
}

/// Whether a message waits that is to be delivered then, and is not stored to be delivered at once.
async fn waits(broker: &Broker, deliver_at: Timestamp) -> Result<bool, ApiError> {
    let now = broker.clock().await.attempt("cannot read the broker's clock")?;
    later::waits(deliver_at, now).map_err(|cause| {
        let what = "the message cannot be delivered then";
        failure::error(failure::USAGE, what, cause, "a time within a year")
    })
}

async fn store_later(
    broker: &Broker,
    envelope: &Envelope,
    again: bool,
    timeout: Duration,
) -> Result<Known, ApiError> {
    // LATER tells only of what still waits.
    let there = match again {
        true => broker.message_of(&envelope.key()).await.attempt(cannot(envelope))?,
        false => None,
    };
    let sent = match there {
        Some(there) if there.value.same_content(envelope) => {
            Ok(SendOutcome::Already { seq: there.seq })
        }
        Some(there) => Ok(SendOutcome::Conflict { stored: Box::new(there.value) }),
        None => broker.send_later(envelope, timeout).await,
    };
    known(envelope, sent.attempt(cannot(envelope)).map_err(|error| unclear(envelope, error))?)
}

/// Why a message is not the next one of its conversation.
#[derive(Debug)]
pub enum NotNext {
    /// This one came after the one that it is to follow.
    After(MessageId),
    /// It is not stored for another reason.
    Failed(ApiError),
}

impl From<ApiError> for NotNext {
    fn from(error: ApiError) -> Self {
        Self::Failed(error)
    }
}

/// Stores a message as the one that follows `previous` in their conversation: of several that are to, one is stored, whoever sends them and at
/// whichever process. `again`: as for [`store`].
///
/// # Errors
/// When another message came after that one; as for [`store`].
pub async fn store_after(
    broker: &Broker,
    envelope: &Envelope,
    previous: &MessageId,
    again: bool,
    timeout: Duration,
) -> Result<Known, NotNext> {
    const AGAIN: Duration = Duration::from_millis(20);
    let deadline = Instant::now() + timeout;
    if again
        && let Some(there) = broker.message_of(&envelope.key()).await.attempt(cannot(envelope))?
    {
        let (seq, is_same) = (there.seq, there.value.same_content(envelope));
        let outcome = match is_same {
            true => SendOutcome::Already { seq },
            false => SendOutcome::Conflict { stored: Box::new(there.value) },
        };
        return Ok(known(envelope, outcome)?);
    }
    loop {
        let last = last_of(broker, envelope).await?;
        let place = match &last {
            None => 0,
            Some((id, seq)) if id == previous => *seq,
            Some((id, _)) => return Err(NotNext::After(id.clone())),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = broker.send_next(envelope, place, left).await;
        let sent = sent.attempt(cannot(envelope)).map_err(|error| unclear(envelope, error))?;
        if let Some(outcome) = sent {
            return Ok(known(envelope, outcome)?);
        }
        // Another one was stored meanwhile, or the one before has left the journal.
        if left.is_zero() {
            let cause = "its conversation has changed each time that it was looked at";
            return Err(failure::error(failure::TIMEOUT, cannot(envelope), cause, "").into());
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The last message of the conversation, with its sequence in the journal; 0: it has left it. None: there is none.
async fn last_of(
    broker: &Broker,
    envelope: &Envelope,
) -> Result<Option<(MessageId, u64)>, ApiError> {
    let (agent, tag) = (&envelope.agent, envelope.tag());
    let hot = broker.last_request_within(agent, &tag).await.attempt(cannot(envelope))?;
    if let Some(hot) = hot {
        return Ok(Some((hot.value.message_id, hot.seq)));
    }
    let query = ListQuery {
        agent: Some(agent.clone()),
        conversation: Some(tag),
        about: 1,
        ..ListQuery::default()
    };
    let mut listing = broker.list(&query).await.attempt(cannot(envelope))?;
    let last = listing.next().await.attempt(cannot(envelope))?;
    Ok(last.map(|last| (last.request.value.message_id, 0)))
}

fn cannot(envelope: &Envelope) -> String {
    format!("cannot store message {}", envelope.message_id)
}

/// It may be stored: sent again under its id, it is not stored twice.
fn unclear(envelope: &Envelope, mut error: ApiError) -> ApiError {
    if error.code == failure::TIMEOUT {
        error.try_ = format!("send it again with --id {}", envelope.message_id);
    }
    error
}

fn known(envelope: &Envelope, outcome: SendOutcome) -> Result<Known, ApiError> {
    match outcome {
        SendOutcome::Stored { .. } => Ok(Known::New),
        SendOutcome::Already { .. } => Ok(Known::Already),
        SendOutcome::Conflict { stored } => Err(failure::error(
            failure::CONFLICT,
            format!("another message to {} has the id {}", envelope.agent, envelope.message_id),
            differs(&stored, envelope),
            format!("another --id, or `mozart journal show {}`", envelope.message_id),
        )),
    }
}

fn differs(stored: &Envelope, ours: &Envelope) -> &'static str {
    if stored.message != ours.message {
        "its text differs"
    } else if stored.conversation_id != ours.conversation_id {
        "its conversation differs"
    } else {
        "its kind differs"
    }
}

/// That an agent takes no message until somebody starts it, and why.
pub fn rests(row: &AgentRow) -> Option<String> {
    let agent = &row.agent;
    let (how, reason) = match row.state {
        _ if row.quarantined => {
            let reason = row.reason.as_deref();
            ("quarantined", reason.map(|why| why.strip_prefix("quarantined: ").unwrap_or(why)))
        }
        AgentState::Stopped | AgentState::Stopping => (row.state.as_str(), row.reason.as_deref()),
        AgentState::Starting | AgentState::Running | AgentState::Error => return None,
    };
    let reason = reason.map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("{agent} is {how}{reason}"))
}

/// What is wrong with a final state; none when it is an answer.
pub fn verdict(envelope: &Envelope, final_: &Final) -> Option<ApiError> {
    let id = &envelope.message_id;
    let (how, try_) = match final_.status {
        Outcome::Completed => return None,
        Outcome::Failed => ("failed", format!("`mozart explain {id}`, `mozart dead show {id}`")),
        Outcome::Cancelled => ("was cancelled", "send it again, with another id".to_owned()),
        Outcome::Expired => ("expired", "send it again with a longer --deadline".to_owned()),
    };
    let reason = final_.reason.clone().unwrap_or_default();
    Some(failure::error(failure::FAILED, format!("message {id} {how}"), reason, try_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::envelope;

    fn final_(status: Outcome) -> Final {
        Final {
            status,
            response: None,
            reason: Some("exit code 1".to_owned()),
            attempts: 3,
            incarnation: Some(1),
            at: Timestamp::from_millis(1),
            tail: Vec::new(),
        }
    }

    #[test]
    fn only_an_answer_is_a_success() {
        let envelope = envelope("a", "m1");
        assert_eq!(verdict(&envelope, &final_(Outcome::Completed)), None);
        for status in [Outcome::Failed, Outcome::Cancelled, Outcome::Expired] {
            let error = verdict(&envelope, &final_(status)).expect("no answer");
            assert_eq!((error.code, error.cause.as_str()), (1, "exit code 1"));
        }
    }

    #[test]
    fn the_same_id_is_for_one_agent_of_a_sender() {
        let ours = envelope("a", "m1");
        assert!(is_other(&envelope("b", "m1"), &ours));
        assert!(!is_other(&envelope("a", "m1"), &ours), "the same message");
        let theirs =
            Envelope { sender: SenderName::new("ben").expect("valid"), ..envelope("b", "m1") };
        assert!(!is_other(&theirs, &ours), "another sender");
    }

    #[test]
    fn a_message_without_a_conversation_is_one_of_its_own() {
        let mut draft = Draft {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("ana").expect("valid"),
            text: String::new(),
            conversation: None,
            id: None,
            deadline: None,
            traceparent: None,
            deliver_at: None,
        };
        let first = draft.clone().envelope();
        assert_eq!(first.conversation_id.as_str(), first.message_id.as_str());
        draft.id = Some(MessageId::new("order-7").expect("valid"));
        draft.deadline = Some(Duration::from_secs(5));
        let second = draft.clone().envelope();
        assert_eq!(second.message_id.as_str(), "order-7");
        assert_eq!(second.deadline, Some(second.created_at.after(Duration::from_secs(5))));
        let at = now().after(Duration::from_secs(60));
        draft.deliver_at = Some(at);
        let later = draft.clone().envelope();
        assert_eq!(later.deadline, Some(at.after(Duration::from_secs(5))), "from then on");
        draft.deliver_at = Some(Timestamp::from_millis(9_000));
        let late = draft.envelope();
        assert_eq!(late.deadline, Some(late.created_at.after(Duration::from_secs(5))), "from now");
    }

    #[test]
    fn sent_has_the_fields_that_scripts_rely_on() {
        let envelope = envelope("a", "m1");
        let mut sent = Sent {
            message_id: &envelope.message_id,
            agent: &envelope.agent,
            status: Status::Pending,
            deliver_at: None,
            response: None,
            reason: None,
            attempts: None,
        };
        let json = |sent: &Sent<'_>| serde_json::to_string(sent).expect("plain");
        assert_eq!(json(&sent), r#"{"messageId":"m1","agent":"a","status":"pending"}"#);
        sent.status = Status::Completed;
        sent.response = Some("hi");
        sent.attempts = Some(1);
        assert_eq!(
            json(&sent),
            r#"{"messageId":"m1","agent":"a","status":"completed","response":"hi","attempts":1}"#
        );
    }
}
