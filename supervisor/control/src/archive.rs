//! The leader's archiver: moves finished messages from the journal to HISTORY while it leads, using a small share of the broker's time. And
//! the removal of what is past its retention.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{ArchiveOptions, Archiver, Broker, BrokerError, Except, Moment, Retries};
use common::AgentName;
use common::spec::Keep;
use common::words::count;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::grow::grow;
use super::{Done, Supervisor};

/// The pause after a round that found nothing more to do.
const IDLE: Duration = Duration::from_secs(5);

/// After a round, this many times as long passes until the next: a twentieth of the broker's time, some hundred messages a second. With a
/// fifth of it, twenty agents under full load lost 17 % of their throughput (goal 19).
const PAUSES: u32 = 20;
/// The same where the journal has grown far beyond what it is to hold: a fifth of the broker's time.
const PRESSED: u32 = 4;
/// But no longer than this.
const LONGEST: Duration = Duration::from_secs(30);

/// What is kept no longer is looked for this often, in ticks of a second; more often where something is kept for a short time.
const PRUNE_EVERY: u64 = 3600;
/// That is done so many times within the time for which something is kept.
const TIMES: u64 = 10;

/// For events and logs that are not kept at all.
const SOON: Duration = Duration::from_secs(600);

/// How long the fleet keeps what leaves the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// What is in the journal before.
    pub archive: ArchiveOptions,
    /// For so long from then on; forever, if not said.
    pub history: Option<Duration>,
    /// At most so many bytes of it.
    pub bytes: Option<u64>,
    /// Files that no generation needs, for so long after they were last applied; a day, if not said.
    pub files: Option<Duration>,
}

/// What a leadership has for it.
pub(super) struct Keeping {
    except: watch::Sender<Except>,
    pub(super) ticks: u64,
    /// Whether files that nothing needs are being removed.
    pub(super) collecting: bool,
    /// Whether what is kept no longer is being removed.
    pruning: bool,
    /// Ends the archiver of this leadership.
    _archiving: DropGuard,
}

impl Supervisor {
    /// Archives as long as this leadership lasts. Another leader's archiver that does not know yet that it is over does no harm.
    pub(super) fn keep_archiving(&mut self) {
        let except = watch::Sender::new(self.except());
        let Some(leading) = self.leading.as_mut() else { return };
        let over = CancellationToken::new();
        let told = except.subscribe();
        leading.keeping = Some(Keeping {
            except,
            ticks: 0,
            collecting: false,
            pruning: false,
            _archiving: over.clone().drop_guard(),
        });
        let options = self.retention.archive;
        let archiver = Archiver::new(self.reads.broker.clone(), options);
        let idle = IDLE.min(options.hot / 2).max(Duration::from_secs(1));
        let broker = self.reads.broker.clone();
        self.task(async move {
            let kept = async {
                tokio::select! {
                    () = keep(archiver, told, idle) => {}
                    () = grow(broker) => {}
                }
            };
            let _ended = over.run_until_cancelled(kept).await;
            Done::Nothing
        });
    }

    fn except(&self) -> Except {
        let those = |is_meant: fn(&Keep) -> bool| -> BTreeSet<AgentName> {
            let agents = self.state.agents().filter(|agent| is_meant(&agent.spec.keep));
            agents.map(|agent| agent.name.clone()).collect()
        };
        let unkept = those(|keep| keep.history == Some(Duration::ZERO));
        Except { unkept, steps: those(|keep| keep.steps.is_some_and(|steps| !steps.is_zero())) }
    }

    /// Removes what is kept no longer, every now and then.
    pub(super) fn prune_sometimes(&mut self) {
        let except = self.except();
        let keeps: Vec<(AgentName, Keep)> = (self.state.agents())
            .filter(|agent| !agent.spec.keep.is_default())
            .map(|agent| (agent.name.clone(), agent.spec.keep))
            .collect();
        let retention = self.retention;
        let Some(keeping) = self.leading.as_mut().and_then(|leading| leading.keeping.as_mut())
        else {
            return;
        };
        keeping.except.send_if_modified(|known| {
            let is_new = *known != except;
            *known = except;
            is_new
        });
        keeping.ticks += 1;
        if keeping.pruning || !keeping.ticks.is_multiple_of(every(&retention, &keeps)) {
            return;
        }
        keeping.pruning = true;
        let broker = self.reads.broker.clone();
        self.task(async move {
            if let Err(error) = prune(&broker, retention, keeps).await {
                tracing::warn!("cannot remove records past retention: {error}");
            }
            Done::Pruned
        });
    }

