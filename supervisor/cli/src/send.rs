//! `mozart send`.

use std::io::Read;
use std::time::Duration;

use broker::SendOutcome;
use clap::Args;
use common::api::{AgentRow, AgentState, ApiError};
use common::message::{Envelope, Final, Kind, MAX_TEXT, Outcome, Status};
use common::{AgentName, ConversationId, MessageId, SenderName, TraceParent};
use serde::Serialize;
use tokio::time::Instant;

use super::answer::Answer;
use super::client::{Client, now, sender};
use super::{agents, output, watch};
use crate::args::{Global, duration};
use broker::Attempt;
use common::failure;

/// `mozart send`.
#[derive(Debug, Args)]
pub struct SendArgs {
    /// The agent
    agent: AgentName,
    /// The message; `-` reads it from stdin; put `--` before a message that begins with a dash
    #[arg(allow_negative_numbers = true)]
    text: String,
    #[command(flatten)]
    message: MessageArgs,
    /// Wait for the answer and print it
    #[arg(short, long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME")]
    timeout: Duration,
}

/// The options of a message.
#[derive(Debug, Clone, Args)]
pub(crate) struct MessageArgs {
    /// The conversation; its messages are answered one after the other
    #[arg(long, value_name = "ID")]
    pub(crate) conversation: Option<ConversationId>,
    /// The message's id; sending the same message with the same id again has no effect
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<MessageId>,
    /// Expire the message if no worker has started it within this time
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) deadline: Option<Duration>,
    /// The W3C trace context that the message belongs to [default: the one in TRACEPARENT, if it is valid]
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) traceparent: Option<TraceParent>,
}

impl MessageArgs {
    /// A message of the user's.
    pub(crate) fn envelope(&self, sender: SenderName, agent: AgentName, text: String) -> Envelope {
        let created_at = now();
        let message_id = self.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().into());
        Envelope {
            agent,
            sender,
            kind: Kind::Chat,
            conversation_id: self
                .conversation
                .clone()
                .unwrap_or_else(|| ConversationId::from(&message_id)),
            message_id,
            message: text,
            created_at,
            request_id: None,
            deadline: self.deadline.map(|within| created_at.after(within)),
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: self.traceparent.or_else(from_environment),
        }
    }
}

/// The context of whoever runs this. One that is damaged is no reason to send nothing.
fn from_environment() -> Option<TraceParent> {
    std::env::var("TRACEPARENT").ok()?.parse().ok()
}

/// What `send` prints in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    message_id: &'a MessageId,
    agent: &'a AgentName,
    status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
}

/// Sends a message and, if asked to, waits for the answer.
///
/// # Errors
/// 3 no such agent, 4 another message has this id, 5 no answer in time, 1 when the answer is that there is none, 9 too large.
pub(crate) async fn run(global: &Global, args: SendArgs) -> Result<u8, ApiError> {
    let text = text(args.text).await?;
    let deadline = Instant::now() + args.timeout;
    let client = Client::connect(global).await?;
    agents::require(&client, &args.agent).await?;
    let envelope = args.message.envelope(sender(&client.broker), args.agent, text);
    let answer =
        if args.wait { Some(Answer::listen(&client.broker, &envelope.key()).await?) } else { None };
    let known = store(&client, &envelope, &args.message, args.timeout).await?;
    match answer {
        Some(answer) => wait(&client, &envelope, answer, known, deadline).await,
        None => {
            // A message that was there already may be final by now: its status is looked up, not guessed.
            let status = match known {
                Known::New => Status::Pending,
                Known::Already => super::journal::status(&client.broker, &envelope).await?,
            };
            print(&client, &envelope, status, None)?;
            Ok(0)
        }
    }
}

/// The text of a message: as given, or what stdin holds.
///
/// # Errors
/// 9 when it is too large, 2 when it is not text.
pub(crate) async fn text(given: String) -> Result<String, ApiError> {
    let text = if given == "-" { stdin().await? } else { given };
    if text.trim().is_empty() {
        output::note("warning: the message is empty");
    }
    if text.len() > MAX_TEXT {
        return Err(too_large(format!("its text has {} bytes", text.len())));
    }
    Ok(text)
}

fn too_large(cause: String) -> ApiError {
    let what = "the message is too large";
    let cause = format!("{cause}, at most {MAX_TEXT} fit");
    failure::error(failure::LIMIT, what, cause, "send a reference to the data instead")
}

