//! Which occurrences are due, and what is to become of them. Pure: the time is an argument, and so is all that is known.

use std::hash::Hasher as _;
use std::time::Duration;

use super::{OnMiss, ScheduleOptions, SkipReason, Times, occurrence_id};
use crate::{ScheduleId, Timestamp};

/// An occurrence that is later than this was missed. A leader that takes over from one that died is not as late.
pub const GRACE: Duration = Duration::from_secs(60);

/// How many occurrences are counted that were missed for too long: of a schedule that nobody looked at for years, not every minute is.
const COUNTED: u64 = 1_000;
/// How many are looked at in a plan. More than a day has minutes.
const LOOKED: usize = 2_000;

/// What a plan is made from.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The time, by the broker's clock.
    pub now: Timestamp,
    /// Since when the soul has the schedule.
    pub since: Timestamp,
    /// Up to when everything is decided; none if nothing is.
    pub until: Option<Timestamp>,
    /// When the fleet was restored from a backup, if it was.
    pub restored: Option<Timestamp>,
    /// Why nothing is sent now; none if it is.
    pub blocked: Option<(SkipReason, Option<String>)>,
}

/// What is to become of occurrences, in the order of their times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// One is sent; those before it, from the first on, are merged into it.
    Run {
        /// Its nominal time.
        nominal: Timestamp,
        /// That of the first one, if others are merged into it.
        from: Option<Timestamp>,
        /// How many there are, itself included.
        count: u64,
    },
    /// None is sent.
    Skip {
        /// The nominal time of the last one.
        nominal: Timestamp,
        /// That of the first one, if there are several.
        from: Option<Timestamp>,
        /// How many there are.
        count: u64,
        /// Whether there are more than were counted.
        more: bool,
        /// Why.
        reason: SkipReason,
        /// More about it.
        detail: Option<String>,
    },
}

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What is to become of it.
    pub steps: Vec<Step>,
    /// When there is something to do again; none if never.
    pub next: Option<Timestamp>,
}

/// When an occurrence is to be sent.
fn due(id: &ScheduleId, options: &ScheduleOptions, nominal: Timestamp) -> Timestamp {
    let jitter = u64::try_from(options.jitter.as_millis()).unwrap_or(u64::MAX);
    if jitter == 0 {
        return nominal;
    }
    // The same for whoever leads.
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(occurrence_id(id, nominal).as_str().as_bytes());
    nominal.after(Duration::from_millis(hash.finish() % jitter))
}

struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // Its last bits depend on the last bytes alone.
        self.0 ^ (self.0 >> 29)
    }
}

fn earlier(time: Timestamp, by: Duration) -> Timestamp {
    let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(time.as_millis().saturating_sub(by))
}

/// Occurrences in a row.
#[derive(Debug, Default)]
struct Row {
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    count: u64,
    more: bool,
}

impl Row {
    fn push(&mut self, nominal: Timestamp) {
        self.first.get_or_insert(nominal);
        self.last = Some(nominal);
        self.count += 1;
    }

    fn of(nominals: &[Timestamp]) -> Self {
        let mut row = Self::default();
        nominals.iter().for_each(|nominal| row.push(*nominal));
        row
    }

    fn from(&self) -> Option<Timestamp> {
        self.first.filter(|_| self.count > 1)
    }

    fn skip(self, reason: SkipReason, detail: Option<String>) -> Option<Step> {
        let from = self.from();
        let Self { last, count, more, .. } = self;
        last.map(|nominal| Step::Skip { nominal, from, count, more, reason, detail })
    }

    fn run(self) -> Option<Step> {
        let from = self.from();
        self.last.map(|nominal| Step::Run { nominal, from, count: self.count })
    }
}

/// Counts the occurrences after a time, up to and including another one: not all of them, where there are very many.
fn count(times: &Times, after: Timestamp, until: Timestamp) -> Row {
    let mut row = Row::default();
    for nominal in times.next(after).take_while(|nominal| *nominal <= until) {
        if row.count == COUNTED {
            row.more = true;
            row.last = times.before(until.after(Duration::from_secs(1))).or(row.last);
            break;
        }
        row.push(nominal);
    }
    row
}

/// What is due of a schedule, and what is to become of it. Whoever makes a plan from the same facts makes the same one.
#[must_use]
pub fn plan(id: &ScheduleId, options: &ScheduleOptions, times: &Times, facts: &Facts) -> Plan {
    let Facts { now, since, until, restored, blocked } = facts;
    let (now, mut steps) = (*now, Vec::new());
    let mut after = until.unwrap_or(*since).max(*since);
    // What was sent after the backup was taken is not known.
    if let Some(restored) = restored.filter(|restored| *restored > after) {
        steps.extend(count(times, after, restored).skip(SkipReason::Restored, None));
        after = restored;
    }
    // What is too late, whatever comes of the rest.
    let late = match options.on_miss {
        OnMiss::Skip => GRACE,
        OnMiss::Once | OnMiss::All => options.within.max(GRACE),
    };
    let late = late.saturating_add(options.jitter).saturating_add(Duration::from_millis(1));
    let oldest = earlier(now, late);
    let old = if oldest > after { count(times, after, oldest) } else { Row::default() };
    let begin = old.last.unwrap_or(after);
    let mut row: Vec<Timestamp> = Vec::new();
    let mut next = None;
    for nominal in times.next(begin) {
        if due(id, options, nominal) > now || row.len() == LOOKED {
            next = Some(due(id, options, nominal));
            break;
        }
        row.push(nominal);
    }
    if let Some((reason, detail)) = blocked {
        let mut all = old;
        row.iter().for_each(|nominal| all.push(*nominal));
        steps.extend(all.skip(*reason, detail.clone()));
        return Plan { steps, next };
    }
    let is_missed = |nominal: &Timestamp| now.since(due(id, options, *nominal)) > GRACE;
    let too_late = match options.on_miss {
        OnMiss::Skip => "on-miss=skip".to_owned(),
        OnMiss::Once | OnMiss::All => {
            format!("it was missed for more than {}", humantime::format_duration(options.within))
        }
    };
    let at = row.partition_point(is_missed);
    let (missed, on_time) = row.split_at(at);
    match options.on_miss {
        OnMiss::Skip => {
            let mut all = old;
            missed.iter().for_each(|nominal| all.push(*nominal));
            steps.extend(all.skip(SkipReason::Missed, Some(too_late)));
            steps.extend(on_time.iter().filter_map(|one| Row::of(&[*one]).run()));
        }
        OnMiss::Once => {
            steps.extend(old.skip(SkipReason::Missed, Some(too_late)));
            // All that were missed go with the first that was not, if there is one.
            let merged = row.len().min(missed.len() + usize::from(!missed.is_empty()));
            let (merged, rest) = row.split_at(merged);
            steps.extend(Row::of(merged).run());
            steps.extend(rest.iter().filter_map(|one| Row::of(&[*one]).run()));
        }
        OnMiss::All => {
            steps.extend(old.skip(SkipReason::Missed, Some(too_late)));
            steps.extend(row.iter().filter_map(|one| Row::of(&[*one]).run()));
        }
    }
    Plan { steps, next }
}

#[cfg(test)]
mod tests;
