//! What the broker stores, how much memory that takes, and a forecast for a week at today's rate, if nothing is removed.

use std::time::Duration;

use broker::{Broker, StreamUsage};
use common::Timestamp;
use common::storage::Level;

use super::broker::REMOVED;
use super::{Check, Health, check};
use crate::table;

/// Days of the forecast.
const WEEK: u64 = 7;
/// With less free space than this, in bytes, nothing can be erased: the server rewrites files for it.
const FORGETS: u64 = 32 << 20;
/// What happens where there is no room.
const REFUSED: &str = "new messages are refused";

/// What nats-server keeps in memory for a subject, in bytes (measured, nats-server 2.15.1).
const SUBJECT: u64 = 614;
/// And for a message of the history, which shares its subject with others.
const ARCHIVED: u64 = 102;

/// What is stored: by itself, and against its bounds.
pub(super) async fn checks(broker: &Broker, server: Option<u32>) -> Vec<Check> {
    const WITHIN: Duration = Duration::from_secs(1);
    let streams = match broker.stream_usage().await {
        Ok(streams) => streams,
        Err(error) => return vec![check("streams", Health::Fail, error.to_string(), "")],
    };
    let forecast = forecast(&streams, crate::client::now());
    let mut checks = vec![of_streams(&streams, &forecast)];
    checks.extend(server.and_then(memory_of).map(|memory| of_memory(memory, &forecast)));
    if let Some(disk) = broker.disk(WITHIN).await {
        let room = match disk.fault {
            Some(fault) => fault.to_string(),
            None => format!(
                "the broker's disk is {} % full, {} free; {} more in a week at today's rate",
                disk.percent(),
                table::bytes(disk.free),
                table::bytes(forecast.growth)
            ),
        };
        let is_enough = forecast.growth <= disk.free.saturating_sub(disk.margin());
        let level = disk.level().max(if is_enough { Level::Fine } else { Level::Low });
        checks.push(match disk.fault {
            Some(_) => check("room", Health::Fail, format!("{room}: {REFUSED}"), REMOVED),
            None if disk.free < FORGETS && level == Level::Full => {
                let try_ = "free space on that disk by other means, such as old logs: `mozart forget` needs 32 MiB itself";
                check("room", Health::Fail, format!("{room}: {REFUSED}"), try_)
            }
            None => judge("room", level, room, REFUSED),
        });
    }
    checks
}

fn judge(name: &'static str, level: Level, found: String, full: &str) -> Check {
    const TRY: &str = "`mozart usage --storage`; keep less (`--keep-history`, KEEP), `mozart forget`, or make room";
    match level {
        Level::Fine => check(name, Health::Ok, found, ""),
        Level::Low => check(name, Health::Warn, found, TRY),
        Level::Full => check(name, Health::Fail, format!("{found}: {full}"), TRY),
    }
}

fn of_streams(streams: &[StreamUsage], forecast: &Forecast) -> Check {
    let sum = |of: fn(&StreamUsage) -> u64| streams.iter().map(of).sum::<u64>();
    let mut found = format!(
        "{} records, {} subjects, {}; {} in a week at today's rate",
        sum(|one| one.records),
        sum(|one| one.subjects),
        table::bytes(sum(|one| one.bytes)),
        table::bytes(sum(|one| one.bytes) + forecast.growth),
    );
    let mut worst = Level::Fine;
    for one in streams {
        let Some((used, limit)) = one.fullest else { continue };
        let level = Level::of(used, limit);
        if level > Level::Fine {
            let (used, limit) = (table::bytes(used), table::bytes(limit));
            found = format!("{found}; {} holds {used} of {limit}", one.name);
            worst = worst.max(level);
        }
    }
    judge("streams", worst, found, "more records are refused")
}

/// A server's memory, and what it is told to stay within, in bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    used: u64,
    bound: Option<u64>,
}

fn of_memory(Memory { used, bound }: Memory, forecast: &Forecast) -> Check {
    let then = used + forecast.memory;
    let of = bound.map(|bound| format!(" of {}", table::bytes(bound))).unwrap_or_default();
    let found = format!(
        "nats-server uses {}{of}; {} in a week at today's rate",
        table::bytes(used),
        table::bytes(then)
    );
    match bound {
        Some(bound) if then > bound => check(
            "memory",
            Health::Warn,
            found,
            "a shorter --hot, fewer --hot-messages, or more memory",
        ),
        Some(_) | None => check("memory", Health::Ok, found, ""),
    }
}

/// The memory of a process of this machine.
fn memory_of(pid: u32) -> Option<Memory> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let used: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    let told = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let mut told = told.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let bound = told.find_map(|one| go_bytes(one.strip_prefix("GOMEMLIMIT=")?));
    Some(Memory { used: used << 10, bound })
}

/// A size as Go's runtime takes it: a number, with `B`, `KiB`, `MiB`, `GiB` or `TiB`.
fn go_bytes(text: &str) -> Option<u64> {
    const UNITS: [(&str, u32); 5] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40), ("B", 0)];
    let unit = UNITS.iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, *bits)));
    let (number, bits) = unit.unwrap_or((text, 0));
    number.parse::<u64>().ok()?.checked_mul(1 << bits)
}

/// What comes in a week if every day is as the last one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forecast {
    /// Bytes on the disk.
    growth: u64,
    /// Bytes of the server's memory.
    memory: u64,
}

