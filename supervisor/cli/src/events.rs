//! `mozart events`: the control log, with no supervisor needed.

use std::collections::VecDeque;

use broker::{Broker, ControlItem, Extent};
use clap::Args;
use common::AgentName;
use common::api::ApiError;
use common::control::ControlRecord;
use serde::Serialize;

use super::client::Client;
use super::{describe, output};
use crate::args::{Global, Output};
use broker::Attempt;

/// `mozart events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only this agent's
    agent: Option<AgentName>,
    /// Go on with what comes
    #[arg(short, long)]
    follow: bool,
    /// Only the last N of the stored ones
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
}

/// A record with its number, in JSON.
#[derive(Debug, Serialize)]
struct Numbered<'a> {
    seq: u64,
    #[serde(flatten)]
    record: &'a ControlRecord,
}

/// Shows the control log, one record a line; JSON lines with `--follow`, else one array.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn run(global: &Global, args: &EventsArgs) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot read the control log";
    let client = Client::connect(global).await?;
    let extent = client.broker.control_extent().await.attempt(WHAT)?;
    let from = begin(&client.broker, args, extent).await.attempt(WHAT)?;
    if from <= extent.first && extent.first > 1 {
        output::note(gone(extent.first));
    }
    let mut log = client.broker.follow_control(from, args.agent.as_ref()).await.attempt(WHAT)?;
    let mut stored = VecDeque::new();
    loop {
        match log.next().await.attempt(WHAT)? {
            ControlItem::Record { seq, record, .. } => {
                stored.push_back((seq, record));
                if args.tail.is_some_and(|tail| stored.len() > tail) {
                    stored.pop_front();
                }
            }
            ControlItem::Malformed { seq, cause, .. } => malformed(seq, &cause),
            ControlItem::CaughtUp => break,
        }
    }
    if client.json() && !args.follow {
        let numbered: Vec<Numbered<'_>> =
            stored.iter().map(|(seq, record)| Numbered { seq: *seq, record }).collect();
        output::json(&numbered)?;
        return Ok(0);
    }
    for (seq, record) in &stored {
        show(client.output, *seq, record)?;
    }
    drop(stored);
    if !args.follow {
        return Ok(0);
    }
    loop {
        match log.next().await.attempt(WHAT)? {
            ControlItem::Record { seq, record, .. } => show(client.output, seq, &record)?,
            ControlItem::Malformed { seq, cause, .. } => malformed(seq, &cause),
            ControlItem::CaughtUp => {}
        }
    }
}

/// Where the last records that are wanted begin: the log is not read up to there.
async fn begin(broker: &Broker, args: &EventsArgs, extent: Extent) -> broker::Result<u64> {
    let Some(tail) = args.tail else { return Ok(1) };
    let tail = u64::try_from(tail).unwrap_or(u64::MAX);
    let Some(agent) = &args.agent else { return Ok((extent.last + 1).saturating_sub(tail).max(1)) };
    if tail == 0 {
        return Ok(extent.last + 1);
    }
    let mut left = tail;
    let last = |seq, _, _: &ControlRecord| {
        left -= 1;
        (left == 0).then_some(seq)
    };
    Ok(broker.look_back(agent, 1, last).await?.unwrap_or(1))
}

/// Says that the log does not begin with its first record.
fn gone(first: u64) -> String {
    format!(
        "note: the control log begins with record #{first}; older records were removed, as snapshots and time allow"
    )
}

fn malformed(seq: u64, cause: &str) {
    output::note(format!("warning: record #{seq} of the control log does not parse: {cause}"));
}

fn show(output: Output, seq: u64, record: &ControlRecord) -> Result<(), ApiError> {
    match output {
        Output::Json => output::json_line(&Numbered { seq, record }),
        Output::Table => output::line(render(seq, record)),
    }
}

fn render(seq: u64, record: &ControlRecord) -> String {
    let who = record.event.agent().map_or("fleet", AgentName::as_str);
    format!("{}  #{seq:<6} {who:<16} {}", record.at, describe::control(record))
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Timestamp;
    use common::control::ControlEvent;

    #[test]
    fn a_record_is_one_line_with_its_number() {
        let agent = AgentName::new("writer").expect("valid");
        let record = ControlRecord {
            id: None,
            at: Timestamp::from_millis(0),
            term: None,
            author: "cli".to_owned(),
            event: ControlEvent::AgentStopped { agent },
        };
        assert_eq!(
            render(7, &record),
            "1970-01-01T00:00:00.000Z  #7      writer           stop asked for"
        );
        let json = serde_json::to_value(Numbered { seq: 7, record: &record }).expect("plain");
        assert_eq!((&json["seq"], &json["type"]), (&7.into(), &"agentStopped".into()));
    }
}
