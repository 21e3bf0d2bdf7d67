//! The records of HISTORY, those of one message together.

use common::MessageId;

use super::{FIRST, PART, SECOND};
use crate::api::Record;
use crate::error::Result;
use crate::read::Reader;

/// A read of HISTORY under way.
#[derive(Debug)]
pub(crate) struct Parts {
    reader: Reader,
    /// Read, and of the next message.
    next: Option<Record>,
}

impl Parts {
    pub(crate) fn new(reader: Reader) -> Self {
        Self { reader, next: None }
    }

    /// The next message: its record, or both. One part alone is what is left of a message that was forgotten by half, or whose other one is
    /// kept no longer.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>> {
        let first = match self.next.take() {
            Some(first) => first,
            None => match self.reader.next().await? {
                Some(first) => first,
                None => return Ok(None),
            },
        };
        if first.header(PART) == Some(FIRST) {
            match self.reader.next().await? {
                Some(second) if belongs(&first, &second) => return Ok(Some(vec![first, second])),
                other => self.next = other,
            }
        }
        Ok(Some(vec![first]))
    }
}

/// Whether two records are of one message.
pub(super) fn belongs(first: &Record, second: &Record) -> bool {
    first.header(PART) == Some(FIRST)
        && second.header(PART) == Some(SECOND)
        && second.seq == first.seq + 1
        && second.subject == first.subject
}

/// Whether a message is not there as a whole.
pub(super) fn is_half(records: &[Record]) -> bool {
    matches!(records, [only] if only.header(PART).is_some())
}

/// The id of the message that a record is of; the second of two does not tell.
pub(crate) fn id_of(record: &Record) -> Option<MessageId> {
    record.header(super::commit::ID).and_then(|id| MessageId::new(id).ok())
}
