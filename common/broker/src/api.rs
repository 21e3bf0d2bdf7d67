//! JetStream's API: requests, their errors, publishing, and reading one record.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::RawMessage;
use async_nats::{HeaderMap, StatusCode, Subject};
use bytes::Bytes;
use common::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::clock::Moment;
use crate::error::{BrokerError, Result};
use crate::leader::Cluster;
pub(crate) use crate::record::Record;
use crate::record::first_stored;
use crate::wire::{CALL, Wire, pause};

/// Header names, as the server spells them.
pub(crate) mod header {
    pub(crate) const MESSAGE_ID: &str = "Nats-Msg-Id";
    pub(crate) const EXPECTED_LAST: &str = "Nats-Expected-Last-Subject-Sequence";
    /// Which subjects that sequence is the last of, where they are more than the record's own.
    pub(crate) const EXPECTED_OF: &str = "Nats-Expected-Last-Subject-Sequence-Subject";
    pub(crate) const ROLLUP: &str = "Nats-Rollup";
    pub(crate) const TTL: &str = "Nats-TTL";
    pub(crate) const SUBJECT: &str = "Nats-Subject";
    pub(crate) const SEQUENCE: &str = "Nats-Sequence";
    pub(crate) const LAST_SEQUENCE: &str = "Nats-Last-Sequence";
    pub(crate) const TIME_STAMP: &str = "Nats-Time-Stamp";
    pub(crate) const NUM_PENDING: &str = "Nats-Num-Pending";
}

/// JetStream's numbers of the errors that mean something here.
pub(crate) mod code {
    /// Not as many servers as replicas, or not as many with room.
    pub(crate) const TOO_FEW_SERVERS: u64 = 10005;
    pub(crate) const CONSUMER_NOT_FOUND: u64 = 10014;
    pub(crate) const CONSUMER_EXISTS: u64 = 10148;
    pub(crate) const CONSUMER_NAME_EXISTS: u64 = 10013;
    pub(crate) const NO_MESSAGE: u64 = 10037;
    pub(crate) const STREAM_NAME_IN_USE: u64 = 10058;
    pub(crate) const STREAM_NOT_FOUND: u64 = 10059;
    /// Compare-and-set failed; the second one while another write to the subject is under way in a cluster.
    pub(crate) const UNDER_WAY: u64 = 10164;
    pub(crate) const WRONG_LAST: [u64; 2] = [10071, UNDER_WAY];
    /// Account, server or stream has no room.
    pub(crate) const FULL: [u64; 5] = [10002, 10023, 10028, 10047, 10077];
    pub(crate) const NO_JETSTREAM: [u64; 2] = [10039, 10076];
    pub(crate) const SEQUENCE_NOT_FOUND: u64 = 10043;
    pub(crate) const NOT_DELETED: u64 = 10057;
    /// The same message id is being stored right now.
    pub(crate) const IN_PROCESS: u64 = 10158;
}

/// An error as JetStream says it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    #[serde(default)]
    pub(crate) err_code: u64,
    #[serde(default)]
    pub(crate) description: String,
}

impl ApiError {
    fn is_full(&self) -> bool {
        code::FULL.contains(&self.err_code) || self.description.contains("no space left")
    }

    /// Whether a record was not removed because it was not there.
    fn is_missing(&self) -> bool {
        let why = ["no message found", "not found", "deleted"];
        self.err_code == code::SEQUENCE_NOT_FOUND
            || (self.err_code == code::NOT_DELETED
                && why.iter().any(|why| self.description.contains(why)))
    }

    /// Whether a stream may have no leader that can store anything: a deposed one that is cut off says for long that another write to the
    /// subject is under way.
    fn is_unsettled(&self) -> bool {
        self.is_transient() || self.err_code == code::UNDER_WAY
    }

    /// Whether asking again may help: a stream without a leader, a server that starts.
    fn is_transient(&self) -> bool {
        let lasting = self.is_full() || code::NO_JETSTREAM.contains(&self.err_code);
        self.err_code == code::IN_PROCESS || (self.code == 503 && !lasting)
    }
}

