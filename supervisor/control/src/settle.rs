//! Settles the attempts of a killed shim: its open turns have used an attempt, and EVENTS must record that.

use std::collections::BTreeSet;
use std::time::SystemTime;

use broker::{Broker, BrokerError, EventBatch};
use common::control::{ControlEvent, ControlRecord};
use common::event::{ATTEMPT_STRIDE, Event, EventBody, SHIM_KILLED, sequence};
use common::message::MessageKey;
use common::{AgentName, ConversationId, Timestamp};

use super::reads::Reads;

/// What may have been open in a killed shim.
pub(super) struct Open<'a> {
    pub(super) agent: &'a AgentName,
    /// The incarnation that was killed.
    pub(super) incarnation: u64,
    /// Everything before this sequence is settled.
    pub(super) from: u64,
    /// The last sequence that it was given; none when no consumer remembers.
    pub(super) delivered: Option<u64>,
    /// How many turns it can have had open.
    pub(super) concurrency: usize,
}

/// Requests looked at: what a shim can hold at once.
const HELD: usize = broker::WINDOW as usize;

/// So far back in the log an incarnation's end is looked for, at most: it is a matter of seconds, and then at the end of the log.
const LOOKED_BACK: u64 = 1_000_000;

/// Charges an attempt to each message that was with the killed shim's worker: those on record as delivered by it, and else the
/// first of each conversation, since a shim hands on what it gets at once and records that within 20 ms. What a later incarnation
/// has run is not touched. Done again, it charges nothing more.
pub(super) async fn charge(reads: &Reads, open: &Open<'_>) -> Result<(), BrokerError> {
    let broker = &reads.broker;
    let scan = reads.open_requests(open.agent, open.from, HELD).await?;
    // Thousands may have waited in the shim; those that its worker had are few.
    let marked = broker.marked(open.agent).await?;
    // What came when it was gone, it was not given.
    let end_of_it = match open.delivered {
        Some(_) => None,
        None => ended_at(broker, open).await?,
    };
    let given = |seq: u64, at: Timestamp| match (open.delivered, end_of_it) {
        (Some(delivered), _) => seq <= delivered,
        (None, Some(ended)) => at <= ended,
        (None, None) => true,
    };
    let mut charged = 0;
    let mut conversations = BTreeSet::new();
    let mut unmarked = Vec::new();
    for (_, key, _) in scan.open.iter().filter(|(seq, _, at)| given(*seq, *at)) {
        let mark = if marked.contains(key) { broker.last_mark(key).await? } else { None };
        match mark {
            Some(mark) if mark.incarnation == open.incarnation => {
                let Some(conversation) = conversation_of(broker, key).await? else { continue };
                conversations.insert(conversation.clone());
                // One that has ended may be of an earlier try to settle these books.
                charged += 1;
                if !mark.ended {
                    end(broker, open, key, &conversation, mark.attempt, mark.attempt).await?;
                }
            }
            // Whoever came after has it: that the dead one had it too is settled, or beyond telling.
            Some(mark) if mark.incarnation > open.incarnation => {
                conversations.extend(conversation_of(broker, key).await?);
            }
            mark => {
                let attempts = mark.map_or(0, |mark| mark.attempt);
                unmarked.push((key, attempts));
            }
        }
    }
    for (key, attempts) in unmarked {
        if charged >= open.concurrency {
            break;
        }
        let Some(conversation) = conversation_of(broker, key).await? else { continue };
        if conversations.insert(conversation.clone()) {
            end(broker, open, key, &conversation, attempts, attempts + 1).await?;
            charged += 1;
        }
    }
    Ok(())
}

/// The conversation of a message; none if nobody can read that.
async fn conversation_of(
    broker: &Broker,
    key: &MessageKey,
) -> Result<Option<ConversationId>, BrokerError> {
    match broker.request_of(key).await {
        Ok(request) => Ok(request.map(|request| request.value.conversation_id)),
        Err(BrokerError::Malformed { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// When an incarnation was seen to have ended; none if it was not: its node is lost. Its end comes after its beginning, so the log is
/// read back to there.
async fn ended_at(broker: &Broker, open: &Open<'_>) -> Result<Option<Timestamp>, BrokerError> {
    let from = broker.control_last_seq().await?.saturating_sub(LOOKED_BACK);
    let mut ended = None;
    let begun = |_, at, record: &ControlRecord| {
        if let ControlEvent::IncarnationExited { incarnation, .. } = &record.event
            && *incarnation == open.incarnation
        {
            // The first that was written: a leader that is none any more may have written another.
            ended = Some(at);
        }
        let ControlEvent::IncarnationAllocated { incarnation, .. } = &record.event else {
            return None;
        };
        (*incarnation <= open.incarnation).then_some(())
    };
    broker.look_back(open.agent, from, begun).await?;
    // By the log's clock, as the requests' times are the journal's: no host's.
    Ok(ended)
}

/// Records that an attempt ended with the shim. `known`: the last attempt on record.
async fn end(
    broker: &Broker,
    open: &Open<'_>,
    key: &MessageKey,
    conversation: &ConversationId,
    known: u32,
    attempt: u32,
) -> Result<(), BrokerError> {
    let at = SystemTime::now().into();
    let mut events = Vec::new();
    if known < attempt {
        let body = EventBody::Delivered { incarnation: open.incarnation };
        events.push(Event { seq: sequence(attempt, 1), at, body });
    }
    let error = SHIM_KILLED.to_owned();
    // The attempt's last number: whatever it published before comes first.
    let seq = sequence(attempt, ATTEMPT_STRIDE);
    events.push(Event { seq, at, body: EventBody::Error { error } });
    broker
        .publish_events(&EventBatch {
            agent: open.agent.clone(),
            sender: key.sender.clone(),
            message_id: key.message_id.clone(),
            conversation_id: conversation.clone(),
            incarnation: open.incarnation,
            attempt,
            events,
        })
        .await
}
