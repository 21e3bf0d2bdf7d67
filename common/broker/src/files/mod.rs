//! FILES: the archives of the files that agents run with, each stored once, by its SHA-256.
//!
//! An archive is a head, on the subject of its hash, and chunks. It counts when the head is there: that is written last. Every write is a
//! compare-and-set, so two that store the same archive at once, or one that was interrupted, do no harm. What is there already is read back
//! and compared: a damaged chunk is replaced.
//!
//! An archive that nothing needs any more leaves in three steps: its head is replaced by a mark, its chunks are removed, the mark is removed.
//! Both replace the head by compare-and-set: either it was stored again, and stays, or it is on its way out, and is stored anew by whoever
//! needs it.

mod collect;

use std::collections::BTreeMap;
use std::ops::Range;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::files::{Files, MAX_BYTES};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::api::{Published, code, header};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::journal::encode;
use crate::read::Reader;
use crate::wire::{CALL, pause};

/// A chunk's size: as of snapshots, so that no write holds up the connection for long.
const CHUNK: usize = 256 << 10;

/// The most chunks of an archive: also with the smallest ones, what a reader holds in names is bounded.
const MOST: u64 = 65_536;

/// How often a write begins again that met another one.
const TRIES: u32 = 20;

/// What the subject of an archive says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "state")]
pub(crate) enum Head {
    /// All of it is there.
    Whole {
        /// Its length.
        bytes: u64,
        /// The length of its chunks, other than the last.
        chunk: u64,
    },
    /// It is being removed.
    Leaving,
}

/// Why an archive cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesFault {
    /// It is not there.
    Missing,
    /// It is not what its name says.
    Damaged(String),
}

/// Where the chunks of an archive are in it.
fn chunks(bytes: u64, chunk: u64) -> Option<impl Iterator<Item = (u64, Range<u64>)> + Clone> {
    let count = bytes.div_ceil(chunk.max(1));
    let is_possible = chunk > 0 && bytes <= MAX_BYTES && count <= MOST;
    let range = move |number: u64| (number, number * chunk..bytes.min((number + 1) * chunk));
    is_possible.then(|| (0..count).map(range))
}

fn expecting(seq: u64) -> impl Fn() -> HeaderMap {
    move || {
        let mut headers = HeaderMap::new();
        headers.insert(header::EXPECTED_LAST, seq.to_string());
        headers
    }
}

fn slice(archive: &Bytes, range: &Range<u64>) -> Option<Bytes> {
    let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
    (start <= end && end <= archive.len()).then(|| archive.slice(start..end))
}

impl Broker {
    fn files_stream(&self) -> String {
        self.subjects().stream("FILES")
    }

