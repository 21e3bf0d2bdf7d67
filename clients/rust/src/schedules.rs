//! Schedules: which there are, by the supervisors, and what has become of their occurrences, by SCHEDULES.

use broker::{Attempt as _, Stored};
use common::api::{ApiError, Applied, Query, Reply, SchedulePage, ScheduleRow};
use common::schedule::{Fate, Occurrences};
use common::{AgentName, MessageId, ScheduleId, Timestamp, failure};
use serde::Serialize;

use crate::client::{Client, unexpected};

/// Schedules of one answer.
const PAGE: usize = 300;

/// How many of the next times are shown.
const NEXT: usize = 5;

/// A schedule as it is shown.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ShownSchedule {
    /// What it is.
    #[serde(flatten)]
    pub row: ScheduleRow,
    /// The next times; none of one whose occurrences would be skipped now.
    pub next: Vec<Timestamp>,
    /// What became of the last occurrence; none where nothing has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<Occurrences>,
}

/// Schedules of one agent or of all, page by page.
#[derive(Debug)]
pub struct Schedules<'a> {
    client: &'a Client,
    agent: Option<AgentName>,
    after: Option<(AgentName, ScheduleId)>,
    more: bool,
}

impl Client {
    /// The schedules of one agent or of all, in the order of agents and ids.
    #[must_use]
    pub fn schedules(&self, agent: Option<AgentName>) -> Schedules<'_> {
        self.schedules_after(agent, None)
    }

    /// The same, after one of them.
    #[must_use]
    pub fn schedules_after(
        &self,
        agent: Option<AgentName>,
        after: Option<(AgentName, ScheduleId)>,
    ) -> Schedules<'_> {
        Schedules { client: self, agent, after, more: true }
    }

    /// The schedule of an agent whose id begins like this; without a beginning, its only one.
    ///
    /// # Errors
    /// 3 when there is none, 4 when there are several; as [`Client::ask`].
    pub async fn schedule(
        &self,
        agent: &AgentName,
        beginning: Option<&str>,
    ) -> Result<ScheduleRow, ApiError> {
        let mut pages = self.schedules(Some(agent.clone()));
        let mut found = Vec::new();
        let mut all = 0;
        while let Some(rows) = pages.next().await? {
            all += rows.len();
            let begins = |row: &ScheduleRow| {
                beginning.is_none_or(|beginning| row.schedule.as_str().starts_with(beginning))
            };
            found.extend(rows.into_iter().filter(begins));
        }
        one(agent, beginning, found, all)
    }

    /// The last record of each schedule, in their order.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_of(
        &self,
        rows: &[ScheduleRow],
    ) -> Result<Vec<Option<Stored<Occurrences>>>, ApiError> {
        let keys: Vec<_> =
            rows.iter().map(|row| (row.agent.clone(), row.schedule.clone())).collect();
        let last = self.broker.schedules_last(&keys).await;
        let last = last.attempt("cannot read what has become of the schedules")?;
        Ok(last.into_iter().map(|last| last.ok().flatten()).collect())
    }

    /// Schedules with their next times and what became of the last occurrence.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn shown_schedules(
        &self,
        rows: Vec<ScheduleRow>,
        now: Timestamp,
    ) -> Result<Vec<ShownSchedule>, ApiError> {
        let last = self.last_of(&rows).await?;
        let shown = rows.into_iter().zip(last).map(|(row, last)| {
            let next = match (row.times(), &row.blocked) {
                (Some(times), None) => times.next(now).take(NEXT).collect(),
                (Some(_) | None, _) => Vec::new(),
            };
            ShownSchedule { row, next, last: last.map(|last| last.value) }
        });
        Ok(shown.collect())
    }

    /// What has become of a schedule's last occurrences, newest first, at most so many records.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn schedule_history(
        &self,
        agent: &AgentName,
        schedule: &ScheduleId,
        limit: u64,
    ) -> Result<Vec<Occurrences>, ApiError> {
        // A record may say once more, later, that its message is stored.
        let records = self.broker.occurrences(agent, schedule, limit.saturating_mul(2)).await;
        let records = records.attempt("cannot read what has become of the schedule")?;
        let mut shown: Vec<Occurrences> = Vec::new();
        for Stored { value, .. } in records.into_iter().rev() {
            let is_known = shown.last().is_some_and(|later| is_same(later, &value));
            if !is_known {
                shown.push(value);
            }
        }
        shown.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(shown)
    }

    /// Pauses a schedule, or lets it go on.
    ///
    /// # Errors
    /// As [`Client::change`].
    pub async fn pause_schedule(
        &self,
        agent: AgentName,
        schedule: ScheduleId,
        paused: bool,
    ) -> Result<Vec<Applied>, ApiError> {
        self.change(&Query::PauseSchedule { agent, schedule, paused }).await
    }

    /// Sends the prompt of a schedule now. The id of its message.
    ///
    /// # Errors
    /// As [`Client::change`].
    pub async fn run_schedule(
        &self,
        agent: AgentName,
        schedule: ScheduleId,
    ) -> Result<MessageId, ApiError> {
        let message_id = MessageId::from(uuid::Uuid::now_v7());
        self.tell(&Query::RunSchedule { agent, schedule, message_id: message_id.clone() }).await?;
        Ok(message_id)
    }
}

