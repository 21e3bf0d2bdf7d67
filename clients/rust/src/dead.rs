//! Dead letters: messages that were given up.

use std::time::Duration;

use broker::{Attempt as _, SendOutcome, Stored};
use common::api::ApiError;
use common::message::{DeadLetter, Envelope, Kind, MessageKey, Outcome, Status};
use common::{AgentName, ConversationId, MessageId, Timestamp, failure};
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::client::{Client, now};
use crate::reference::{MessageRef, NotOne, only_id};

const WHAT: &str = "cannot read the dead letters";

/// The namespace of the ids of redriven messages: the same dead letter always becomes the same message.
const REDRIVEN: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_7265_6472_6976);

/// Whether a message has failed just now: its letter is stored after its final state, and before it is done with.
async fn is_on_its_way(client: &Client, message: &MessageRef, ids: Ids) -> bool {
    const LATELY: Duration = Duration::from_secs(10);
    let request = match ids {
        Ids::Beginnings => message.resolve(&client.broker).await,
        Ids::Whole => message.seen(client).await.map(|found| found.request),
    };
    let Ok(request) = request else { return false };
    match client.broker.outcome_of(&request.value.key()).await {
        Ok(Some(Stored { value, .. })) => {
            value.status == Outcome::Failed && now().since(value.at) < LATELY
        }
        _ => false,
    }
}

/// The dead letter that is named. One that is about to be stored is waited for.
///
/// # Errors
/// 3 when there is none, or more than one.
pub async fn one(client: &Client, message: &MessageRef) -> Result<Stored<DeadLetter>, ApiError> {
    find(client, message, Ids::Beginnings).await
}

/// The same as doors look it up: by its whole id, and among the agents that the client may see. See [`MessageRef::seen`].
///
/// # Errors
/// As [`one`].
pub async fn seen(client: &Client, message: &MessageRef) -> Result<Stored<DeadLetter>, ApiError> {
    find(client, message, Ids::Whole).await
}

/// How an id is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    /// Whole, or as it begins.
    Beginnings,
    Whole,
}

