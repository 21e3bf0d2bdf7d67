//! CONTROL: the log that every supervisor folds.

use async_nats::HeaderMap;
use common::control::{ControlEvent, ControlRecord};
use common::frame::ask::ShimAsk;
use common::snapshot::Logged;
use common::{AgentName, Timestamp};
use serde::Deserialize;

use crate::api::{Published, Record, header};
use crate::asked::{self, Answered};
use crate::back::{BackReader, Last};
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::follow::{End, Followed, Follower, Source};
use crate::journal::encode;
use crate::read::Reader;
use crate::wire::CALL;

/// How far back a look goes at first, in sequences of the log: what is looked for is mostly new.
const NEAR: u64 = 1_024;

/// How far at most at once: so much of the log may be about one agent, and is held.
const FAR: u64 = 65_536;

/// Where an appended record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Its sequence.
    pub seq: u64,
}

/// The sequences of a log's first and last record. Empty: `first` is the next one, 1 in a new log, and `last` is before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first record's.
    pub first: u64,
    /// The last record's.
    pub last: u64,
}

/// What a [`ControlFollower`] yields.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlItem {
    /// A record.
    Record {
        /// Its sequence.
        seq: u64,
        /// When the broker stored it: the log's own time.
        at: Timestamp,
        /// The record.
        record: Box<ControlRecord>,
    },
    /// A record that cannot be parsed.
    Malformed {
        /// Its sequence.
        seq: u64,
        /// When the broker stored it.
        at: Timestamp,
        /// Its subject.
        subject: String,
        /// Its `type`, if it has that much of a record.
        kind: Option<String>,
        /// The parser's error message.
        cause: String,
    },
    /// Everything that was stored when the follower began has been seen (once).
    CaughtUp,
}

impl ControlItem {
    fn new(seq: u64, at: Timestamp, subject: String, payload: &[u8]) -> Self {
        match serde_json::from_slice(payload) {
            Ok(record) => Self::Record { seq, at, record: Box::new(record) },
            Err(error) => {
                let (kind, cause) = (kind_of(payload), error.to_string());
                Self::Malformed { seq, at, subject, kind, cause }
            }
        }
    }
}

/// A page of the log, in its order.
#[derive(Debug)]
pub struct ControlPage {
    last: Last,
}

impl ControlPage {
    /// The next record, or what cannot be parsed; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<ControlItem>> {
        let record = self.last.next().await?;
        Ok(record
            .map(|record| ControlItem::new(record.seq, record.at, record.subject, &record.payload)))
    }

    /// Whether the log holds earlier ones.
    #[must_use]
    pub fn has_earlier(&self) -> bool {
        self.last.has_earlier()
    }
}

impl Broker {
    pub(crate) fn control_stream(&self) -> String {
        self.subjects().stream("CONTROL")
    }

