//! `mozart schedule`: which schedules there are, when they run next, and what has become of every occurrence.

use chrono::TimeZone as _;
use clap::{Args, Subcommand};
use common::api::{ApiError, ScheduleRow};
use common::schedule::{Fate, Occurrences, SHOWN, Times};
use common::spec::Schedule;
use common::{AgentName, MessageId, Timestamp};
use mozart_client::ShownSchedule;
use serde::Serialize;

use super::client::Client;
use super::list::List;
use super::{output, table};
use crate::args::Global;

/// How many of the next times are shown.
const NEXT: usize = 5;

/// `mozart schedule`.
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List schedules: the next times in the schedule's zone and in local time, and what became of the last occurrence
    Ls {
        /// Only those of this agent
        agent: Option<AgentName>,
    },
    /// Show what became of each occurrence: it ran, or was skipped, and why
    History {
        #[command(flatten)]
        schedule: ScheduleArgs,
        /// At most so many, the newest ones
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=200))]
        limit: u64,
    },
    /// Send a schedule's prompt now, besides its occurrences; prints the id of the message
    Run(ScheduleArgs),
    /// Pause a schedule: its occurrences are skipped until it is resumed
    Pause(ScheduleArgs),
    /// Resume a schedule that is paused, from the next occurrence on
    Resume(ScheduleArgs),
}

/// A schedule of an agent.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// The agent
    agent: AgentName,
    /// The schedule: its id, or the beginning of it; may be left out if the agent has one
    schedule: Option<String>,
}

/// Runs one of them.
///
/// # Errors
/// 3 no such schedule; 4 several; as [`Client::connect`].
pub(crate) async fn run(global: &Global, command: ScheduleCommand) -> Result<u8, ApiError> {
    let client = match command {
        ScheduleCommand::Ls { .. } | ScheduleCommand::History { .. } => {
            Client::to_read(global).await?
        }
        ScheduleCommand::Run(_) | ScheduleCommand::Pause(_) | ScheduleCommand::Resume(_) => {
            Client::to_change(global).await?
        }
    };
    match command {
        ScheduleCommand::Ls { agent } => list(&client, agent).await,
        ScheduleCommand::History { schedule, limit } => history(&client, &schedule, limit).await,
        ScheduleCommand::Run(args) => {
            let row = find(&client, &args).await?;
            let message = client.run_schedule(row.agent.clone(), row.schedule.clone()).await?;
            let written = match client.json() {
                true => output::json(&serde_json::json!({
                    "agent": row.agent, "schedule": row.schedule, "messageId": message,
                })),
                false => output::line(message.as_str()),
            };
            output::result(written, || format!("message {message} was sent")).map(|()| 0)
        }
        ScheduleCommand::Pause(args) => pause(&client, &args, true).await,
        ScheduleCommand::Resume(args) => pause(&client, &args, false).await,
    }
}

async fn find(client: &Client, args: &ScheduleArgs) -> Result<ScheduleRow, ApiError> {
    client.schedule(&args.agent, args.schedule.as_deref()).await
}

async fn pause(client: &Client, args: &ScheduleArgs, paused: bool) -> Result<u8, ApiError> {
    let row = find(client, args).await?;
    client.pause_schedule(row.agent.clone(), row.schedule.clone(), paused).await?;
    let state = if paused { "paused" } else { "resumed" };
    let written = match client.json() {
        true => output::json(&serde_json::json!({
            "agent": row.agent, "schedule": row.schedule, "paused": paused,
        })),
        false => output::line(format!("{} {}", row.agent, row.schedule)),
    };
    output::result(written, || format!("schedule {} is {state}", row.schedule)).map(|()| 0)
}