    /// Whether this fleet stores files: one that only supervisors of earlier versions have served does not.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn stores_files(&self) -> Result<bool> {
        match self.wire().stream_info(&self.files_stream(), CALL).await? {
            Ok(_) => Ok(true),
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// What the subject of an archive says, and at which sequence; 0 and none, if nothing. What no version writes is as good as nothing.
    async fn head(&self, files: &Files) -> Result<(u64, Option<Head>)> {
        let subject = self.subjects().files(&files.sha256);
        let record = self.wire().last(&self.files_stream(), &subject).await?;
        Ok(record.map_or((0, None), |record| (record.seq, record.parse().ok())))
    }

    /// Stores an archive, or confirms that it is there, whole: from now on it counts as just stored. Whether it was stored now.
    ///
    /// # Errors
    /// When the broker does not answer or has no room, or the archive is not what its name says.
    pub async fn store_files(&self, files: &Files, archive: &Bytes) -> Result<bool> {
        let whole = archive.clone();
        let hash = apart(move || Sha256::digest(&whole)).await?;
        if common::files::Sha256::of(hash.into()) != files.sha256
            || archive.len() as u64 != files.bytes
        {
            return Err(BrokerError::other("the archive is not the one that is named"));
        }
        for _ in 0..TRIES {
            if let Some(stored) = self.try_to_store(files, archive).await? {
                return Ok(stored);
            }
            // Another one stores or removes it just now.
            pause(Instant::now() + CALL, CALL).await?;
        }
        Err(BrokerError::other("the archive is being changed by others all the time"))
    }

    /// None: another one was faster somewhere.
    async fn try_to_store(&self, files: &Files, archive: &Bytes) -> Result<Option<bool>> {
        let (at, head) = self.head(files).await?;
        let ours = CHUNK.min(self.max_record()) as u64;
        let chunk = match head {
            Some(Head::Whole { bytes, chunk })
                if bytes == files.bytes && (1..=self.max_record() as u64).contains(&chunk) =>
            {
                chunk
            }
            Some(Head::Leaving) => {
                self.drop_chunks(files, at).await?;
                ours
            }
            Some(Head::Whole { .. }) | None => ours,
        };
        let Some(chunks) = chunks(files.bytes, chunk) else {
            let (size, max) = (archive.len(), usize::try_from(MAX_BYTES).unwrap_or(usize::MAX));
            return Err(BrokerError::TooLarge { size, max });
        };
        let there = self.chunks_there(files).await?;
        let mut stored = false;
        for (number, range) in chunks {
            let Some(payload) = slice(archive, &range) else { continue };
            let expected = match there.get(&number) {
                Some((_, found)) if *found == payload => continue,
                Some((seq, _)) => *seq,
                None => 0,
            };
            stored = true;
            let subject = self.subjects().files_chunk(&files.sha256, number);
            let headers = expecting(expected);
            match self.wire().publish(subject, headers, payload, CALL).await?.0 {
                Published::Stored(_) | Published::Duplicate(_) => {}
                Published::WrongLast => return Ok(None),
            }
        }
        // Also if it is there: its age is counted from now on.
        let head = encode(&Head::Whole { bytes: files.bytes, chunk })?;
        let subject = self.subjects().files(&files.sha256);
        match self.wire().publish(subject, expecting(at), head, CALL).await?.0 {
            Published::Stored(_) | Published::Duplicate(_) => Ok(Some(stored)),
            Published::WrongLast => Ok(None),
        }
    }

    /// The chunks that are there: at which sequence, and what is in them.
    async fn chunks_there(&self, files: &Files) -> Result<BTreeMap<u64, (u64, Bytes)>> {
        let filter = self.subjects().files_chunks(&files.sha256);
        let mut reader =
            Reader::new(self.wire(), self.files_stream(), filter, 1, u64::MAX).of(self.replicas());
        let (mut there, mut held) = (BTreeMap::new(), 0);
        while let Some(record) = reader.next().await? {
            let Some((_, Some(number))) = self.subjects().parse_files(&record.subject) else {
                continue;
            };
            held += record.payload.len() as u64;
            // More than an archive has is no one's; nor is it held.
            if held <= 2 * MAX_BYTES && there.len() as u64 <= MOST {
                there.insert(number, (record.seq, record.payload));
            }
        }
        Ok(there)
    }

    /// Whether all of an archive seems to be there: its head, and as many chunks as it has. What is in them is not read.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn has_files(&self, files: &Files) -> Result<bool> {
        let (_, Some(Head::Whole { bytes, chunk })) = self.head(files).await? else {
            return Ok(false);
        };
        let Some(mut chunks) = chunks(bytes, chunk) else { return Ok(false) };
        let filter = self.subjects().files_chunks(&files.sha256);
        let there = self.wire().index(&self.files_stream(), &filter).await?.subjects;
        let is_there =
            |(number, _)| there.contains_key(&self.subjects().files_chunk(&files.sha256, number));
        Ok(bytes == files.bytes && chunks.all(is_there))
    }