impl From<ApiError> for BrokerError {
    fn from(error: ApiError) -> Self {
        if error.is_full() {
            Self::Full(error.description)
        } else if code::NO_JETSTREAM.contains(&error.err_code) {
            Self::NoJetStream
        } else if error.err_code == code::STREAM_NOT_FOUND {
            // Where it may not have been made yet, that is looked at before.
            Self::Other(format!(
                "{} ({}): the broker's data was removed, or is another's",
                error.description, error.err_code
            ))
        } else {
            Self::Other(format!("{} ({})", error.description, error.err_code))
        }
    }
}

#[derive(Deserialize)]
struct ErrorOf {
    #[serde(default)]
    error: Option<ApiError>,
}

#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    error: Option<ApiError>,
}

/// What a stream says to a publish that is not repeated.
pub(crate) struct Acknowledged;

impl Acknowledged {
    /// The sequence at which it was stored.
    pub(crate) fn parse(payload: &[u8]) -> Result<u64> {
        let ack: PubAck = serde_json::from_slice(payload).map_err(BrokerError::other)?;
        ack.error.map_or(Ok(ack.seq), |error| Err(error.into()))
    }
}

/// The outcome of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// Stored now.
    Stored(u64),
    /// A message with this id was stored before.
    Duplicate(u64),
    /// Compare-and-set failed.
    WrongLast,
}

#[derive(Deserialize)]
struct Done {}

#[derive(Deserialize)]
struct Purged {
    #[serde(default)]
    purged: u64,
}

#[derive(Deserialize)]
struct Got {
    message: RawMessage,
}

/// The part of a stream's information that is needed.
#[derive(Debug, Deserialize)]
pub(crate) struct StreamInfo {
    pub(crate) config: serde_json::Value,
    /// When it was made: another one of the name has another.
    #[serde(default)]
    pub(crate) created: String,
    #[serde(default)]
    pub(crate) state: StreamState,
    /// The answering server's clock.
    #[serde(default)]
    pub(crate) ts: Option<Timestamp>,
    #[serde(default)]
    pub(crate) cluster: Cluster,
}

impl StreamInfo {
    /// On a cluster: how long ago the leader had heard most of the stream's servers, if that was lately, and it is the leader that answers.
    pub(crate) fn heard_most(&self) -> Option<Duration> {
        self.cluster.heard_most(self.copies())
    }
}

/// An answer that counts only if it is the leader's of a stream.
trait OfLeader: DeserializeOwned {
    fn cluster(&self) -> &Cluster;
    /// How many copies the stream is configured to have.
    fn copies(&self) -> usize;
}

impl OfLeader for StreamInfo {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn copies(&self) -> usize {
        let copies = self.config["num_replicas"].as_u64();
        copies.and_then(|copies| usize::try_from(copies).ok()).unwrap_or(1)
    }
}

impl OfLeader for SubjectPage {
    fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    fn copies(&self) -> usize {
        self.config.num_replicas
    }
}

/// A stream's state.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StreamState {
    #[serde(default)]
    pub(crate) first_seq: u64,
    #[serde(default)]
    pub(crate) last_seq: u64,
    #[serde(default)]
    pub(crate) messages: u64,
    #[serde(default)]
    pub(crate) bytes: u64,
    #[serde(default)]
    pub(crate) num_subjects: u64,
}

/// A page of a stream's subjects.
#[derive(Deserialize)]
struct SubjectPage {
    #[serde(default)]
    total: usize,
    state: SubjectState,
    #[serde(default)]
    config: Copies,
    #[serde(default)]
    pub(crate) cluster: Cluster,
}

/// How many copies a stream is configured to have.
#[derive(Deserialize)]
#[serde(default)]
struct Copies {
    num_replicas: usize,
}

impl Default for Copies {
    fn default() -> Self {
        Self { num_replicas: 1 }
    }
}

/// What the index of a stream says of a filter, all of it as of one moment.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// The last sequence of the stream at that moment.
    pub(crate) last_seq: u64,
    /// The subjects that have records, and how many.
    pub(crate) subjects: BTreeMap<String, u64>,
}

