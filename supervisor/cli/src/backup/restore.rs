//! `mozart restore`: an empty namespace is filled, and can be used only when all of it is there.

use std::collections::BTreeMap;
use std::path::PathBuf;

use broker::{Attempt as _, Broker, BrokerError, ConnectOptions, Filler, Part, StreamOptions};
use clap::Args;
use common::api::ApiError;
use common::control::{ControlEvent, ControlRecord};
use common::{AgentName, failure};
use indicatif::ProgressBar;
use supervisor_core::{State, snapshot, step};
use uuid::Uuid;

use super::chain::{self, Chain, Item};
use super::plan::{Sequences, incarnations};
use super::show::{self, Open, Restored};
use super::{BYTES, progress};
use crate::args::Output;
use crate::client::{Client, now};
use crate::output;

const WHAT: &str = "cannot restore";

/// `mozart restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup, and after it those that continue it, in their order; - for stdin
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Check the files and show what they hold; restore nothing
    #[arg(long, visible_alias = "list")]
    dry_run: bool,
    /// Number of journal streams [default: as many as the backup has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    journal_shards: Option<u32>,
}

impl RestoreArgs {
    /// Whether it needs no broker.
    #[must_use]
    pub fn is_dry(&self) -> bool {
        self.dry_run
    }
}

/// Files that were checked, and can be restored.
#[derive(Debug)]
pub struct Ready(Chain);

/// Checks the files, before anything is started or changed.
///
/// # Errors
/// 2 when one is damaged or does not continue the one before it, 3 when one is not there.
pub async fn check(args: &RestoreArgs) -> Result<Ready, ApiError> {
    if args.files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        let cause = "stdin can be read once only";
        return Err(failure::error(failure::USAGE, WHAT, cause, "name the other files"));
    }
    let bar = progress("checking", BYTES);
    let chain = chain::chain(&args.files, WHAT, &bar).await?;
    bar.finish_and_clear();
    Ok(Ready(chain))
}

/// Shows what the files hold.
///
/// # Errors
/// When stdout is closed.
pub fn list(output: Output, ready: &Ready) -> Result<(), ApiError> {
    show::listed(output, &ready.0)
}

/// Restores the files.
///
/// # Errors
/// 4 when the namespace is not empty, or a supervisor answers; when the broker does not answer, or has no room. What was done by then
/// is removed by the next restore, and nobody can use it until that has ended.
pub async fn restore(
    options: &ConnectOptions,
    output: Output,
    args: &RestoreArgs,
    Ready(chain): Ready,
) -> Result<(), ApiError> {
    unsupervised(options, output).await?;
    let Some(last) = chain.last() else { return Ok(()) };
    let at = now().as_millis();
    let sequences = chain.plan.sequences(at);
    let highest = chain.state.1.incarnation();
    let base = incarnations(highest, at);
    let made = StreamOptions {
        journal_shards: args.journal_shards.unwrap_or(last.head.shards),
        replicas: None,
    };
    let broker = Broker::begin_restore(options, &made, sequences.first).await.attempt(WHAT)?;
    let bar = progress("restoring", BYTES);
    bar.set_length(chain.files.iter().map(|file| file.length).sum());
    let records = fill(&broker, &chain, sequences, &bar).await.map_err(again)?;
    bar.set_message("indexing");
    broker.index_history().await.attempt(WHAT).map_err(again)?;
    let state = chain.state.1.clone().shifted(sequences.by);
    let state = begin(&broker, state, &chain, base).await.map_err(again)?;
    let open = open(&broker, &state).await.map_err(again)?;
    // From here on it can be used.
    broker.end_restore().await.attempt(WHAT).map_err(again)?;
    bar.finish_and_clear();
    let pins = state.agents().filter_map(|agent| {
        let node = agent.pinned_to().cloned()?;
        Some((agent.name.clone(), node))
    });
    let restored = Restored {
        backup: last.head.id.clone(),
        taken: last.head.taken,
        namespace: options.namespace.to_string(),
        agents: state.agents().count() as u64,
        records,
        incarnations: base,
        term: sequences.last,
        open,
        pinned: pins.collect(),
    };
    output::result(show::restored(output, &restored), || "the fleet was restored".to_owned())
}

/// The namespace is of no use as it is.
fn again(mut error: ApiError) -> ApiError {
    let left = "the namespace stays locked until `mozart restore` has run to its end";
    error.try_ = match error.try_.is_empty() {
        true => left.to_owned(),
        false => format!("{}; {left}", error.try_),
    };
    error
}

/// Demands that no supervisor uses the namespace.
async fn unsupervised(options: &ConnectOptions, output: Output) -> Result<(), ApiError> {
    let broker = match Broker::connect(options).await {
        Ok(broker) => broker,
        Err(BrokerError::NoStreams(_) | BrokerError::Restoring(_)) => return Ok(()),
        Err(error) => return Err(error).attempt(WHAT),
    };
    // Before they are asked: whether there is anything is the better answer.
    Broker::may_restore(options).await.attempt(WHAT)?;
    let client = Client::over(broker, output);
    match client.hello().await {
        Ok(hello) => {
            let cause = format!("supervisor {} answers", hello.supervisor);
            let try_ = "`mozart down`, or stop every supervisor and node";
            Err(failure::error(failure::CONFLICT, WHAT, cause, try_))
        }
        Err(_) => Ok(()),
    }
}

