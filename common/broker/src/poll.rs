//! Following a stream without a consumer, for users: whoever can create one can have it send a stream's records anywhere. What is published
//! is heard as it comes, and then read from the stream.

use std::time::Duration;

use async_nats::{Message, Subscriber};
use futures_util::StreamExt as _;
use tokio::time::{sleep, timeout};

use crate::api::Record;
use crate::error::{BrokerError, Result};
use crate::follow::{self, End, Source};
use crate::read::Reader;
use crate::wire::Wire;

/// How long to wait before looking again although nothing was heard: a record may have been stored while the connection was down.
const AGAIN: Duration = Duration::from_secs(2);
/// What is heard is stored a moment later: how long to wait each time that it is not there yet.
const STORED: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
];

/// A run through a stream.
pub(crate) struct Poll {
    wire: Wire,
    source: Source,
    heard: Subscriber,
    epoch: u64,
    reader: Option<Reader>,
    /// How often it was looked since something was heard, without a result.
    looks: usize,
    /// Whether all that was stored at the start was given.
    caught_up: bool,
}

/// What a poll yields.
pub(crate) enum Polled {
    Record(Box<Record>),
    CaughtUp,
}

impl Poll {
    pub(crate) async fn start(wire: &Wire, source: Source) -> Result<Self> {
        let heard = wire.client.subscribe(source.filter.clone()).await;
        let heard = heard.map_err(BrokerError::other)?;
        let epoch = wire.link.borrow().epoch;
        let (wire, looks) = (wire.clone(), STORED.len());
        Ok(Self { wire, source, heard, epoch, reader: None, looks, caught_up: false })
    }

    /// The next item; waits forever. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Polled> {
        loop {
            let epoch = self.wire.link.borrow().epoch;
            if epoch != self.epoch {
                self.resume().await?;
                self.epoch = epoch;
            }
            if let Some(record) = self.read().await? {
                self.source.from = record.seq + 1;
                self.looks = STORED.len();
                return Ok(Polled::Record(Box::new(record)));
            }
            self.reader = None;
            if !std::mem::replace(&mut self.caught_up, true) {
                return Ok(Polled::CaughtUp);
            }
            match STORED.get(self.looks) {
                Some(pause) => {
                    sleep(*pause).await;
                    self.looks += 1;
                }
                None => match timeout(AGAIN, self.heard.next()).await {
                    Ok(Some(_)) => self.looks = 0,
                    Ok(None) => return Err(BrokerError::other("the client is closed")),
                    Err(_) => {}
                },
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Record>> {
        let Self { wire, source, reader, .. } = self;
        let reader = reader.get_or_insert_with(|| {
            let Source { stream, filter, from, .. } = source.clone();
            Reader::new(wire, stream, filter, from, u64::MAX)
        });
        match reader.next().await {
            // The next look shows.
            Err(error) if error.is_transient() => Ok(None),
            read => read,
        }
    }

    /// A server that was started again may have lost the end of a stream that is not synced.
    async fn resume(&mut self) -> Result<()> {
        // What was removed before it was read is not missed.
        let end = if self.source.end == End::Soft { End::Soft } else { End::Thinned };
        let extent = match follow::lost(&self.wire, &self.source, end).await {
            Ok(Some(extent)) => extent,
            Ok(None) => return Ok(()),
            Err(error) if error.is_transient() => return Ok(()),
            Err(error) => return Err(error),
        };
        match self.source.end {
            End::Soft => self.source.from = extent.1 + 1,
            End::Firm | End::Thinned => return Err(follow::loss(&self.source, extent)),
        }
        Ok(())
    }
}

/// A record as a follower gives it.
pub(crate) fn message(record: &Record) -> Message {
    Message {
        subject: record.subject.clone().into(),
        reply: None,
        payload: record.payload.clone(),
        headers: Some(record.headers.clone()),
        status: None,
        description: None,
        length: record.payload.len(),
    }
}
