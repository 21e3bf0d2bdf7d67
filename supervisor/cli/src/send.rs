//! `mozart send`.

use std::io::Read;
use std::time::Duration;

use clap::Args;
use common::api::ApiError;
use common::message::{Envelope, Final, MAX_TEXT, Status};
use common::{AgentName, ConversationId, MessageId, SenderName, Timestamp, TraceParent};
use tokio::time::Instant;

use super::client::Client;
use super::{later, output, watch};
use crate::args::{Global, duration};
use common::failure;
use mozart_client::agents;
use mozart_client::answer::Answer;
use mozart_client::send::{Draft, Known, Sent, as_stored, rests, store, too_large, verdict};
use mozart_client::watch::QUIET;

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
    /// Deliver the message then: `2026-12-01T10:00:00Z`, with another offset, or `10:00`, the next time that it is
    #[arg(long, value_parser = later::at, value_name = "TIME")]
    at: Option<later::At>,
    /// Deliver the message after this time: `10m`
    #[arg(long = "in", value_parser = duration, value_name = "TIME", conflicts_with = "at")]
    within: Option<Duration>,
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
        self.envelope_at(sender, agent, text, None)
    }

    /// The same, to be delivered then.
    fn envelope_at(
        &self,
        sender: SenderName,
        agent: AgentName,
        text: String,
        deliver_at: Option<Timestamp>,
    ) -> Envelope {
        let (conversation, id) = (self.conversation.clone(), self.id.clone());
        let traceparent = self.traceparent.or_else(from_environment);
        let deadline = self.deadline;
        Draft { agent, sender, text, conversation, id, deadline, traceparent, deliver_at }
            .envelope()
    }
}

/// The context of whoever runs this. One that is damaged is no reason to send nothing.
fn from_environment() -> Option<TraceParent> {
    std::env::var("TRACEPARENT").ok()?.parse().ok()
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
    let deliver_at = later::deliver_at(&client.broker, args.at, args.within).await?;
    let envelope = args.message.envelope_at(client.sender(), args.agent, text, deliver_at);
    let answer =
        if args.wait { Some(Answer::listen(&client.broker, &envelope.key()).await?) } else { None };
    let known = store(&client.broker, &envelope, args.message.id.is_some(), args.timeout).await?;
    let envelope = as_stored(&client.broker, envelope, known).await?;
    match answer {
        Some(answer) => wait(&client, &envelope, answer, known, deadline).await,
        None => {
            // A message that was there already may be final by now: its status is looked up, not guessed.
            let status = match known {
                Known::New => Status::Pending,
                Known::Already => mozart_client::journal::status(&client.broker, &envelope).await?,
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
        return Err(too_large(&format!("its text has {} bytes", text.len())));
    }
    Ok(text)
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
        return Err(too_large("stdin holds more"));
    }
    String::from_utf8(bytes).map_err(|cause| {
        failure::error(failure::USAGE, "the message is not UTF-8 text", cause, "encode it first")
    })
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
    let quiet = deadline.min(Instant::now() + QUIET);
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
    let status = mozart_client::journal::status(&client.broker, envelope).await?;
    if client.json() {
        print(client, envelope, status, None)?;
    }
    let what = format!("no answer to {id} in time");
    let mut stored = format!("it is stored and {}", status.as_str());
    if let Some(note) = later::note(envelope).filter(|_| status == Status::Pending) {
        stored = format!("{stored}; {note}");
    }
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

fn print(
    client: &Client,
    envelope: &Envelope,
    status: Status,
    final_: Option<&Final>,
) -> Result<(), ApiError> {
    let Envelope { message_id, agent, .. } = envelope;
    let written = if client.json() {
        output::json(&Sent::new(envelope, status, final_))
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
