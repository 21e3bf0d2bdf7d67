//! A stored record.

use async_nats::HeaderMap;
use bytes::Bytes;
use common::Timestamp;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;

use crate::api::header;
use crate::error::{BrokerError, Result};

/// When a record that comes from a backup was stored first, in milliseconds since 1970.
pub(crate) const STORED_AT: &str = "Mozart-Stored-At";

/// When a record was stored: first of all, if it comes from a backup. Nobody can make it younger than it is.
pub(crate) fn first_stored(headers: &HeaderMap, at: Timestamp) -> Timestamp {
    let said = headers.get(STORED_AT).and_then(|said| said.as_str().parse().ok());
    said.map_or(at, |said| Timestamp::from_millis(said).min(at))
}

/// A stored record.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) subject: String,
    pub(crate) seq: u64,
    pub(crate) at: Timestamp,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

impl Record {
    pub(crate) fn header(&self, name: &'static str) -> Option<&str> {
        self.headers.get(name).map(|value| value.as_str())
    }

    /// Reads what a direct get answers with.
    pub(crate) fn from_direct(message: async_nats::Message) -> Result<Self> {
        let headers = message.headers.unwrap_or_default();
        let text = |name: &'static str| headers.get(name).map(|value| value.as_str());
        let seq = text(header::SEQUENCE).and_then(|seq| seq.parse().ok());
        let at = text(header::TIME_STAMP).and_then(|at| {
            Timestamp::deserialize(StrDeserializer::<serde::de::value::Error>::new(at)).ok()
        });
        let (Some(subject), Some(seq), Some(at)) = (text(header::SUBJECT), seq, at) else {
            return Err(BrokerError::other("a direct get without its headers"));
        };
        let at = first_stored(&headers, at);
        Ok(Self { subject: subject.to_owned(), seq, at, headers, payload: message.payload })
    }

    /// Parses the payload.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.payload).map_err(|error| BrokerError::Malformed {
            subject: self.subject.clone(),
            seq: self.seq,
            cause: error.to_string(),
        })
    }

    /// What it takes in a file of the server (`fileStoreMsgSizeRaw` of its filestore.go).
    pub(crate) fn size(&self) -> u64 {
        /// Header and checksum of a record.
        const FRAME: usize = 22 + 8;
        /// What is before and after its headers: their length, the first line and the last.
        const HEADERS: usize = 4 + "NATS/1.0\r\n".len() + "\r\n".len();
        /// What a direct get adds, and is not stored.
        const ADDED: [&str; 7] = [
            header::SUBJECT,
            header::SEQUENCE,
            header::LAST_SEQUENCE,
            header::TIME_STAMP,
            header::NUM_PENDING,
            "Nats-Stream",
            "Nats-UpTo-Sequence",
        ];
        let stored = self.headers.iter().filter_map(|(name, values)| {
            let name: &str = name.as_ref();
            let lines =
                values.iter().map(|value| name.len() + ": ".len() + value.as_str().len() + 2);
            (!ADDED.contains(&name)).then(|| lines.sum::<usize>())
        });
        let headers: usize = stored.sum();
        let headers = if headers > 0 { HEADERS + headers } else { 0 };
        (FRAME + self.subject.len() + headers + self.payload.len()) as u64
    }
}
