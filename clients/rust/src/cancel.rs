//! Cancelling messages.

use std::time::Duration;

use broker::{Attempt as _, FinalOutcome, Stored};
use common::api::{ApiError, Query};
use common::failure;
use common::message::{Envelope, Final, Outcome, Status};

use crate::client::{Client, now};

/// A message that was cancelled.
#[derive(Debug)]
pub struct Cancelled {
    /// The message.
    pub request: Envelope,
    /// Whether a supervisor forwards it to the worker. If not, the shim finds the final state when it wants to store its own.
    pub is_told: bool,
}

/// Makes a message final as cancelled: no answer can win any more. Then the worker is notified, if a supervisor forwards it. `door`: by
/// way of what it was asked for.
///
/// # Errors
/// 4 it is final already.
pub async fn cancel(
    client: &Client,
    message: Stored<Envelope>,
    door: &str,
) -> Result<Cancelled, ApiError> {
    const STORE: Duration = Duration::from_secs(10);
    const TELL: Duration = Duration::from_secs(2);
    let Stored { value: request, seq, .. } = message;
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
    let author = format!("{door}.{}", uuid::Uuid::now_v7());
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
    let is_told = client.ask_within(&told, TELL).await.is_ok();
    Ok(Cancelled { request, is_told })
}
