//! Cancelling messages.

use std::time::Duration;

use broker::{Attempt as _, FinalOutcome, LaterEnd, Stored};
use common::api::{ApiError, Query};
use common::failure;
use common::message::{Envelope, Final, Outcome, Status};
use tokio::time::Instant;

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
    let name = request.message_id.clone();
    let what = || format!("cannot cancel message {name}");
    let (request, seq) = match before(client, request, seq, door, STORE).await? {
        Before::Cancelled(request) => return Ok(Cancelled { request, is_told: true }),
        Before::At(request, seq) => (request, seq),
    };
    let id = &request.message_id;
    let mark = client.broker.last_mark(&request.key()).await.attempt(what())?;
    let final_ = cancelled(mark.map_or(0, |mark| mark.attempt));
    let author = format!("{door}.{}", uuid::Uuid::now_v7());
    let outcome =
        client.broker.settle(&request.key(), &request.tag(), seq, &final_, &author, STORE).await;
    let outcome = match outcome.attempt(what()) {
        Err(error) => return Err(client.unless_full(error).await),
        Ok(outcome) => outcome,
    };
    let late = match outcome {
        FinalOutcome::Won => None,
        FinalOutcome::Lost(first) => Some(already(&first)),
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

fn cancelled(attempts: u32) -> Final {
    Final {
        status: Outcome::Cancelled,
        response: None,
        reason: Some("cancelled by the user".to_owned()),
        attempts,
        incarnation: None,
        at: now(),
        tail: Vec::new(),
    }
}

fn already(first: &Final) -> String {
    format!("it is already {}, since {}", Status::from(first.status).as_str(), first.at)
}

/// What became of a message before it is cancelled in the journal.
enum Before {
    /// It waited to be delivered later, and is cancelled.
    Cancelled(Envelope),
    /// It is in the journal, at a sequence.
    At(Envelope, u64),
}

/// Cancels a message that waits to be delivered later. One that is on its way to the journal is waited for: it arrives there within a moment,
/// unless nobody leads.
async fn before(
    client: &Client,
    request: Envelope,
    seq: u64,
    door: &str,
    within: Duration,
) -> Result<Before, ApiError> {
    const AGAIN: Duration = Duration::from_millis(50);
    if request.deliver_at.is_none() {
        return Ok(Before::At(request, seq));
    }
    let (broker, key) = (&client.broker, request.key());
    let what = || format!("cannot cancel message {}", request.message_id);
    let conflict = |cause: String| {
        let try_ = format!("`mozart journal show {}`", request.message_id);
        Err(failure::error(failure::CONFLICT, what(), cause, try_))
    };
    let until = Instant::now() + within;
    loop {
        if let Some(there) = broker.request_of(&key).await.attempt(what())? {
            return Ok(Before::At(there.value, there.seq));
        }
        let Some(waiting) = broker.later_request(&key).await.attempt(what())? else {
            // It left just now, for the journal or for the history.
            return match broker.message_of(&key).await.attempt(what())? {
                Some(there) => Ok(Before::At(there.value, there.seq)),
                None => conflict("it has ended and is no longer kept".to_owned()),
            };
        };
        let author = format!("{door}.{}", uuid::Uuid::now_v7());
        let of = (&key, &waiting.value.tag());
        let ended = broker.end_later(of, waiting.seq, &cancelled(0), &author, within).await;
        let ended = match ended.attempt(what()) {
            Err(error) => return Err(client.unless_full(error).await),
            Ok(ended) => ended,
        };
        match ended {
            LaterEnd::Won => return Ok(Before::Cancelled(request)),
            LaterEnd::Lost(first) => return conflict(already(&first)),
            LaterEnd::Given | LaterEnd::Gone => {}
        }
        if Instant::now() >= until {
            let cause = "it is due, and no supervisor has delivered it yet";
            return Err(failure::error(failure::TIMEOUT, what(), cause, "cancel it again"));
        }
        tokio::time::sleep(AGAIN).await;
    }
}
