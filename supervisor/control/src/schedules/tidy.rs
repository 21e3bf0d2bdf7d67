//! The records of schedules that no agent has any more are removed, once they are old: a schedule that is back in the soul begins anew anyway.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Broker, BrokerError};
use common::Timestamp;
use common::words::count;

use super::super::{Done, Supervisor};
use super::Key;

/// That is looked for this often, in ticks of a second.
const EVERY: u32 = 3600;
/// How long the records stay.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most that are removed at once.
const MOST: usize = 500;

impl Supervisor {
    /// Removes what is old, every now and then.
    pub(in super::super) fn tidy_schedules_sometimes(&mut self) {
        let state = &self.state;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term().is_some()) else {
            return;
        };
        let schedules = &mut leading.schedules;
        schedules.until_tidy = schedules.until_tidy.checked_sub(1).unwrap_or(EVERY);
        if schedules.until_tidy > 0 || schedules.tidying {
            return;
        }
        let Some(now) = schedules.now() else { return };
        schedules.tidying = true;
        let known = state.agents().flat_map(|agent| {
            // Also those of earlier generations, which may be back in a moment.
            let of_specs = agent.specs().flat_map(|spec| &spec.schedule);
            of_specs
                .map(|one| (agent.name.clone(), common::schedule::schedule_id(&agent.name, one)))
        });
        let known: BTreeSet<Key> = known.collect();
        let broker = self.reads.broker.clone();
        self.task(async move {
            match tidy(&broker, &known, now).await {
                Ok(0) => {}
                Ok(dropped) => {
                    let dropped = count(dropped, "schedule", "schedules");
                    tracing::info!("removed the records of {dropped} that no agent has any more");
                }
                Err(error) => tracing::warn!("cannot remove old records of schedules: {error}"),
            }
            Done::SchedulesTidied
        });
    }

    pub(in super::super) fn schedules_tidied(&mut self) {
        if let Some(leading) = &mut self.leading {
            leading.schedules.tidying = false;
        }
    }
}

async fn tidy(broker: &Broker, known: &BTreeSet<Key>, now: Timestamp) -> Result<u64, BrokerError> {
    let mut unknown = broker.known_schedules().await?;
    unknown.retain(|key| !known.contains(key));
    unknown.truncate(MOST);
    let last = broker.schedules_last(&unknown).await?;
    let mut dropped = 0;
    for ((agent, id), last) in unknown.iter().zip(last) {
        let is_old = match last {
            Ok(Some(last)) => now.since(last.at) > KEPT,
            Ok(None) | Err(_) => false,
        };
        if is_old {
            broker.drop_schedule(agent, id).await?;
            dropped += 1;
        }
    }
    Ok(dropped)
}
