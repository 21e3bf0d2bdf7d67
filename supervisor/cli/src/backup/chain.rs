//! Checks backups: each file from its first byte to its last, and that each continues the one before it.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use broker::{Copied, Part};
use common::api::ApiError;
use common::failure;
use common::snapshot::SnapshotHead;
use indicatif::ProgressBar;
use supervisor_core::State;
use tokio::task::yield_now;

use super::frame::{Fault, Kind, Reader};
use super::manifest::{End, FORMAT, Head, Mark, StateHead, decode};
use super::plan::Plan;
use crate::carry::slice;

/// The largest state of a control log, in bytes: what a snapshot of it can have.
const STATE: usize = 256 << 20;

/// Frames that are read before others get their turn.
const BREATH: usize = 256;

/// A file that was checked.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) path: PathBuf,
    file: File,
    pub(super) length: u64,
    pub(super) head: Head,
    pub(super) end: End,
    /// The checksum of the file.
    pub(super) sha256: String,
}

/// Files that belong together, in their order, each of which is whole.
#[derive(Debug)]
pub(super) struct Chain {
    pub(super) files: Vec<Checked>,
    /// The state of the control log, as of the last of them.
    pub(super) state: (SnapshotHead, State),
    /// What counts of them.
    pub(super) plan: Plan,
}

impl Chain {
    /// The last file.
    pub(super) fn last(&self) -> Option<&Checked> {
        self.files.last()
    }
}

/// What happens to a frame.
pub(super) enum Item {
    /// A stream begins.
    Part(Mark),
    /// One of its records.
    Record(Part, Copied),
}

impl Checked {
    /// The file's name, for people.
    pub(super) fn shown(&self) -> String {
        shown(&self.path)
    }

    /// Reads it from its beginning.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(&self) -> Result<Items, Fault> {
        Items::new(&self.file)
    }
}

fn shown(path: &Path) -> String {
    if path.as_os_str() == "-" { "stdin".to_owned() } else { path.display().to_string() }
}

/// The frames of a file, in their order.
pub(super) struct Items {
    reader: Reader<BufReader<File>>,
    part: Option<Part>,
}

/// A frame, as what it is.
enum Frame {
    Head(Box<Head>),
    StateHead(StateHead),
    State(Vec<u8>),
    Item(Box<Item>),
    End(End),
}

impl Items {
    fn new(file: &File) -> Result<Self, Fault> {
        let unreadable = |error: std::io::Error| Fault::Unreadable(error.to_string());
        let mut file = file.try_clone().map_err(unreadable)?;
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let reader = Reader::new(BufReader::with_capacity(256 << 10, file))?;
        Ok(Self { reader, part: None })
    }

    fn frame(&mut self) -> Result<Frame, Fault> {
        let (kind, content) = self.reader.next()?;
        let reader = &self.reader;
        let bad = |error: serde_json::Error| reader.damaged(error);
        Ok(match kind {
            Kind::Head => Frame::Head(serde_json::from_slice(&content).map_err(bad)?),
            Kind::StateHead => Frame::StateHead(serde_json::from_slice(&content).map_err(bad)?),
            Kind::State => Frame::State(content),
            Kind::Part => {
                let mark: Mark = serde_json::from_slice(&content).map_err(bad)?;
                let part: Part =
                    mark.stream.parse().map_err(|error: String| reader.damaged(error))?;
                self.part = Some(part);
                Frame::Item(Box::new(Item::Part(mark)))
            }
            Kind::Record => {
                let part = self.part.ok_or_else(|| reader.damaged("a record without a stream"))?;
                let record = decode(content).map_err(|error| reader.damaged(error))?;
                Frame::Item(Box::new(Item::Record(part, record)))
            }
            Kind::End => Frame::End(serde_json::from_slice(&content).map_err(bad)?),
        })
    }

    /// The next stream or record; none at the end.
    ///
    /// # Errors
    /// When the file is not what it was when it was checked.
    pub(super) fn next(&mut self) -> Result<Option<Item>, Fault> {
        loop {
            match self.frame()? {
                Frame::Item(item) => return Ok(Some(*item)),
                Frame::Head(_) | Frame::StateHead(_) | Frame::State(_) => {}
                Frame::End(_) => return Ok(None),
            }
        }
    }

    /// Where the last frame began, in bytes.
    pub(super) fn at(&self) -> u64 {
        self.reader.began()
    }
}

/// What was found in a file.
struct Found {
    checked: Checked,
    state: Option<(SnapshotHead, State)>,
}

/// Checks one file from its first byte to its last.
///
/// # Errors
/// 3 when it is not there, 2 when it is no backup, truncated or damaged.
pub(super) async fn check(path: &Path, what: &str, bar: &ProgressBar) -> Result<Checked, ApiError> {
    let mut plan = Plan::default();
    read(path, what, &mut plan, bar).await.map(|found| found.checked)
}

