//! The questions between agents of a message that has left the journal.

use common::message::{Cause, Envelope, MessageKey};

use super::parts::belongs;
use super::{FIRST, PART, SECOND};
use crate::api::Record;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::journal::Stored;
use crate::read::Reader;

/// What ends together leaves the journal together: so many records before a message and after it are looked at.
const BEFORE: u64 = 500;
const AFTER: u64 = 250;
/// The bytes of these that are held at once.
const BYTES: u32 = 1 << 20;

impl Broker {
    /// The messages that an agent sent in the course of a message which is at a place of HISTORY, as far as they are near it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn archived_questions(
        &self,
        of: &MessageKey,
        place: u64,
    ) -> Result<Vec<Stored<Envelope>>> {
        let (from, until) = (place.saturating_sub(BEFORE).max(1), place.saturating_add(AFTER));
        let reader = Reader::new(self.wire(), self.history_stream(), ">".to_owned(), from, until);
        let mut reader = reader.of(self.replicas()).expecting(BEFORE + AFTER + 1).pages(BYTES);
        let (mut found, mut first): (Vec<_>, Option<Record>) = (Vec::new(), None);
        while let Some(record) = reader.next().await? {
            let records = match record.header(PART) {
                Some(FIRST) => {
                    first = Some(record);
                    continue;
                }
                Some(SECOND) => match first.take().filter(|first| belongs(first, &record)) {
                    Some(first) => vec![first, record],
                    // The other half is before the place from which on is looked.
                    None => continue,
                },
                Some(_) | None => vec![record],
            };
            match self.read_archived(&records) {
                Ok(archived) => {
                    let request = archived.request;
                    found.extend(request.filter(|request| asks(&request.value, of)));
                }
                // Another kind of record, or an unreadable one.
                Err(BrokerError::Malformed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }
}

/// Whether a message was sent in the course of another one, by the agent of that.
pub(crate) fn asks(envelope: &Envelope, of: &MessageKey) -> bool {
    let Some(Cause { agent, sender, message_id }) = &envelope.cause else { return false };
    envelope.sender.as_str() == of.agent.as_str()
        && *agent == of.agent
        && *sender == of.sender
        && *message_id == of.message_id
}
