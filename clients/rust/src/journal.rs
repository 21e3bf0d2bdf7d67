//! What the journal, the history and the events say about messages.

use std::time::Duration;

use broker::{Attempt as _, Broker, Cursor, EventBatch, Found, ListQuery};
use common::api::{ApiError, MessageDetail, MessageRow};
use common::event::{ATTEMPT_STRIDE, Event, EventBody, sequence};
use common::message::{AttemptEnd, Envelope, Final, Status};
use common::{AgentName, ConversationId, ConversationTag, SenderName, Timestamp};

use crate::client::now;
use crate::reference::MessageRef;

/// The most messages that are read to find those with a status; then a cursor is printed to continue from.
const LOOKED: usize = 20_000;

/// Which messages.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only those to this agent.
    pub agent: Option<AgentName>,
    /// Only those of this conversation, which belongs to one agent.
    pub conversation: Option<ConversationId>,
    /// Only those from this sender.
    pub sender: Option<SenderName>,
    /// Only those with one of these statuses; empty: with any.
    pub statuses: Vec<Statuses>,
    /// Only those sent within this time.
    pub since: Option<Duration>,
    /// Only those before the place that an earlier page ended with.
    pub before: Option<Cursor>,
    /// At most so many.
    pub limit: usize,
}

/// Statuses of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statuses {
    /// This one.
    One(Status),
    /// Any that is not final.
    Open,
}

impl Statuses {
    fn is_open(self) -> bool {
        match self {
            Self::One(status) => !status.is_final(),
            Self::Open => true,
        }
    }

    fn matches(self, status: Status) -> bool {
        match self {
            Self::One(one) => one == status,
            Self::Open => !status.is_final(),
        }
    }
}

impl Wanted {
    /// Whether a message is one of these, as far as its request says.
    #[must_use]
    pub fn is_of(&self, request: &Envelope) -> bool {
        self.conversation.as_ref().is_none_or(|wanted| *wanted == request.conversation_id)
            && self.sender.as_ref().is_none_or(|wanted| *wanted == request.sender)
    }

    /// Whether it is one of these, as far as its status says.
    #[must_use]
    pub fn is_status(&self, status: Status) -> bool {
        self.statuses.is_empty() || self.statuses.iter().any(|one| one.matches(status))
    }
}

/// A page of messages.
#[derive(Debug)]
pub struct Page {
    /// The messages, oldest first.
    pub rows: Vec<MessageRow>,
    /// Where the page before this one ends; none if there is none.
    pub older: Option<Cursor>,
    /// How many records were left out.
    pub unreadable: usize,
}

/// The newest messages.
///
/// # Errors
/// When the broker does not answer.
pub async fn list(broker: &Broker, wanted: &Wanted) -> Result<Page, ApiError> {
    const WHAT: &str = "cannot read the journal";
    let limit = wanted.limit;
    let query = ListQuery {
        agent: wanted.agent.clone(),
        conversation: wanted.conversation.as_ref().map(ConversationTag::of_conversation),
        after: wanted.before.clone(),
        about: limit,
        hot: !wanted.statuses.is_empty() && wanted.statuses.iter().all(|status| status.is_open()),
    };
    let now = now();
    let mut listing = broker.list(&query).await.attempt(WHAT)?;
    let (mut rows, mut looked, mut more) = (Vec::new(), 0, false);
    while let Some(listed) = listing.next().await.attempt(WHAT)? {
        looked += 1;
        // As its age is shown: what was imported was sent long before it was stored here.
        let sent = listed.request.value.created_at.min(listed.request.at);
        if let Some(since) = wanted.since
            && now.since(sent) > since
        {
            // The history is in the order in which messages finished: what finished before has nothing younger behind it.
            let finished = listed.final_.as_ref().filter(|_| listed.archived);
            if looked >= LOOKED || finished.is_some_and(|final_| now.since(final_.at) > since) {
                break;
            }
            continue;
        }
        let request = listed.request.value;
        let final_ = listed.final_.map(|stored| stored.value);
        if wanted.is_of(&request) {
            let events = match final_ {
                Some(_) => Vec::new(),
                None => events(broker, &request).await?,
            };
            let row = row(request, final_.as_ref(), &events);
            rows.extend(Some(row).filter(|row| wanted.is_status(row.status)));
        }
        if rows.len() >= limit || looked >= LOOKED {
            more = true;
            break;
        }
    }
    rows.reverse();
    let older = more.then(|| listing.place());
    Ok(Page { rows, older, unreadable: listing.unreadable() })
}

