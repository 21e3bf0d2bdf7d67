//! An agent's part of the journal as lines, in the journal's order, followed by its dead letters.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use broker::{Broker, BrokerError};
use common::api::ApiError;
use common::{AgentName, MessageId, SenderName};

use super::manifest::{Counts, Line};
use super::slice;
use crate::{output, page};
use broker::Attempt as _;
use common::failure;

/// A journal in a temporary file.
#[derive(Debug)]
pub(super) struct Spooled {
    pub(super) file: File,
    pub(super) size: u64,
    pub(super) counts: Counts,
}

/// Reads what the journal now holds of an agent into a temporary file, since the archive must state its length first.
///
/// # Errors
/// When the broker does not answer, or the folder has no room.
pub(super) async fn spool(
    broker: &Broker,
    agent: &AgentName,
    folder: &Path,
) -> Result<Spooled, ApiError> {
    const WHAT: &str = "cannot read the journal";
    let no_room = |error: std::io::Error| {
        let what = format!("cannot write a temporary file to {}", folder.display());
        failure::file(
            what,
            &error,
            "free some space there, or use another folder: FILE's, else TMPDIR",
        )
    };
    let mut file = BufWriter::new(slice::spool(folder).map_err(no_room)?);
    let mut counts = Counts::default();
    let mut open: HashSet<(SenderName, MessageId)> = HashSet::new();
    let mut scan = broker.scan(Some(agent)).await.attempt(WHAT)?;
    loop {
        let item = match scan.next().await {
            Ok(Some(item)) => item,
            Ok(None) => break,
            Err(cause @ BrokerError::Malformed { .. }) => {
                output::note(format!("warning: left out: {cause}"));
                continue;
            }
            Err(cause) => return Err(broker::failure(WHAT, cause)),
        };
        if item.request.as_ref().is_some_and(|request| request.key() != item.key) {
            output::note(format!(
                "warning: left out: record {} does not match its subject",
                item.seq
            ));
            continue;
        }
        let (sender, message_id) = (item.key.sender, item.key.message_id);
        let line = match (item.request, item.final_) {
            (Some(request), _) => {
                counts.messages += 1;
                open.insert((sender, message_id));
                Line::Request { at: item.at, record: Box::new(request) }
            }
            (None, Some(final_)) => {
                open.remove(&(sender.clone(), message_id.clone()));
                Line::Final { at: item.at, sender, message_id, record: Box::new(final_) }
            }
            (None, None) => continue,
        };
        write(&mut file, &line).map_err(no_room)?;
    }
    counts.open = open.len() as u64;
    const LETTERS: &str = "cannot read the dead letters";
    let mut letters = broker.dead_letters(Some(agent)).await.attempt(LETTERS)?;
    while let Some(letter) = letters.next().await.attempt(LETTERS)? {
        counts.dead_letters += 1;
        let record = Box::new(letter.value);
        write(&mut file, &Line::DeadLetter { record }).map_err(no_room)?;
    }
    page::unreadable(letters.unreadable());
    let mut file = file.into_inner().map_err(|error| no_room(error.into_error()))?;
    let size = file.stream_position().map_err(no_room)?;
    file.seek(SeekFrom::Start(0)).map_err(no_room)?;
    Ok(Spooled { file, size, counts })
}

fn write(file: &mut BufWriter<File>, line: &Line) -> std::io::Result<()> {
    serde_json::to_writer(&mut *file, line)?;
    file.write_all(b"\n")
}