    /// Reads an archive: all of it, and only if it is what its name says.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn read_files(
        &self,
        files: &Files,
    ) -> Result<std::result::Result<Vec<u8>, FilesFault>> {
        let (_, head) = self.head(files).await?;
        let mut assembly = match Assembly::of(files, head) {
            Ok(assembly) => assembly,
            Err(fault) => return Ok(Err(fault)),
        };
        // All of them in few requests.
        let mut there = self.chunks_there(files).await?;
        while let Some(number) = assembly.wants() {
            let chunk = there.remove(&number).map(|(_, payload)| payload);
            if let Err(fault) = assembly.take(chunk) {
                return Ok(Err(fault));
            }
        }
        assembly.end().await
    }

    /// What is stored of an archive, as it is: a chunk, or what is said of all of it.
    pub(crate) async fn stored_files(
        &self,
        archive: &common::files::Sha256,
        chunk: Option<u64>,
    ) -> Result<Option<Vec<u8>>> {
        let subject = match chunk {
            Some(number) => self.subjects().files_chunk(archive, number),
            None => self.subjects().files(archive),
        };
        let record = self.wire().last(&self.files_stream(), &subject).await?;
        Ok(record.map(|record| record.payload.into()))
    }
}

/// An archive that is put together chunk by chunk, if it is what its name says.
pub(crate) struct Assembly {
    files: Files,
    bytes: u64,
    chunk: u64,
    /// The number of the next one.
    next: u64,
    archive: Vec<u8>,
}

impl Assembly {
    /// `head`: what is said of all of it.
    pub(crate) fn of(files: &Files, head: Option<Head>) -> std::result::Result<Self, FilesFault> {
        let damaged = |why: String| Err(FilesFault::Damaged(why));
        let (bytes, chunk) = match head {
            Some(Head::Whole { bytes, chunk }) => (bytes, chunk),
            Some(Head::Leaving) | None => return Err(FilesFault::Missing),
        };
        if bytes != files.bytes {
            return damaged(format!("{bytes} bytes are stored instead of {}", files.bytes));
        }
        if chunks(bytes, chunk).is_none() {
            return damaged(format!("it cannot have {bytes} bytes in chunks of {chunk}"));
        }
        let archive = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0));
        Ok(Self { files: files.clone(), bytes, chunk, next: 0, archive })
    }

    /// The number of the chunk that comes next; none: it is complete.
    pub(crate) fn wants(&self) -> Option<u64> {
        (self.next * self.chunk < self.bytes).then_some(self.next)
    }

    /// Takes that chunk; none: it is not there.
    pub(crate) fn take(&mut self, chunk: Option<Bytes>) -> std::result::Result<(), FilesFault> {
        let of = format!("chunk {} of {}", self.next + 1, self.bytes.div_ceil(self.chunk));
        let Some(chunk) = chunk else {
            return Err(FilesFault::Damaged(format!("{of} is missing")));
        };
        if chunk.len() as u64 != self.chunk.min(self.bytes - self.next * self.chunk) {
            return Err(FilesFault::Damaged(format!("{of} has {} bytes", chunk.len())));
        }
        self.archive.extend_from_slice(&chunk);
        self.next += 1;
        Ok(())
    }

    /// The whole archive, looked at once more.
    pub(crate) async fn end(self) -> Result<std::result::Result<Vec<u8>, FilesFault>> {
        let Self { files, archive, .. } = self;
        let (hash, archive) = apart(move || (Sha256::digest(&archive), archive)).await?;
        let found = common::files::Sha256::of(hash.into());
        if found != files.sha256 {
            return Ok(Err(FilesFault::Damaged(format!("its SHA-256 is {found}"))));
        }
        Ok(Ok(archive))
    }
}

/// Runs slow work outside the runtime's thread. It ends, even if nothing waits for it.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(BrokerError::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_cover_an_archive_and_none_is_impossible() {
        let of = |bytes, chunk| chunks(bytes, chunk).map(Iterator::collect::<Vec<_>>);
        assert_eq!(of(5, 2), Some(vec![(0, 0..2), (1, 2..4), (2, 4..5)]));
        assert_eq!(of(4, 4), Some(vec![(0, 0..4)]));
        assert_eq!(of(0, 4), Some(Vec::new()));
        for (bytes, chunk) in [(5, 0), (MAX_BYTES + 1, 1 << 20), (MAX_BYTES, 1), (u64::MAX, 9)] {
            assert_eq!(of(bytes, chunk), None, "{bytes} by {chunk}");
        }
        let bytes = Bytes::from_static(b"abc");
        assert_eq!(slice(&bytes, &(1..3)), Some(Bytes::from_static(b"bc")));
        assert_eq!(slice(&bytes, &(2..4)), None);
    }
}
