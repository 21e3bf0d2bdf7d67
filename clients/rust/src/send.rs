//! Sending messages.

use std::time::Duration;

use broker::{Attempt as _, Broker, SendOutcome};
use common::api::{AgentRow, AgentState, ApiError};
use common::message::{Envelope, Final, Kind, MAX_TEXT, Outcome, Status};
use common::{AgentName, ConversationId, MessageId, SenderName, TraceParent, failure};
use serde::Serialize;

use crate::client::now;

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
}

impl Draft {
    /// The message.
    #[must_use]
    pub fn envelope(self) -> Envelope {
        let Self { agent, sender, text, conversation, id, deadline, traceparent } = self;
        let created_at = now();
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
            deadline: deadline.map(|within| created_at.after(within)),
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent,
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
#[serde(rename_all = "camelCase")]
pub struct Sent<'a> {
    /// Its id.
    pub message_id: &'a MessageId,
    /// Its agent.
    pub agent: &'a AgentName,
    /// Its status.
    pub status: Status,
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

/// Stores a message: on disk when this returns. `again`: it may have been sent before under this id.
///
/// # Errors
/// 4 when another message has this id; what the broker says.
pub async fn store(
    broker: &Broker,
    envelope: &Envelope,
    again: bool,
    timeout: Duration,
) -> Result<Known, ApiError> {
    let what = format!("cannot store message {}", envelope.message_id);
    let sent = match again {
        true => broker.send_again(envelope, timeout).await,
        false => broker.send(envelope, timeout).await,
    };
    let sent = sent.attempt(what).map_err(|mut error| {
        if error.code == failure::TIMEOUT {
            // It may be stored: sent again under its id, it is not stored twice.
            error.try_ = format!("send it again with --id {}", envelope.message_id);
        }
        error
    });
    match sent? {
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
    use common::Timestamp;

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
    fn a_message_without_a_conversation_is_one_of_its_own() {
        let mut draft = Draft {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("ana").expect("valid"),
            text: String::new(),
            conversation: None,
            id: None,
            deadline: None,
            traceparent: None,
        };
        let first = draft.clone().envelope();
        assert_eq!(first.conversation_id.as_str(), first.message_id.as_str());
        draft.id = Some(MessageId::new("order-7").expect("valid"));
        draft.deadline = Some(Duration::from_secs(5));
        let second = draft.envelope();
        assert_eq!(second.message_id.as_str(), "order-7");
        assert_eq!(second.deadline, Some(second.created_at.after(Duration::from_secs(5))));
    }

    #[test]
    fn sent_has_the_fields_that_scripts_rely_on() {
        let envelope = envelope("a", "m1");
        let mut sent = Sent {
            message_id: &envelope.message_id,
            agent: &envelope.agent,
            status: Status::Pending,
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
