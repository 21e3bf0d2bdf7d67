//! `mozart forget`: erases messages and their answers.

use std::time::Duration;

use broker::{Attempt as _, Broker, BrokerError, Forget, Forgotten};
use clap::Args;
use common::api::ApiError;
use common::control::{ControlEvent, ControlRecord};
use common::failure;
use common::words::count;
use common::{AgentName, ConversationId, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::client::{Client, now};
use super::progress::Progress;
use super::{output, table};
use crate::args::{Global, moment};

/// `mozart forget`.
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// The agent; it may already be removed
    agent: AgentName,
    /// Only this conversation
    #[arg(long, value_name = "ID")]
    conversation: Option<ConversationId>,
    /// Only messages sent before this: 2026-11-01, 2026-11-01T12:00:00Z (both UTC), or 30d for 30 days ago
    #[arg(long, value_name = "TIME", value_parser = moment)]
    before: Option<Timestamp>,
    /// Show what would be erased, and erase nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was forgotten, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    agent: &'a AgentName,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<&'a ConversationId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Timestamp>,
    dry_run: bool,
    messages: u64,
    open: u64,
    records: u64,
    bytes: u64,
    streams: Vec<Stream>,
}

#[derive(Debug, Serialize)]
struct Stream {
    stream: &'static str,
    records: u64,
    bytes: u64,
}

/// Erases what is finished. The control log keeps who did so, and how much that was.
///
/// # Errors
/// 3 if there never was such an agent, 9 if there is no room to erase all. When the broker does not answer: the next call continues.
pub(crate) async fn run(global: &Global, args: &ForgetArgs) -> Result<u8, ApiError> {
    let client = match args.dry_run {
        true => Client::to_read(global).await?,
        false => Client::to_change(global).await?,
    };
    let broker = &client.broker;
    let ForgetArgs { agent, conversation, before, dry_run } = args;
    let what = Forget { agent: agent.clone(), conversation: conversation.clone(), before: *before };
    let failed = || format!("cannot erase the messages of {agent}");
    let mut progress = Progress::new();
    progress.say(format!("looking for records of {agent}"));
    let there = broker.forgettable(&what).await.attempt(failed())?;
    // One that was removed has been there, and bytes of it may be left.
    if there == Forgotten::default()
        && broker.last_control(agent).await.attempt(failed())?.is_none()
    {
        mozart_client::agents::require(&client, agent).await?;
    }
    let all = there.total().records;
    let forgotten = if *dry_run {
        there
    } else {
        let log = || format!("{}, since that cannot be recorded in the control log", failed());
        // Before and after: also what is interrupted is on record.
        if let Err(error) = record(broker, args, &there, false).await {
            return Err(no_space(&client, log(), error).await);
        }
        let told = |done: &Forgotten| {
            progress.say(format!(
                "erased {} of {}",
                done.total().records,
                count(all, "record", "records")
            ));
        };
        let forgotten = match broker.forget(&what, told).await {
            Ok(forgotten) => forgotten,
            Err(error) => return Err(no_space(&client, failed(), error).await),
        };
        const LOG: &str = "the messages are erased, but that cannot be recorded in the control log";
        if let Err(error) = record(broker, args, &forgotten, true).await {
            return Err(no_space(&client, LOG.into(), error).await);
        }
        forgotten
    };
    drop(progress);
    let written = show(&client, args, &forgotten);
    if forgotten.open > 0 {
        let open = table::count(forgotten.open, "message", "messages");
        output::note(format!("kept: {open} without a final state; `mozart cancel` cancels one"));
    }
    if !dry_run && broker.replicas() > 1 {
        output::note(
            "on a cluster, the servers' Raft logs keep the erased records for a few minutes; see docs/operating.md",
        );
    }
    let done = || match dry_run {
        true => "nothing was erased".to_owned(),
        false => format!("the messages of {agent} were erased"),
    };
    output::result(written, done)?;
    match forgotten.unclean.as_slice() {
        [] => Ok(0),
        streams => Err(unclean(&client, agent, streams).await),
    }
}

