//! `mozart chat` and `mozart attach`: streams of answers.

use std::time::Duration;

use clap::Args;
use common::api::ApiError;
use common::message::Envelope;
use common::{AgentName, ConversationId, MessageId};
use serde_json::Value;
use tokio::time::Instant;

use super::client::Client;
use super::send::{self, MessageArgs};
use super::watch;
use super::{output, prompt, table};
use crate::args::{Global, Output, duration};
use common::failure;
use mozart_client::agents;
use mozart_client::reference::MessageRef;
use mozart_client::send::{Known, store};
use mozart_client::stream::{Item, Line, Stream};
use mozart_client::watch::Watch;

/// `mozart chat`.
#[derive(Debug, Args)]
pub struct ChatArgs {
    /// The agent
    pub(crate) agent: AgentName,
    /// The message; `-` reads it from stdin; without a message, open a prompt
    #[arg(allow_negative_numbers = true)]
    text: Option<String>,
    #[command(flatten)]
    pub(crate) message: MessageArgs,
    /// Continue with the next attempt when one breaks off
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// How long to wait for an answer [default: no limit]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub(crate) timeout: Option<Duration>,
}

/// `mozart attach`.
#[derive(Debug, Args)]
pub struct AttachArgs {
    /// The message: ID, AGENT/ID or AGENT/SENDER/ID
    message: MessageRef,
    /// Only events after this one; `--from N` shows exactly what follows N
    #[arg(long, default_value_t = 0, value_name = "SEQ")]
    from: u64,
    /// How long to wait for the final state [default: no limit]
    #[arg(long, value_parser = duration, value_name = "TIME")]
    timeout: Option<Duration>,
}

/// Streams the answer to one message, or to as many as are typed.
///
/// # Errors
/// 1 when there is no answer, 3 no such agent, 5 when it is too late, or breaks off while the message is tried again.
pub(crate) async fn run(global: &Global, args: ChatArgs) -> Result<u8, ApiError> {
    let text = match &args.text {
        Some(text) => Some(send::text(text.clone()).await?),
        None => None,
    };
    let client = Client::connect(global).await?;
    agents::require(&client, &args.agent).await?;
    match text {
        Some(text) => {
            let envelope = args.message.envelope(client.sender(), args.agent.clone(), text);
            one(&client, &envelope, &args).await
        }
        None => prompt::run(global, &client, args).await,
    }
}

/// Stores a message and streams its answer.
///
/// # Errors
/// As [`run`].
pub(crate) async fn one(
    client: &Client,
    envelope: &Envelope,
    args: &ChatArgs,
) -> Result<u8, ApiError> {
    const STORE: Duration = Duration::from_secs(30);
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut watch = Watch::open(&client.broker, &envelope.key()).await?;
    let known =
        store(&client.broker, envelope, args.message.id.is_some(), args.timeout.unwrap_or(STORE))
            .await?;
    if known == Known::Already {
        watch.look().await?;
    }
    stream(client, envelope, watch, Stream::new(args.follow, 0), args.follow, deadline).await
}

/// Resumes the stream of a message that was sent before.
///
/// # Errors
/// 1 when there is no answer, 3 no such message, 5 too late.
pub(crate) async fn attach(global: &Global, args: &AttachArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let envelope = args.message.resolve(&client.broker).await?.value;
    let deadline = args.timeout.map(|timeout| Instant::now() + timeout);
    let mut watch = Watch::open(&client.broker, &envelope.key()).await?;
    watch.look().await?;
    stream(&client, &envelope, watch, Stream::new(true, args.from), true, deadline).await
}

async fn stream(
    client: &Client,
    envelope: &Envelope,
    mut watch: Watch,
    mut stream: Stream,
    follow: bool,
    deadline: Option<Instant>,
) -> Result<u8, ApiError> {
    let id = &envelope.message_id;
    let mut screen = Screen { id, output: client.output, follow, line_open: false, error: None };
    let quiet = async || watch::say_why(client, envelope).await;
    let read = tokio::select! {
        read = watch.read(&mut stream, follow, deadline, |item| screen.tell(item), quiet) => read,
        _ = tokio::signal::ctrl_c() => {
            screen.end_line()?;
            output::note(format!("`mozart attach {id} --from {}` resumes the stream", stream.last()));
            return Ok(failure::INTERRUPTED);
        }
    };
    screen.end_line()?;
    read?;
    verdict(envelope, &stream, screen.error)
}