    pub(super) fn pruned(&mut self) {
        if let Some(keeping) = self.leading.as_mut().and_then(|leading| leading.keeping.as_mut()) {
            keeping.pruning = false;
        }
    }
}

/// How often it is looked for, in ticks: seldom, but often within the shortest time for which something is kept.
fn every(retention: &Retention, keeps: &[(AgentName, Keep)]) -> u64 {
    // What is not kept at all goes with the hot time, or within a minute: not with every tick, whether anything happens or not.
    let or = |time: Option<Duration>, none: Duration| {
        time.map(|time| if time.is_zero() { none } else { time })
    };
    let times = keeps.iter().flat_map(|(_, keep)| {
        let history = or(keep.history, retention.archive.hot);
        [history, or(keep.events, SOON), or(keep.logs, SOON), or(keep.steps, SOON)]
    });
    let shortest = times.chain([retention.history]).flatten().map(|time| time.as_secs()).min();
    shortest.map_or(PRUNE_EVERY, |shortest| (shortest / TIMES).clamp(1, PRUNE_EVERY))
}

async fn prune(
    broker: &Broker,
    retention: Retention,
    keeps: Vec<(AgentName, Keep)>,
) -> Result<(), BrokerError> {
    let mut dropped = 0;
    for (agent, Keep { history, events, logs, steps }) in keeps {
        match history {
            // The text of turns goes with the messages.
            Some(Duration::ZERO) => {
                let mut erased = 1;
                while erased > 0 {
                    erased = broker.erase_traces(&agent, retention.archive.hot).await?;
                    dropped += erased;
                }
            }
            Some(history) => dropped += broker.drop_history(Some(&agent), history).await?,
            None => {}
        }
        if let Some(events) = events {
            dropped += broker.drop_events(&agent, events).await?;
        }
        if let Some(logs) = logs {
            dropped += broker.drop_logs(&agent, logs).await?;
        }
        if let Some(steps) = steps.filter(|steps| !steps.is_zero()) {
            let mut old = 1;
            while old > 0 {
                old = broker.drop_old_steps(&agent, steps).await?;
                dropped += old;
            }
        }
    }
    if let Some(history) = retention.history {
        dropped += broker.drop_history(None, history).await?;
    }
    if let Some(bytes) = retention.bytes {
        dropped += broker.bound_history(bytes).await?;
    }
    if dropped > 0 {
        let dropped = count(dropped, "record", "records");
        tracing::info!("removed {dropped} past retention");
    }
    Ok(())
}

/// Archives forever: at its pace while there is more to do, else every now and then.
async fn keep(mut archiver: Archiver, mut except: watch::Receiver<Except>, idle: Duration) -> ! {
    let mut retries = Retries::new("archiving finished messages");
    loop {
        let began = Moment::now();
        archiver.except(except.borrow_and_update().clone());
        let pause = match archiver.round().await {
            Ok(round) => {
                retries = Retries::new("archiving finished messages");
                if round.archived + round.removed > 0 {
                    tracing::debug!("archived {}, removed {}", round.archived, round.removed);
                }
                let pauses = if round.pressed { PRESSED } else { PAUSES };
                let took = Moment::now().since(began);
                if round.more { (took * pauses).min(LONGEST) } else { idle }
            }
            Err(error) => {
                retries.pause(&error).await;
                continue;
            }
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_a_short_time_is_looked_for_often() {
        let of = |history: Option<u64>, logs: Option<u64>| {
            let logs = logs.map(Duration::from_secs);
            let keep = Keep { logs, ..Keep::default() };
            let retention =
                Retention { history: history.map(Duration::from_secs), ..Retention::default() };
            every(&retention, &[(AgentName::new("a").expect("valid"), keep)])
        };
        assert_eq!(of(None, None), PRUNE_EVERY);
        assert_eq!(of(Some(30 * 24 * 3600), None), PRUNE_EVERY);
        assert_eq!(of(Some(30 * 24 * 3600), Some(100)), 10);
        assert_eq!(of(None, Some(5)), 1);
    }

    #[test]
    fn what_is_not_kept_at_all_is_not_looked_for_all_the_time() {
        let zero = Some(Duration::ZERO);
        let of =
            |keep| every(&Retention::default(), &[(AgentName::new("a").expect("valid"), keep)]);
        assert_eq!(of(Keep { history: zero, ..Keep::default() }), PRUNE_EVERY);
        assert_eq!(of(Keep { logs: zero, ..Keep::default() }), 60);
    }
}
