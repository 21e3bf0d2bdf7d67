//! Removing records permanently: not only from a stream, but also from the files of the server.
//!
//! The server removes a record by noting that it is gone. Its bytes stay in its block, a file of up to 8 MiB, until the block is dropped or
//! rewritten. The server does that when less than half of a block is in use, but never to the block that it writes to.
//!
//! - A record is *erased* by overwriting it. The server rewrites the whole block for each: 7 ms with a full one (measured, nats-server
//!   2.15.1, 2 cores).
//! - What was removed before cannot be erased any more. [`Broker::drop_bytes`] has the block rewritten that the server writes to, where most of it lies.

use async_nats::HeaderMap;
use bytes::Bytes;
use common::subject::Filled;
use futures_util::StreamExt as _;

use crate::api::Published;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::wire::CALL;

/// Removals that are under way at once.
const AT_ONCE: usize = 32;

/// The largest block of the server: `defaultLargeBlockSize` in its filestore.go.
const BLOCK: usize = 8 << 20;

/// What must be free to have a stream's files rewritten, in bytes: as much as fills a block, and that block anew.
pub const REWRITE: u64 = 2 * BLOCK as u64;

/// Records that fill a block have this size; no less than that, whatever little a server takes at once.
const FILLER: usize = 512 << 10;
const LEAST: usize = 4 << 10;

impl Broker {
    /// Removes records of a stream. Those that do not exist count as removed.
    pub(crate) async fn remove(&self, stream: &str, seqs: Vec<u64>, erase: bool) -> Result<()> {
        let deletes = seqs.into_iter().map(|seq| {
            let (wire, stream) = (self.wire().clone(), stream.to_owned());
            async move { wire.delete(&stream, seq, erase).await }
        });
        let mut deletes = futures_util::stream::iter(deletes).buffer_unordered(AT_ONCE);
        while let Some(deleted) = deletes.next().await {
            deleted?;
        }
        Ok(())
    }

    /// Has the bytes of removed records leave the file that the server writes to: fills it up, so that another one is begun, and
    /// removes what it was filled with, so that less than half of it is in use. The server then rewrites it, without what was removed.
    /// What is in older files, or beside much that is in use, leaves them when half of what is beside it has left.
    ///
    /// False: there is no space for it, by the bounds of the journal `shard` and of the stream. It must not push out records of others, and
    /// must not fill the disk.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn drop_bytes(&self, filled: Filled, shard: u32) -> Result<bool> {
        let stream = self.filled_stream(filled);
        let fillers = self.subjects().fillers(filled);
        // Of one that was interrupted.
        self.wire().purge(&stream, &fillers).await?;
        let info = self.wire().stream_info(&stream, CALL).await??;
        // Without records there are no files.
        if info.config["storage"] != "file" || info.state.messages == 0 {
            return Ok(true);
        }
        let bound = info.config["max_bytes"].as_u64().unwrap_or(u64::MAX);
        let has_room = match self.take_room(shard, 2 * BLOCK).await {
            Ok(()) => info.state.bytes.saturating_add(REWRITE) <= bound,
            Err(BrokerError::Full(_)) => false,
            Err(error) => return Err(error),
        };
        if !has_room {
            return Ok(false);
        }
        let filled = self.fill(filled, &stream).await;
        // What is left of it where that failed, and what was stored twice.
        self.wire().purge(&stream, &fillers).await?;
        filled.map(|()| true)
    }

    async fn fill(&self, filled: Filled, stream: &str) -> Result<()> {
        let filler = Bytes::from(vec![b' '; FILLER.min(self.max_record()).max(LEAST)]);
        let count = BLOCK / filler.len() + 1;
        let mut fillers = Vec::new();
        for n in 0..u32::try_from(count).unwrap_or(u32::MAX) {
            let subject = self.subjects().filler(filled, n);
            let stored = self.wire().publish(subject, HeaderMap::new, filler.clone(), CALL).await?;
            if let Published::Stored(seq) | Published::Duplicate(seq) = stored.0 {
                fillers.push(seq);
            }
        }
        // One by one and in order: that is when the server looks at how much of a block is in use.
        for seq in fillers {
            self.wire().delete(stream, seq, false).await?;
        }
        Ok(())
    }

    pub(crate) fn filled_stream(&self, filled: Filled) -> String {
        match filled {
            Filled::Journal(shard) => self.subjects().journal_stream(shard),
            Filled::History => self.history_stream(),
            Filled::Events => self.events_stream(),
            Filled::Logs => self.subjects().stream("LOGS"),
            Filled::Dead => self.subjects().stream("DEAD"),
            Filled::Steps => self.subjects().stream("STEPS"),
            Filled::Questions => self.subjects().stream("QUESTIONS"),
        }
    }
}
