//! Why an answer is not there yet.

use std::time::Duration;

use common::api::{AgentRow, AgentState};
use common::message::Envelope;

use super::client::Client;
use super::output;
use crate::args::Output;
use mozart_client::send;

/// Tells a person who waits for an answer why there is none yet. It adds to what the command does, and takes no more than a second.
pub(crate) async fn say_why(client: &Client, envelope: &Envelope) {
    if client.output != Output::Table {
        return;
    }
    let (id, rows) = (&envelope.message_id, client.brief_rows(Some(&envelope.agent)));
    let rows = tokio::time::timeout(Duration::from_secs(1), rows).await;
    match rows.ok().and_then(Result::ok).and_then(|rows| idle(rows.first()?)) {
        Some(why) => output::note(format!("waiting: {why}; `mozart explain {id}` says more")),
        None if output::stderr_is_terminal() => {
            output::note(format!("waiting; `mozart explain {id}` says why"));
        }
        None => {}
    }
}

/// That an agent takes no messages now, and why.
fn idle(row: &AgentRow) -> Option<String> {
    let state = match (row.state, row.next_try) {
        (AgentState::Running, _) => return None,
        (AgentState::Starting, _) => "starting",
        (AgentState::Error, Some(_)) => "waiting to restart",
        (AgentState::Error, None) => "in error",
        (AgentState::Stopping | AgentState::Stopped, _) => row.state.as_str(),
    };
    let reason = row.reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
    Some(send::rests(row).unwrap_or_else(|| format!("{} is {state}{reason}", row.agent)))
}
