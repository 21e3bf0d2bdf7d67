//! `mozart backup`.

use std::path::PathBuf;

use broker::{Attempt as _, Broker, Copied, Extract, Part};
use clap::Args;
use common::api::ApiError;
use common::control::{Reading, read};
use common::failure;
use common::snapshot::Logged;
use indicatif::ProgressBar;
use supervisor_core::{State, skip, snapshot, step};
use uuid::Uuid;

use super::chain::{self, Checked};
use super::frame::{Kind, Writer};
use super::manifest::{After, End, FORMAT, Head, Mark, StateHead, encode};
use super::plan::{is_forgetting, message};
use super::show::{self, Taken};
use super::{BYTES, RECORDS, progress};
use crate::args::Global;
use crate::client::Client;
use crate::outfile::{OutFile, is_stdout, may_write};

const WHAT: &str = "cannot back up the fleet";

/// A piece of the control log's state, in bytes.
const PIECE: usize = 1 << 20;

/// `mozart backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write, or - for stdout
    file: PathBuf,
    /// Write only what is new since the backup in this file; to restore, both are needed
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
    /// Include streamed text and the workers' logs
    #[arg(long)]
    with_logs: bool,
    /// Overwrite FILE
    #[arg(long)]
    force: bool,
}

/// Writes a fleet into a file, while it runs.
///
/// # Errors
/// 4 when FILE is there, or the backup cannot be continued; 2 when the earlier one is damaged; when the broker does not answer.
pub(crate) async fn backup(global: &Global, args: &BackupArgs) -> Result<u8, ApiError> {
    may_write(&args.file, args.force, WHAT)?;
    let before = match &args.since {
        Some(path) => {
            let bar = progress("checking", BYTES);
            let what = "cannot continue the backup";
            let checked = chain::check(path, what, &bar).await?;
            bar.finish_and_clear();
            Some(checked)
        }
        None => None,
    };
    let client = Client::connect(global).await?;
    client.lasts().await?;
    let bar = progress("backing up", RECORDS);
    let out = match is_stdout(&args.file) {
        true => OutFile::Stdout,
        false => OutFile::create(&args.file, args.force)?,
    };
    let taking = Taking {
        broker: client.broker.clone(),
        before: before.as_ref(),
        out: Writer::new(out),
        end: End { parts: Vec::new(), agents: 0, requests: 0, finals: 0, archived: 0 },
        bar: bar.clone(),
    };
    let (head, end, (size, sha256)) = taking.run(args.with_logs).await?;
    bar.finish_and_clear();
    let taken = Taken { file: &args.file, size, sha256: &sha256, head: &head, end: &end };
    show::taken(&client, &taken, is_stdout(&args.file))?;
    Ok(0)
}

/// A backup that is being written.
struct Taking<'a> {
    broker: Broker,
    before: Option<&'a Checked>,
    out: Writer,
    end: End,
    bar: ProgressBar,
}

