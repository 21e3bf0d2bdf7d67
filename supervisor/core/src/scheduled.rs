//! Schedules, as far as the log decides about them: since when an agent has them, and which are paused. What becomes of their occurrences is no
//! business of the fold: it is in SCHEDULES.

use std::collections::BTreeMap;

use common::schedule::schedule_id;
use common::spec::Schedule;
use common::{ScheduleId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::life::Life;
use crate::state::{Agent, Hold, State};

/// The first rules that know of schedules.
pub(crate) const WITH_SCHEDULES: u32 = 7;

/// The schedules of the generation that is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduled {
    /// That generation; 0 where it has none.
    pub(crate) generation: u64,
    /// Since when the agent has each: a schedule that stays as it is when the soul changes keeps its time.
    pub(crate) since: BTreeMap<ScheduleId, Timestamp>,
    /// Which of them are paused, and since when.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) paused: BTreeMap<ScheduleId, Timestamp>,
}

impl Scheduled {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The generation that these are the schedules of; 0 where it has none.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Since when the agent has a schedule; none if it does not have it.
    #[must_use]
    pub fn since(&self, schedule: &ScheduleId) -> Option<Timestamp> {
        self.since.get(schedule).copied()
    }

    /// Since when it is paused; none if it is not.
    #[must_use]
    pub fn paused(&self, schedule: &ScheduleId) -> Option<Timestamp> {
        self.paused.get(schedule).copied()
    }
}

impl State {
    /// When the fleet was restored from a backup; none of one that never was.
    #[must_use]
    pub fn restored(&self) -> Option<Timestamp> {
        self.restored
    }
}

impl Agent {
    /// The schedules of the generation to start, in the order of the soul.
    pub fn schedules(&self) -> impl Iterator<Item = (ScheduleId, &Schedule)> {
        self.target_spec().schedule.iter().map(|one| (schedule_id(&self.name, one), one))
    }

    /// Whether it takes no messages until a person starts it.
    #[must_use]
    pub fn rests(&self) -> bool {
        self.desired == crate::Desired::Stopped
            || matches!(self.hold, Some(Hold::Completed | Hold::GivenUp))
                && self.incarnations().next().is_none()
    }

    /// Follows the generation that is to run.
    pub(crate) fn schedule(&mut self, at: Timestamp) {
        if self.target_spec().schedule.is_empty() {
            if !self.scheduled.is_default() {
                self.scheduled = Scheduled::default();
            }
            return;
        }
        if self.scheduled.generation == self.target {
            return;
        }
        let known = std::mem::take(&mut self.scheduled);
        let ids = self.schedules().map(|(id, _)| id);
        let since = ids.map(|id| {
            let since = known.since.get(&id).copied().unwrap_or(at);
            (id, since)
        });
        let since: BTreeMap<_, _> = since.collect();
        let mut paused = known.paused;
        paused.retain(|id, _| since.contains_key(id));
        self.scheduled = Scheduled { generation: self.target, since, paused };
    }
}

impl Life<'_> {
    /// Nothing of a schedule that the agent does not have, as when it was taken out of the soul meanwhile.
    pub(crate) fn schedule_paused(&mut self, schedule: &ScheduleId, paused: bool) {
        let at = self.world.at;
        let scheduled = &mut self.agent.scheduled;
        if !paused {
            scheduled.paused.remove(schedule);
        } else if scheduled.since.contains_key(schedule) {
            scheduled.paused.entry(schedule.clone()).or_insert(at);
        }
    }
}
