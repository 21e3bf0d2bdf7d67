//! The schedules of all agents, while this supervisor leads: which is due when, and the work on what is due.
//!
//! What has become of each occurrence is in SCHEDULES, and this is only what follows from there: a new leader reads the last record of each schedule,
//! and goes on from it. A second's work is what is due in it, however many schedules there are.
//!
//! The time is that of the control log's own server, asked for every few seconds and carried on by the boot clock. No host's wall clock counts.

mod book;
mod counted;
mod decide;
mod query;
#[cfg(test)]
mod simulation;
mod tidy;

use std::time::Duration;

use broker::{BrokerError, LastOccurrences, Moment};
use common::schedule::{Facts, SkipReason};
use common::{AgentName, ScheduleId, Timestamp};
use supervisor_core::{Agent, Desired, State};

use self::book::{Book, Job};
use self::counted::Counted;
pub(super) use self::decide::Decided;
use super::{Done, Supervisor};

/// A schedule of an agent.
pub(super) type Key = (AgentName, ScheduleId);

/// The broker's time is asked for this often.
const CLOCK: Duration = Duration::from_secs(5);
/// How many schedules are read at once, after an election.
const READ: usize = 200;
/// How many are worked on at once.
const MOST: usize = 256;
/// After a fault, a schedule is tried again after this time.
const AGAIN: Duration = Duration::from_secs(2);
/// Whether a generation has changed unnoticed is looked at this often, in ticks of a second.
const ALL_EVERY: u32 = 60;

/// What a leadership has for its schedules.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    book: Book,
    /// What the broker's clock showed, and when that was.
    clock: Option<(Timestamp, Moment)>,
    asking: bool,
    reading: bool,
    ticks: u32,
    tidying: bool,
    /// Ticks until old records are looked for.
    until_tidy: u32,
    /// Whether faults were told of in this minute: a broker that is away is told of by others as well.
    told: bool,
}

impl Schedules {
    /// The broker's time: never more than it is.
    fn now(&self) -> Option<Timestamp> {
        self.clock.map(|(shown, at)| shown.after(Moment::now().since(at)))
    }

    /// A record about an agent was folded.
    pub(super) fn folded(&mut self, state: &State, agent: &AgentName) {
        self.book.note(agent, state.agent(agent));
    }
}

/// Why nothing is sent to an agent by one of its schedules now; none if it is.
fn blocked(agent: &Agent, schedule: &ScheduleId) -> Option<(SkipReason, Option<String>)> {
    let reason = || agent.reason.as_deref().map(supervisor_core::reworded);
    if agent.desired != Desired::Stopped && agent.is_quarantined() {
        return Some((SkipReason::Quarantined, reason()));
    }
    if agent.rests() {
        return Some((SkipReason::Stopped, reason()));
    }
    agent.scheduled.paused(schedule).map(|_| (SkipReason::Paused, None))
}

/// What a plan for a schedule is made from, but for what SCHEDULES has of it; none if the agent does not have it.
fn facts(state: &State, (agent, schedule): &Key, now: Timestamp) -> Option<Facts> {
    let agent = state.agent(agent).filter(|agent| !agent.removing)?;
    Some(Facts {
        now,
        since: agent.scheduled.since(schedule)?,
        until: None,
        restored: state.restored(),
        blocked: blocked(agent, schedule),
    })
}

impl Supervisor {
    /// Goes on with the schedules, once a second, and with what is done for them once a minute.
    pub(super) fn schedule_tick(&mut self) {
        if let Some(leading) = self.leading.as_mut().filter(|leading| leading.term().is_some()) {
            let schedules = &mut leading.schedules;
            schedules.ticks = (schedules.ticks + 1) % ALL_EVERY;
            if schedules.ticks == 1 {
                schedules.told = false;
                schedules.book.note_all(&self.state);
            }
        }
        self.schedule_next();
    }

