//! A worker's questions to other agents: journal, wait for the final state, answer.

use std::time::Duration;

use broker::{Broker, BrokerError, Retries, SendOutcome};
use common::message::{Cause, Envelope, Final, Kind, MAX_HOPS, MAX_TEXT, Outcome};
use common::{AgentName, ConversationId, MessageId, SenderName, Timestamp};
use uuid::Uuid;

use crate::book::{Asker, Question};
use crate::publish::{Done, Gate, STORE_WITHIN};

/// A question that waits looks for its answer in the journal this often: the republished final may have been lost.
const LOOK: Duration = Duration::from_secs(5);

/// A question as a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) envelope: Envelope,
    /// How long its answer is worth waiting for.
    pub(crate) within: Option<Duration>,
    /// Whether an earlier attempt may have asked it.
    pub(crate) again: bool,
}

/// Turns a worker's question into a message, or says why it cannot be one.
pub(crate) fn envelope(
    me: &AgentName,
    incarnation: u64,
    question: &Question,
    now: Timestamp,
) -> Result<Asked, String> {
    let to = AgentName::new(&question.to).map_err(|error| error.to_string())?;
    if to == *me {
        return Err(format!("`{me}` cannot ask itself"));
    }
    if question.message.len() > MAX_TEXT {
        return Err(format!("the question is larger than {MAX_TEXT} bytes"));
    }
    let cause = question.asker.as_ref().map(|asker| &*asker.envelope);
    let hops = cause.map_or(0, |cause| cause.hops) + 1;
    if hops > MAX_HOPS {
        return Err(format!(
            "more than {MAX_HOPS} agents have passed this question on: is there a loop?"
        ));
    }
    let own = question.timeout_ms.map(Duration::from_millis);
    let inherited = question.asker.as_ref().and_then(|asker| asker.left);
    let within = [own, inherited].into_iter().flatten().min();
    if within == Some(Duration::ZERO) {
        return Err("the deadline has passed".to_owned());
    }
    let mut path = cause.map(|cause| cause.path.clone()).unwrap_or_default();
    let origin = cause.map(|cause| Cause {
        agent: cause.agent.clone(),
        sender: cause.sender.clone(),
        message_id: cause.message_id.clone(),
    });
    path.extend(origin.clone());
    let message_id = id(me, incarnation, question, &to);
    let envelope = Envelope {
        conversation_id: ConversationId::from(&message_id),
        message_id,
        agent: to,
        sender: SenderName::from(me.clone()),
        kind: Kind::Route,
        message: question.message.clone(),
        created_at: now,
        request_id: Some(question.request_id.clone()),
        // By the same clock as the time of its making: only the time between the two means something to others.
        deadline: within.map(|within| now.after(within)),
        hops,
        cause: origin,
        path,
        redrive_of: None,
        traceparent: question.asker.as_ref().and_then(|asker| asker.traceparent),
        scheduled_for: None,
        deliver_at: None,
    };
    let again = question.asker.as_ref().is_some_and(|asker| asker.again);
    Ok(Asked { envelope, within, again })
}

/// The same question of the same turn has the same id, in every attempt: a caller that crashed finds the answer to what it asked.
fn id(me: &AgentName, incarnation: u64, question: &Question, to: &AgentName) -> MessageId {
    let cause = match &question.asker {
        Some(Asker { envelope, .. }) => format!("{}/{}", envelope.sender, envelope.message_id),
        None => incarnation.to_string(),
    };
    let parts = [me.as_str(), &cause, &question.request_id, to.as_str(), &question.message];
    // Lengths in front: no two lists of parts can read the same.
    let name: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).into()
}

/// Asks, and waits for the answer or the deadline. `known`: the agent is there, as it was a moment ago.
pub(crate) async fn ask(broker: Broker, gate: Gate, asked: Asked, known: bool) -> Done {
    let Asked { envelope, within, again } = asked;
    let request_id = envelope.request_id.clone().unwrap_or_default();
    let answering = answer(&broker, gate, &envelope, known, again);
    let answered = match within {
        None => Some(answering.await),
        Some(within) => tokio::time::timeout(within, answering).await.ok(),
    };
    let is_final = answered.is_some();
    let answer = answered
        .unwrap_or_else(|| Err(format!("no answer from `{}` before the deadline", envelope.agent)));
    Done::Answered { request_id, answer, key: envelope.key(), is_final }
}

async fn answer(
    broker: &Broker,
    mut gate: Gate,
    envelope: &Envelope,
    known: bool,
    mut again: bool,
) -> Result<String, String> {
    let key = envelope.key();
    if !known {
        must_exist(broker, &key.agent).await?;
    }
    // Subscribed before the question is stored: its answer cannot be missed while the connection stands.
    let done = broker.subjects().done(&key);
    let mut done = broker.subscribe(done, None).await.map_err(|error| error.to_string())?;
    let mut retries = Retries::new("storing a question");
    loop {
        let sending = async {
            match again {
                true => broker.send_again(envelope, STORE_WITHIN).await,
                false => broker.send(envelope, STORE_WITHIN).await,
            }
        };
        let sent = gate.through(sending).await;
        // What is not known to be stored may be.
        again = true;
        let Some(sent) = sent else { continue };
        match sent {
            Ok(SendOutcome::Stored { .. }) => break,
            Ok(SendOutcome::Already { .. }) => {
                if let Ok(Some(stored)) = broker.outcome_of(&key).await {
                    return outcome(stored.value);
                }
                break;
            }
            Ok(SendOutcome::Conflict { .. }) => {
                return Err(format!("another question has the id {}", key.message_id));
            }
            // It may pass, but the worker can do something about it: ask later.
            Err(error @ BrokerError::Full(_)) => return Err(error.to_string()),
            Err(error) => retries.after(error).await.map_err(|error| error.to_string())?,
        }
    }
    loop {
        match tokio::time::timeout(LOOK, done.next()).await {
            Ok(Some(message)) => {
                if let Ok(final_) = serde_json::from_slice::<Final>(&message.payload) {
                    return outcome(final_);
                }
            }
            Ok(None) => return Err("the connection is closed".to_owned()),
            Err(_) => {
                if let Ok(Some(stored)) = broker.outcome_of(&key).await {
                    return outcome(stored.value);
                }
                // Nobody answers any more. Should one of that name come again, it finds the question in its journal.
                if let Ok(false) = broker.is_there(&key.agent).await {
                    return Err(format!("agent `{}` was removed", key.agent));
                }
            }
        }
    }
}

async fn must_exist(broker: &Broker, agent: &AgentName) -> Result<(), String> {
    let mut retries = Retries::new(format!("looking up agent {agent}"));
    loop {
        match broker.is_there(agent).await {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(format!("there is no agent `{agent}`")),
            // Its last record is of a newer version: there is an agent.
            Err(BrokerError::Malformed { .. }) => return Ok(()),
            Err(error) => retries.after(error).await.map_err(|error| error.to_string())?,
        }
    }
}

fn outcome(final_: Final) -> Result<String, String> {
    let reason = |what: &str| final_.reason.clone().unwrap_or_else(|| what.to_owned());
    match final_.status {
        Outcome::Completed => Ok(final_.response.unwrap_or_default()),
        Outcome::Failed => Err(reason("failed")),
        Outcome::Cancelled => Err(reason("cancelled")),
        Outcome::Expired => Err(reason("expired")),
    }
}
