//! Requests that repeat another one. Clients of OpenAI's API send a request again after a broken connection, and have no key for it: only a
//! header says that it is a retry. The message that it repeats is found by its content.

use std::time::Duration;

use axum::http::HeaderMap;
use common::api::MessageRow;
use common::message::Envelope;
use common::{ConversationId, MessageId, Timestamp};
use mozart_client::journal::{self, Wanted};
use mozart_client::now;
use uuid::Uuid;

use crate::caller::Caller;
use crate::problem::Problem;

/// Before this, a retry does not look for what it repeats.
const LATELY: Duration = Duration::from_secs(1_800);
/// A client whose connection breaks comes back at once: what ended before this was not cut off.
const ENDED: Duration = Duration::from_secs(300);
/// Messages that are looked at for what a retry repeats.
const LOOKED: usize = 50;
/// Retries of the same that come within this time, and find nothing that they repeat, are one message.
const TOGETHER: u64 = 600_000;
/// The namespace of the ids of messages that were first seen as retries.
const RETRIED: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_7265_7472_7964);

pub(super) fn number(headers: &HeaderMap, name: &str) -> Option<f64> {
    headers.get(name)?.to_str().ok()?.parse().ok()
}

/// What comes before a message, as its sender knows it: what a retry repeats comes after that.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Previous<'a> {
    /// The message.
    pub(super) message: Option<&'a MessageId>,
    /// The answer.
    pub(super) answer: Option<&'a str>,
}

impl Previous<'_> {
    fn is(&self, row: &MessageRow) -> bool {
        self.message.is_some_and(|message| *message == row.message_id)
            || self.answer.is_some_and(|answer| Some(answer) == row.response.as_deref())
    }
}

/// The message that a retry is; none if it is no retry. `own`: the conversation of a message that has one of its own; none: what is sent is
/// part of another one.
///
/// A retry whose first try was not stored gets an id that follows from its content. So several that come at once, to whichever processes,
/// are one message.
pub(super) async fn repeated(
    caller: &Caller,
    headers: &HeaderMap,
    envelope: &Envelope,
    own: Option<fn(&MessageId) -> ConversationId>,
    previous: Previous<'_>,
) -> Result<Option<Envelope>, Problem> {
    if number(headers, "x-stainless-retry-count").is_none_or(|count| count < 1.0) {
        return Ok(None);
    }
    let wanted = Wanted {
        agent: Some(envelope.agent.clone()),
        sender: Some(envelope.sender.clone()),
        conversation: own.is_none().then(|| envelope.conversation_id.clone()),
        since: Some(LATELY),
        limit: LOOKED,
        ..Wanted::default()
    };
    let listed = journal::list(&caller.client.broker, &wanted).await?;
    let now = now();
    let mut after = listed.rows.into_iter().rev().take_while(|row| !previous.is(row));
    let same = after.find(|row| is_same(row, envelope, own, now));
    let (message_id, conversation_id) = match same {
        Some(row) => (row.message_id, row.conversation_id),
        None => {
            let id = retried(envelope, own.is_none(), previous, now);
            let conversation = own.map_or_else(|| envelope.conversation_id.clone(), |own| own(&id));
            (id, conversation)
        }
    };
    Ok(Some(Envelope { message_id, conversation_id, ..envelope.clone() }))
}

/// Whether a message is one that a retry may repeat.
fn is_same(
    row: &MessageRow,
    envelope: &Envelope,
    own: Option<fn(&MessageId) -> ConversationId>,
    now: Timestamp,
) -> bool {
    let conversation =
        own.map_or_else(|| envelope.conversation_id.clone(), |own| own(&row.message_id));
    let is_fresh = !row.status.is_final() || now.since(row.updated_at) <= ENDED;
    row.message == envelope.message && row.conversation_id == conversation && is_fresh
}

/// The id of a retry that repeats nothing that is stored.
fn retried(
    envelope: &Envelope,
    has_conversation: bool,
    Previous { message, answer }: Previous<'_>,
    now: Timestamp,
) -> MessageId {
    let conversation = has_conversation.then_some(envelope.conversation_id.as_str());
    let name = format!(
        "{}\n{}\n{}\n{}\n{}\n{:?}\n{}",
        envelope.sender,
        envelope.agent,
        conversation.unwrap_or_default(),
        now.as_millis() / TOGETHER,
        message.map(MessageId::as_str).unwrap_or_default(),
        answer.unwrap_or_default(),
        envelope.message
    );
    Uuid::new_v5(&RETRIED, name.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use common::message::Kind;

    use super::*;

    fn envelope(id: &str, conversation: &str, text: &str) -> Envelope {
        Envelope {
            message_id: id.parse().expect("valid"),
            agent: "a".parse().expect("valid"),
            sender: "ana".parse().expect("valid"),
            kind: Kind::Chat,
            conversation_id: conversation.parse().expect("valid"),
            message: text.to_owned(),
            created_at: Timestamp::from_millis(1),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: None,
        }
    }

    #[test]
    fn a_retry_repeats_the_same_text_in_the_same_conversation() {
        let own: Option<fn(&MessageId) -> ConversationId> = Some(|id| ConversationId::from(id));
        let row = |id: &str, conversation: &str, text: &str| {
            journal::row(envelope(id, conversation, text), None, &[])
        };
        let is = |row: &MessageRow, own| {
            is_same(row, &envelope("m9", "c", "hi"), own, Timestamp::from_millis(10))
        };
        assert!(is(&row("m1", "m1", "hi"), own) && is(&row("m1", "c", "hi"), None));
        assert!(!is(&row("m1", "c", "hi"), own) && !is(&row("m1", "m1", "hi"), None));
        assert!(!is(&row("m1", "m1", "ho"), own));
        let mut over = row("m1", "m1", "hi");
        over.status = common::message::Status::Completed;
        assert!(is(&over, own));
        let late = Timestamp::from_millis(10).after(ENDED);
        assert!(!is_same(&over, &envelope("m9", "c", "hi"), own, late), "it was answered long ago");
    }

    #[test]
    fn what_was_answered_before_is_not_what_a_retry_repeats() {
        let mut row = journal::row(envelope("m1", "c", "go on"), None, &[]);
        row.response = Some("1".to_owned());
        let id: MessageId = "m1".parse().expect("valid");
        assert!(Previous { message: Some(&id), answer: None }.is(&row));
        assert!(Previous { message: None, answer: Some("1") }.is(&row));
        assert!(!Previous { message: None, answer: Some("2") }.is(&row));
        assert!(!Previous::default().is(&row));
    }

    #[test]
    fn retries_at_once_are_one_message() {
        let at = Timestamp::from_millis(TOGETHER * 7 + 5);
        let none = Previous::default();
        let id = |envelope: &Envelope, named| retried(envelope, named, none, at);
        let first = id(&envelope("m1", "m1", "hi"), false);
        assert_eq!(first, id(&envelope("m2", "m2", "hi"), false));
        assert_ne!(first, id(&envelope("m1", "m1", "ho"), false));
        assert_ne!(first, id(&envelope("m1", "c", "hi"), true));
        let later = Timestamp::from_millis(TOGETHER * 8);
        assert_ne!(first, retried(&envelope("m1", "m1", "hi"), false, none, later));
        let answered = Previous { answer: Some("1"), ..none };
        assert_ne!(first, retried(&envelope("m1", "m1", "hi"), false, answered, at));
    }
}
