//! What the broker stores, how much memory that takes, and what both will be in a week.

use std::time::Duration;

use broker::{Broker, StreamUsage};
use common::storage::Level;

use super::{Check, Health, check};
use crate::table;

/// Days of the forecast.
const WEEK: u64 = 7;

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
    let forecast = forecast(&streams);
    let mut checks = vec![of_streams(&streams, &forecast)];
    checks.extend(server.and_then(memory_of).map(|memory| of_memory(memory, &forecast)));
    if let Some(disk) = broker.disk(WITHIN).await {
        let room = format!(
            "the broker's disk is {} % full, {} free; {} more in a week at today's rate",
            disk.percent(),
            table::bytes(disk.free),
            table::bytes(forecast.growth)
        );
        let is_enough = forecast.growth <= disk.free.saturating_sub(disk.margin());
        let level = disk.level().max(if is_enough { Level::Fine } else { Level::Low });
        checks.push(judge("room", level, room));
    }
    checks
}

fn judge(name: &'static str, level: Level, found: String) -> Check {
    const TRY: &str = "`mozart usage --storage`; keep less (`--keep-history`, KEEP), `mozart forget`, or make room";
    match level {
        Level::Fine => check(name, Health::Ok, found, ""),
        Level::Low => check(name, Health::Warn, found, TRY),
        Level::Full => check(name, Health::Fail, format!("{found}: new messages are refused"), TRY),
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
    for (one, limit) in streams.iter().filter_map(|one| Some((one, one.limit?))) {
        // Those that drop their oldest records are full for good.
        let level = Level::of(one.bytes, limit);
        if one.refuses && level > Level::Fine {
            let (bytes, limit) = (table::bytes(one.bytes), table::bytes(limit));
            found = format!("{found}; {} holds {bytes} of {limit}", one.name);
            worst = worst.max(level);
        }
    }
    judge("streams", worst, found)
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
    let bound = told.find_map(|one| one.strip_prefix("GOMEMLIMIT=")?.parse().ok());
    Some(Memory { used: used << 10, bound })
}

/// What comes in a week if every day is as the last one.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forecast {
    /// Bytes on the disk.
    growth: u64,
    /// Bytes of the server's memory.
    memory: u64,
}

fn forecast(streams: &[StreamUsage]) -> Forecast {
    let mut forecast = Forecast::default();
    for one in streams {
        let average = one.bytes / one.records.max(1);
        let a_day = one.of_a_day.saturating_mul(average);
        let grown = match one.name.as_str() {
            // What comes in moves on to the history.
            "JOURNAL" => 0,
            _ => match one.age {
                // As much as comes within its time.
                Some(age) => (a_day / 86_400).saturating_mul(age).saturating_sub(one.bytes),
                None => a_day.saturating_mul(WEEK),
            },
        };
        let room = one.limit.map_or(u64::MAX, |limit| limit.saturating_sub(one.bytes));
        forecast.growth += grown.min(room);
        let subjects = grown.min(room) / average.max(1);
        forecast.memory += match one.name.as_str() {
            "HISTORY" => subjects * ARCHIVED,
            "EVENTS" | "DEAD" => subjects * SUBJECT * one.subjects / one.records.max(1),
            _ => 0,
        };
    }
    forecast
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn stream(name: &str, records: u64, of_a_day: u64) -> StreamUsage {
        StreamUsage {
            name: name.into(),
            records,
            bytes: records * 1000,
            subjects: records,
            limit: None,
            refuses: true,
            age: None,
            oldest: None,
            of_a_day,
        }
    }

    #[test]
    fn a_week_is_seven_days_within_what_a_stream_keeps() {
        let history = stream("HISTORY", 1000, 100);
        let expected = Forecast { growth: 700_000, memory: 700 * ARCHIVED };
        assert_eq!(forecast(&[stream("JOURNAL", 5, 5), history.clone()]), expected);
        let bounded = StreamUsage { limit: Some(1_000_500), ..history };
        assert_eq!(forecast(&[bounded]).growth, 500);
        // Three days of events, of which a third of a day is there.
        let events = StreamUsage { age: Some(3 * 86_400), ..stream("LOGS", 86_400, 86_400) };
        assert_eq!(forecast(&[events]).growth, 2 * 86_400_000);
        assert_eq!(forecast(&[]), Forecast::default());
    }

    #[test]
    fn a_stream_that_refuses_is_a_warning_at_80_percent_and_a_failure_at_95() {
        let health = |used: u64, refuses| {
            let limit = Some(100 * MIB);
            let one = StreamUsage { bytes: used * MIB, limit, refuses, ..stream("DEAD", 1, 0) };
            of_streams(&[one], &Forecast::default()).health
        };
        assert_eq!(health(79, true), Health::Ok);
        assert_eq!(health(80, true), Health::Warn);
        assert_eq!(health(95, true), Health::Fail);
        assert_eq!(health(100, false), Health::Ok);
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