#[derive(Deserialize)]
struct SubjectState {
    #[serde(default)]
    last_seq: u64,
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

impl Wire {
    /// Asks JetStream's API. The inner error is what JetStream said; a missing leader is waited for.
    pub(crate) async fn api<T: DeserializeOwned>(
        &self,
        what: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<std::result::Result<T, ApiError>> {
        Ok(self.api_timed(what, body, timeout).await?.map(|(answer, _)| answer))
    }

    /// The same, with the time at which the answered request was sent: earlier tries do not count.
    async fn api_timed<T: DeserializeOwned>(
        &self,
        what: &str,
        body: &impl Serialize,
        timeout: Duration,
    ) -> Result<std::result::Result<(T, Moment), ApiError>> {
        let subject = Subject::from(format!("$JS.API.{what}"));
        let body = Bytes::from(serde_json::to_vec(body).map_err(BrokerError::other)?);
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self
                .request(&subject, || None, body.clone(), left)
                .await
                .map_err(|error| of_whole(error, timeout))?;
            let payload = &answer.message.payload;
            let head: ErrorOf = serde_json::from_slice(payload).map_err(BrokerError::other)?;
            match head.error {
                Some(error) if error.is_transient() => {
                    self.route.missed(&subject, Instant::now());
                    pause(deadline, timeout).await?;
                }
                answered => {
                    self.route.answered(&subject);
                    if let Some(error) = answered {
                        return Ok(Err(error));
                    }
                    let parsed = serde_json::from_slice(payload).map_err(BrokerError::other)?;
                    return Ok(Ok((parsed, answer.asked)));
                }
            }
        }
    }

    /// Publishes to a stream until it answers; also returns which try was answered.
    /// The headers must make a repeat harmless: a message id or a compare-and-set.
    pub(crate) async fn publish(
        &self,
        subject: String,
        headers: impl Fn() -> HeaderMap,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<(Published, u32)> {
        let subject = Subject::from(subject);
        let deadline = Instant::now() + timeout;
        let mut tries = 0;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self
                .request(&subject, || Some(headers()), payload.clone(), left)
                .await
                .map_err(|error| of_whole(error, timeout))?;
            tries += answer.tries;
            let ack: PubAck =
                serde_json::from_slice(&answer.message.payload).map_err(BrokerError::other)?;
            if ack.error.as_ref().is_some_and(ApiError::is_unsettled) {
                self.route.missed(&subject, Instant::now());
            } else {
                self.route.answered(&subject);
            }
            match ack.error {
                None if ack.duplicate => return Ok((Published::Duplicate(ack.seq), tries)),
                None => return Ok((Published::Stored(ack.seq), tries)),
                Some(error) if code::WRONG_LAST.contains(&error.err_code) => {
                    return Ok((Published::WrongLast, tries));
                }
                Some(error) if error.is_transient() => pause(deadline, timeout).await?,
                Some(error) => return Err(error.into()),
            }
        }
    }

    /// The last record of a subject or filter, from the stream's leader: what decisions are made on. That there is none is confirmed.
    pub(crate) async fn last(&self, stream: &str, subject: &str) -> Result<Option<Record>> {
        let deadline = Instant::now() + CALL;
        loop {
            let last = self.last_within(stream, subject, CALL).await?;
            if last.is_some() || self.are_all(stream, subject, 0).await? {
                return Ok(last);
            }
            pause(deadline, CALL).await?;
        }
    }

    /// Whether a filter has no more records than these: in a cluster, a deposed leader may have answered.
    async fn are_all(&self, stream: &str, filter: &str, count: usize) -> Result<bool> {
        if self.client.server_info().cluster.is_none() {
            return Ok(true);
        }
        let index = self.index(stream, filter).await?;
        Ok(index.subjects.values().sum::<u64>() <= count as u64)
    }

    /// The last record, within a time of its own, and unconfirmed: for what a compare-and-set follows.
    pub(crate) async fn last_within(
        &self,
        stream: &str,
        subject: &str,
        timeout: Duration,
    ) -> Result<Option<Record>> {
        let body = serde_json::json!({ "last_by_subj": subject });
        self.get(stream, &body, timeout).await
    }