/// What was erased may still be read where the broker's files are: whoever has to erase it must know.
async fn unclean(client: &Client, agent: &AgentName, streams: &[&str]) -> ApiError {
    const TOLD: Duration = Duration::from_millis(250);
    let what =
        format!("the messages of {agent} were removed, but their bytes may still be on disk");
    let cause = format!("there is not enough space to rewrite the files of {}", streams.join(", "));
    let disk = client.broker.disk(TOLD).await;
    // Beyond what is kept free of all but answers.
    let short = disk.map_or(0, |disk| (disk.margin() + broker::REWRITE).saturating_sub(disk.free));
    let try_ = match short {
        0 => "`mozart usage --storage` shows which bound is reached; raise it, and run it again"
            .to_owned(),
        short => {
            // Rounded up, and some for what comes meanwhile.
            let short = (short >> 20) + 1;
            format!(
                "free {short} MiB on the broker's disk by other means, such as old logs, and run it again"
            )
        }
    };
    failure::error(failure::LIMIT, what, cause, try_)
}

/// On a full disk nothing can be erased, so that it is no way to make room there. What was erased before the error is gone.
async fn no_space(client: &Client, what: String, error: BrokerError) -> ApiError {
    let told = client.unless_full(broker::failure(what, error)).await;
    if told.code != failure::LIMIT {
        return told;
    }
    let cause = format!(
        "{}; to erase a record, nats-server rewrites a file of up to 8 MiB, and then removes what is left of it",
        told.cause
    );
    const TRY: &str = "free 32 MiB on the broker's disk by other means, such as old logs, and run it again; \
                       `mozart reset --all` removes all data of a fleet that is down, and needs no space";
    ApiError { cause, try_: TRY.to_owned(), ..told }
}

/// Who erased how much, and not what.
async fn record(
    broker: &Broker,
    args: &ForgetArgs,
    forgotten: &Forgotten,
    done: bool,
) -> Result<(), broker::BrokerError> {
    let total = forgotten.total();
    let event = ControlEvent::MessagesForgotten {
        agent: args.agent.clone(),
        by: somebody(),
        done,
        conversation: args.conversation.is_some(),
        before: args.before,
        messages: forgotten.messages,
        records: total.records,
        bytes: total.bytes,
    };
    let record = ControlRecord {
        id: Some(Uuid::now_v7().to_string()),
        at: now(),
        term: None,
        author: "cli".to_owned(),
        event,
    };
    broker.append_control(&record).await.map(|_| ())
}

/// The user and the host of this process, as far as they are known here.
fn somebody() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let user = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let user = user.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()));
    format!("{user}@{host}")
}

fn show(client: &Client, args: &ForgetArgs, forgotten: &Forgotten) -> Result<(), ApiError> {
    let total = forgotten.total();
    let streams = forgotten.streams.iter().filter(|(_, erased)| erased.records > 0);
    let streams = streams.map(|(stream, erased)| Stream {
        stream,
        records: erased.records,
        bytes: erased.bytes,
    });
    let shown = Shown {
        agent: &args.agent,
        conversation_id: args.conversation.as_ref(),
        before: args.before,
        dry_run: args.dry_run,
        messages: forgotten.messages,
        open: forgotten.open,
        records: total.records,
        bytes: total.bytes,
        streams: streams.collect(),
    };
    if client.json() {
        return output::json(&shown);
    }
    let verb = if args.dry_run { "would erase" } else { "erased" };
    let head = format!(
        "{verb} {} of {}: {}, {}",
        table::count(shown.messages, "message", "messages"),
        args.agent,
        table::count(total.records, "record", "records"),
        table::bytes(total.bytes)
    );
    output::line(head)?;
    let rows = shown
        .streams
        .iter()
        .map(|one| vec![one.stream.to_owned(), one.records.to_string(), table::bytes(one.bytes)]);
    if shown.streams.is_empty() {
        return Ok(());
    }
    output::line(table::table(&["STREAM", "RECORDS", "BYTES"], rows))
}