async fn stdin() -> Result<String, ApiError> {
    let read = tokio::task::spawn_blocking(|| {
        let mut bytes = Vec::new();
        let limit = u64::try_from(MAX_TEXT).unwrap_or(u64::MAX) + 1;
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = match read.await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(cause)) => {
            return Err(failure::error(failure::FAILED, "cannot read stdin", cause, ""));
        }
        Err(cause) => {
            return Err(failure::error(failure::FAILED, "cannot read stdin", cause, ""));
        }
    };
    if bytes.len() > MAX_TEXT {
        return Err(too_large("stdin holds more".to_owned()));
    }
    String::from_utf8(bytes).map_err(|cause| {
        failure::error(failure::USAGE, "the message is not UTF-8 text", cause, "encode it first")
    })
}

/// Whether a message is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    New,
    Already,
}

/// Stores a message: on disk when this returns.
///
/// # Errors
/// 4 when another message has this id; what the broker says.
pub(crate) async fn store(
    client: &Client,
    envelope: &Envelope,
    args: &MessageArgs,
    timeout: Duration,
) -> Result<Known, ApiError> {
    let what = format!("cannot store message {}", envelope.message_id);
    let broker = &client.broker;
    let sent = match args.id {
        // Whoever gives an id may have used it before.
        Some(_) => broker.send_again(envelope, timeout).await,
        None => broker.send(envelope, timeout).await,
    };
    let sent = sent.attempt(what).map_err(|mut error| {
        if error.code == failure::TIMEOUT {
            // It may be stored: sent again under its id, it is not stored twice.
            error.try_ = format!("send it again with --id {}", envelope.message_id);
        }
        error
    });
    match sent? {
        SendOutcome::Stored { .. } => Ok(Known::New),
        SendOutcome::Already { .. } => Ok(Known::Already),
        SendOutcome::Conflict { stored } => Err(failure::error(
            failure::CONFLICT,
            format!("another message to {} has the id {}", envelope.agent, envelope.message_id),
            differs(&stored, envelope),
            format!("another --id, or `mozart journal show {}`", envelope.message_id),
        )),
    }
}

fn differs(stored: &Envelope, ours: &Envelope) -> &'static str {
    if stored.message != ours.message {
        "its text differs"
    } else if stored.conversation_id != ours.conversation_id {
        "its conversation differs"
    } else {
        "its kind differs"
    }
}

async fn wait(
    client: &Client,
    envelope: &Envelope,
    mut answer: Answer,
    known: Known,
    deadline: Instant,
) -> Result<u8, ApiError> {
    let early = if known == Known::Already { answer.look().await? } else { None };
    let final_ = match early {
        Some(final_) => final_,
        None => match patient(client, envelope, &mut answer, deadline).await? {
            Some(final_) => final_,
            None => return late(client, envelope).await,
        },
    };
    print(client, envelope, final_.status.into(), Some(&final_))?;
    verdict(envelope, &final_).map_or(Ok(0), Err)
}

/// The final state, if there is one in time. Whoever waits is told why, once.
async fn patient(
    client: &Client,
    envelope: &Envelope,
    answer: &mut Answer,
    deadline: Instant,
) -> Result<Option<Final>, ApiError> {
    let quiet = deadline.min(Instant::now() + watch::QUIET);
    if let Ok(final_) = tokio::time::timeout_at(quiet, answer.final_()).await {
        return Ok(Some(final_));
    }
    if quiet < deadline {
        watch::say_why(client, envelope).await;
        if let Ok(final_) = tokio::time::timeout_at(deadline, answer.final_()).await {
            return Ok(Some(final_));
        }
    }
    // What ended in the last moment has ended.
    answer.look().await
}

/// Reports that the answer is late; in JSON with the status, from which the caller can continue.
async fn late(client: &Client, envelope: &Envelope) -> Result<u8, ApiError> {
    let id = &envelope.message_id;
    let status = super::journal::status(&client.broker, envelope).await?;
    if client.json() {
        print(client, envelope, status, None)?;
    }
    let what = format!("no answer to {id} in time");
    let stored = format!("it is stored and {}", status.as_str());
    // What the agent does adds to that; without a supervisor it is still true.
    let rows = client.brief_rows(Some(&envelope.agent)).await.unwrap_or_default();
    let rests = rows.iter().find(|row| row.agent == envelope.agent).and_then(rests);
    let (cause, try_) = match rests {
        Some(why) => (
            format!("{stored}; {why}"),
            format!("`mozart start {}`, `mozart attach {id}`", envelope.agent),
        ),
        None => (stored, format!("`mozart attach {id}` to keep waiting, `mozart explain {id}`")),
    };
    Err(failure::error(failure::TIMEOUT, what, cause, try_))
}