/// Writes what counts of the files. How many records.
async fn fill(
    broker: &Broker,
    chain: &Chain,
    sequences: Sequences,
    bar: &ProgressBar,
) -> Result<u64, ApiError> {
    let mut records = 0;
    let (mut done, count) = (0, chain.files.len());
    for (nth, file) in chain.files.iter().enumerate() {
        let changed = |fault: super::frame::Fault| {
            let what = format!("{WHAT} from {}", file.shown());
            failure::error(failure::USAGE, what, fault, "it was changed meanwhile")
        };
        let mut fillers = Fillers::new(broker);
        let mut items = file.read().map_err(changed)?;
        while let Some(item) = items.next().map_err(changed)? {
            bar.set_position(done + items.at());
            let (part, record) = match item {
                // The streams before it are behind.
                Item::Part(..) => {
                    fillers.end().await?;
                    continue;
                }
                Item::Record(part, record) => (part, record),
            };
            if !chain.plan.counts(part, &record, nth + 1 == count) {
                continue;
            }
            let record = if part == Part::Control { sequences.record(record) } else { record };
            fillers.add(part, record).await?;
            records += 1;
        }
        fillers.end().await?;
        done += file.length;
    }
    let last = broker.extract(Part::Control).await.attempt(WHAT)?.map(|control| control.last);
    if last != Some(sequences.last) {
        let cause = format!("the control log ends with {last:?}, and not with {}", sequences.last);
        return Err(failure::error(failure::FAILED, WHAT, cause, "run it again"));
    }
    Ok(records)
}

/// The streams that are being filled: a journal of the backup may go to several.
struct Fillers<'a> {
    broker: &'a Broker,
    fillers: BTreeMap<Part, Filler>,
}

impl<'a> Fillers<'a> {
    fn new(broker: &'a Broker) -> Self {
        Self { broker, fillers: BTreeMap::new() }
    }

    async fn add(&mut self, part: Part, record: broker::Copied) -> Result<(), ApiError> {
        let part = match part {
            Part::Journal(_) => {
                let agent = record.subject.split('.').nth(1).map(AgentName::new);
                let Some(Ok(agent)) = agent else { return Ok(()) };
                Part::Journal(self.broker.subjects().shard(&agent))
            }
            Part::Control
            | Part::Files
            | Part::History
            | Part::Attempts
            | Part::Steps
            | Part::Questions
            | Part::Dead
            | Part::Schedules
            | Part::Later
            | Part::Events
            | Part::Logs => part,
        };
        let mut filler = match self.fillers.remove(&part) {
            Some(filler) => filler,
            None => self.broker.fill_part(part).await.attempt(WHAT)?,
        };
        filler.add(record).await.attempt(WHAT)?;
        self.fillers.insert(part, filler);
        Ok(())
    }

    async fn end(&mut self) -> Result<(), ApiError> {
        for filler in std::mem::take(&mut self.fillers).into_values() {
            filler.end().await.attempt(WHAT)?;
        }
        Ok(())
    }
}

/// Says in the control log that it goes on from a backup, and gives it the snapshots that it is to be read from: its earlier records have other
/// sequences and times than when they were written.
async fn begin(
    broker: &Broker,
    mut state: State,
    chain: &Chain,
    base: u64,
) -> Result<State, ApiError> {
    let head = chain.last().map(|file| (file.head.id.clone(), file.head.taken));
    let (backup, taken) = head.unwrap_or_default();
    // Two are needed before the log may lose what they cover; and one may be damaged.
    write_snapshot(broker, &state).await?;
    let record = ControlRecord {
        id: Some(format!("restore.{}", Uuid::now_v7())),
        at: now(),
        term: (state.term() > 0).then(|| state.term()),
        author: "restore".to_owned(),
        event: ControlEvent::FleetRestored { backup, taken, incarnations: base },
    };
    let seq = broker.append_control(&record).await.attempt(WHAT)?.seq;
    let logged = broker.logged(seq).await.attempt(WHAT)?.unwrap_or_default();
    // Nothing is to be done before a supervisor leads.
    let _actions = step(&mut state, seq, logged.at, &record);
    write_snapshot(broker, &state).await?;
    Ok(state)
}

async fn write_snapshot(broker: &Broker, state: &State) -> Result<(), ApiError> {
    // A log without records has none that a snapshot could end with.
    let Some(last) = broker.logged(state.seq()).await.attempt(WHAT)? else { return Ok(()) };
    let Some((head, json)) = snapshot(state, &last) else { return Ok(()) };
    broker.write_snapshot(&head, json.into()).await.attempt(WHAT)
}

/// What has no final state, of all agents, oldest first.
async fn open(broker: &Broker, state: &State) -> Result<Vec<Open>, ApiError> {
    let mut open = Vec::new();
    for agent in state.names() {
        let some = broker.open_after_restore(agent).await.attempt(WHAT)?;
        open.extend(some.into_iter().map(|(key, at)| Open { key, at }));
    }
    open.sort_by_key(|one| one.at);
    Ok(open)
}