/// A message with its history.
///
/// # Errors
/// 3 when there is no such message.
pub async fn detail(broker: &Broker, message: &MessageRef) -> Result<MessageDetail, ApiError> {
    let Found { request, archived } = message.resolve_whole(broker).await?;
    let request = request.value;
    let what = || format!("cannot read message {}", request.message_id);
    let key = request.key();
    let events = async { events(broker, &request).await };
    let (final_, mut attempts, batches) = match archived {
        Some(archived) => (Some(archived.final_.value), Some(archived.attempts), events.await?),
        None => {
            let outcome = async { broker.outcome_of(&key).await.attempt(what()) };
            let (outcome, batches) = tokio::try_join!(outcome, events)?;
            (outcome.map(|stored| stored.value), None, batches)
        }
    };
    let mut ends = Vec::new();
    if let Some(final_) = final_.as_ref().filter(|final_| final_.attempts > 1)
        && batches.is_empty()
    {
        // EVENTS keeps less than the history does.
        if attempts.is_none() {
            let archived = broker.archived_of(&key).await.attempt(what())?;
            attempts = archived.map(|archived| archived.attempts);
        }
        ends = attempts.into_iter().flatten().map(|end| ended(end, final_.at)).collect();
    }
    let row = row(request, final_.as_ref(), &batches);
    ends.extend(history(batches, final_));
    Ok(MessageDetail { row, history: ends })
}

/// An attempt's end as the event that it was; when that was is not kept.
fn ended(end: AttemptEnd, at: Timestamp) -> Event {
    let AttemptEnd { attempt, error, .. } = end;
    Event { seq: sequence(attempt, ATTEMPT_STRIDE), at, body: EventBody::Error { error } }
}

/// The status of a message.
///
/// # Errors
/// When the broker does not answer.
pub async fn status(broker: &Broker, request: &Envelope) -> Result<Status, ApiError> {
    let what = format!("cannot look up message {}", request.message_id);
    if let Some(final_) = broker.outcome_of(&request.key()).await.attempt(what)? {
        return Ok(final_.value.status.into());
    }
    Ok(open_status(&events(broker, request).await?))
}

async fn events(broker: &Broker, request: &Envelope) -> Result<Vec<EventBatch>, ApiError> {
    let what = format!("cannot read the events of {}", request.message_id);
    broker.events(&request.key()).await.attempt(what)
}

/// The status of a message that is not final: the last of `delivered` and `acknowledged`.
fn open_status(batches: &[EventBatch]) -> Status {
    batches
        .iter()
        .flat_map(|batch| &batch.events)
        .rev()
        .find_map(|event| match event.body {
            EventBody::Delivered { .. } => Some(Status::Delivered),
            EventBody::Acknowledged => Some(Status::Acknowledged),
            EventBody::Text { .. }
            | EventBody::Worker { .. }
            | EventBody::Error { .. }
            | EventBody::Reset { .. } => None,
        })
        .unwrap_or(Status::Pending)
}

