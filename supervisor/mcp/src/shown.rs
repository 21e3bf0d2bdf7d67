//! What tools are given, and what they yield.

use common::Timestamp;
use common::message::{Outcome, Status};
use mozart_client::stream::{Item, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long a tool waits unless it is told otherwise: clients end calls after a minute.
const WAIT: u64 = 50;

fn wait() -> u64 {
    WAIT
}

fn lines() -> usize {
    100
}

/// Which agents.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListAgents {
    /// Only agents whose name contains this.
    #[serde(default)]
    pub(crate) filter: Option<String>,
}

/// What becomes of a message when the call is cancelled while it waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnCancel {
    /// It goes on; `message_status` has its answer.
    #[default]
    Detach,
    /// It is cancelled, too.
    Cancel,
}

/// A message to an agent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskAgent {
    /// The name of the agent.
    pub(crate) agent: String,
    /// What it is told.
    pub(crate) message: String,
    /// The conversation that it belongs to: the agent answers its messages one after the other. Without one, it is a conversation of its own.
    #[serde(default)]
    pub(crate) conversation: Option<String>,
    /// How many seconds to wait for the answer.
    #[serde(default = "wait")]
    #[schemars(range(max = 600))]
    pub(crate) wait_s: u64,
    /// An id for the message. The same id with the same content is the same message, so a call that failed can be repeated.
    #[serde(default)]
    pub(crate) message_id: Option<String>,
    /// What becomes of the message when this call is cancelled.
    #[serde(default)]
    pub(crate) on_cancel: OnCancel,
}

/// Which message, and how long to wait for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MessageStatus {
    /// The message: its id, AGENT/ID or AGENT/SENDER/ID.
    pub(crate) message_id: String,
    /// How many seconds to wait for the answer.
    #[serde(default)]
    #[schemars(range(max = 600))]
    pub(crate) wait_s: u64,
    /// Only text after this position: the `seq` of an earlier result.
    #[serde(default)]
    pub(crate) after_seq: u64,
}

/// Which message.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelMessage {
    /// The message: its id, AGENT/ID or AGENT/SENDER/ID.
    pub(crate) message_id: String,
}

/// What to explain.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Explain {
    /// An agent's name, or a message: its id, AGENT/ID or AGENT/SENDER/ID.
    pub(crate) subject: String,
}

/// Which log lines.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentLogs {
    /// The name of the agent.
    pub(crate) agent: String,
    /// How many of its last lines.
    #[serde(default = "lines")]
    #[schemars(range(min = 1, max = 1000))]
    pub(crate) lines: usize,
    /// Only lines of this incarnation (the nth start of the agent).
    #[serde(default)]
    pub(crate) incarnation: Option<u64>,
}

/// Whose questions.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuestions {
    /// Only those of this agent.
    #[serde(default)]
    pub(crate) agent: Option<String>,
}

/// An answer to a question.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerQuestion {
    /// The agent that asks.
    pub(crate) agent: String,
    /// The `message_id` of the question.
    pub(crate) message_id: String,
    /// The `request_id` of the question.
    pub(crate) request_id: String,
    /// The answer; of a question with options, one of them.
    pub(crate) text: String,
}

/// Questions that are open.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Questions {
    /// They, oldest first.
    pub(crate) questions: Vec<Question>,
    /// Whether there are more.
    pub(crate) more: bool,
}

/// A question of an agent's worker to a person. The turn waits for the answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Question {
    /// The agent that asks.
    pub(crate) agent: String,
    /// The message in whose course it asks.
    pub(crate) message_id: String,
    /// Its id.
    pub(crate) request_id: String,
    /// The question.
    pub(crate) text: String,
    /// The answers that are taken; empty: any.
    pub(crate) options: Vec<String>,
    /// The answer if nobody gives one in time; without it, the question ends with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<String>,
    /// When it was asked.
    pub(crate) asked: String,
    /// When it ends.
    pub(crate) until: String,
}

/// An answer that is stored.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Answered {
    /// The question.
    pub(crate) request_id: String,
    /// The answer, as the worker gets it.
    pub(crate) text: String,
}

/// Agents.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Agents {
    pub(crate) agents: Vec<Agent>,
}

/// An agent.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Agent {
    /// Its name.
    pub(crate) name: String,
    /// starting, running, error, stopping or stopped.
    pub(crate) state: String,
    /// Why, where that is not obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// How many messages wait for it.
    pub(crate) queue: u64,
    /// How many messages it is at.
    pub(crate) in_progress: u64,
    /// Since when it is running.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) running_since: Option<String>,
}

/// How far a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It waits for the agent.
    Queued,
    /// The agent has it.
    Running,
    /// It is answered: `text` is the answer.
    Done,
    /// There is no answer: `reason` says why.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It was not begun in time.
    Expired,
}

