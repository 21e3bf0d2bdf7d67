//! `mozart usage`: how much space is used, and by what.

use broker::{AgentUsage, Attempt as _, StreamUsage};
use clap::Args;
use common::AgentName;
use common::api::ApiError;
use serde::Serialize;

use super::client::{Client, now};
use super::page::limit;
use super::progress::Progress;
use super::{output, table};
use crate::args::Global;

/// `mozart usage`.
#[derive(Debug, Args)]
pub struct UsageArgs {
    /// Show what is stored, by stream and by agent; this is the default
    #[arg(long)]
    storage: bool,
    /// Show at most N agents, largest first
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = limit)]
    limit: usize,
}

/// Everything, in JSON.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    streams: Vec<Stream<'a>>,
    agents: Vec<Agent<'a>>,
}

/// A stream.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stream<'a> {
    stream: &'a str,
    records: u64,
    bytes: u64,
    subjects: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oldest: Option<common::Timestamp>,
}

/// What there is of an agent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Agent<'a> {
    agent: &'a AgentName,
    records: u64,
    bytes: u64,
    /// Whether that is extrapolated.
    estimated: bool,
    streams: Vec<Part<'a>>,
}

#[derive(Debug, Serialize)]
struct Part<'a> {
    stream: &'a str,
    records: u64,
    bytes: u64,
}

/// Shows what is stored.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn run(global: &Global, args: &UsageArgs) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot read what is stored";
    let client = Client::to_read(global).await?;
    let mut progress = Progress::new();
    progress.say("reading what is stored".to_owned());
    let streams = client.broker.stream_usage().await.attempt(WHAT)?;
    let agents = client.broker.agent_usage().await.attempt(WHAT)?;
    drop(progress);
    let mut agents: Vec<_> = agents.iter().map(|(agent, usage)| shown(agent, usage)).collect();
    agents.sort_by(|one, other| other.bytes.cmp(&one.bytes).then(one.agent.cmp(other.agent)));
    let left = agents.len().saturating_sub(args.limit);
    agents.truncate(args.limit);
    if client.json() {
        let streams = streams.iter().map(|one| Stream {
            stream: &one.name,
            records: one.records,
            bytes: one.bytes,
            subjects: one.subjects,
            limit: one.limit,
            oldest: one.oldest,
        });
        output::json(&Shown { streams: streams.collect(), agents })?;
    } else {
        output::line(of_streams(&streams))?;
        output::line("")?;
        output::line(of_agents(&agents))?;
    }
    if left > 0 {
        output::note(format!("{left} more agents; --limit {} shows all", args.limit + left));
    }
    Ok(0)
}

fn shown<'a>(agent: &'a AgentName, usage: &'a AgentUsage) -> Agent<'a> {
    let streams = usage.streams.iter();
    let parts: Vec<_> = streams
        .map(|(stream, (records, bytes))| Part { stream, records: *records, bytes: *bytes })
        .collect();
    Agent {
        agent,
        records: parts.iter().map(|part| part.records).sum(),
        bytes: parts.iter().map(|part| part.bytes).sum(),
        estimated: usage.estimated,
        streams: parts,
    }
}

fn of_streams(streams: &[StreamUsage]) -> String {
    let now = now();
    let row = |name: &str, one: &StreamUsage| {
        vec![
            name.to_owned(),
            one.records.to_string(),
            table::bytes(one.bytes),
            table::or_none(one.limit.map(table::bytes)),
            table::age(one.oldest, now),
        ]
    };
    let rows = streams.iter().map(|one| row(&one.name, one));
    let records: u64 = streams.iter().map(|one| one.records).sum();
    let bytes: u64 = streams.iter().map(|one| one.bytes).sum();
    let total =
        ["total".into(), records.to_string(), table::bytes(bytes), String::new(), String::new()];
    table::table(&["STREAM", "RECORDS", "BYTES", "LIMIT", "OLDEST"], rows.chain([total.into()]))
}

fn of_agents(agents: &[Agent<'_>]) -> String {
    const SHOWN: [&str; 5] = ["JOURNAL", "HISTORY", "EVENTS", "LOGS", "DEAD"];
    let rows = agents.iter().map(|agent| {
        let about = if agent.estimated { "~" } else { "" };
        let of = |name: &str| {
            let part = agent.streams.iter().find(|part| part.stream == name);
            part.map_or_else(|| "-".to_owned(), |part| table::bytes(part.bytes))
        };
        let mut row = vec![
            agent.agent.to_string(),
            format!("{about}{}", agent.records),
            format!("{about}{}", table::bytes(agent.bytes)),
        ];
        row.extend(SHOWN.map(of));
        row
    });
    let headers = ["AGENT", "RECORDS", "BYTES"].into_iter().chain(SHOWN).collect::<Vec<_>>();
    table::table(&headers, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_estimated_is_marked() {
        let agent = AgentName::new("a").expect("valid");
        let mut usage = AgentUsage::default();
        usage.streams.insert("JOURNAL".into(), (2, 2048));
        let text = of_agents(&[shown(&agent, &usage)]);
        assert!(
            text.ends_with("a      2        2 KiB  2 KiB    -        -       -     -"),
            "{text}"
        );
        usage.estimated = true;
        assert!(of_agents(&[shown(&agent, &usage)]).contains("~2 KiB"));
    }
}
