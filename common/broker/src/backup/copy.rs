//! Reading a stream for a backup.

use common::subject::Subjects;

use super::{Copied, Extract, Part};
use crate::api::code;
use crate::connection::Broker;
use crate::error::Result;
use crate::read::Reader;
use crate::record::STORED_AT;
use crate::wire::CALL;

impl Broker {
    /// What a stream holds now; none if there is no such stream, as with one that an earlier version did not make.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn extract(&self, part: Part) -> Result<Option<Extract>> {
        let info = match self.wire().stream_info(&part.stream(self.subjects()), CALL).await? {
            Ok(info) => info,
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let (first, last) = (info.state.first_seq.max(1), info.state.last_seq);
        Ok(Some(Extract { made: info.created, first, last, records: info.state.messages }))
    }

    /// Reads a stream's records from one sequence to another, both included.
    #[must_use]
    pub fn copy(&self, part: Part, from: u64, until: u64) -> Copying {
        let stream = part.stream(self.subjects());
        let reader = Reader::new(self.wire(), stream, ">".to_owned(), from, until);
        Copying { reader: reader.of(self.replicas()), subjects: self.subjects().clone(), part }
    }
}

/// A stream that is being read.
#[derive(Debug)]
pub struct Copying {
    reader: Reader,
    subjects: Subjects,
    part: Part,
}

impl Copying {
    /// The next record; none at the end. What means nothing is left out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<Copied>> {
        while let Some(record) = self.reader.next().await? {
            // What clears the marks of attempts has no content, and those that it clears are gone.
            let is_nothing = self.part == Part::Attempts && record.payload.is_empty();
            let subject = self.subjects.relative(&record.subject);
            let Some(subject) = subject.filter(|_| !is_nothing) else { continue };
            if Subjects::is_filler(&record.subject) {
                continue;
            }
            let kept = |name: &str| !name.starts_with("Nats-") && name != STORED_AT;
            let headers = record.headers.iter().flat_map(|(name, values)| {
                let name = name.to_string();
                values.iter().map(move |value| (name.clone(), value.as_str().to_owned()))
            });
            return Ok(Some(Copied {
                seq: record.seq,
                at: record.at,
                subject: subject.to_owned(),
                headers: headers.filter(|(name, _)| kept(name)).collect(),
                payload: record.payload,
            }));
        }
        Ok(None)
    }
}
