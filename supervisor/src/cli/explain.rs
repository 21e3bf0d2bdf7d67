//! `mozart explain`: why an agent or a message is where it is, and what to try. Reads the logs alone: no supervisor is needed.

use std::time::Duration;

use broker::{Broker, ControlItem, OpenScan};
use clap::Args;
use common::api::{AgentState, ApiError, MessageDetail};
use common::event::{EventBody, attempt_of};
use common::message::Status;
use common::{AgentName, Timestamp};
use serde::Serialize;
use supervisor_core::{Agent, State, step};

use super::client::{Client, now};
use super::reference::MessageRef;
use super::{journal, output, table};
use crate::args::Global;
use crate::failure::{self, Attempt};

/// Log lines shown for an agent that is in trouble.
const LAST_LINES: usize = 10;
/// How many messages ahead of one are looked at.
const AHEAD: usize = 1000;

/// `mozart explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// An agent's name, or a message: ID, AGENT/ID or AGENT/SENDER/ID
    subject: String,
}

/// The explanation, in JSON.
#[derive(Debug, Serialize)]
struct Explanation {
    subject: String,
    explanation: Vec<String>,
}

/// Explains an agent or a message.
///
/// # Errors
/// 3 when there is neither an agent nor a message of that name.
pub(crate) async fn run(global: &Global, args: &ExplainArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let state = fold(&client.broker).await?;
    let agent = AgentName::new(&args.subject).ok();
    let known = agent.filter(|name| !supervisor_core::explain(&state, name).is_empty());
    let explanation = match known {
        Some(agent) => explain_agent(&client.broker, &state, &agent).await?,
        None => {
            let message: MessageRef = args.subject.parse().map_err(|error| {
                let what = format!("{:?} is neither an agent nor a message", args.subject);
                failure::error(failure::USAGE, what, error, "`mozart ps -a`, `mozart journal ls`")
            })?;
            let detail = journal::detail(&client.broker, &message).await.map_err(|error| {
                let what = format!("no agent and no message {:?}", args.subject);
                if error.code == failure::NOT_FOUND { ApiError { what, ..error } } else { error }
            })?;
            explain_message(&client.broker, &state, &detail).await?
        }
    };
    if client.json() {
        output::json(&Explanation { subject: args.subject.clone(), explanation })?;
    } else {
        output::line(explanation.join("\n"))?;
    }
    Ok(0)
}

/// Folds the control log here: the same function on the same log as every supervisor's.
async fn fold(broker: &Broker) -> Result<State, ApiError> {
    const WHAT: &str = "cannot read the control log";
    let mut log = broker.follow_control(1, None).await.attempt(WHAT)?;
    let mut state = State::default();
    loop {
        match log.next().await.attempt(WHAT)? {
            ControlItem::Record { seq, record } => drop(step(&mut state, seq, &record)),
            ControlItem::Malformed { seq, cause } => {
                output::note(format!(
                    "warning: record #{seq} of the control log does not parse: {cause}"
                ));
            }
            ControlItem::CaughtUp => return Ok(state),
        }
    }
}

async fn explain_agent(
    broker: &Broker,
    state: &State,
    name: &AgentName,
) -> Result<Vec<String>, ApiError> {
    let mut lines = supervisor_core::explain(state, name);
    let Some(agent) = state.agent(name) else { return Ok(lines) };
    let open = open(broker, agent).await?;
    lines.push(about_inbox(&open, now()));
    if state.leader().is_none() {
        lines.push("No supervisor has ever led here: nothing starts. `mozart up`.".to_owned());
    }
    if agent.state() == AgentState::Error {
        let log = broker.logs(name, None, LAST_LINES).await.attempt("cannot read the log")?;
        if !log.is_empty() {
            lines.push("Its worker last wrote:".to_owned());
            lines.extend(log.iter().map(|line| format!("  {}", table::one_line(&line.text, 160))));
        }
    }
    Ok(lines)
}

async fn open(broker: &Broker, agent: &Agent) -> Result<OpenScan, ApiError> {
    let from = agent.floor.max(1);
    broker.open_requests(&agent.name, from, AHEAD).await.attempt("cannot read the journal")
}

fn about_inbox(open: &OpenScan, now: Timestamp) -> String {
    match open.open.first() {
        None => "No message waits for it.".to_owned(),
        Some((_, key, at)) => format!(
            "{} messages are open; the oldest, {}, since {}.",
            open.total,
            key.message_id,
            table::short(now.since(*at))
        ),
    }
}

