//! `mozart events`: the control log, with no supervisor needed.

use broker::{Broker, ControlItem, Extent};
use clap::Args;
use common::AgentName;
use common::api::ApiError;
use common::control::ControlRecord;
use serde::Serialize;

use super::client::Client;
use super::output::{self, Array};
use super::{describe, page};
use crate::args::{Global, Output};
use broker::Attempt;

const WHAT: &str = "cannot read the control log";

/// `mozart events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Only records about this agent
    agent: Option<AgentName>,
    /// Follow new records
    #[arg(short, long)]
    follow: bool,
    /// Show only the last N stored records [default: 50; with -o json: 1000]
    #[arg(long, value_name = "N", visible_alias = "tail")]
    limit: Option<usize>,
    /// Only records before the one with this number
    #[arg(long, value_name = "SEQ", conflicts_with = "follow")]
    before: Option<u64>,
}

/// A record with its number, in JSON.
#[derive(Debug, Serialize)]
struct Numbered<'a> {
    seq: u64,
    #[serde(flatten)]
    record: &'a ControlRecord,
}

/// Shows the end of the control log, one record a line; JSON lines with `--follow`, else one array.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn run(global: &Global, args: &EventsArgs) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    let extent = client.broker.control_extent().await.attempt(WHAT)?;
    if client.json() && !args.follow {
        let mut array = Array::new();
        let shown =
            stored(&client, args, extent, |seq, record| array.item(&Numbered { seq, record }));
        let shown = shown.await;
        return array.end(shown).map(|()| 0);
    }
    stored(&client, args, extent, |seq, record| show(client.output, seq, record)).await?;
    if args.follow {
        follow(&client.broker, client.output, args, extent.last + 1).await?;
    }
    Ok(0)
}

/// Shows the last of the stored records, and says how to see those before them.
async fn stored(
    client: &Client,
    args: &EventsArgs,
    extent: Extent,
    mut show: impl FnMut(u64, &ControlRecord) -> Result<(), ApiError>,
) -> Result<(), ApiError> {
    let limit = args.limit.unwrap_or_else(|| page::usual(client.json())) as u64;
    if limit == 0 {
        return Ok(());
    }
    let before = args.before.unwrap_or(u64::MAX).min(extent.last + 1);
    let page = client.broker.control_page(args.agent.as_ref(), before, limit).await;
    let mut page = page.attempt(WHAT)?;
    if !page.has_earlier() && extent.first > 1 && client.removed.is_none() {
        output::note(gone(extent.first));
    }
    let mut first = None;
    while let Some(item) = page.next().await.attempt(WHAT)? {
        match item {
            ControlItem::Record { seq, record, .. } => {
                first.get_or_insert(seq);
                show(seq, &record)?;
            }
            ControlItem::Malformed { seq, cause, .. } => {
                first.get_or_insert(seq);
                malformed(seq, &cause);
            }
            ControlItem::CaughtUp => {}
        }
    }
    if let (None, Some(removed)) = (first, &client.removed) {
        return Err(ApiError { what: WHAT.to_owned(), ..removed.clone() });
    }
    if let (None, Some(agent)) = (first, &args.agent) {
        super::agents::require(client, agent).await?;
    }
    if let Some(first) = first.filter(|_| page.has_earlier()) {
        match args.follow {
            true => {
                output::note(format!("for older records, use --before {first} without --follow"))
            }
            false => page::older(first),
        }
    }
    Ok(())
}

/// Shows what comes, forever.
async fn follow(
    broker: &Broker,
    output: Output,
    args: &EventsArgs,
    from: u64,
) -> Result<(), ApiError> {
    let mut log = broker.follow_control(from, args.agent.as_ref()).await.attempt(WHAT)?;
    loop {
        match log.next().await.attempt(WHAT)? {
            ControlItem::Record { seq, record, .. } => show(output, seq, &record)?,
            ControlItem::Malformed { seq, cause, .. } => malformed(seq, &cause),
            ControlItem::CaughtUp => {}
        }
    }
}

/// Says that the log does not begin with its first record.
fn gone(first: u64) -> String {
    format!(
        "note: the control log begins with record #{first}; older records are covered by snapshots and were removed"
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
            "1970-01-01T00:00:00.000Z  #7      writer           stop requested"
        );
        let json = serde_json::to_value(Numbered { seq: 7, record: &record }).expect("plain");
        assert_eq!((&json["seq"], &json["type"]), (&7.into(), &"agentStopped".into()));
    }
}
