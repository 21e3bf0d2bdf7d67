//! Restores a slice of a journal to the journal of another fleet: the same messages under the same ids, each with its final state.
//!
//! Everything is stored by compare-and-set, so that it can be repeated, and overwrites nothing.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::time::Duration;

use broker::{Broker, FinalOutcome, SendOutcome};
use common::api::ApiError;
use common::message::{Envelope, Final, MessageKey};
use common::{AgentName, ConversationTag, MessageId, SenderName};
use futures_util::future::try_join_all;
use indicatif::ProgressBar;

use super::check::{Checked, Lines};
use super::manifest::Line;
use super::slice::Slice;
use crate::output;
use broker::Attempt as _;
use common::failure;

/// How long one record may take to be stored.
const STORE: Duration = Duration::from_secs(30);
/// Records on their way to the broker at once.
const AT_ONCE: usize = 64;
const WHAT: &str = "cannot restore the journal";

/// The outcome of the slice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Restored {
    /// Messages that were new.
    pub(super) messages: u64,
    pub(super) dead_letters: u64,
}

fn lines(file: &File, checked: &Checked) -> Result<Lines, ApiError> {
    let slice = Slice::new(file, checked.journal);
    slice.map(Lines::new).map_err(|error| failure::file(WHAT, &error, ""))
}

fn next(lines: &mut Lines) -> Result<Option<Line>, ApiError> {
    lines.next().map_err(|cause| failure::error(failure::FAILED, WHAT, cause, ""))
}

/// How a fleet's journal and a slice agree.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// Whether something of the slice is missing there.
    pub(super) missing: bool,
    /// Requests of the slice that are there.
    pub(super) requests: u64,
    /// A message that is another one there, or has another final state.
    pub(super) conflict: Option<MessageId>,
}

/// Compares a slice with what the fleet's journal has under these names.
///
/// # Errors
/// When the broker does not answer.
pub(super) async fn compare(
    broker: &Broker,
    agent: &AgentName,
    file: &File,
    checked: &Checked,
) -> Result<Agreement, ApiError> {
    const LOOK: &str = "cannot look into the journal";
    let mut agreement = Agreement::default();
    let mut lines = lines(file, checked)?;
    while let Some(line) = next(&mut lines)? {
        let (there, same, id) = match line {
            Line::Request { record, .. } => {
                let record = renamed(*record, agent);
                let there = broker.message_of(&record.key()).await.attempt(LOOK)?;
                agreement.requests += u64::from(there.is_some());
                let same = there.as_ref().is_some_and(|there| there.value.same_content(&record));
                (there.is_some(), same, record.message_id)
            }
            Line::Final { sender, message_id, record, .. } => {
                let key = key(agent, sender, message_id);
                let there = broker.outcome_of(&key).await.attempt(LOOK)?;
                let same = there.as_ref().is_some_and(|there| there.value.same_end(&record));
                (there.is_some(), same, key.message_id)
            }
            Line::DeadLetter { .. } => continue,
        };
        agreement.missing |= !there;
        if there && !same {
            agreement.conflict = Some(id);
            break;
        }
    }
    Ok(agreement)
}

/// Stores a slice's messages with their final states, and its dead letters.
///
/// # Errors
/// When the broker does not answer, or a message of another content has the id of one.
pub(super) async fn restore(
    broker: &Broker,
    agent: &AgentName,
    file: &File,
    checked: &Checked,
    bar: &ProgressBar,
) -> Result<Restored, ApiError> {
    let mut restored = Restored::default();
    let mut lines = lines(file, checked)?;
    let mut requests = Vec::new();
    let mut finals = Vec::new();
    // Of those whose final state has not come yet.
    let mut tags = HashMap::new();
    loop {
        let line = next(&mut lines)?;
        let is_end = line.is_none();
        match line {
            Some(Line::Request { record, .. }) => {
                let request = renamed(*record, agent);
                tags.insert(request.key(), request.tag());
                requests.push(request);
            }
            Some(Line::Final { sender, message_id, record, .. }) => {
                let key = key(agent, sender, message_id);
                let tag = tags.remove(&key).unwrap_or_else(ConversationTag::none);
                finals.push((key, tag, *record));
            }
            Some(Line::DeadLetter { mut record }) => {
                record.envelope = renamed(record.envelope, agent);
                if broker.bury(&record).await.attempt(WHAT)? {
                    restored.dead_letters += 1;
                }
            }
            None => {}
        }
        if is_end || requests.len() + finals.len() >= AT_ONCE {
            bar.inc((requests.len() + finals.len()) as u64);
            // The final state of a message comes behind it: a reader who sees it first takes the message for an open one.
            restored.messages += store(broker, &requests, &checked.open).await?;
            let stored = finals.iter().map(|(key, tag, final_)| end(broker, key, tag, final_));
            try_join_all(stored).await?;
            requests.clear();
            finals.clear();
        }
        if is_end {
            return Ok(restored);
        }
    }
}

/// Stores requests in their order; how many were new. Those that nobody will run again may overtake each other when the connection
/// breaks; open ones wait for each other.
async fn store(
    broker: &Broker,
    requests: &[Envelope],
    open: &HashSet<(SenderName, MessageId)>,
) -> Result<u64, ApiError> {
    let is_open =
        |request: &&Envelope| open.contains(&(request.sender.clone(), request.message_id.clone()));
    let mut new = 0;
    if requests.iter().any(|request| is_open(&request)) {
        for request in requests {
            new += u64::from(send(broker, request).await?);
        }
        return Ok(new);
    }
    let sent = try_join_all(requests.iter().map(|request| send(broker, request))).await?;
    Ok(sent.into_iter().map(u64::from).sum())
}

async fn send(broker: &Broker, request: &Envelope) -> Result<bool, ApiError> {
    match broker.send_again(request, STORE).await.attempt(WHAT)? {
        SendOutcome::Stored { .. } => Ok(true),
        SendOutcome::Already { .. } => Ok(false),
        SendOutcome::Conflict { .. } => {
            let cause = format!("another message has the id {}", request.message_id);
            Err(failure::error(failure::CONFLICT, WHAT, cause, "--name NEW"))
        }
    }
}

async fn end(
    broker: &Broker,
    key: &MessageKey,
    tag: &ConversationTag,
    final_: &Final,
) -> Result<(), ApiError> {
    // Of the same archive it is the same: then it is ours, also when the import is repeated.
    let author = format!("import.{}", final_.at.as_millis());
    // By an import that was interrupted; it may have left the journal since.
    let there = match broker.outcome_of(key).await.attempt(WHAT)? {
        Some(there) => FinalOutcome::Lost(Box::new(there.value)),
        None => broker.publish_final(key, tag, final_, &author, STORE).await.attempt(WHAT)?,
    };
    match there {
        FinalOutcome::Won | FinalOutcome::Gone => Ok(()),
        FinalOutcome::Lost(there) if there.same_end(final_) => Ok(()),
        FinalOutcome::Lost(_) => {
            output::note(format!(
                "warning: message {} has another final state here, which is kept",
                key.message_id
            ));
            Ok(())
        }
    }
}

fn key(agent: &AgentName, sender: SenderName, message_id: MessageId) -> MessageKey {
    MessageKey { agent: agent.clone(), sender, message_id }
}

/// A message to the agent under its name there. Whom it came from, and because of what, stays as it was.
fn renamed(mut envelope: Envelope, agent: &AgentName) -> Envelope {
    envelope.agent = agent.clone();
    envelope
}