async fn explain_message(
    broker: &Broker,
    state: &State,
    detail: &MessageDetail,
) -> Result<Vec<String>, ApiError> {
    let row = &detail.row;
    let mut lines = vec![headline(detail)];
    lines.extend(attempts(detail));
    if let Some(cause) = &row.cause {
        lines.push(format!(
            "Agent {} asked for it, in its turn of {}.",
            cause.agent, cause.message_id
        ));
    }
    match row.status {
        Status::Failed => lines.push(format!(
            "It is a dead letter: `mozart dead show {id}`; `mozart dead redrive {id}` tries it again.",
            id = row.message_id
        )),
        Status::Pending => lines.extend(waits_for(broker, state, detail).await?),
        Status::Delivered | Status::Acknowledged => lines.extend(in_work(state, detail)),
        Status::Completed | Status::Cancelled | Status::Expired => {}
    }
    Ok(lines)
}

fn headline(detail: &MessageDetail) -> String {
    let row = &detail.row;
    let took = table::short(row.updated_at.since(row.created_at));
    let reason = row.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let is = format!("Message {} to {} is {}", row.message_id, row.agent, row.status.as_str());
    if row.status.is_final() {
        format!("{is}{reason}, {took} after it was sent, in attempt {}.", row.attempts)
    } else {
        format!("{is}{reason}.")
    }
}

/// How each attempt that broke off ended.
fn attempts(detail: &MessageDetail) -> Vec<String> {
    let ends = detail.history.iter().filter_map(|event| match &event.body {
        EventBody::Error { error } => {
            Some(format!("Attempt {} ended at {}: {error}.", attempt_of(event.seq), event.at))
        }
        EventBody::Delivered { .. }
        | EventBody::Acknowledged
        | EventBody::Text { .. }
        | EventBody::Worker { .. }
        | EventBody::Reset { .. } => None,
    });
    ends.collect()
}

/// Why nobody has it yet.
async fn waits_for(
    broker: &Broker,
    state: &State,
    detail: &MessageDetail,
) -> Result<Vec<String>, ApiError> {
    let row = &detail.row;
    let Some(agent) = state.agent(&row.agent) else {
        return Ok(vec![format!(
            "Agent {} is not registered: it waits until it is. `mozart apply`, or `mozart cancel {}`.",
            row.agent, row.message_id
        )]);
    };
    let mut lines = Vec::new();
    if agent.state() != AgentState::Running {
        lines.push("Its agent takes no messages now:".to_owned());
        lines.extend(
            supervisor_core::explain(state, &row.agent).into_iter().map(|line| format!("  {line}")),
        );
    }
    let open = open(broker, agent).await?;
    let ahead = open.open.iter().take_while(|(_, key, _)| key.message_id != row.message_id).count();
    if ahead > 0 {
        lines.push(format!(
            "{ahead} messages are before it; its agent works on {} conversations at a time (CONCURRENCY).",
            agent.spec.concurrency
        ));
    } else if lines.is_empty() {
        lines.push("It is the next one.".to_owned());
    }
    Ok(lines)
}

/// What the worker that has it is doing.
fn in_work(state: &State, detail: &MessageDetail) -> Vec<String> {
    let row = &detail.row;
    let quiet = now().since(row.updated_at);
    let mut lines =
        vec![format!("Its worker last said something about it {} ago.", table::short(quiet))];
    if let Some(agent) = state.agent(&row.agent) {
        lines.push(format!(
            "A turn without progress ends after {} (TIMEOUT turn); it has {} attempts (ATTEMPTS).",
            table::short(agent.spec.timeout.turn),
            agent.spec.attempts
        ));
        if agent.state() != AgentState::Running {
            lines.extend(supervisor_core::explain(state, &row.agent));
        }
    }
    if quiet > Duration::from_secs(60) {
        lines.push(format!(
            "`mozart logs {}` shows what it writes; `mozart cancel {}` gives it up.",
            row.agent, row.message_id
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::MessageId;
    use common::message::MessageKey;

    #[test]
    fn the_oldest_open_message_is_named() {
        let key = MessageKey {
            agent: AgentName::new("a").expect("valid"),
            sender: common::SenderName::new("user").expect("valid"),
            message_id: MessageId::new("m1").expect("valid"),
        };
        let open =
            OpenScan { open: vec![(7, key, Timestamp::from_millis(1_000))], total: 3, last_seq: 9 };
        assert_eq!(
            about_inbox(&open, Timestamp::from_millis(6_000)),
            "3 messages are open; the oldest, m1, since 5s."
        );
        let none = OpenScan { open: Vec::new(), total: 0, last_seq: 9 };
        assert_eq!(about_inbox(&none, Timestamp::default()), "No message waits for it.");
    }
}