async fn find(
    client: &Client,
    message: &MessageRef,
    ids: Ids,
) -> Result<Stored<DeadLetter>, ApiError> {
    const WAIT: Duration = Duration::from_secs(3);
    const AGAIN: Duration = Duration::from_millis(50);
    let until = Instant::now() + WAIT;
    let found = loop {
        let found = named(client, message, ids).await?;
        if found.is_ok() || Instant::now() > until || !is_on_its_way(client, message, ids).await {
            break found;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let id = &message.message_id;
    let mut letters = found.map_err(|why| {
        failure::error(
            failure::NOT_FOUND,
            why.what(id, "dead letter"),
            why.or("no message with that id was given up, or its dead letter was dropped"),
            format!("`mozart dead ls`, `mozart journal show {id}`"),
        )
    })?;
    if letters.len() > 1 {
        let names = letters.iter().map(|letter| {
            let Envelope { agent, sender, message_id, .. } = &letter.value.envelope;
            format!("{agent}/{sender}/{message_id}")
        });
        let what = format!("{} dead letters have the id {id}", letters.len());
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(failure::error(failure::NOT_FOUND, what, names, "name one of them in full"));
    }
    letters.pop().ok_or_else(|| failure::error(failure::NOT_FOUND, WHAT, "it no longer exists", ""))
}

/// The dead letters of the messages that are named, at least one: by their id, else by how it begins.
async fn named(
    client: &Client,
    message: &MessageRef,
    ids: Ids,
) -> Result<Result<Vec<Stored<DeadLetter>>, NotOne>, ApiError> {
    let (agent, sender) = (message.agent.as_ref(), message.sender.as_ref());
    let of = async |id: &MessageId| {
        let mut letters = client.broker.dead_named(agent, sender, id).await.attempt(WHAT)?;
        letters.retain(|letter| client.sees(&letter.value.envelope.agent));
        Ok::<_, ApiError>(letters)
    };
    let letters = of(&message.message_id).await?;
    if !letters.is_empty() {
        return Ok(Ok(letters));
    }
    if ids == Ids::Whole {
        return Ok(Err(NotOne::None));
    }
    let beginning = message.message_id.as_str();
    let ids = client.broker.dead_ids(agent, sender, beginning).await.attempt(WHAT)?;
    let whole = match only_id(&ids) {
        Ok(whole) => whole,
        Err(why) => return Ok(Err(why)),
    };
    let letters = of(whole).await?;
    Ok(if letters.is_empty() { Err(NotOne::None) } else { Ok(letters) })
}

/// The outcome of a dead message.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Redriven {
    /// The message that repeats it.
    pub message_id: MessageId,
    /// Its agent.
    pub agent: AgentName,
    /// The message that was given up.
    pub redrive_of: MessageId,
}

impl Redriven {
    /// In words.
    #[must_use]
    pub fn done(&self) -> String {
        format!("dead letter {} was redriven as {}", self.redrive_of, self.message_id)
    }
}

/// Sends a dead message again, unless that was done before. Doing so twice at once, or after a crash in between, sends it once.
///
/// # Errors
/// 4 when it was sent again before.
pub async fn redrive(client: &Client, letter: Stored<DeadLetter>) -> Result<Redriven, ApiError> {
    const STORE: Duration = Duration::from_secs(15);
    let Stored { value: mut letter, seq, .. } = letter;
    let dead = letter.envelope.message_id.clone();
    let agent = letter.envelope.agent.clone();
    if let Some(copy) = &letter.redriven_as {
        return Err(redriven_before(client, &letter.envelope, copy).await?);
    }
    let what = || format!("cannot redrive message {dead}");
    let whole = match letter.cut {
        false => letter.envelope.clone(),
        // Only its beginning fitted the letter.
        true => match client.broker.message_of(&letter.envelope.key()).await.attempt(what())? {
            Some(request) => request.value,
            None => {
                let cause = "its dead letter does not hold the whole message, which is no longer in the journal or the history";
                return Err(failure::error(failure::NOT_FOUND, what(), cause, "`mozart send`"));
            }
        },
    };
    let again = again(&whole, seq, now());
    match client.broker.send_again(&again, STORE).await.attempt(what())? {
        SendOutcome::Stored { .. } | SendOutcome::Already { .. } => {}
        SendOutcome::Conflict { .. } => {
            let cause = format!("another message has the id {}", again.message_id);
            return Err(failure::error(failure::CONFLICT, what(), cause, "`mozart send`"));
        }
    }
    letter.redriven_as = Some(again.message_id.clone());
    // Whoever was faster marked it with the same id.
    let _marked = client.broker.rebury(&letter, seq).await.attempt(what())?;
    Ok(Redriven { message_id: again.message_id, agent, redrive_of: dead })
}

/// That a dead message was sent again before, and what became of the copy.
async fn redriven_before(
    client: &Client,
    dead: &Envelope,
    copy: &MessageId,
) -> Result<ApiError, ApiError> {
    let key = MessageKey { message_id: copy.clone(), ..dead.key() };
    let request = client.broker.message_of(&key).await.attempt("cannot look up its copy")?;
    let status = match request {
        Some(request) => Some(crate::journal::status(&client.broker, &request.value).await?),
        None => None,
    };
    let became = match status {
        None => "is no longer kept",
        Some(Status::Pending) => "is pending",
        Some(Status::Delivered) => "is delivered",
        Some(Status::Acknowledged) => "is acknowledged",
        Some(Status::Completed) => "is completed",
        Some(Status::Failed) => "failed",
        Some(Status::Cancelled) => "was cancelled",
        Some(Status::Expired) => "expired",
    };
    let try_ = match status {
        // It has a dead letter of its own.
        Some(Status::Failed) => format!("`mozart dead redrive {copy}`"),
        Some(_) => format!("`mozart journal show {copy}`"),
        None => format!("`mozart dead show {}`", dead.message_id),
    };
    let what = format!("dead letter {} was redriven before", dead.message_id);
    Ok(failure::error(failure::CONFLICT, what, format!("its copy {copy} {became}"), try_))
}

/// The message that repeats a dead one. No agent waits for a route's answer any more, so it becomes a chat.
fn again(dead: &Envelope, seq: u64, at: Timestamp) -> Envelope {
    let name = format!("{}/{}/{}/{seq}", dead.agent, dead.sender, dead.message_id);
    let message_id = MessageId::from(Uuid::new_v5(&REDRIVEN, name.as_bytes()));
    let own = dead.conversation_id.as_str() == dead.message_id.as_str();
    Envelope {
        conversation_id: if own {
            ConversationId::from(&message_id)
        } else {
            dead.conversation_id.clone()
        },
        message_id,
        kind: Kind::Chat,
        created_at: at,
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: Some(dead.message_id.clone()),
        scheduled_for: dead.scheduled_for,
        deliver_at: None,
        traceparent: dead.traceparent,
        agent: dead.agent.clone(),
        sender: dead.sender.clone(),
        message: dead.message.clone(),
    }
}

/// A dead letter in JSON, its id and agent in front where scripts look for them.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    /// Its id.
    pub message_id: &'a MessageId,
    /// Its agent.
    pub agent: &'a AgentName,
    /// All of it.
    #[serde(flatten)]
    pub letter: &'a DeadLetter,
}

impl<'a> Shown<'a> {
    /// It.
    #[must_use]
    pub fn new(letter: &'a DeadLetter) -> Self {
        Self { message_id: &letter.envelope.message_id, agent: &letter.envelope.agent, letter }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::tests::envelope;

    #[test]
    fn a_dead_letter_always_becomes_the_same_message() {
        let dead = envelope("a", "m1");
        let (at, later) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
        let first = again(&dead, 7, at);
        assert!(first.same_content(&again(&dead, 7, later)));
        assert_ne!(first.message_id, again(&dead, 8, at).message_id);
        assert_ne!(first.message_id, dead.message_id);
    }

    #[test]
    fn a_redriven_message_names_its_origin_and_keeps_its_conversation() {
        let mut dead = envelope("a", "m1");
        let own = again(&dead, 7, Timestamp::from_millis(1));
        assert_eq!(own.conversation_id.as_str(), own.message_id.as_str());
        assert_eq!(own.redrive_of, Some(dead.message_id.clone()));

        dead.conversation_id = ConversationId::new("c").expect("valid");
        dead.kind = Kind::Route;
        dead.request_id = Some("r".to_owned());
        let shared = again(&dead, 7, Timestamp::from_millis(1));
        assert_eq!(shared.conversation_id.as_str(), "c");
        assert_eq!((shared.kind, shared.request_id), (Kind::Chat, None));
    }
}
