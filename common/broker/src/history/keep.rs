//! Retention: removes what is older than it is to be kept, without reading the rest.

use std::time::Duration;

use common::{AgentName, Timestamp};

use super::commit::UNTIL;
use crate::connection::Broker;
use crate::error::Result;
use crate::read::Reader;
use crate::wire::CALL;

/// How many records are erased at once: each takes the server some milliseconds.
const ERASED: u64 = 1000;

impl Broker {
    /// Removes what left the journal longer ago than this: of one agent, or of all. How many records that were.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_history(&self, agent: Option<&AgentName>, older: Duration) -> Result<u64> {
        let filter = agent.map(|agent| self.subjects().history_of(agent));
        let dropped = self.drop_older(&self.history_stream(), filter, older).await?;
        if agent.is_none() && dropped > 0 {
            self.trim_index().await?;
        }
        Ok(dropped)
    }

    /// Removes the oldest of what has left the journal until the rest has so many bytes. How many records that were.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn bound_history(&self, bytes: u64) -> Result<u64> {
        let stream = self.history_stream();
        let state = self.wire().stream_info(&stream, CALL).await??.state;
        if state.bytes <= bytes {
            return Ok(0);
        }
        // As if all records had one size: the next time it is looked at again.
        let sequences = u128::from(state.last_seq.saturating_sub(state.first_seq) + 1);
        let over = u128::from(state.bytes - bytes);
        let go = sequences * over / u128::from(state.bytes.max(1)) + 1;
        let seq = state.first_seq.saturating_add(u64::try_from(go).unwrap_or(u64::MAX));
        let body = serde_json::json!({ "seq": seq });
        let dropped = self.wire().purge_as(&stream, &body).await?;
        self.trim_index().await?;
        Ok(dropped)
    }

    /// Removes an agent's events that are older than this. How many records that were.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_events(&self, agent: &AgentName, older: Duration) -> Result<u64> {
        let filter = self.subjects().events_of(agent);
        self.drop_older(&self.events_stream(), Some(filter), older).await
    }

    /// Removes what an agent's workers wrote longer ago than this. How many records that were.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_logs(&self, agent: &AgentName, older: Duration) -> Result<u64> {
        let filter = self.subjects().logs_of(agent);
        self.drop_older(&self.subjects().stream("LOGS"), Some(filter), older).await
    }

    /// Erases what there is of an agent whose messages are not kept: what is in HISTORY, from before that was said; and events, logs and dead
    /// letters that are older than this. Unlike what is removed, what is erased is in no file of the server's any more. How many records that
    /// were, up to a bound: there may be more.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn erase_traces(&self, agent: &AgentName, older: Duration) -> Result<u64> {
        let subjects = self.subjects();
        let traces = [
            (self.history_stream(), subjects.history_of(agent), Duration::ZERO),
            (self.events_stream(), subjects.events_of(agent), older),
            (subjects.stream("LOGS"), subjects.logs_of(agent), older),
            (subjects.stream("DEAD"), subjects.dead_of(agent), older),
        ];
        let mut erased = 0;
        for (stream, filter, older) in traces {
            let Some(cut) = self.cut(&stream, older).await? else { continue };
            let reader = Reader::new(self.wire(), stream.clone(), filter, 1, u64::MAX);
            let mut reader = reader.of(self.replicas());
            while erased < ERASED
                && let Some(record) = reader.next().await?
                && record.at < cut
            {
                self.wire().delete(&stream, record.seq, true).await?;
                erased += 1;
            }
        }
        Ok(erased)
    }

    /// The moment that was so long ago, by the clock of the stream's leader, which stored the records.
    pub(crate) async fn cut(&self, stream: &str, older: Duration) -> Result<Option<Timestamp>> {
        let info = self.wire().stream_info(stream, CALL).await??;
        let older = u64::try_from(older.as_millis()).unwrap_or(u64::MAX);
        let ago = |now: Timestamp| Timestamp::from_millis(now.as_millis().saturating_sub(older));
        Ok(info.ts.map(ago))
    }

    async fn drop_older(
        &self,
        stream: &str,
        filter: Option<String>,
        older: Duration,
    ) -> Result<u64> {
        let Some(cut) = self.cut(stream, older).await? else { return Ok(0) };
        let all = filter.as_deref().unwrap_or(">");
        let Some(first) = self.wire().first(stream, all, 1).await? else { return Ok(0) };
        if first.0.at >= cut {
            return Ok(0);
        }
        let kept = self.wire().since(stream, all, cut).await?;
        let seq = match kept {
            Some(record) => record.seq,
            // A replica that lags may lack what stays: the leader tells which is the last.
            None => match self.wire().last(stream, all).await? {
                Some(last) if last.at < cut => last.seq + 1,
                Some(_) | None => return Ok(0),
            },
        };
        let body = match filter {
            Some(filter) => serde_json::json!({ "seq": seq, "filter": filter }),
            None => serde_json::json!({ "seq": seq }),
        };
        self.wire().purge_as(stream, &body).await
    }

    /// Removes the records of INDEX that are only about what HISTORY has no more.
    async fn trim_index(&self) -> Result<()> {
        let (history, index) = (self.history_stream(), self.index_stream());
        let first = self.wire().stream_info(&history, CALL).await??.state.first_seq;
        let state = self.wire().stream_info(&index, CALL).await??.state;
        // Up to where HISTORY is indexed only rises: each record is written onto the one that its author knew as the last.
        let (mut from, mut to) = (state.first_seq, state.last_seq);
        while from < to {
            let middle = from + (to - from) / 2;
            let record = self.wire().at(&index, middle).await?;
            let until =
                record.as_ref().and_then(|record| record.header(UNTIL)?.parse::<u64>().ok());
            if until.is_some_and(|until| until < first) { from = middle + 1 } else { to = middle }
        }
        if from > state.first_seq {
            self.wire().purge_as(&index, &serde_json::json!({ "seq": from })).await?;
        }
        Ok(())
    }
}