/// A message as lists show it. `batches`: its events, if it is not final.
#[must_use]
pub fn row(request: Envelope, final_: Option<&Final>, batches: &[EventBatch]) -> MessageRow {
    let last_event = batches.iter().flat_map(|batch| &batch.events).map(|event| event.at).max();
    MessageRow {
        status: final_.map_or_else(|| open_status(batches), |final_| final_.status.into()),
        attempts: final_.map_or_else(
            || batches.iter().map(|batch| batch.attempt).max().unwrap_or(0),
            |final_| final_.attempts,
        ),
        response: final_.and_then(|final_| final_.response.clone()),
        reason: final_.and_then(|final_| final_.reason.clone()),
        updated_at: final_.map(|final_| final_.at).or(last_event).unwrap_or(request.created_at),
        message_id: request.message_id,
        agent: request.agent,
        sender: request.sender,
        conversation_id: request.conversation_id,
        kind: request.kind,
        message: request.message,
        created_at: request.created_at,
        cause: request.cause,
        redrive_of: request.redrive_of,
    }
}

/// All events in order: a final state brings those along that were not stored before it.
fn history(batches: Vec<EventBatch>, final_: Option<Final>) -> Vec<Event> {
    let mut history: Vec<Event> = batches.into_iter().flat_map(|batch| batch.events).collect();
    let known = history.len();
    for event in final_.into_iter().flat_map(|final_| final_.tail) {
        if !history[..known].iter().any(|seen| seen.seq == event.seq) {
            history.push(event);
        }
    }
    history
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::envelope;
    use common::message::Outcome;

    fn batch(attempt: u32, events: Vec<(u64, EventBody)>) -> EventBatch {
        let request = envelope("a", "m1");
        let event = |(seq, body)| Event { seq, at: Timestamp::from_millis(10 + seq), body };
        EventBatch {
            agent: request.agent,
            sender: request.sender,
            message_id: request.message_id,
            conversation_id: request.conversation_id,
            incarnation: 1,
            attempt,
            events: events.into_iter().map(event).collect(),
        }
    }

    fn text(text: &str) -> EventBody {
        EventBody::Text { text: text.to_owned() }
    }

    #[test]
    fn an_open_message_stands_where_its_last_event_says() {
        let mut batches = Vec::new();
        assert_eq!(open_status(&batches), Status::Pending);
        batches.push(batch(1, vec![(1, EventBody::Delivered { incarnation: 1 }), (2, text("x"))]));
        assert_eq!(open_status(&batches), Status::Delivered);
        batches.push(batch(1, vec![(3, EventBody::Acknowledged), (4, text("y"))]));
        assert_eq!(open_status(&batches), Status::Acknowledged);
        let row = row(envelope("a", "m1"), None, &batches);
        assert_eq!((row.status, row.attempts), (Status::Acknowledged, 1));
        assert_eq!(row.updated_at, Timestamp::from_millis(14));
    }

    #[test]
    fn a_final_state_has_the_last_word_and_brings_its_tail() {
        let final_ = Final {
            status: Outcome::Completed,
            response: Some("xy".to_owned()),
            reason: None,
            attempts: 2,
            incarnation: Some(1),
            at: Timestamp::from_millis(99),
            tail: vec![
                Event { seq: 2, at: Timestamp::from_millis(12), body: text("x") },
                Event { seq: 3, at: Timestamp::from_millis(13), body: text("y") },
            ],
        };
        let batches =
            vec![batch(1, vec![(1, EventBody::Delivered { incarnation: 1 }), (2, text("x"))])];
        let row = row(envelope("a", "m1"), Some(&final_), &batches);
        assert_eq!((row.status, row.attempts), (Status::Completed, 2));
        assert_eq!(row.updated_at, Timestamp::from_millis(99));
        let seqs: Vec<u64> = history(batches, Some(final_)).iter().map(|e| e.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
    }

    #[test]
    fn open_is_whatever_is_not_final() {
        assert!(Statuses::Open.matches(Status::Acknowledged));
        assert!(!Statuses::Open.matches(Status::Expired));
        assert!(Statuses::One(Status::Failed).matches(Status::Failed));
    }
}
