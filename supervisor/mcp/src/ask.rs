//! The tools about messages: asking, waiting, looking, cancelling.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use broker::{Attempt as _, Stored};
use common::api::ApiError;
use common::message::{Envelope, MAX_TEXT};
use common::users::Scope;
use common::{AgentName, MessageId, failure};
use mozart_client::cancel::cancel;
use mozart_client::journal;
use mozart_client::reference::MessageRef;
use mozart_client::send::{self, Draft, Known};
use mozart_client::stream::{Next, Stream};
use mozart_client::watch::Watch;
use tokio::time::Instant;

use crate::shown::{
    AskAgent, CancelMessage, Cancelled, Heard, Message, MessageStatus, OnCancel, State, message,
};
use crate::tools::{Call, Refused, named};
use crate::who::Who;

/// How long storing may take.
const STORE: Duration = Duration::from_secs(30);
/// The longest wait.
const WAIT: u64 = 600;
/// How often whoever waits is told how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

/// Sends a message, and waits for its answer.
pub(crate) async fn ask(who: &Who, call: &Call, asked: AskAgent) -> Result<Message, Refused> {
    who.may(Scope::Send)?;
    let agent: AgentName = named(&asked.agent)?;
    who.reach(&agent)?;
    if asked.message.len() > MAX_TEXT {
        return Err(send::too_large(&format!("its text has {} bytes", asked.message.len())).into());
    }
    let id: Option<MessageId> = asked.message_id.as_deref().map(named).transpose()?;
    let is_named = id.is_some();
    let wait = wait(asked.wait_s);
    let open = if wait.is_zero() { None } else { who.wait()? };
    mozart_client::agents::require(&who.client, &agent).await?;
    let draft = Draft {
        agent,
        sender: who.name(),
        text: asked.message,
        conversation: asked.conversation.as_deref().map(named).transpose()?,
        id,
        deadline: None,
        traceparent: None,
        deliver_at: None,
    };
    let request = draft.envelope();
    if is_named {
        send::only_here(&who.client, &request).await.map_err(another_id)?;
    }
    let broker = &who.client.broker;
    if wait.is_zero() {
        store(who, &request, is_named).await?;
        return Ok(hinted(who, look(who, &request, 0).await?).await);
    }
    let mut watch = who.watch(&request.key()).await?;
    if store(who, &request, is_named).await? == Known::Already {
        watch.look().await?;
    }
    let (stream, heard, is_cancelled) = read(&mut watch, 0, wait, call).await?;
    drop(open);
    if is_cancelled && asked.on_cancel == OnCancel::Cancel {
        let what = format!("cannot look up message {}", request.message_id);
        if let Some(stored) = broker.message_of(&request.key()).await.attempt(what)? {
            end(who, stored).await?;
        }
    }
    if let Some(error) = stream.final_().and_then(|final_| send::verdict(&request, final_)) {
        return Err(error.into());
    }
    Ok(hinted(who, message(&request, &stream, heard)).await)
}

/// Tells how far a message is, and waits for its answer.
pub(crate) async fn status(
    who: &Who,
    call: &Call,
    asked: MessageStatus,
) -> Result<Message, Refused> {
    let request = found(who, &asked.message_id).await?.value;
    let wait = wait(asked.wait_s);
    if wait.is_zero() {
        return Ok(hinted(who, look(who, &request, asked.after_seq).await?).await);
    }
    let _open = who.wait()?;
    let mut watch = who.watch(&request.key()).await?;
    watch.look().await?;
    let (stream, heard, _) = read(&mut watch, asked.after_seq, wait, call).await?;
    Ok(hinted(who, message(&request, &stream, heard)).await)
}

/// Cancels a message. One that is over stays as it is.
pub(crate) async fn cancel_message(who: &Who, asked: CancelMessage) -> Result<Cancelled, Refused> {
    who.may(Scope::Send)?;
    let stored = found(who, &asked.message_id).await?;
    if stored.value.sender != who.name() {
        who.may(Scope::Operate)?;
    }
    let message_id = stored.value.message_id.to_string();
    Ok(Cancelled { message_id, state: end(who, stored).await? })
}

