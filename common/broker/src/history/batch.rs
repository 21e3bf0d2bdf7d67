//! Writing several records at once: all of them or none, as an atomic batch (nats-server 2.12). The server syncs once for all.

use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use uuid::Uuid;

use crate::api::Acknowledged;
use crate::connection::queued;
use crate::error::{BrokerError, Result};
use crate::wire::{CALL, Wire};

/// The most records of a batch that a server takes.
pub(crate) const MOST: usize = 1000;

const BATCH: &str = "Nats-Batch-Id";
const NUMBER: &str = "Nats-Batch-Sequence";
const COMMIT: &str = "Nats-Batch-Commit";
const EXPECTED: &str = "Nats-Expected-Last-Sequence";

/// A record that is to be written.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) subject: String,
    pub(crate) headers: HeaderMap,
    pub(crate) payload: Bytes,
}

/// Writes records, only if `after` is the stream's last sequence. The result is the last one's sequence.
///
/// After an error they may have been stored, all of them, or may be stored later: `after` shows that to the next try.
pub(crate) async fn write(wire: &Wire, records: &[New], after: u64) -> Result<u64> {
    let id = Uuid::now_v7().to_string();
    let Some((last, rest)) = records.split_last() else {
        return Err(BrokerError::other("an empty batch"));
    };
    let headers = |record: &New, number: usize| {
        let mut headers = record.headers.clone();
        headers.insert(BATCH, id.as_str());
        headers.insert(NUMBER, number.to_string());
        if number == 1 {
            headers.insert(EXPECTED, after.to_string());
        }
        headers
    };
    for (number, record) in (1..).zip(rest) {
        let subject = record.subject.clone();
        let headers = headers(record, number);
        queued(wire.client.publish_with_headers(subject, headers, record.payload.clone())).await?;
    }
    let mut headers = headers(last, records.len());
    headers.insert(COMMIT, "1");
    let commit = Request::new().headers(headers).payload(last.payload.clone()).timeout(Some(CALL));
    let answer = wire.client.send_request(last.subject.clone(), commit).await;
    let answer = answer.map_err(BrokerError::other)?;
    Acknowledged::parse(&answer.payload)
}