    /// All records of a filter that matches few, from the stream's leader; that these are all is confirmed.
    pub(crate) async fn all_of(&self, stream: &str, filter: &str) -> Result<Vec<Record>> {
        let deadline = Instant::now() + CALL;
        let mut records: Vec<Record> = Vec::new();
        loop {
            let next = records.last().map_or(1, |last| last.seq + 1);
            let body = serde_json::json!({ "seq": next, "next_by_subj": filter });
            match self.get(stream, &body, CALL).await? {
                Some(record) => records.push(record),
                None if self.are_all(stream, filter, records.len()).await? => return Ok(records),
                None => pause(deadline, CALL).await?,
            }
        }
    }

    pub(crate) async fn get(
        &self,
        stream: &str,
        body: &serde_json::Value,
        timeout: Duration,
    ) -> Result<Option<Record>> {
        let what = format!("STREAM.MSG.GET.{stream}");
        let got: Got = match self.api(&what, body, timeout).await? {
            Ok(got) => got,
            Err(error) if error.err_code == code::NO_MESSAGE => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let message = StreamMessage::try_from(got.message).map_err(BrokerError::other)?;
        let millis = message.time.unix_timestamp_nanos() / 1_000_000;
        Ok(Some(Record {
            subject: message.subject.to_string(),
            seq: message.sequence,
            at: first_stored(
                &message.headers,
                Timestamp::from_millis(millis.try_into().unwrap_or_default()),
            ),
            headers: message.headers,
            payload: message.payload,
        }))
    }

    /// The record at a sequence, from the stream's leader; none if it has none there.
    pub(crate) async fn at(&self, stream: &str, seq: u64) -> Result<Option<Record>> {
        self.get(stream, &serde_json::json!({ "seq": seq }), CALL).await
    }

    /// The first record of a filter that was stored at a time or later.
    pub(crate) async fn since(
        &self,
        stream: &str,
        filter: &str,
        at: Timestamp,
    ) -> Result<Option<Record>> {
        let request = Subject::from(format!("$JS.API.DIRECT.GET.{stream}"));
        // A time is taken by batches alone.
        let body = serde_json::json!({ "start_time": at, "batch": 1, "next_by_subj": filter });
        self.direct(&request, body.to_string().into()).await
    }

    /// The first record of a filter from `seq` on, and how many come after it.
    pub(crate) async fn first(
        &self,
        stream: &str,
        filter: &str,
        seq: u64,
    ) -> Result<Option<(Record, u64)>> {
        let request = Subject::from(format!("$JS.API.DIRECT.GET.{stream}"));
        // A batch, since only batches tell how many come after.
        let body = serde_json::json!({ "seq": seq.max(1), "batch": 1, "next_by_subj": filter });
        let record = self.direct(&request, body.to_string().into()).await?;
        Ok(record.map(|record| {
            let pending = record.header(header::NUM_PENDING);
            let pending = pending.and_then(|count| count.parse().ok());
            (record, pending.unwrap_or_default())
        }))
    }

    async fn direct(&self, request: &Subject, body: Bytes) -> Result<Option<Record>> {
        let answer = self.request(request, || None, body, CALL).await?;
        self.route.answered(request);
        match answer.message.status {
            None | Some(StatusCode::OK) => Record::from_direct(answer.message).map(Some),
            Some(StatusCode::NOT_FOUND) => Ok(None),
            Some(status) => Err(BrokerError::Other(format!(
                "{status} {}",
                answer.message.description.unwrap_or_default()
            ))),
        }
    }

    /// The same as [`Self::api_timed`], of a stream's leader: what others say does not count ([`crate::leader`]).
    async fn of_leader<T: OfLeader>(
        &self,
        stream: &str,
        body: &serde_json::Value,
        timeout: Duration,
    ) -> Result<std::result::Result<(T, Moment), ApiError>> {
        let what = format!("STREAM.INFO.{stream}");
        let deadline = Instant::now() + timeout;
        // A server without others has no copies, whatever a stream that it was given says.
        let is_clustered = self.client.server_info().cluster.is_some();
        let clustered = |copies| if is_clustered { copies } else { 1 };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let told = self.api_timed::<T>(&what, body, left).await;
            match told.map_err(|error| of_whole(error, timeout))? {
                Ok((told, _)) if !told.cluster().is_of_leader(clustered(told.copies())) => {
                    self.route.missed(&leader(stream), Instant::now());
                    pause(deadline, timeout).await?;
                }
                told => {
                    self.route.answered(&leader(stream));
                    return Ok(told);
                }
            }
        }
    }