async fn end(who: &Who, stored: Stored<Envelope>) -> Result<State, ApiError> {
    let request = stored.value.clone();
    match cancel(&who.client, stored, &who.door).await {
        Ok(_) => Ok(State::Cancelled),
        Err(error) if error.code == failure::CONFLICT => {
            Ok(journal::status(&who.client.broker, &request).await?.into())
        }
        Err(error) => Err(error),
    }
}

/// A message that they may see. One of another agent is not there for them, unless they name that agent.
pub(crate) async fn found(who: &Who, message: &str) -> Result<Stored<Envelope>, Refused> {
    let message: MessageRef = named(message)?;
    message.agent.as_ref().map_or(Ok(()), |agent| who.reach(agent))?;
    Ok(message.seen(&who.client).await?.request)
}

fn another_id(mut error: ApiError) -> ApiError {
    if error.code == failure::CONFLICT {
        error.try_ = "another message_id".to_owned();
    }
    error
}

async fn store(who: &Who, request: &Envelope, is_named: bool) -> Result<Known, ApiError> {
    let stored = send::store(&who.client.broker, request, is_named, STORE).await;
    if let (Ok(Known::New), Some(house)) = (&stored, &who.house) {
        house.accepted();
    }
    stored.map_err(|mut error| {
        if error.code == failure::TIMEOUT {
            error.try_ = format!("call it again with message_id {}", request.message_id);
        }
        another_id(error)
    })
}

fn wait(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(WAIT))
}

/// A message as it is now.
async fn look(who: &Who, request: &Envelope, after: u64) -> Result<Message, ApiError> {
    let (broker, key) = (&who.client.broker, request.key());
    let what = format!("cannot look up message {}", request.message_id);
    let final_ = broker.outcome_of(&key).await.attempt(&what)?;
    let events = broker.events(&key).await.attempt(&what)?;
    let (mut stream, mut items) = (Stream::new(true, after), Vec::new());
    let next = match final_ {
        Some(final_) => stream.finally(final_.value, &mut items),
        None => Next::Read,
    };
    if next != Next::End {
        stream.stored(events, &mut items);
    }
    let mut heard = Heard::after(after);
    items.iter().for_each(|item| heard.hear(item));
    Ok(message(request, &stream, heard))
}

/// Reads until the message is over, the time is, or the call is cancelled, which is told.
async fn read(
    watch: &mut Watch,
    after: u64,
    wait: Duration,
    call: &Call,
) -> Result<(Stream, Heard, bool), ApiError> {
    let mut stream = Stream::new(true, after);
    let heard = Mutex::new(Heard::after(after));
    let began = Instant::now();
    let is_cancelled = {
        let reading = async {
            loop {
                let items = watch.items(&mut stream).await?;
                if items.is_empty() {
                    return Ok::<(), ApiError>(());
                }
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                items.iter().for_each(|item| heard.hear(item));
            }
        };
        tokio::pin!(reading);
        let late = tokio::time::sleep_until(began + wait);
        tokio::pin!(late);
        let mut tick = tokio::time::interval(PROGRESS);
        tick.reset();
        loop {
            tokio::select! {
                biased;
                read = &mut reading => break read.map(|()| false)?,
                () = call.cancelled() => break true,
                () = &mut late => break false,
                _ = tick.tick() => {
                    let said = heard.lock().unwrap_or_else(PoisonError::into_inner).progress();
                    call.progress(began.elapsed(), wait, said).await;
                }
            }
        }
    };
    Ok((stream, heard.into_inner().unwrap_or_else(PoisonError::into_inner), is_cancelled))
}

/// With what to do while there is no answer.
async fn hinted(who: &Who, message: Message) -> Message {
    let Message { message_id, agent, seq, state, .. } = &message;
    let wait = format!(
        "message_status with message_id {message_id}, after_seq {seq} and wait_s waits for the answer"
    );
    let hint = match state {
        State::Done | State::Failed | State::Cancelled | State::Expired => None,
        State::Running => Some(wait),
        State::Queued => {
            // What no supervisor tells is left out.
            let row = match AgentName::new(agent) {
                Ok(agent) => who.client.brief_rows(Some(&agent)).await.unwrap_or_default(),
                Err(_) => Vec::new(),
            };
            let rests = row.first().and_then(send::rests);
            Some(rests.map_or(wait, |why| format!("{why}; explain says more")))
        }
    };
    Message { hint, ..message }
}
