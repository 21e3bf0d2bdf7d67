//! Waiting until a fleet has come to rest, and only then judging it.

use std::time::Duration;

use broker::{Broker, BrokerError};
use common::AgentName;
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::{Facts, Fault, Verdict, judge};

/// The pause between two looks at what is open.
const LOOK: Duration = Duration::from_millis(500);
/// The pause before a dead letter is looked for again.
const LETTER: Duration = Duration::from_secs(1);

/// Waits until every message of these agents is final; how many are not by `until`.
///
/// # Errors
/// When the broker does not answer.
pub async fn settled(
    broker: &Broker,
    agents: &[AgentName],
    until: Instant,
) -> Result<u64, BrokerError> {
    loop {
        let open = agents.iter().map(|agent| broker.open_requests(agent, 1, 1));
        let open: u64 = try_join_all(open).await?.iter().map(|scan| scan.total).sum();
        if open == 0 || Instant::now() > until {
            return Ok(open);
        }
        sleep(LOOK).await;
    }
}

/// Judges what `collect` finds. A dead letter follows its message's final state: one that is missing is waited for until `until`.
///
/// # Errors
/// Those of `collect`.
pub async fn judge_at_rest<E>(
    until: Instant,
    collect: impl AsyncFn() -> Result<Facts, E>,
) -> Result<(Facts, Verdict), E> {
    loop {
        let facts = collect().await?;
        let verdict = judge(&facts);
        let waits = verdict.faults.iter().any(|fault| matches!(fault, Fault::NoDeadLetter(_)));
        if !waits || Instant::now() > until {
            return Ok((facts, verdict));
        }
        sleep(LETTER).await;
    }
}