impl Taking<'_> {
    /// The order matters: what moves from one stream to another while this runs is read before in the one, or after in the other. So the
    /// journals come before the history; and what is wanted comes first: what it needs is there already.
    async fn run(mut self, with_logs: bool) -> Result<(Head, End, (u64, String)), ApiError> {
        // The snapshot first: it may be newer than what was the end of the log before.
        let (mut state, from) = newest(&self.broker).await?;
        let control = self.extract(Part::Control).await?.ok_or_else(|| {
            failure::error(failure::FAILED, WHAT, "there is no control log", "`mozart doctor`")
        })?;
        let last = fold(&self.broker, &mut state, from, &control).await?;
        let head = Head {
            format: FORMAT,
            id: Uuid::now_v7().to_string(),
            taken: self.broker.clock().await.attempt(WHAT)?,
            mozart: env!("CARGO_PKG_VERSION").to_owned(),
            namespace: self.broker.subjects().namespace().to_string(),
            fleet: control.made.clone(),
            shards: self.broker.subjects().shards(),
            with_logs,
            after: self
                .before
                .map(|before| After { id: before.head.id.clone(), sha256: before.sha256.clone() }),
        };
        self.frame(Kind::Head, &head)?;
        self.state(&state, &last)?;
        self.end.agents = state.agents().count() as u64;
        let journals = (0..head.shards).map(Part::Journal);
        // What a schedule is said to have sent is in the journal by the time that is read, and what was to be delivered later and is so meanwhile.
        let mut parts = vec![Part::Control, Part::Files, Part::Schedules, Part::Later];
        parts.extend(journals);
        let rest = [Part::History, Part::Attempts, Part::Steps, Part::Questions, Part::Dead];
        parts.extend(rest);
        if with_logs {
            parts.extend([Part::Events, Part::Logs]);
        }
        let mut control = Some(control);
        for part in parts {
            let extract = match (part, control.take()) {
                // As far as the state goes.
                (Part::Control, Some(control)) => Some(control),
                (_, _) => self.extract(part).await?,
            };
            if let Some(extract) = extract {
                self.part(part, extract).await?;
            }
        }
        let made = self.extract(Part::Control).await?.map(|control| control.made);
        if made.as_ref() != Some(&head.fleet) {
            let cause = "the fleet was removed and made anew meanwhile";
            return Err(failure::error(failure::CONFLICT, WHAT, cause, "run it again"));
        }
        let end = self.end.clone();
        self.frame(Kind::End, &end)?;
        Ok((head, end, self.out.finish()?))
    }

    async fn extract(&self, part: Part) -> Result<Option<Extract>, ApiError> {
        self.broker.extract(part).await.attempt(WHAT)
    }

    fn frame(&mut self, kind: Kind, content: &impl serde::Serialize) -> Result<(), ApiError> {
        let json = serde_json::to_vec(content);
        let json = json.map_err(|error| failure::error(failure::FAILED, WHAT, error, ""))?;
        self.out.frame(kind, &[&json])
    }

    fn state(&mut self, state: &State, last: &Logged) -> Result<(), ApiError> {
        let Some((head, json)) = snapshot(state, last) else {
            let unreadable = state.unreadable();
            let (seq, why) = unreadable.map_or((0, ""), |one| (one.seq, one.why.as_str()));
            let cause = format!("record {seq} of the control log cannot be read: {why}");
            return Err(failure::error(
                failure::FAILED,
                WHAT,
                cause,
                "use the newer mozart that wrote it",
            ));
        };
        self.frame(Kind::StateHead, &StateHead::new(&head))?;
        json.chunks(PIECE).try_for_each(|piece| self.out.frame(Kind::State, &[piece]))
    }

    /// Copies a stream, as far as it goes by now.
    async fn part(&mut self, part: Part, extract: Extract) -> Result<(), ApiError> {
        let from = match self.known(part, &extract)? {
            // Of these, single ones are removed, of which no record tells.
            Some(_)
                if matches!(
                    part,
                    Part::Attempts
                        | Part::Steps
                        | Part::Questions
                        | Part::Dead
                        | Part::Schedules
                        | Part::Later
                ) =>
            {
                extract.first
            }
            Some(known) => extract.first.max(known + 1),
            None => extract.first,
        };
        self.bar.inc_length(match from == extract.first {
            true => extract.records,
            false => (extract.last + 1).saturating_sub(from),
        });
        let until = extract.last;
        let mut mark = Mark::new(part.to_string(), extract, from);
        self.frame(Kind::Part, &mark)?;
        let mut copying = self.broker.copy(part, from, until);
        while let Some(record) = copying.next().await.attempt(WHAT)? {
            self.note(part, &record)?;
            mark.records += 1;
            mark.bytes += record.payload.len() as u64;
            let place = encode(&record);
            let place = place.map_err(|error| failure::error(failure::FAILED, WHAT, error, ""))?;
            self.out.frame(Kind::Record, &[&place, &record.payload])?;
            self.bar.inc(1);
        }
        self.end.parts.push(mark);
        Ok(())
    }

    /// Up to where an earlier backup has a stream; none if it does not have it.
    fn known(&self, part: Part, extract: &Extract) -> Result<Option<u64>, ApiError> {
        let Some(before) = self.before else { return Ok(None) };
        let Some(mark) = before.end.mark(&part.to_string()) else { return Ok(None) };
        if mark.made == extract.made && mark.last <= extract.last {
            return Ok(Some(mark.last));
        }
        let cause = match part {
            Part::Control => format!("{} is of another fleet", before.shown()),
            Part::Files
            | Part::Journal(_)
            | Part::History
            | Part::Attempts
            | Part::Steps
            | Part::Questions
            | Part::Dead
            | Part::Schedules
            | Part::Later
            | Part::Events
            | Part::Logs => format!("the stream {part} was made anew since {}", before.shown()),
        };
        Err(failure::error(failure::CONFLICT, WHAT, cause, "a complete backup, without --since"))
    }

    fn note(&mut self, part: Part, record: &Copied) -> Result<(), ApiError> {
        match part {
            Part::Control if self.before.is_some() => {
                if let Reading::Record(record) = read(&record.payload)
                    && is_forgetting(&record.event)
                {
                    let cause =
                        "messages were erased since then, which the earlier backup still holds";
                    let try_ = "a complete backup, without --since; then remove the earlier ones";
                    return Err(failure::error(failure::CONFLICT, WHAT, cause, try_));
                }
            }
            Part::Journal(_) => match message(&record.subject) {
                Some((_, true)) => self.end.finals += 1,
                Some((_, false)) => self.end.requests += 1,
                None => {}
            },
            Part::History => {
                // The second record of a message does not name it.
                let is_named = record.headers.iter().any(|(name, _)| name == "Mozart-Id");
                self.end.archived += u64::from(is_named);
            }
            Part::Control
            | Part::Files
            | Part::Attempts
            | Part::Steps
            | Part::Questions
            | Part::Dead
            | Part::Schedules
            | Part::Later
            | Part::Events
            | Part::Logs => {}
        }
        Ok(())
    }
}

/// The state as of the newest snapshot, and from where on the log goes on.
async fn newest(broker: &Broker) -> Result<(State, u64), ApiError> {
    let loaded = broker.load_snapshot(supervisor_core::restore).await.attempt(WHAT)?;
    if !loaded.is_whole() {
        let first = loaded.extent.first;
        let cause = format!(
            "the control log begins with record {first}, and no snapshot covers what came before it"
        );
        return Err(failure::error(failure::FAILED, WHAT, cause, "`mozart doctor`"));
    }
    let state = loaded.found.map(|(_, state)| state).unwrap_or_default();
    let from = state.seq() + 1;
    Ok((state, from))
}

/// Folds the rest of the log, and tells which record it ends with.
async fn fold(
    broker: &Broker,
    state: &mut State,
    from: u64,
    control: &Extract,
) -> Result<Logged, ApiError> {
    let mut log = broker.copy(Part::Control, from, control.last);
    while let Some(Copied { seq, at, payload, .. }) = log.next().await.attempt(WHAT)? {
        match read(&payload) {
            Reading::Record(record) => {
                // What is to be done is the leader's business.
                let _actions = step(state, seq, at, &record);
            }
            Reading::Newer(why) => skip(state, seq, at, Some(why)),
            Reading::Damaged(_) => skip(state, seq, at, None),
        }
    }
    let last = broker.logged(state.seq()).await.attempt(WHAT)?;
    Ok(last.unwrap_or_default())
}