/// Records that come in a day. What is younger than a day has not been filled for a whole one.
fn a_day(one: &StreamUsage, now: Timestamp) -> u64 {
    const HOUR: u64 = 3_600;
    const DAY: u64 = 24 * HOUR;
    let age = one.oldest.map_or(DAY, |oldest| now.since(oldest).as_secs()).clamp(HOUR, DAY);
    one.of_a_day.saturating_mul(DAY) / age
}

fn forecast(streams: &[StreamUsage], now: Timestamp) -> Forecast {
    let mut forecast = Forecast::default();
    let mut add = |bytes: u64, memory: u64| {
        forecast.growth = forecast.growth.saturating_add(bytes);
        forecast.memory = forecast.memory.saturating_add(memory);
    };
    for one in streams {
        let average = one.bytes / one.records.max(1);
        let a_day = a_day(one, now);
        let room = one.limit.map_or(u64::MAX, |limit| limit.saturating_sub(one.bytes));
        let room = room / average.max(1);
        match one.name.as_str() {
            // What comes in moves on to the history: a message has two records here and one there.
            "JOURNAL" => {
                let messages = (a_day / 2).saturating_mul(WEEK).min(room);
                let bytes = average.saturating_mul(2).saturating_mul(messages);
                add(bytes, messages.saturating_mul(ARCHIVED));
            }
            // As much goes as comes, but for what came of the journal.
            "HISTORY" | "INDEX" | "SNAPSHOTS" | "FILES" | "ATTEMPTS" | "REPLIES" | "SCHEDULES"
            | "LATER" => {}
            _ => {
                // As much as comes within its time.
                let more = match one.age {
                    Some(age) => (a_day.saturating_mul(age) / 86_400).saturating_sub(one.records),
                    None => a_day.saturating_mul(WEEK),
                };
                let more = more.min(room);
                let share = u128::from(one.subjects) * 100 / u128::from(one.records.max(1));
                let subjects = u128::from(more) * share / 100;
                let subjects = u64::try_from(subjects).unwrap_or(u64::MAX);
                add(more.saturating_mul(average), subjects.saturating_mul(SUBJECT));
            }
        }
    }
    forecast
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    const NOW: Timestamp = Timestamp::from_millis(30 * 86_400_000);

    fn stream(name: &str, records: u64, of_a_day: u64) -> StreamUsage {
        StreamUsage {
            name: name.into(),
            records,
            bytes: records * 1000,
            subjects: records,
            limit: None,
            fullest: None,
            age: None,
            oldest: Some(Timestamp::default()),
            of_a_day,
        }
    }

    fn growth(one: StreamUsage) -> u64 {
        forecast(&[one], NOW).growth
    }

    #[test]
    fn a_week_is_seven_days_within_what_a_stream_keeps() {
        // A hundred messages a day, of two records each.
        let journal = stream("JOURNAL", 1000, 200);
        let expected = Forecast { growth: 700 * 2000, memory: 700 * ARCHIVED };
        assert_eq!(forecast(&[journal, stream("HISTORY", 1000, 100)], NOW), expected);
        assert_eq!(growth(stream("CONTROL", 1000, 100)), 700_000);
        let bounded = StreamUsage { limit: Some(1_002_500), ..stream("CONTROL", 1000, 100) };
        assert_eq!(growth(bounded), 2000);
        // Three days of logs, of which one is there.
        let logs = StreamUsage { age: Some(3 * 86_400), ..stream("LOGS", 1000, 1000) };
        assert_eq!(growth(logs), 2_000_000);
        assert_eq!(forecast(&[], NOW), Forecast::default());
    }

    #[test]
    fn a_fleet_of_an_hour_is_not_taken_for_one_of_a_day() {
        let since = |millis: u64| Some(Timestamp::from_millis(NOW.as_millis() - millis));
        let young = |millis| StreamUsage { oldest: since(millis), ..stream("CONTROL", 10, 10) };
        assert_eq!(growth(young(2 * 3_600_000)), 10 * 12 * 7 * 1000);
        // What a minute tells of a day is not believed.
        assert_eq!(growth(young(60_000)), 10 * 24 * 7 * 1000);
    }

    #[test]
    fn a_stream_that_refuses_is_a_warning_at_80_percent_and_a_failure_at_95() {
        let health = |fullest| {
            let one = StreamUsage { fullest, ..stream("DEAD", 1, 0) };
            of_streams(&[one], &Forecast::default()).health
        };
        assert_eq!(health(Some((79 * MIB, 100 * MIB))), Health::Ok);
        assert_eq!(health(Some((80 * MIB, 100 * MIB))), Health::Warn);
        assert_eq!(health(Some((95 * MIB, 100 * MIB))), Health::Fail);
        assert_eq!(health(None), Health::Ok);
    }

    #[test]
    fn sizes_are_read_as_go_writes_them() {
        for (text, bytes) in [("1000", 1000), ("7B", 7), ("2KiB", 2048), ("3GiB", 3 << 30)] {
            assert_eq!(go_bytes(text), Some(bytes), "{text}");
        }
        for bad in ["", "off", "2GB", "99999999999TiB"] {
            assert_eq!(go_bytes(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_that_will_not_do_is_a_warning() {
        let told = |used, bound| {
            let grown = Forecast { growth: 0, memory: 10 * MIB };
            of_memory(Memory { used: used * MIB, bound }, &grown).health
        };
        assert_eq!(told(100, Some(111 * MIB)), Health::Ok);
        assert_eq!(told(102, Some(111 * MIB)), Health::Warn);
        assert_eq!(told(102, None), Health::Ok);
        assert!(memory_of(std::process::id()).expect("our own").used > MIB);
    }
}