    /// Goes on with what is due, if this is the leader.
    fn schedule_next(&mut self) {
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term().is_some()) else {
            return;
        };
        let term = leading.term();
        let schedules = &mut leading.schedules;
        for (key, problem) in schedules.book.follow(&self.state) {
            tracing::error!("schedule {} of {} is not followed: {problem}", key.1, key.0);
        }
        if schedules.book.is_empty() {
            return;
        }
        let mut todo: Vec<futures_util::future::BoxFuture<'static, Done>> = Vec::new();
        let old = schedules.clock.is_none_or(|(_, at)| Moment::now().since(at) >= CLOCK);
        if old && !schedules.asking {
            schedules.asking = true;
            let broker = self.reads.broker.clone();
            todo.push(Box::pin(async move {
                Done::Clock(term, broker.clock().await.map(|shown| (shown, Moment::now())))
            }));
        }
        let unread = if schedules.reading { Vec::new() } else { schedules.book.unread(READ) };
        if !unread.is_empty() {
            schedules.reading = true;
            let broker = self.reads.broker.clone();
            todo.push(Box::pin(async move {
                let last = broker.schedules_last(&unread).await;
                Done::SchedulesRead(term, unread, last)
            }));
        }
        let now = schedules.now();
        let state = &self.state;
        let jobs: Vec<Job> = match now {
            Some(now) => schedules.book.due(now, MOST, |key| facts(state, key, now)),
            None => Vec::new(),
        };
        if !jobs.is_empty() {
            let places = Counted { places: self.reads.clone(), metrics: self.metrics.clone() };
            let author = self.id.clone();
            todo.push(Box::pin(async move {
                Done::Decided(term, decide::all(&places, jobs, term, &author).await)
            }));
        }
        for task in todo {
            self.tasks.push(task);
        }
    }

    /// Those of the leadership that began a task; none once it is over, also if there is another one by now.
    fn schedules_of(&mut self, term: Option<u64>) -> Option<&mut Schedules> {
        let leading = self.leading.as_mut().filter(|leading| leading.term() == term)?;
        Some(&mut leading.schedules)
    }

    pub(super) fn clock_told(
        &mut self,
        term: Option<u64>,
        told: Result<(Timestamp, Moment), BrokerError>,
    ) {
        let Some(schedules) = self.schedules_of(term) else { return };
        schedules.asking = false;
        match told {
            Ok(told) => schedules.clock = Some(told),
            Err(error) => schedules.tell("the broker's time is not known", &error),
        }
    }

    pub(super) fn schedules_read(
        &mut self,
        term: Option<u64>,
        keys: Vec<Key>,
        last: Result<Vec<LastOccurrences>, BrokerError>,
    ) {
        let Some(schedules) = self.schedules_of(term) else { return };
        schedules.reading = false;
        match last {
            Ok(last) => {
                let are_read = last.iter().all(Result::is_ok);
                for (key, last) in keys.into_iter().zip(last) {
                    if let Err(error) = &last {
                        let what = format!("cannot read what has become of schedule {}", key.1);
                        schedules.tell(&what, error);
                    }
                    schedules.book.read(&key, last.ok());
                }
                // One that cannot be read is read again with the next tick, and not at once.
                if !are_read {
                    return;
                }
            }
            Err(error) => {
                schedules.tell("cannot read what has become of schedules", &error);
                for key in keys {
                    schedules.book.read(&key, None);
                }
                return;
            }
        }
        self.schedule_next();
    }

    pub(super) fn decided(&mut self, term: Option<u64>, decided: Vec<Decided>) {
        let Some(schedules) = self.schedules_of(term) else { return };
        let again = schedules.now().map(|now| now.after(AGAIN));
        for one in decided {
            if let Some(error) = &one.fault {
                let what = format!("cannot go on with schedule {} of {}", one.key.1, one.key.0);
                schedules.tell(&what, error);
            }
            schedules.book.decided(one, again);
        }
        self.schedule_next();
    }
}

impl Schedules {
    /// Tells of a fault, once a minute.
    fn tell(&mut self, what: &str, error: &BrokerError) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!("{what}: {error}");
        }
    }
}