/// That an agent takes no message until somebody starts it, and why.
pub(crate) fn rests(row: &AgentRow) -> Option<String> {
    let agent = &row.agent;
    let (how, reason) = match row.state {
        _ if row.quarantined => {
            let reason = row.reason.as_deref();
            ("quarantined", reason.map(|why| why.strip_prefix("quarantined: ").unwrap_or(why)))
        }
        AgentState::Stopped | AgentState::Stopping => (row.state.as_str(), row.reason.as_deref()),
        AgentState::Starting | AgentState::Running | AgentState::Error => return None,
    };
    let reason = reason.map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("{agent} is {how}{reason}"))
}

/// What is wrong with a final state; none when it is an answer.
pub(crate) fn verdict(envelope: &Envelope, final_: &Final) -> Option<ApiError> {
    let id = &envelope.message_id;
    let (how, try_) = match final_.status {
        Outcome::Completed => return None,
        Outcome::Failed => ("failed", format!("`mozart explain {id}`, `mozart dead show {id}`")),
        Outcome::Cancelled => ("was cancelled", "send it again, with another id".to_owned()),
        Outcome::Expired => ("expired", "send it again with a longer --deadline".to_owned()),
    };
    let reason = final_.reason.clone().unwrap_or_default();
    Some(failure::error(failure::FAILED, format!("message {id} {how}"), reason, try_))
}

fn print(
    client: &Client,
    envelope: &Envelope,
    status: Status,
    final_: Option<&Final>,
) -> Result<(), ApiError> {
    let Envelope { message_id, agent, .. } = envelope;
    let written = if client.json() {
        output::json(&Sent {
            message_id,
            agent,
            status,
            response: final_.and_then(|final_| final_.response.as_deref()),
            reason: final_.and_then(|final_| final_.reason.as_deref()),
            attempts: final_.map(|final_| final_.attempts),
        })
    } else {
        match final_ {
            None => output::line(message_id.as_str()),
            Some(final_) => final_.response.as_deref().map_or(Ok(()), output::line),
        }
    };
    output::result(written, || {
        format!("message {message_id} to {agent} is stored and {}", status.as_str())
    })
}

#[cfg(test)]
mod tests {
    use super::super::reference::tests::envelope;
    use super::*;
    use common::Timestamp;

    fn final_(status: Outcome) -> Final {
        Final {
            status,
            response: None,
            reason: Some("exit code 1".to_owned()),
            attempts: 3,
            incarnation: Some(1),
            at: Timestamp::from_millis(1),
            tail: Vec::new(),
        }
    }

    #[test]
    fn only_an_answer_is_a_success() {
        let envelope = envelope("a", "m1");
        assert_eq!(verdict(&envelope, &final_(Outcome::Completed)), None);
        for status in [Outcome::Failed, Outcome::Cancelled, Outcome::Expired] {
            let error = verdict(&envelope, &final_(status)).expect("no answer");
            assert_eq!((error.code, error.cause.as_str()), (1, "exit code 1"));
        }
    }

    #[test]
    fn a_message_without_a_conversation_is_one_of_its_own() {
        let mut args =
            MessageArgs { conversation: None, id: None, deadline: None, traceparent: None };
        let agent = AgentName::new("a").expect("valid");
        let name = || SenderName::new("ana").expect("valid");
        let first = args.envelope(name(), agent.clone(), String::new());
        assert_eq!(first.conversation_id.as_str(), first.message_id.as_str());
        args.id = Some(MessageId::new("order-7").expect("valid"));
        args.deadline = Some(Duration::from_secs(5));
        let second = args.envelope(name(), agent, String::new());
        assert_eq!(second.message_id.as_str(), "order-7");
        assert_eq!(second.deadline, Some(second.created_at.after(Duration::from_secs(5))));
    }

    #[test]
    fn sent_has_the_fields_that_scripts_rely_on() {
        let envelope = envelope("a", "m1");
        let mut sent = Sent {
            message_id: &envelope.message_id,
            agent: &envelope.agent,
            status: Status::Pending,
            response: None,
            reason: None,
            attempts: None,
        };
        let json = |sent: &Sent<'_>| serde_json::to_string(sent).expect("plain");
        assert_eq!(json(&sent), r#"{"messageId":"m1","agent":"a","status":"pending"}"#);
        sent.status = Status::Completed;
        sent.response = Some("hi");
        sent.attempts = Some(1);
        assert_eq!(
            json(&sent),
            r#"{"messageId":"m1","agent":"a","status":"completed","response":"hi","attempts":1}"#
        );
    }
}
