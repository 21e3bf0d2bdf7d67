//! A stored record.

use async_nats::HeaderMap;
use bytes::Bytes;
use common::Timestamp;
use serde::Deserialize as _;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;

use crate::api::header;
use crate::error::{BrokerError, Result};

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

    /// What it takes in a stream, about: 22 bytes of the server's own header, 8 of its checksum, and what is in between.
    pub(crate) fn size(&self) -> u64 {
        const FRAME: usize = 30;
        // A direct get adds headers of its own, which are not stored.
        const ADDED: &str = "Nats-";
        let stored = |name: &str| {
            !name.starts_with(ADDED) || name == header::MESSAGE_ID || name == header::TTL
        };
        let headers = self.headers.iter().filter(|(name, _)| stored(name.as_ref()));
        let headers = headers.flat_map(|(name, values)| {
            values.iter().map(|value| AsRef::<str>::as_ref(name).len() + value.as_str().len() + 4)
        });
        (FRAME + self.subject.len() + headers.sum::<usize>() + self.payload.len()) as u64
    }
}