/// Checks files, and that they belong together.
///
/// # Errors
/// As [`check`]; 2 when one does not continue the one before it.
pub(super) async fn chain(
    paths: &[PathBuf],
    what: &str,
    bar: &ProgressBar,
) -> Result<Chain, ApiError> {
    let (mut files, mut state, mut plan) = (Vec::<Checked>::new(), None, Plan::default());
    for path in paths {
        let found = read(path, what, &mut plan, bar).await?;
        follows(files.last(), &found.checked).map_err(|cause| {
            let what = format!("{what} from {}", found.checked.shown());
            let try_ =
                "name the complete backup first, then those that continue it, in their order";
            failure::error(failure::USAGE, what, cause, try_)
        })?;
        files.push(found.checked);
        state = found.state;
    }
    let (Some(state), Some(last)) = (state, files.last()) else {
        return Err(failure::error(
            failure::USAGE,
            what,
            "no file is named",
            "mozart restore FILE",
        ));
    };
    plan.limit(&last.end);
    let shown = last.shown();
    // What was archived between two of them is in the journal of the one and in the history of the other.
    if plan.needs_finals() {
        for file in &files {
            let bad = |fault: Fault| refused(what, &file.path, fault);
            let mut items = file.read().map_err(bad)?;
            let mut breath = 0;
            while let Some(item) = items.next().map_err(bad)? {
                if let Item::Record(Part::Journal(shard), record) = item {
                    plan.note_final(shard, &record);
                }
                breathe(&mut breath).await;
            }
        }
    }
    if let Err(cause) = plan.whole() {
        let what = format!("{what} from {shown}");
        return Err(failure::error(failure::USAGE, what, cause, "another backup"));
    }
    Ok(Chain { files, state, plan })
}

/// Lets the command be interrupted.
async fn breathe(count: &mut usize) {
    *count += 1;
    if count.is_multiple_of(BREATH) {
        yield_now().await;
    }
}

fn refused(what: &str, path: &Path, fault: Fault) -> ApiError {
    let what = format!("{what} from {}", shown(path));
    let try_ = match fault {
        Fault::NoBackup => "name a file that `mozart backup` has written",
        Fault::Truncated { .. } | Fault::Damaged { .. } => {
            "use another copy of the file, or an earlier backup"
        }
        Fault::Unreadable(_) => "check the file",
    };
    failure::error(failure::USAGE, what, fault, try_)
}

async fn read(
    path: &Path,
    what: &str,
    plan: &mut Plan,
    bar: &ProgressBar,
) -> Result<Found, ApiError> {
    if path.as_os_str() != "-" {
        runtime::home::reaches(path)?;
    }
    let file = slice::open(path, what, "mozart backup FILE").await?;
    let length = file.metadata().map(|metadata| metadata.len());
    let length = length.map_err(|error| failure::file(what, &error, ""))?;
    bar.inc_length(length);
    let begin = bar.position();
    let bad = |fault: Fault| refused(what, path, fault);
    let mut items = Items::new(&file).map_err(bad)?;
    let (mut head, mut state_head, mut json) = (None, None, Vec::new());
    let (mut breath, mut counted) = (0, Vec::<Mark>::new());
    let end = loop {
        let frame = items.frame().map_err(bad)?;
        let damaged = |how: &str| bad(items.reader.damaged(how));
        bar.set_position(begin + items.at());
        match frame {
            Frame::Head(found) if head.is_none() && counted.is_empty() => {
                let found = *found;
                if found.format != FORMAT {
                    let cause =
                        format!("it has format {}, this build knows format {FORMAT}", found.format);
                    let what = format!("{what} from {}", shown(path));
                    return Err(failure::error(
                        failure::USAGE,
                        what,
                        cause,
                        "use the newer mozart that wrote it",
                    ));
                }
                head = Some(found);
            }
            Frame::StateHead(found) if state_head.is_none() => state_head = Some(found),
            Frame::State(piece) if json.len() < STATE => json.extend_from_slice(&piece),
            Frame::Item(item) if head.is_some() => match *item {
                Item::Part(mark) => counted.push(mark),
                Item::Record(part, record) => {
                    let Some(mark) = counted.last_mut() else {
                        return Err(damaged("a record without a stream"));
                    };
                    mark.records += 1;
                    mark.bytes += record.payload.len() as u64;
                    plan.note(part, &record);
                }
            },
            Frame::End(end) => break end,
            Frame::Head(_) | Frame::StateHead(_) | Frame::State(_) | Frame::Item(_) => {
                return Err(damaged("a frame that does not belong there"));
            }
        }
        breathe(&mut breath).await;
    };
    let damaged = |how: String| bad(items.reader.damaged(how));
    if counted != end.parts {
        return Err(damaged("its end tells of other records than it has".to_owned()));
    }
    let Some(head) = head else { return Err(damaged("it has no head".to_owned())) };
    let state = match state_head.map(|head| head.head()) {
        Some(head) => {
            let state = supervisor_core::restore(&head, &json);
            Some((head, state.map_err(|doubt| damaged(doubt.to_string()))?))
        }
        None => None,
    };
    bar.set_position(begin + length);
    let sha256 = items.reader.name();
    let checked = Checked { path: path.to_owned(), file, length, head, end, sha256 };
    Ok(Found { checked, state })
}

/// Whether a file continues the one before it.
fn follows(before: Option<&Checked>, next: &Checked) -> Result<(), String> {
    match (before, &next.head.after) {
        (None, None) => Ok(()),
        (None, Some(after)) => {
            Err(format!("it continues backup {}, which has to come before it", after.id))
        }
        (Some(before), None) => {
            Err(format!("it is complete by itself, and does not continue {}", before.shown()))
        }
        (Some(before), Some(_)) if before.head.fleet != next.head.fleet => {
            Err(format!("it is of another fleet than {}", before.shown()))
        }
        (Some(before), Some(after))
            if after.id != before.head.id || after.sha256 != before.sha256 =>
        {
            Err(format!(
                "it continues backup {}, and {} is backup {}",
                after.id,
                before.shown(),
                before.head.id
            ))
        }
        (Some(_), Some(_)) => Ok(()),
    }
}
