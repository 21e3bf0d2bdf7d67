//! What the journal, the history and the events say about messages.

use std::time::Duration;

use broker::{Archived, Attempt as _, Broker, Cursor, EventBatch, Found, ListQuery, Stored};
use common::api::{ApiError, MessageDetail, MessageRow};
use common::event::{ATTEMPT_STRIDE, Event, EventBody, sequence};
use common::message::{AttemptEnd, Envelope, Final, MessageKey, Status};
use common::step::StepMark;
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
        sender: None,
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
            let row = listed_row(broker, request, final_).await?;
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

/// A message as lists show it. Of one that is open, the first events and the last are read, however many it has.
///
/// # Errors
/// When the broker does not answer.
pub async fn listed_row(
    broker: &Broker,
    request: Envelope,
    final_: Option<Final>,
) -> Result<MessageRow, ApiError> {
    /// Records in which a worker was given the message, and has confirmed it.
    const FIRST: usize = 4;
    let events = match final_ {
        Some(_) => Vec::new(),
        None => ends(broker, &request, FIRST).await?.0,
    };
    Ok(row(request, final_.as_ref(), &events))
}

/// The first events of a message, of so many records at most, and the last ones; and whether some are left out.
async fn ends(
    broker: &Broker,
    request: &Envelope,
    records: usize,
) -> Result<(Vec<EventBatch>, bool), ApiError> {
    let what = format!("cannot read the events of {}", request.message_id);
    let key = request.key();
    let first = broker.first_events(&key, records);
    let (mut batches, last) = tokio::try_join!(first, broker.last_events(&key)).attempt(what)?;
    let seq = |batch: &EventBatch| batch.events.last().map(|event| event.seq);
    let is_cut =
        batches.len() >= records && batches.last().and_then(seq) < last.as_ref().and_then(seq);
    batches.extend(last.filter(|_| is_cut));
    Ok((batches, is_cut))
}

/// A message with as much of its history as is read at a glance.
#[derive(Debug)]
pub struct Glance {
    /// The message.
    pub detail: MessageDetail,
    /// Its request.
    pub request: Stored<Envelope>,
    /// Where it is in the history, if it has left the journal.
    pub archived: Option<u64>,
    /// When its final state was stored, by the broker's clock; none if it has none.
    pub finished: Option<Timestamp>,
    /// Whether events between the first and the last ones are left out.
    pub is_cut: bool,
}

/// A message with the first events, of so many records at most, and the last ones.
///
/// # Errors
/// 3 when there is no such message.
pub async fn glance(
    broker: &Broker,
    message: &MessageRef,
    records: usize,
) -> Result<Glance, ApiError> {
    let Found { request, mut archived } = message.resolve_whole(broker).await?;
    if archived.is_none() {
        // A whole name is found without what the history says of it.
        let key = request.value.key();
        let what = format!("cannot read message {}", key.message_id);
        if broker.request_of(&key).await.attempt(what.clone())?.is_none() {
            archived = broker.archived_of(&key).await.attempt(what)?;
        }
    }
    let place = archived.as_ref().map(|archived| archived.seq);
    let events = async { ends(broker, &request.value, records).await };
    let (detail, finished, is_cut) = with_history(broker, &request.value, archived, events).await?;
    Ok(Glance { detail, request, archived: place, finished, is_cut })
}

/// A message with its history.
///
/// # Errors
/// 3 when there is no such message.
pub async fn detail(broker: &Broker, message: &MessageRef) -> Result<MessageDetail, ApiError> {
    detail_of(broker, message.resolve_whole(broker).await?).await
}

/// The same of a message that was found.
///
/// # Errors
/// When the broker does not answer.
pub async fn detail_of(broker: &Broker, found: Found) -> Result<MessageDetail, ApiError> {
    let Found { request, archived } = found;
    let request = request.value;
    let events = async { Ok((events(broker, &request).await?, false)) };
    Ok(with_history(broker, &request, archived, events).await?.0)
}

/// A message with what was read of its events, when its final state was stored, and whether some events are left out.
async fn with_history(
    broker: &Broker,
    request: &Envelope,
    archived: Option<Archived>,
    events: impl Future<Output = Result<(Vec<EventBatch>, bool), ApiError>>,
) -> Result<(MessageDetail, Option<Timestamp>, bool), ApiError> {
    let what = || format!("cannot read message {}", request.message_id);
    let key = request.key();
    let (final_, mut attempts, steps, (batches, is_cut)) = match archived {
        Some(archived) => {
            (Some(archived.final_), Some(archived.attempts), archived.steps, events.await?)
        }
        None => {
            let outcome = async { broker.outcome_of(&key).await.attempt(what()) };
            let (outcome, batches) = tokio::try_join!(outcome, events)?;
            let steps = steps(broker, &key, outcome.is_some()).await?;
            (outcome, None, steps, batches)
        }
    };
    let finished = final_.as_ref().map(|final_| final_.at);
    let final_ = final_.map(|final_| final_.value);
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
    let row = row(request.clone(), final_.as_ref(), &batches);
    ends.extend(history(batches, final_));
    Ok((MessageDetail { row, history: ends, steps }, finished, is_cut))
}

/// The steps that a message's worker has stored.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn steps(
    broker: &Broker,
    key: &MessageKey,
    is_final: bool,
) -> Result<Vec<StepMark>, ApiError> {
    let what = || format!("cannot read the steps of {}", key.message_id);
    let steps = broker.steps(key, false).await.attempt(what())?;
    // They leave with their message.
    let has_left =
        is_final && steps.is_empty() && broker.request_of(key).await.attempt(what())?.is_none();
    if !has_left {
        return Ok(steps);
    }
    let archived = broker.archived_of(key).await.attempt(what())?;
    Ok(archived.map(|archived| archived.steps).unwrap_or_default())
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
        scheduled_for: request.scheduled_for,
        deliver_at: request.deliver_at,
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
