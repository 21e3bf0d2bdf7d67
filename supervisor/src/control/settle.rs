//! The books of a shim that was killed: its open turns have used an attempt, and EVENTS must say so.

use std::collections::BTreeSet;
use std::time::SystemTime;

use broker::{Broker, BrokerError, EventBatch};
use common::AgentName;
use common::event::{ATTEMPT_STRIDE, Event, EventBody, sequence};

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
const HELD: usize = 64;

/// Charges an attempt to each message that was with the killed shim's worker: those on record as delivered by it, and else the
/// first of each conversation, since a shim hands on what it gets at once and records that within 20 ms.
pub(super) async fn charge(broker: &Broker, open: &Open<'_>) -> Result<(), BrokerError> {
    let scan = broker.open_requests(open.agent, open.from, HELD).await?;
    let given = |seq: u64| open.delivered.is_none_or(|delivered| seq <= delivered);
    let mut charged = 0;
    let mut conversations = BTreeSet::new();
    let mut unmarked = Vec::new();
    for (seq, key, _) in scan.open.iter().filter(|(seq, ..)| given(*seq)) {
        let mark = broker.last_mark(open.agent, &key.message_id).await?;
        let Some(request) = broker.request_of(key).await? else { continue };
        let conversation = request.value.conversation_id;
        match mark {
            Some(mark) if mark.incarnation == open.incarnation => {
                conversations.insert(conversation.clone());
                // One that has ended may be of an earlier try to settle these books.
                charged += 1;
                if !mark.ended {
                    end(broker, open, &key.message_id, &conversation, mark.attempt, mark.attempt)
                        .await?;
                }
            }
            mark => {
                let attempts = mark.map_or(0, |mark| mark.attempt);
                unmarked.push((*seq, key.message_id.clone(), conversation, attempts));
            }
        }
    }
    for (_, message, conversation, attempts) in unmarked {
        if charged >= open.concurrency {
            break;
        }
        if conversations.insert(conversation.clone()) {
            end(broker, open, &message, &conversation, attempts, attempts + 1).await?;
            charged += 1;
        }
    }
    Ok(())
}

/// Records that an attempt ended with the shim. `known`: the last attempt on record.
async fn end(
    broker: &Broker,
    open: &Open<'_>,
    message: &common::MessageId,
    conversation: &common::ConversationId,
    known: u32,
    attempt: u32,
) -> Result<(), BrokerError> {
    let at = SystemTime::now().into();
    let mut events = Vec::new();
    if known < attempt {
        let body = EventBody::Delivered { incarnation: open.incarnation };
        events.push(Event { seq: sequence(attempt, 1), at, body });
    }
    let error = "the shim was killed".to_owned();
    // The attempt's last number: whatever it published before comes first.
    let seq = sequence(attempt, ATTEMPT_STRIDE);
    events.push(Event { seq, at, body: EventBody::Error { error } });
    broker
        .publish_events(&EventBatch {
            agent: open.agent.clone(),
            message_id: message.clone(),
            conversation_id: conversation.clone(),
            incarnation: open.incarnation,
            attempt,
            events,
        })
        .await
}