    /// Appends a record, with its id as the message's: repeated within 5 s until the broker answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn append_control(&self, record: &ControlRecord) -> Result<Appended> {
        let id = record.id.as_deref();
        if id.is_some_and(|id| id.contains(['\r', '\n'])) {
            return Err(BrokerError::other("an id with a line break"));
        }
        let payload = encode(record)?;
        self.check_size(payload.len())?;
        let subject = match record.event.agent() {
            Some(agent) => self.subjects().control(agent),
            None => self.subjects().control_fleet(),
        };
        let headers = || {
            let mut headers = HeaderMap::new();
            if let Some(id) = id {
                headers.insert(header::MESSAGE_ID, id);
            }
            headers
        };
        match self.wire().publish(subject, headers, payload, CALL).await?.0 {
            Published::Stored(seq) | Published::Duplicate(seq) => Ok(Appended { seq }),
            Published::WrongLast => Err(BrokerError::other("wrong last sequence")),
        }
    }

    /// Follows the log from a sequence on (1 is the start): of all, or of one agent.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn follow_control(
        &self,
        from_seq: u64,
        agent: Option<&AgentName>,
    ) -> Result<ControlFollower> {
        let (stream, filter) = (self.control_stream(), self.control_of(agent));
        let source = Source { stream, filter, from: from_seq, end: End::Firm, bare: false };
        let inner = Follower::start(self.wire(), source).await?;
        Ok(ControlFollower { inner })
    }

    /// The last `limit` records before a sequence, of all or of one agent: what comes before them is counted, and not read.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn control_page(
        &self,
        agent: Option<&AgentName>,
        before: u64,
        limit: u64,
    ) -> Result<ControlPage> {
        let of = (self.control_stream(), self.control_of(agent));
        let (wire, replicas) = (self.wire(), self.replicas());
        let last = BackReader::new(wire, of, replicas, Some(before), limit).await?.last().await?;
        Ok(ControlPage { last })
    }

    fn control_of(&self, agent: Option<&AgentName>) -> String {
        match agent {
            Some(agent) => self.subjects().control(agent),
            None => self.subjects().control_filter(),
        }
    }

    /// The last record about an agent, from which a client or a shim can tell whether the agent exists.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn last_control(&self, agent: &AgentName) -> Result<Option<ControlRecord>> {
        let subject = self.subjects().control(agent);
        let record = self.wire().last(&self.control_stream(), &subject).await?;
        record.map(|record| record.parse()).transpose()
    }

    /// Whether an agent is registered, by the last record that says so. The newest record is nearly always sufficient; else what the
    /// log holds of the agent is read back, and a snapshot has what was removed from the log.
    ///
    /// # Errors
    /// When the broker does not answer; when the agent's last record is of a newer version.
    pub async fn is_registered(&self, agent: &AgentName) -> Result<bool> {
        let last = self.last_control(agent).await?;
        if let Some(known) = last.as_ref().and_then(|last| last.event.is_registered()) {
            return Ok(known);
        }
        let is_whole = self.control_extent().await?.first <= 1;
        if last.is_none() && is_whole {
            return Ok(false);
        }
        let (seq, there) = self.agent_in_snapshot(agent).await?.unwrap_or((0, false));
        // Not by following the log: a replica that lags has its end before that of the log, and "there is nothing" would be believed of it.
        let said = self.look_back(agent, seq + 1, |_, _, record| record.event.is_registered());
        Ok(said.await?.unwrap_or(there))
    }

    /// Whether there is such an agent. An incarnation that starts, or takes messages, is one of an agent that is there. One that ends may be
    /// the last of an agent that was removed.
    ///
    /// # Errors
    /// When the broker does not answer; when the agent's last record is of a newer version.
    pub async fn is_there(&self, agent: &AgentName) -> Result<bool> {
        match self.asked_if_anyone(|| ShimAsk::IsRegistered(agent.clone())).await? {
            Answered::ByItself => {}
            // As a rule it is there. If it is not, whoever waits for its answer asks again.
            Answered::Nobody => return Ok(true),
            Answered::Told(told) => return asked::flag(&told),
        }
        match self.last_control(agent).await? {
            Some(ControlRecord { event: ControlEvent::MessagesForgotten { .. }, .. }) | None => {
                self.is_registered(agent).await
            }
            Some(ControlRecord {
                event:
                    ControlEvent::IncarnationAllocated { .. }
                    | ControlEvent::IncarnationReady { .. }
                    | ControlEvent::IncarnationBegun { .. }
                    | ControlEvent::IncarnationStable { .. },
                ..
            }) => Ok(true),
            Some(record) => match record.event.is_registered() {
                Some(is_there) => Ok(is_there),
                None => self.is_registered(agent).await,
            },
        }
    }

    /// Looks through what the log holds about an agent from its end back to sequence `from`, until `look` finds what it looks for. What
    /// cannot be parsed is left out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn look_back<T>(
        &self,
        agent: &AgentName,
        from: u64,
        look: impl FnMut(u64, Timestamp, &ControlRecord) -> Option<T>,
    ) -> Result<Option<T>> {
        self.look_back_at(self.subjects().control(agent), from, look).await
    }

    /// The same for what the log holds about the fleet: leaders and nodes.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn look_back_fleet<T>(
        &self,
        from: u64,
        look: impl FnMut(u64, Timestamp, &ControlRecord) -> Option<T>,
    ) -> Result<Option<T>> {
        self.look_back_at(self.subjects().control_fleet(), from, look).await
    }

    async fn look_back_at<T>(
        &self,
        subject: String,
        from: u64,
        mut look: impl FnMut(u64, Timestamp, &ControlRecord) -> Option<T>,
    ) -> Result<Option<T>> {
        let stream = self.control_stream();
        let extent = self.control_extent().await?;
        let (first, mut end, mut width) = (extent.first.max(from), extent.last + 1, NEAR);
        while end > first {
            // The server finds an agent's records from one sequence on, and not back from one.
            let begin = end.saturating_sub(width).max(first);
            let reader = Reader::new(self.wire(), stream.clone(), subject.clone(), begin, end - 1);
            let records = reader.of(self.replicas()).rest().await?;
            for record in records.iter().rev() {
                let Ok(parsed) = record.parse() else { continue };
                if let Some(found) = look(record.seq, record.at, &parsed) {
                    return Ok(Some(found));
                }
            }
            (end, width) = (begin, (4 * width).min(FAR));
        }
        Ok(None)
    }

    /// The term of the newest election on record; 0 before the first one.
    ///
    /// Read from the records that are about no agent, as elections are. The last of them names the term of its author, and newer
    /// elections come after that one's: so this reads what one leadership has said of nodes, and no more. Where the log was trimmed, a
    /// snapshot knows what was before it.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn newest_term(&self) -> Result<u64> {
        if let Some(node) = self.as_node() {
            return self.newest_term_as_node(&node, CALL).await;
        }
        #[derive(Deserialize)]
        struct Head {
            #[serde(default)]
            term: Option<u64>,
        }
        let is_election =
            |record: &Record| kind_of(&record.payload).as_deref() == Some("leaderElected");
        let (stream, subject) = (self.control_stream(), self.subjects().control_fleet());
        let Some(last) = self.wire().last(&stream, &subject).await? else {
            return self.term_before_log(1).await;
        };
        if is_election(&last) {
            return Ok(last.seq);
        }
        let head = last.parse::<Head>().ok();
        // Not what cannot be true: whoever believed that would obey nobody any more.
        let term = head.and_then(|head| head.term).filter(|term| *term < last.seq).unwrap_or(0);
        let mut newest = term.max(self.term_before_log(term + 1).await?);
        let reader = Reader::new(self.wire(), stream, subject, newest + 1, last.seq);
        let mut reader = reader.of(self.replicas());
        while let Some(record) = reader.next().await? {
            if is_election(&record) {
                newest = record.seq;
            }
        }
        Ok(newest)
    }

    /// The newest term as of the newest snapshot, if the log begins after a sequence; else 0, since then the log tells it.
    async fn term_before_log(&self, seq: u64) -> Result<u64> {
        if self.control_extent().await?.first <= seq {
            return Ok(0);
        }
        let loaded = self.load_snapshot(|_, _| Ok(())).await?;
        Ok(loaded.found.map_or(0, |(head, ())| head.term))
    }

    /// The last sequence of the log.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn control_last_seq(&self) -> Result<u64> {
        self.wire().last_seq(&self.control_stream()).await
    }

    /// What the log holds. A log that does not begin with record 1 was trimmed: folding it from there gives another state.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn control_extent(&self) -> Result<Extent> {
        let state = self.wire().stream_info(&self.control_stream(), CALL).await??.state;
        Ok(Extent { first: state.first_seq.max(1), last: state.last_seq })
    }

    /// The time by the broker's clock: that of the server which leads the log.
    ///
    /// # Errors
    /// When the broker does not answer, or does not tell.
    pub async fn clock(&self) -> Result<Timestamp> {
        let info = self.wire().stream_info(&self.control_stream(), CALL).await??;
        info.ts.ok_or_else(|| BrokerError::other("the server does not tell its time"))
    }
}

/// A run through CONTROL; survives the broker's restart and resumes after the last record it gave, without gaps.
#[derive(Debug)]
pub struct ControlFollower {
    inner: Follower,
}

impl ControlFollower {
    /// The next item. Waits for new ones forever. Cancel safe.
    ///
    /// # Errors
    /// When it cannot continue.
    pub async fn next(&mut self) -> Result<ControlItem> {
        Ok(match self.inner.next().await? {
            Followed::CaughtUp => ControlItem::CaughtUp,
            Followed::Message { seq, at, message } => {
                ControlItem::new(seq, at, message.subject.into_string(), &message.payload)
            }
        })
    }
}

/// What identifies a record.
pub(crate) fn logged(at: Timestamp, payload: &[u8]) -> Logged {
    let id = serde_json::from_slice::<ControlRecord>(payload).ok().and_then(|record| record.id);
    Logged { at, id }
}

/// The `type` of what may be a record of a newer version.
fn kind_of(payload: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    serde_json::from_slice::<Kind>(payload).ok().map(|record| record.kind)
}
