//! Requests that repeat another one. Clients of OpenAI's API send a request again after a broken connection, and have no key for it: only a
//! header says that it is a retry. The message that it repeats is found by its content.

use std::time::Duration;

use axum::http::HeaderMap;
use broker::{Attempt as _, Broker, ListQuery, Listed};
use common::api::ApiError;
use common::message::Envelope;
use common::{ConversationId, MessageId, Timestamp};
use mozart_client::now;
use uuid::Uuid;

use crate::caller::Caller;
use crate::problem::Problem;

/// Before this, a retry does not look for what it repeats.
const LATELY: Duration = Duration::from_secs(1_800);
/// A client whose connection breaks comes back at once: what ended before this was not cut off.
const ENDED: Duration = Duration::from_secs(300);
/// Messages that are looked at for what a retry repeats,
const LOOKED: usize = 500;
/// about so many at once,
const ABOUT: usize = 25;
/// for so long.
const PATIENCE: Duration = Duration::from_secs(5);
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
    fn is(&self, message: &MessageId, answer: Option<&str>) -> bool {
        self.message.is_some_and(|previous| previous == message)
            || self.answer.is_some_and(|previous| Some(previous) == answer)
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
    let now = now();
    let looking = same(&caller.client.broker, envelope, own, previous, now);
    // One that is not found in time is one that is not there: its id follows from its content.
    let same = tokio::time::timeout(PATIENCE, looking).await.unwrap_or(Ok(None))?;
    let (message_id, conversation_id) = match same {
        Some(same) => (same.message_id, same.conversation_id),
        None => {
            let id = retried(envelope, own.is_none(), previous, now);
            let conversation = own.map_or_else(|| envelope.conversation_id.clone(), |own| own(&id));
            (id, conversation)
        }
    };
    Ok(Some(Envelope { message_id, conversation_id, ..envelope.clone() }))
}

/// The newest message that a retry may repeat. Of the journal, only what this sender has sent to the agent is read; of the history, which has
/// no place by sender, a bounded number of messages.
async fn same(
    broker: &Broker,
    envelope: &Envelope,
    own: Option<fn(&MessageId) -> ConversationId>,
    previous: Previous<'_>,
    now: Timestamp,
) -> Result<Option<Envelope>, ApiError> {
    const WHAT: &str = "cannot look for what the request repeats";
    let query = ListQuery {
        agent: Some(envelope.agent.clone()),
        conversation: own.is_none().then(|| envelope.tag()),
        sender: Some(envelope.sender.clone()),
        about: ABOUT,
        ..ListQuery::default()
    };
    let mut listing = broker.list(&query).await.attempt(WHAT)?;
    for _looked in 0..LOOKED {
        let Some(listed) = listing.next().await.attempt(WHAT)? else { break };
        match weigh(&listed, envelope, own, previous, now) {
            Weighed::Same => return Ok(Some(listed.request.value)),
            Weighed::Another => {}
            Weighed::Last => break,
        }
    }
    Ok(None)
}

/// What a message is to a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weighed {
    /// What it repeats.
    Same,
    /// Another one.
    Another,
    /// What comes before it is nothing that it repeats.
    Last,
}

fn weigh(
    listed: &Listed,
    envelope: &Envelope,
    own: Option<fn(&MessageId) -> ConversationId>,
    previous: Previous<'_>,
    now: Timestamp,
) -> Weighed {
    let request = &listed.request.value;
    if now.since(listed.request.at) > LATELY {
        return Weighed::Last;
    }
    if request.sender != envelope.sender {
        return Weighed::Another;
    }
    let answer = listed.final_.as_ref().and_then(|final_| final_.value.response.as_deref());
    if previous.is(&request.message_id, answer) {
        return Weighed::Last;
    }
    let conversation =
        own.map_or_else(|| envelope.conversation_id.clone(), |own| own(&request.message_id));
    let ended = listed.final_.as_ref().map(|final_| final_.value.at);
    let is_fresh = ended.is_none_or(|ended| now.since(ended) <= ENDED);
    let is_same = request.message == envelope.message && request.conversation_id == conversation;
    if is_same && is_fresh { Weighed::Same } else { Weighed::Another }
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
    use broker::Stored;
    use common::message::{Final, Outcome};

    use super::*;
    use crate::tests::envelope;

    fn listed(request: Envelope, ended: Option<Timestamp>) -> Listed {
        let at = Timestamp::from_millis(1);
        let final_ = ended.map(|at| {
            let value = Final {
                status: Outcome::Completed,
                response: Some("1".to_owned()),
                reason: None,
                attempts: 1,
                incarnation: Some(1),
                at,
                tail: Vec::new(),
            };
            Stored { value, seq: 2, at }
        });
        let request = Stored { value: request, seq: 1, at };
        Listed { request, final_, attempts: Vec::new(), archived: false }
    }

    #[test]
    fn a_retry_repeats_the_same_text_in_the_same_conversation() {
        let own: Option<fn(&MessageId) -> ConversationId> = Some(|id| ConversationId::from(id));
        let now = Timestamp::from_millis(10);
        let retry = envelope("m9", "c", "hi");
        let weighed = |id: &str, conversation: &str, text: &str, own| {
            let listed = listed(envelope(id, conversation, text), None);
            weigh(&listed, &retry, own, Previous::default(), now)
        };
        assert_eq!(weighed("m1", "m1", "hi", own), Weighed::Same);
        assert_eq!(weighed("m1", "c", "hi", None), Weighed::Same);
        assert_eq!(weighed("m1", "c", "hi", own), Weighed::Another);
        assert_eq!(weighed("m1", "m1", "hi", None), Weighed::Another);
        assert_eq!(weighed("m1", "m1", "ho", own), Weighed::Another);
        let weighed = |listed: &Listed, now| weigh(listed, &retry, own, Previous::default(), now);
        let over = listed(envelope("m1", "m1", "hi"), Some(now));
        assert_eq!(weighed(&over, now), Weighed::Same);
        let late = now.after(ENDED).after(Duration::from_millis(1));
        assert_eq!(weighed(&over, late), Weighed::Another, "it was answered long ago");
        let open = listed(envelope("m1", "m1", "hi"), None);
        let later = Timestamp::from_millis(2).after(LATELY);
        assert_eq!(
            weighed(&open, later),
            Weighed::Last,
            "it was sent long ago, and so were all before it"
        );
        // What the history has of others.
        let mut theirs = envelope("m1", "m1", "hi");
        theirs.sender = "ben".parse().expect("valid");
        assert_eq!(weighed(&listed(theirs, None), now), Weighed::Another);
    }

    #[test]
    fn what_was_answered_before_is_not_what_a_retry_repeats() {
        let id: MessageId = "m1".parse().expect("valid");
        let is = |previous: Previous<'_>| previous.is(&id, Some("1"));
        assert!(is(Previous { message: Some(&id), answer: None }));
        assert!(is(Previous { message: None, answer: Some("1") }));
        assert!(!is(Previous { message: None, answer: Some("2") }));
        assert!(!is(Previous::default()));
        let now = Timestamp::from_millis(10);
        let answered = listed(envelope("m1", "c", "go on"), Some(now));
        let previous = Previous { message: Some(&id), answer: None };
        let retry = envelope("m9", "c", "go on");
        assert_eq!(weigh(&answered, &retry, None, previous, now), Weighed::Last);
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
