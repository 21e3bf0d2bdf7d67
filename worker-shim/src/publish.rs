//! The shim's words to the broker: repeated until they are stored, silent while it is not known whether this incarnation is
//! still the current one.

use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, BrokerError, EventBatch, FinalOutcome, LogLine};
use common::message::{DeadLetter, Envelope, Final, MessageKey, Outcome};
use tokio::sync::watch;

/// One publish tries this long before it starts again (with the same id).
const TRY: Duration = Duration::from_secs(5);
/// The pause after a failed try.
const PAUSE: Duration = Duration::from_millis(100);

/// Open while this incarnation is known to be the current one.
pub(crate) type Gate = watch::Receiver<bool>;

/// What came of a publish or a look-up.
#[derive(Debug)]
pub(crate) enum Done {
    LookedUp { seq: u64, is_final: bool, attempts: u32 },
    Settled { seq: u64, won: bool },
    Batch { seq: u64 },
    Logs,
    Buried,
    Answered { request_id: String, answer: Result<String, String> },
}

/// Waits until the gate is open; never returns once nobody can open it any more.
async fn pass(gate: &mut Gate) {
    if gate.wait_for(|open| *open).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pause(what: &str, error: &BrokerError) {
    tracing::warn!("{what}: {error}");
    tokio::time::sleep(PAUSE).await;
}

/// Looks for a message's final state and its attempts on record.
pub(crate) async fn look_up(broker: Broker, seq: u64, key: MessageKey) -> Done {
    loop {
        let (final_, mark) =
            tokio::join!(broker.final_of(&key), broker.last_mark(&key.agent, &key.message_id));
        match (final_, mark) {
            (Ok(final_), Ok(mark)) => {
                let attempts = mark.map_or(0, |mark| mark.attempt);
                return Done::LookedUp { seq, is_final: final_.is_some(), attempts };
            }
            (Err(error), _) | (_, Err(error)) => pause("looking a message up", &error).await,
        }
    }
}

/// Stores a final state.
pub(crate) async fn settle(
    broker: Broker,
    mut gate: Gate,
    seq: u64,
    key: MessageKey,
    author: String,
    mut final_: Box<Final>,
) -> Done {
    loop {
        pass(&mut gate).await;
        match broker.publish_final(&key, &final_, &author, TRY).await {
            Ok(FinalOutcome::Won) => return Done::Settled { seq, won: true },
            Ok(FinalOutcome::Lost(_)) => return Done::Settled { seq, won: false },
            Err(error @ BrokerError::TooLarge { .. }) => {
                final_.status = Outcome::Failed;
                final_.response = None;
                final_.tail.clear();
                final_.reason = Some(format!("the answer cannot be stored: {error}"));
            }
            Err(error) => pause("storing a final state", &error).await,
        }
    }
}

/// Stores events.
pub(crate) async fn events(broker: Broker, mut gate: Gate, seq: u64, batch: EventBatch) -> Done {
    loop {
        pass(&mut gate).await;
        match broker.publish_events(&batch).await {
            Ok(()) => return Done::Batch { seq },
            // The final state carries the whole text; a batch that can never be stored must not stop the turn.
            Err(error @ BrokerError::TooLarge { .. }) => {
                tracing::error!("dropping events: {error}");
                return Done::Batch { seq };
            }
            Err(error) => pause("storing events", &error).await,
        }
    }
}

/// Stores a dead letter with what every attempt ended with.
pub(crate) async fn bury(
    broker: Broker,
    mut gate: Gate,
    envelope: Box<Envelope>,
    final_: Box<Final>,
    log: Arc<Vec<String>>,
) -> Done {
    loop {
        pass(&mut gate).await;
        let result = async {
            let history = broker.events(&envelope.agent, &envelope.message_id).await?;
            let history = history.into_iter().flat_map(|batch| {
                batch.events.into_iter().map(move |event| (batch.incarnation, event))
            });
            let letter =
                DeadLetter::new((*envelope).clone(), &final_, history, log.as_ref().clone());
            broker.bury(&letter).await
        };
        match result.await {
            Ok(_) => return Done::Buried,
            Err(error) => pause("storing a dead letter", &error).await,
        }
    }
}

/// Stores log lines; they are lost if that fails.
pub(crate) async fn logs(
    broker: Broker,
    agent: common::AgentName,
    incarnation: u64,
    lines: Vec<LogLine>,
) -> Done {
    if let Err(error) = broker.publish_logs(&agent, incarnation, &lines).await {
        tracing::warn!("{} log lines lost: {error}", lines.len());
    }
    Done::Logs
}
