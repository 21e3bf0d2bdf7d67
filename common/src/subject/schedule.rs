//! What has become of the occurrences of schedules.

use super::Subjects;
use crate::{AgentName, ScheduleId};

impl Subjects {
    /// The records of a schedule.
    #[must_use]
    pub fn schedule(&self, agent: &AgentName, schedule: &ScheduleId) -> String {
        format!("{}.schedule.{agent}.{schedule}", self.prefix)
    }

    /// Everything that SCHEDULES takes.
    #[must_use]
    pub fn schedule_filter(&self) -> String {
        format!("{}.schedule.*.*", self.prefix)
    }

    /// Parses a subject of [`Self::schedule`].
    #[must_use]
    pub fn parse_schedule(&self, subject: &str) -> Option<(AgentName, ScheduleId)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".schedule.")?;
        let (agent, schedule) = rest.split_once('.')?;
        Some((AgentName::new(agent).ok()?, ScheduleId::new(schedule).ok()?))
    }
}
