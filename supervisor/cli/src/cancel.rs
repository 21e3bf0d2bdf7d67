//! `mozart cancel`.

use std::time::Duration;

use broker::{FinalOutcome, Stored};
use clap::Args;
use common::api::{ApiError, Query};
use common::message::{Final, Outcome, Status};
use serde_json::json;

use super::client::{Client, now};
use super::output;
use super::reference::MessageRef;
use crate::args::Global;
use broker::Attempt;
use common::failure;

/// `mozart cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The message: ID, AGENT/ID or AGENT/SENDER/ID
    message: MessageRef,
}

/// Makes a message final as cancelled: no answer can win any more. Then the worker is notified, if a supervisor forwards it.
///
/// # Errors
/// 3 no such message, 4 it is final already.
pub(crate) async fn run(global: &Global, args: &CancelArgs) -> Result<u8, ApiError> {
    const STORE: Duration = Duration::from_secs(10);
    const TELL: Duration = Duration::from_secs(2);
    let client = Client::to_change(global).await?;
    let Stored { value: request, seq, .. } = args.message.resolve(&client.broker).await?;
    let id = &request.message_id;
    let what = || format!("cannot cancel message {id}");
    let mark = client.broker.last_mark(&request.key()).await.attempt(what())?;
    let final_ = Final {
        status: Outcome::Cancelled,
        response: None,
        reason: Some("cancelled by the user".to_owned()),
        attempts: mark.map_or(0, |mark| mark.attempt),
        incarnation: None,
        at: now(),
        tail: Vec::new(),
    };
    let author = format!("cli.{}", uuid::Uuid::now_v7());
    let outcome =
        client.broker.settle(&request.key(), &request.tag(), seq, &final_, &author, STORE).await;
    let outcome = match outcome.attempt(what()) {
        Err(error) => return Err(client.unless_full(error).await),
        Ok(outcome) => outcome,
    };
    let late = match outcome {
        FinalOutcome::Won => None,
        FinalOutcome::Lost(first) => Some(format!(
            "it is already {}, since {}",
            Status::from(first.status).as_str(),
            first.at
        )),
        FinalOutcome::Gone => Some("it has ended and is no longer kept".to_owned()),
    };
    if let Some(cause) = late {
        let try_ = format!("`mozart journal show {id}`");
        return Err(failure::error(failure::CONFLICT, what(), cause, try_));
    }
    let told = Query::Cancelled {
        agent: request.agent.clone(),
        sender: request.sender.clone(),
        message_id: id.clone(),
    };
    if client.ask_within(&told, TELL).await.is_err() {
        // The shim finds the final state when it wants to store its own.
        output::note("note: no supervisor answers; a worker that has the message is not notified");
    }
    let written = match client.json() {
        true => {
            let agent = &request.agent;
            output::json(&json!({ "messageId": id, "agent": agent, "status": "cancelled" }))
        }
        false => output::line(id.as_str()),
    };
    output::result(written, || format!("message {id} is cancelled")).map(|()| 0)
}