    /// A stream's configuration and state, from its leader.
    pub(crate) async fn stream_info(
        &self,
        stream: &str,
        timeout: Duration,
    ) -> Result<std::result::Result<StreamInfo, ApiError>> {
        let told = self.of_leader::<StreamInfo>(stream, &serde_json::json!({}), timeout).await?;
        Ok(told.map(|(info, asked)| {
            if let Some(stamp) = info.ts {
                self.clock.learn(asked, Moment::now(), stamp);
            }
            info
        }))
    }

    /// Removes the records of a filter; how many there were.
    pub(crate) async fn purge(&self, stream: &str, filter: &str) -> Result<u64> {
        self.purge_as(stream, &serde_json::json!({ "filter": filter })).await
    }

    /// The same, as a request of its own says.
    pub(crate) async fn purge_as(&self, stream: &str, body: &serde_json::Value) -> Result<u64> {
        let purged: Purged = self.api(&format!("STREAM.PURGE.{stream}"), body, CALL).await??;
        Ok(purged.purged)
    }

    /// Removes one record. One that does not exist counts as removed.
    pub(crate) async fn delete(&self, stream: &str, seq: u64, erase: bool) -> Result<()> {
        // Erased, its bytes are overwritten at once, which takes some milliseconds; else they stay until the server drops the file.
        let body = serde_json::json!({ "seq": seq, "no_erase": !erase });
        match self.api::<Done>(&format!("STREAM.MSG.DELETE.{stream}"), &body, CALL).await? {
            Ok(Done {}) => Ok(()),
            Err(error) if error.is_missing() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The subjects of a filter that have records, from the stream's leader. The server tells them from its index, without reading a
    /// record: a millisecond for an agent's few thousand. Sequence and subjects are those of one server: of two that know differently
    /// much, the one would settle what the other does not have.
    pub(crate) async fn index(&self, stream: &str, filter: &str) -> Result<Index> {
        let deadline = Instant::now() + CALL;
        let mut index = Index::default();
        loop {
            // What is stored meanwhile moves the later ones on: none is left out. What is removed moves them back: so each page begins
            // with the last subject of the one before, which tells.
            let known = index.subjects.len();
            let offset = known.saturating_sub(1);
            let body = serde_json::json!({ "subjects_filter": filter, "offset": offset });
            let (page, _) = self.of_leader::<SubjectPage>(stream, &body, CALL).await??;
            let begins = page.state.subjects.first_key_value();
            let overlaps = index
                .subjects
                .last_key_value()
                .is_none_or(|(last, _)| begins.is_some_and(|(first, _)| first <= last));
            if known == 0 {
                index.last_seq = page.state.last_seq;
            } else if page.state.last_seq < index.last_seq || !overlaps {
                // Of a server that is behind, or with some left out.
                index = Index::default();
                pause(deadline, CALL).await?;
                continue;
            }
            index.subjects.extend(page.state.subjects);
            if index.subjects.len() == known || index.subjects.len() >= page.total {
                return Ok(index);
            }
        }
    }

    /// The last sequence of a stream.
    pub(crate) async fn last_seq(&self, stream: &str) -> Result<u64> {
        Ok(self.stream_info(stream, CALL).await??.state.last_seq)
    }
}

/// What is asked of a stream's leader, and answered by others too.
fn leader(stream: &str) -> String {
    format!("leader {stream}")
}

/// A timeout of a part is a timeout of the whole.
fn of_whole(error: BrokerError, timeout: Duration) -> BrokerError {
    if matches!(error, BrokerError::Timeout(_)) { BrokerError::Timeout(timeout) } else { error }
}