impl From<Status> for State {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Queued,
            Status::Delivered | Status::Acknowledged => Self::Running,
            Status::Completed => Self::Done,
            Status::Failed => Self::Failed,
            Status::Cancelled => Self::Cancelled,
            Status::Expired => Self::Expired,
        }
    }
}

/// A message, and what is known of its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Message {
    /// Its id.
    pub(crate) message_id: String,
    /// Its agent.
    pub(crate) agent: String,
    /// Its conversation.
    pub(crate) conversation: String,
    pub(crate) state: State,
    /// The answer, or its text so far; with `after_seq`, what came after that.
    pub(crate) text: String,
    /// The position of the text: `after_seq` for the next call.
    pub(crate) seq: u64,
    /// Whether earlier text no longer counts: another attempt began.
    pub(crate) reset: bool,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// What to do, where that is not obvious.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

/// A message that was cancelled, or was over.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Cancelled {
    /// Its id.
    pub(crate) message_id: String,
    pub(crate) state: State,
}

/// Why something is as it is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Explained {
    /// The agent, or the message.
    pub(crate) subject: String,
    /// Why it is as it is, in sentences, most important first.
    pub(crate) explanation: Vec<String>,
    /// The last log lines of an agent.
    pub(crate) log: Vec<String>,
    /// What happened last to an agent.
    pub(crate) recent: Vec<String>,
}

/// Log lines, oldest first.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Logs {
    pub(crate) agent: String,
    pub(crate) lines: Vec<LogLine>,
}

/// A log line.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct LogLine {
    /// When it was written.
    pub(crate) at: String,
    /// Which start of the agent wrote it.
    pub(crate) incarnation: u64,
    /// stdout, stderr or shim.
    pub(crate) stream: String,
    pub(crate) text: String,
}

/// A time, in words of the command line.
pub(crate) fn time(at: Timestamp) -> String {
    at.to_string()
}

/// What a reader has of the text of an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) seq: u64,
    pub(crate) reset: bool,
}

impl Heard {
    /// One that has everything up to a position.
    pub(crate) fn after(seq: u64) -> Self {
        Self { seq, ..Self::default() }
    }

    pub(crate) fn hear(&mut self, item: &Item) {
        match item {
            Item::Text { text, .. } => self.text.push_str(text),
            Item::Reset { .. } => {
                self.text.clear();
                self.reset = true;
            }
            Item::Event { .. } | Item::Error { .. } | Item::Done { .. } => {}
        }
        self.seq = self.seq.max(item.seq());
    }

    /// How far it is, for somebody who waits: the last line of the text.
    pub(crate) fn progress(&self) -> String {
        const MOST: usize = 120;
        let last = self.text.lines().map(str::trim).rfind(|line| !line.is_empty());
        let Some(last) = last else { return "no text yet".to_owned() };
        last.chars().skip(last.chars().count().saturating_sub(MOST)).collect()
    }
}

/// What the stream of a message says of it, with the text in `heard`.
pub(crate) fn message(
    request: &common::message::Envelope,
    stream: &Stream,
    heard: Heard,
) -> Message {
    let status = stream.status();
    let Heard { mut text, seq, mut reset } = heard;
    let final_ = stream.final_();
    let answer = final_.filter(|final_| final_.status == Outcome::Completed);
    // What was streamed need not be the answer: the worker may have ended with another one, or the events are no longer kept.
    if let Some(answer) = answer.and_then(|answer| answer.response.as_deref())
        && (text.is_empty() || !answer.ends_with(&text))
    {
        reset |= !answer.is_empty();
        answer.clone_into(&mut text);
    }
    Message {
        message_id: request.message_id.to_string(),
        agent: request.agent.to_string(),
        conversation: request.conversation_id.to_string(),
        state: status.into(),
        text,
        seq,
        reset,
        reason: final_.and_then(|final_| final_.reason.clone()),
        hint: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_the_end_of_what_was_said() {
        let mut heard = Heard::after(3);
        assert_eq!((heard.progress().as_str(), heard.seq), ("no text yet", 3));
        let text = |text: &str, seq| Item::Text { text: text.to_owned(), seq, attempt: 1 };
        heard.hear(&text("one\ntwo", 4));
        heard.hear(&text(" three\n\n", 5));
        assert_eq!((heard.progress().as_str(), heard.seq, heard.reset), ("two three", 5, false));
        heard.hear(&Item::Reset { seq: 9, attempt: 2, incarnation: None });
        heard.hear(&text(&"é".repeat(500), 10));
        assert_eq!((heard.progress().chars().count(), heard.reset), (120, true));
    }
}
