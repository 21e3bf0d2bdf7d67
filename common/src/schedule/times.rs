//! The times of a schedule: its cron expression in its zone, as croner has it.
//!
//! On days when clocks change, croner keeps to the semantics of Vixie cron: an expression with one fixed minute and hour runs once a day, after the
//! gap if its time is skipped, at the first of both if it comes twice. Any other one follows the clock on the wall: nothing in a gap, and twice
//! what comes twice, at two different times.

use std::str::FromStr as _;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::Timestamp;
use crate::spec::Schedule;

/// How times are shown to people.
pub const SHOWN: &str = "%a %Y-%m-%d %H:%M %Z";

/// A schedule's times.
#[derive(Debug, Clone)]
pub struct Times {
    cron: Cron,
    zone: Tz,
}

/// The parser of cron expressions: five fields.
pub(crate) fn parser() -> CronParser {
    CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build()
}

impl Times {
    /// The times of a schedule.
    ///
    /// # Errors
    /// What is wrong with it, in words. The soul's parser refuses such a schedule.
    pub fn of(schedule: &Schedule) -> Result<Self, String> {
        let cron = parser().parse(&schedule.cron).map_err(|error| error.to_string())?;
        let name = schedule.tz.as_deref().unwrap_or("UTC");
        let zone = Tz::from_str(name).map_err(|_| format!("no time zone {name:?}"))?;
        Ok(Self { cron, zone })
    }

    /// The first time after another one; none within the years that croner looks at.
    #[must_use]
    pub fn after(&self, time: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_next_occurrence(&self.zoned(time)?, false).ok()?;
        Some(millis(&found)).filter(|found| *found > time)
    }

    /// The last time before another one.
    #[must_use]
    pub fn before(&self, time: Timestamp) -> Option<Timestamp> {
        let found = self.cron.find_previous_occurrence(&self.zoned(time)?, false).ok()?;
        Some(millis(&found)).filter(|found| *found < time)
    }

    /// The next times after another one.
    pub fn next(&self, time: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.after(time), |time| self.after(*time))
    }

    /// A time in the schedule's zone, for people: `Tue 2026-12-01 09:00 CET`.
    #[must_use]
    pub fn show(&self, time: Timestamp) -> String {
        self.zoned(time).map_or_else(|| time.to_string(), |zoned| zoned.format(SHOWN).to_string())
    }

    /// The zone's name.
    #[must_use]
    pub fn zone(&self) -> &'static str {
        self.zone.name()
    }

    /// In whole seconds: a cron expression knows no fractions.
    fn zoned(&self, time: Timestamp) -> Option<DateTime<Tz>> {
        let seconds = i64::try_from(time.as_millis() / 1000).ok()?;
        Some(DateTime::<Utc>::from_timestamp(seconds, 0)?.with_timezone(&self.zone))
    }
}

fn millis(time: &DateTime<Tz>) -> Timestamp {
    Timestamp::from_millis(u64::try_from(time.timestamp_millis()).unwrap_or(0))
}

#[cfg(test)]
mod tests;