/// Whether both are about the same occurrences.
fn is_same(later: &Occurrences, earlier: &Occurrences) -> bool {
    matches!(earlier.fate, Fate::Ran { .. })
        && later.fate == earlier.fate
        && later.nominal == earlier.nominal
}

/// The one schedule of those that were found.
fn one(
    agent: &AgentName,
    beginning: Option<&str>,
    mut found: Vec<ScheduleRow>,
    all: usize,
) -> Result<ScheduleRow, ApiError> {
    let list = format!("`mozart schedule ls {agent}`");
    if found.len() > 1 {
        let ids: Vec<&str> = found.iter().map(|row| row.schedule.as_str()).take(5).collect();
        let what = match beginning {
            Some(beginning) => format!("several schedules of {agent} begin with {beginning:?}"),
            None => format!("{agent} has {all} schedules"),
        };
        let cause = format!("they are {}", ids.join(", "));
        return Err(failure::error(failure::CONFLICT, what, cause, format!("name one; {list}")));
    }
    found.pop().ok_or_else(|| match beginning {
        Some(beginning) if all > 0 => {
            let what = format!("no schedule {beginning:?} of {agent}");
            let cause = "the soul that runs has none with an id that begins like that";
            failure::error(failure::NOT_FOUND, what, cause, list)
        }
        Some(_) | None => {
            let what = format!("{agent} has no schedule");
            let cause = "there is no SCHEDULE in the soul that runs";
            failure::error(
                failure::NOT_FOUND,
                what,
                cause,
                "add one to its soul, and `mozart apply` it",
            )
        }
    })
}

impl Schedules<'_> {
    /// The next ones, at least one; none at the end.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn next(&mut self) -> Result<Option<Vec<ScheduleRow>>, ApiError> {
        self.next_of(PAGE).await
    }

    /// Whether there may be more.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// The next ones, at most so many.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn next_of(&mut self, limit: usize) -> Result<Option<Vec<ScheduleRow>>, ApiError> {
        if !self.more {
            return Ok(None);
        }
        let (agent, after) = (self.agent.clone(), self.after.clone());
        let limit = limit.min(PAGE);
        let reply = self.client.ask(&Query::Schedules { agent, after, limit }).await?;
        let Reply::Schedules(SchedulePage { rows, more }) = reply else {
            return Err(unexpected(&reply));
        };
        self.more = more;
        let last = rows.last().map(|row| (row.agent.clone(), row.schedule.clone()));
        if last.is_none() {
            self.more = false;
            return Ok(None);
        }
        self.after = last;
        Ok(Some(rows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::spec::ScheduleOptions;

    fn row(id: &str) -> ScheduleRow {
        ScheduleRow {
            agent: AgentName::new("a").expect("valid"),
            schedule: ScheduleId::new(id).expect("valid"),
            cron: "0 9 * * *".into(),
            tz: None,
            prompt: "x".into(),
            options: ScheduleOptions::default(),
            since: Some(Timestamp::default()),
            paused: None,
            blocked: None,
        }
    }

    #[test]
    fn a_schedule_is_named_by_a_beginning_or_is_the_only_one() {
        let agent = AgentName::new("a").expect("valid");
        let of = |beginning, found: Vec<ScheduleRow>, all| one(&agent, beginning, found, all);
        assert_eq!(of(None, vec![row("abc")], 1), Ok(row("abc")));
        assert_eq!(of(Some("ab"), vec![row("abc")], 2), Ok(row("abc")));
        let code = |beginning, found, all| of(beginning, found, all).map_err(|it| it.code).err();
        assert_eq!(code(None, vec![row("abc"), row("b")], 2), Some(failure::CONFLICT));
        assert_eq!(code(Some("x"), vec![], 2), Some(failure::NOT_FOUND));
        assert_eq!(code(None, vec![], 0), Some(failure::NOT_FOUND));
    }
}