/// The result of the command: an error before the last reset no longer counts.
fn verdict(envelope: &Envelope, stream: &Stream, error: Option<String>) -> Result<u8, ApiError> {
    let failed = stream.final_().and_then(|final_| mozart_client::send::verdict(envelope, final_));
    match (failed, error) {
        (Some(failed), _) => Err(failed),
        (None, Some(error)) => Err(broken_off(envelope, error)),
        (None, None) => Ok(0),
    }
}

fn broken_off(envelope: &Envelope, cause: String) -> ApiError {
    let id = &envelope.message_id;
    let what = format!("the answer to {id} broke off, and the message is being retried");
    let try_ = format!("`mozart attach {id}` follows the next attempt");
    failure::error(failure::TIMEOUT, what, cause, try_)
}

/// Shows items: text as it is, or JSON lines.
struct Screen<'a> {
    id: &'a MessageId,
    output: Output,
    /// Whether an error is not the end, which the command's final error is about.
    follow: bool,
    /// Whether the last text did not end its line.
    line_open: bool,
    /// The error since the last reset.
    error: Option<String>,
}

impl Screen<'_> {
    /// Shows an item. Where that cannot be written, the message is named, which goes on.
    fn tell(&mut self, item: &Item) -> Result<(), ApiError> {
        let id = self.id;
        output::result(self.show(item), || format!("message {id} is stored"))
    }

    fn show(&mut self, item: &Item) -> Result<(), ApiError> {
        match item {
            Item::Error { error, .. } => self.error = Some(error.clone()),
            Item::Reset { .. } => self.error = None,
            Item::Text { .. } | Item::Event { .. } | Item::Done { .. } => {}
        }
        if self.output == Output::Json {
            return output::json_line(&Line { item, message_id: self.id });
        }
        match item {
            Item::Text { text, .. } => {
                self.line_open = !text.ends_with('\n') && (self.line_open || !text.is_empty());
                output::text(text)
            }
            Item::Error { error, attempt, .. } => {
                self.end_line()?;
                if self.follow {
                    output::note(format!("attempt {attempt} ended: {error}"));
                }
                Ok(())
            }
            Item::Reset { attempt, .. } => {
                self.end_line()?;
                output::note(format!("--- reset: attempt {attempt}, forget what came before ---"));
                Ok(())
            }
            Item::Event { event, .. } => {
                self.end_line()?;
                output::note(told(event));
                Ok(())
            }
            Item::Done { .. } => Ok(()),
        }
    }

    fn end_line(&mut self) -> Result<(), ApiError> {
        if std::mem::take(&mut self.line_open) { output::line("") } else { Ok(()) }
    }
}

/// An event of the worker other than its answer, on one line: `[tool_use] name=search input={"q":"nats"}`.
fn told(event: &Value) -> String {
    const LONGEST: usize = 160;
    let kind = event["type"].as_str().unwrap_or("event");
    let fields = event.as_object().into_iter().flatten().filter(|(name, _)| *name != "type");
    let fields = fields.map(|(name, value)| match value.as_str() {
        Some(text) => format!(" {name}={text}"),
        None => format!(" {name}={value}"),
    });
    table::one_line(&format!("[{kind}]{}", fields.collect::<String>()), LONGEST)
}

/// The conversation of a prompt in which none was named.
pub(crate) fn new_conversation() -> ConversationId {
    ConversationId::from(&MessageId::from(uuid::Uuid::now_v7()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::message::Status;

    #[test]
    fn what_a_worker_tells_is_one_line() {
        let event = serde_json::json!({"type": "tool_use", "name": "find\nit", "input": {"q": 1}});
        assert_eq!(told(&event), r#"[tool_use] input={"q":1} name=find it"#);
        assert_eq!(told(&serde_json::json!(3)), "[event]");
    }

    #[test]
    fn lines_have_the_fields_that_scripts_rely_on() {
        let id = MessageId::new("m1").expect("valid");
        let json = |item: &Item| {
            serde_json::to_string(&Line { item, message_id: &id }).expect("plain values")
        };
        let text = Item::Text { text: "hi".to_owned(), seq: 2, attempt: 1 };
        assert_eq!(
            json(&text),
            r#"{"type":"text","text":"hi","seq":2,"attempt":1,"messageId":"m1"}"#
        );
        let done = Item::Done {
            status: Status::Completed,
            response: Some("hi".to_owned()),
            reason: None,
            seq: 2,
            attempt: 1,
        };
        assert_eq!(
            json(&done),
            r#"{"type":"done","status":"completed","response":"hi","seq":2,"attempt":1,"messageId":"m1"}"#
        );
    }
}
