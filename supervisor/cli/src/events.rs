//! `mozart events`: the control log, with no supervisor needed.

use std::collections::BTreeMap;

use broker::{Broker, ControlItem, Extent};
use clap::Args;
use common::AgentName;
use common::api::ApiError;
use common::control::{ControlEvent, ControlRecord};
use common::spec::AgentSpec;
use serde::Serialize;

use super::client::Client;
use super::output::{self, Array};
use super::{page, security};
use crate::args::Global;
use broker::Attempt;
use mozart_client::describe;
use mozart_client::ends::Incarnations;

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
    /// Show what was refused to agents instead: logins, subjects that are not theirs, and other agents' messages
    #[arg(long, conflicts_with_all = ["follow", "before"])]
    security: bool,
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
    if args.security {
        let limit = args.limit.unwrap_or_else(|| page::usual(client.json()));
        return security::show(&client, args.agent.as_ref(), limit).await;
    }
    let extent = client.broker.control_extent().await.attempt(WHAT)?;
    if client.json() && !args.follow {
        let mut out = Out::Array(Array::new());
        let shown = stored(&client, args, extent, &mut out).await;
        return out.end(shown).map(|()| 0);
    }
    let mut out = match client.json() {
        true => Out::Lines,
        false => Out::Words(
            Specs { broker: client.broker.clone(), known: BTreeMap::new() },
            Incarnations::default(),
        ),
    };
    stored(&client, args, extent, &mut out).await?;
    if args.follow {
        follow(&client.broker, args, extent.last + 1, &mut out).await?;
    }
    Ok(0)
}

/// How records are shown.
enum Out {
    Array(Array),
    Lines,
    Words(Specs, Incarnations),
}

impl Out {
    async fn show(&mut self, seq: u64, record: &ControlRecord) -> Result<(), ApiError> {
        match self {
            Self::Array(array) => array.item(&Numbered { seq, record }),
            Self::Lines => output::json_line(&Numbered { seq, record }),
            Self::Words(specs, incarnations) => {
                let before = specs.before(seq, record).await?;
                let line = render(seq, record, before.as_deref(), incarnations);
                incarnations.see(&record.event);
                output::line(line)
            }
        }
    }

    fn end(self, shown: Result<(), ApiError>) -> Result<(), ApiError> {
        match self {
            Self::Array(array) => array.end(shown),
            Self::Lines | Self::Words(..) => shown,
        }
    }
}

/// What agents were last applied with: only that tells whether an apply changed anything.
struct Specs {
    broker: Broker,
    known: BTreeMap<AgentName, Option<Box<AgentSpec>>>,
}

impl Specs {
    /// What the agent of an apply was applied with before; none if it was new, or if that is too long ago to be looked for.
    async fn before(
        &mut self,
        seq: u64,
        record: &ControlRecord,
    ) -> Result<Option<Box<AgentSpec>>, ApiError> {
        if let ControlEvent::AgentRemoved { agent } = &record.event {
            self.known.insert(agent.clone(), None);
        }
        let ControlEvent::AgentApplied { spec, .. } = &record.event else { return Ok(None) };
        match self.known.insert(spec.name.clone(), Some(spec.clone())) {
            Some(before) => Ok(before),
            None => self.look_back(&spec.name, seq).await,
        }
    }

    async fn look_back(
        &self,
        agent: &AgentName,
        mut before: u64,
    ) -> Result<Option<Box<AgentSpec>>, ApiError> {
        /// An agent's records that are read at once, and how often: a crash takes four.
        const PAGE: u64 = 500;
        const PAGES: usize = 4;
        for _ in 0..PAGES {
            let page = self.broker.control_page(Some(agent), before, PAGE).await;
            let mut page = page.attempt(WHAT)?;
            let (mut first, mut last) = (None, None);
            while let Some(item) = page.next().await.attempt(WHAT)? {
                let ControlItem::Record { seq, record, .. } = item else { continue };
                first.get_or_insert(seq);
                if let ControlEvent::AgentApplied { spec, .. } = record.event {
                    last = Some(Some(spec));
                } else if let ControlEvent::AgentRemoved { .. } = record.event {
                    last = Some(None);
                }
            }
            match (last, first) {
                (Some(last), _) => return Ok(last),
                (None, Some(first)) if page.has_earlier() => before = first,
                (None, _) => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Shows the last of the stored records, and says how to see those before them.
async fn stored(
    client: &Client,
    args: &EventsArgs,
    extent: Extent,
    out: &mut Out,
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
                out.show(seq, &record).await?;
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
        mozart_client::agents::require(client, agent).await?;
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
    args: &EventsArgs,
    from: u64,
    out: &mut Out,
) -> Result<(), ApiError> {
    let mut log = broker.follow_control(from, args.agent.as_ref()).await.attempt(WHAT)?;
    loop {
        match log.next().await.attempt(WHAT)? {
            ControlItem::Record { seq, record, .. } => out.show(seq, &record).await?,
            ControlItem::Malformed { seq, cause, .. } => malformed(seq, &cause),
            ControlItem::CaughtUp => {}
        }
    }
}

/// Says that the log does not begin with its first record.
fn gone(first: u64) -> String {
    if super::backup::is_renumbered(first) {
        return format!(
            "note: the fleet was restored from a backup: its records are numbered from #{first} on"
        );
    }
    format!(
        "note: the control log begins with record #{first}; older records are covered by snapshots and were removed"
    )
}

fn malformed(seq: u64, cause: &str) {
    output::note(format!("warning: record #{seq} of the control log does not parse: {cause}"));
}

fn render(
    seq: u64,
    record: &ControlRecord,
    before: Option<&AgentSpec>,
    incarnations: &Incarnations,
) -> String {
    let who = record.event.agent().map_or("fleet", AgentName::as_str);
    let what = describe::control_after(record, before, incarnations);
    format!("{}  #{seq:<6} {who:<16} {what}", record.at)
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
            render(7, &record, None, &Incarnations::default()),
            "1970-01-01T00:00:00.000Z  #7      writer           stop requested"
        );
        let json = serde_json::to_value(Numbered { seq: 7, record: &record }).expect("plain");
        assert_eq!((&json["seq"], &json["type"]), (&7.into(), &"agentStopped".into()));
    }
}