async fn list(client: &Client, agent: Option<AgentName>) -> Result<u8, ApiError> {
    const HEADERS: [&str; 7] = ["AGENT", "SCHEDULE", "WHEN", "NEXT", "LOCAL", "LAST", "PROMPT"];
    let now = client.broker.now();
    let mut list = List::new(client.json(), HEADERS);
    let mut pages = client.schedules(agent);
    let work = async {
        while let Some(rows) = pages.next().await? {
            for shown in client.shown_schedules(rows, now).await? {
                let times = shown.row.times();
                list.item(&shown, |shown| cells(shown, times.as_ref(), now))?;
            }
        }
        Ok(0)
    };
    let result = work.await;
    list.end(result)
}

fn cells(shown: &ShownSchedule, times: Option<&Times>, now: Timestamp) -> [String; 7] {
    let row = &shown.row;
    let zone = row.tz.as_deref().unwrap_or("UTC");
    let next = shown.next.first().copied();
    let in_zone = next.and_then(|next| times.map(|times| times.show(next)));
    let blocked = || match &row.paused {
        Some(_) => "paused".to_owned(),
        None => row.blocked.as_deref().map_or_else(
            || table::NONE.to_owned(),
            |blocked| format!("skipped: {}", table::one_line(blocked, 60)),
        ),
    };
    [
        row.agent.to_string(),
        row.schedule.to_string(),
        format!("{} {zone}", row.cron),
        in_zone.unwrap_or_else(blocked),
        table::or_none(next.map(local)),
        shown.last.as_ref().map_or_else(|| table::NONE.to_owned(), |last| brief(last, now)),
        table::one_line(&row.prompt, 40),
    ]
}

/// What has become of the last occurrence, in a few words.
fn brief(last: &Occurrences, now: Timestamp) -> String {
    let ago = table::age(last.nominal.or(Some(last.at)), now);
    match &last.fate {
        Fate::Ran { .. } => format!("ran {ago} ago"),
        Fate::Requested { .. } => format!("run by hand {} ago", table::age(Some(last.at), now)),
        Fate::Skipped { reason, .. } => format!("skipped {ago} ago: {}", reason.words()),
        Fate::Unknown => ago,
    }
}

async fn history(client: &Client, args: &ScheduleArgs, limit: u64) -> Result<u8, ApiError> {
    let row = find(client, args).await?;
    let records = client.schedule_history(&row.agent, &row.schedule, limit).await?;
    if client.json() {
        return output::json(&records).map(|()| 0);
    }
    let times = row.times();
    let cells = records.iter().map(|record| line(record, times.as_ref()));
    output::line(table::table(&["TIME", "LOCAL", "RESULT", "MESSAGE", "REASON"], cells))?;
    Ok(0)
}

/// A record as the cells of a row.
fn line(record: &Occurrences, times: Option<&Times>) -> Vec<String> {
    let at = match record.fate {
        Fate::Requested { .. } => Some(record.at),
        Fate::Ran { .. } | Fate::Skipped { .. } | Fate::Unknown => record.nominal,
    };
    let in_zone = at.map(|at| times.map_or_else(|| at.to_string(), |times| times.show(at)));
    let (result, message, reason) = result(record, times);
    vec![
        table::or_none(in_zone),
        table::or_none(at.map(local)),
        result,
        table::or_none(message),
        table::or_none(reason),
    ]
}

fn result(
    record: &Occurrences,
    times: Option<&Times>,
) -> (String, Option<MessageId>, Option<String>) {
    let others = record.count.saturating_sub(1);
    let more = if record.more { "more than " } else { "" };
    let show = |time: Timestamp| times.map_or_else(|| time.to_string(), |times| times.show(time));
    let from = record.from.map(|from| format!(", the first of {}", show(from))).unwrap_or_default();
    match &record.fate {
        Fate::Ran { message_id } if others == 0 => ("ran".into(), Some(message_id.clone()), None),
        Fate::Ran { message_id } => {
            let merged = format!(
                "also for {more}{others} that {} missed{from}",
                if others == 1 { "was" } else { "were" }
            );
            ("ran".into(), Some(message_id.clone()), Some(merged))
        }
        Fate::Requested { message_id } => {
            let by = format!("requested by {}", record.author);
            ("ran".into(), Some(message_id.clone()), Some(by))
        }
        Fate::Skipped { reason, detail } => {
            let detail = detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
            let result = match record.count {
                0 | 1 => "skipped".to_owned(),
                count => format!("skipped {more}{count}{from}"),
            };
            (result, None, Some(format!("{}{detail}", reason.words())))
        }
        Fate::Unknown => ("unknown".into(), None, Some("written by a newer version".into())),
    }
}

