//! Schedules, as supervisors show them. What has become of their occurrences is in SCHEDULES, which clients read.

use serde::{Deserialize, Serialize};

use crate::spec::ScheduleOptions;
use crate::{AgentName, ScheduleId, Timestamp};

/// Some schedules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SchedulePage {
    /// They, in the order of agents and ids.
    pub rows: Vec<ScheduleRow>,
    /// Whether there are others after them.
    pub more: bool,
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRow {
    /// Its agent.
    pub agent: AgentName,
    /// Its id.
    pub schedule: ScheduleId,
    /// The cron expression.
    pub cron: String,
    /// The zone; UTC without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// What it sends, or the beginning of that.
    pub prompt: String,
    /// How.
    pub options: ScheduleOptions,
    /// Since when the agent has it; none while a supervisor leads that does not know of schedules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Since when it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Timestamp>,
    /// Why its occurrences are skipped now, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
}

#[cfg(feature = "soul")]
impl ScheduleRow {
    /// Its times; none of one that cannot be understood.
    #[must_use]
    pub fn times(&self) -> Option<crate::schedule::Times> {
        let Self { cron, tz, prompt, options, .. } = self.clone();
        crate::schedule::Times::of(&crate::spec::Schedule { cron, tz, prompt, options }).ok()
    }
}