/// A time by the zone of this machine.
pub(crate) fn local(time: Timestamp) -> String {
    let millis = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match chrono::Local.timestamp_millis_opt(millis).single() {
        Some(local) => local.format(SHOWN).to_string(),
        None => time.to_string(),
    }
}

/// The next times of a schedule, for `validate`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Upcoming {
    cron: String,
    tz: String,
    next: Vec<Timestamp>,
    #[serde(skip)]
    shown: Vec<String>,
}

impl Upcoming {
    /// Those of a schedule that is valid.
    pub(crate) fn of(schedule: &Schedule, now: Timestamp) -> Option<Self> {
        let times = Times::of(schedule).ok()?;
        let next: Vec<Timestamp> = times.next(now).take(NEXT).collect();
        let shown = next.iter().map(|next| format!("{}  {}", times.show(*next), local(*next)));
        let shown = shown.collect();
        Some(Self { cron: schedule.cron.clone(), tz: times.zone().to_owned(), next, shown })
    }

    /// As lines: the schedule, and its next times in its zone and in local time.
    pub(crate) fn lines(&self, agent: &AgentName) -> String {
        let mut lines = format!(
            "\n{agent}: \"{}\" {}, next times (in the zone, and local):",
            self.cron, self.tz
        );
        for shown in &self.shown {
            lines.push_str("\n  ");
            lines.push_str(shown);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::schedule::SkipReason;

    fn record(fate: Fate, count: u64) -> Occurrences {
        Occurrences {
            nominal: Some(Timestamp::from_millis(1_796_115_600_000)),
            from: (count > 1).then(|| Timestamp::from_millis(1_796_029_200_000)),
            count,
            more: false,
            fate,
            last: None,
            stored: true,
            at: Timestamp::from_millis(1_796_115_601_000),
            term: Some(1),
            author: "ada".into(),
        }
    }

    #[test]
    fn every_occurrence_is_said_to_have_run_or_why_it_has_not() {
        let daily = Schedule {
            cron: "0 9 * * *".into(),
            tz: Some("UTC".into()),
            prompt: "x".into(),
            options: Default::default(),
        };
        let times = Times::of(&daily).expect("valid");
        let message_id = || MessageId::new("m-1").expect("valid");
        let of = |record: &Occurrences| line(record, Some(&times));
        let ran = of(&record(Fate::Ran { message_id: message_id() }, 1));
        assert_eq!(ran[0], "Tue 2026-12-01 09:00 UTC");
        assert_eq!(ran[2..], ["ran", "m-1", "<none>"]);
        let merged = of(&record(Fate::Ran { message_id: message_id() }, 2));
        assert_eq!(merged[4], "also for 1 that was missed, the first of Mon 2026-11-30 09:00 UTC");
        let skipped = Fate::Skipped {
            reason: SkipReason::Overlap,
            detail: Some("message m-1 is open".into()),
        };
        assert_eq!(
            of(&record(skipped, 1))[2..],
            [
                "skipped",
                "<none>",
                "the message of an earlier occurrence was not finished: message m-1 is open"
            ]
        );
        let requested = of(&record(Fate::Requested { message_id: message_id() }, 1));
        assert_eq!(requested[2..], ["ran", "m-1", "requested by ada"]);
    }
}
