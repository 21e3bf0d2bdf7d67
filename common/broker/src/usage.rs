//! What is stored, by stream and by agent.

use std::collections::BTreeMap;

use common::{AgentName, Timestamp};

use crate::api::{StreamInfo, code};
use crate::connection::Broker;
use crate::error::Result;
use crate::read::Reader;
use crate::streams::STREAMS;
use crate::wire::CALL;

/// A stream with no more records than this, and no more bytes than that, is read as a whole.
const WHOLE: (u64, u64) = (50_000, 128 << 20);
/// Of a larger one, this many parts are read, evenly spread,
const PARTS: u64 = 50;
/// of this many records each, or this many bytes if that is less.
const PART: (u64, u64) = (500, 1 << 20);

/// A stream as its server tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamUsage {
    /// `JOURNAL`, all of its streams together, `HISTORY`, …
    pub name: String,
    /// Its records.
    pub records: u64,
    /// Their bytes with subjects, headers and frames.
    pub bytes: u64,
    /// How many subjects they have: the server keeps an index of these in memory.
    pub subjects: u64,
    /// The most bytes that it takes, if it is bounded.
    pub limit: Option<u64>,
    /// Bytes and bound of the fullest of its parts that refuse new records when they are full, if they are bounded.
    pub fullest: Option<(u64, u64)>,
    /// For how long a record stays, in seconds, if that is bounded.
    pub age: Option<u64>,
    /// When its oldest record was stored.
    pub oldest: Option<Timestamp>,
    /// The records that were stored within the last day, whatever became of them.
    pub of_a_day: u64,
}

/// What there is of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentUsage {
    /// Records and their bytes, by stream.
    pub streams: BTreeMap<String, (u64, u64)>,
    /// Whether these are extrapolated from a part of a stream.
    pub estimated: bool,
}

impl Broker {
    /// Streams with what is in them.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn stream_usage(&self) -> Result<Vec<StreamUsage>> {
        let mut streams: Vec<StreamUsage> = Vec::new();
        for (name, stream) in self.all_streams() {
            let Some(info) = self.info_of(&name, &stream).await? else { continue };
            let of_a_day = self.of_a_day(&stream, &info).await?;
            let number = |field: &str| info.config[field].as_u64().filter(|number| *number > 0);
            let used = StreamUsage {
                name,
                records: info.state.messages,
                bytes: info.state.bytes,
                subjects: info.state.num_subjects,
                limit: number("max_bytes"),
                fullest: number("max_bytes")
                    .filter(|_| info.config["discard"] == "new")
                    .map(|limit| (info.state.bytes, limit)),
                age: number("max_age").map(|nanos| nanos / 1_000_000_000),
                oldest: self.wire().first(&stream, ">", 1).await?.map(|(first, _)| first.at),
                of_a_day,
            };
            match streams.last_mut().filter(|last| last.name == used.name) {
                Some(last) => last.add(used),
                None => streams.push(used),
            }
        }
        Ok(streams)
    }

    /// None where the fleet's supervisors are of an earlier version, and have not made it.
    async fn info_of(&self, name: &str, stream: &str) -> Result<Option<StreamInfo>> {
        match self.wire().stream_info(stream, CALL).await? {
            Ok(info) => Ok(Some(info)),
            Err(error) if is_new(name) && error.err_code == code::STREAM_NOT_FOUND => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn of_a_day(&self, stream: &str, info: &StreamInfo) -> Result<u64> {
        const DAY: u64 = 24 * 3_600_000;
        let Some(now) = info.ts.filter(|_| info.state.messages > 0) else { return Ok(0) };
        let then = Timestamp::from_millis(now.as_millis().saturating_sub(DAY));
        let first = self.wire().since(stream, ">", then).await?;
        Ok(first.map_or(0, |first| (info.state.last_seq + 1).saturating_sub(first.seq)))
    }

    /// What there is of each agent. Small streams are read; of large ones a part is, however large they are.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn agent_usage(&self) -> Result<BTreeMap<AgentName, AgentUsage>> {
        let mut agents: BTreeMap<AgentName, AgentUsage> = BTreeMap::new();
        // No agent's own: what several run with is stored once, and what is on its way is gone in a moment.
        let streams = self.all_streams().into_iter();
        let streams = streams.filter(|(name, _)| !["FILES", "REPLIES"].contains(&name.as_str()));
        for (name, stream) in streams {
            let Some(info) = self.info_of(&name, &stream).await? else { continue };
            let state = info.state;
            let (first, last) = (state.first_seq.max(1), state.last_seq);
            let mut parts = vec![(first, last)];
            let estimated = state.messages > WHOLE.0 || state.bytes > WHOLE.1;
            if estimated {
                let step = (last - first) / PARTS;
                parts =
                    (0..PARTS).map(|n| first + n * step).map(|seq| (seq, seq + PART.0)).collect();
            }
            let mut read = 0;
            let mut found: BTreeMap<AgentName, (u64, u64)> = BTreeMap::new();
            for (from, until) in parts {
                let reader = Reader::new(self.wire(), stream.clone(), ">".into(), from, until);
                let mut reader = reader.of(self.replicas()).pages(1 << 20);
                let mut bytes = 0;
                while let Some(record) = reader.next().await? {
                    read += 1;
                    bytes += record.size();
                    if estimated && bytes > PART.1 {
                        break;
                    }
                    let Some(agent) = self.subjects().agent_of(&record.subject) else { continue };
                    let of_agent = found.entry(agent).or_default();
                    *of_agent = (of_agent.0 + 1, of_agent.1 + record.size());
                }
            }
            for (agent, (records, bytes)) in found {
                let usage = agents.entry(agent).or_default();
                usage.estimated |= estimated;
                let all = usage.streams.entry(name.clone()).or_default();
                let scaled = |part: u64| match estimated {
                    true => scale(part, state.messages, read),
                    false => part,
                };
                *all = (all.0 + scaled(records), all.1 + scaled(bytes));
            }
        }
        Ok(agents)
    }

    /// The streams, those of the journal first, under one name.
    pub(crate) fn all_streams(&self) -> Vec<(String, String)> {
        let subjects = self.subjects();
        let journals = (0..subjects.shards())
            .map(|shard| ("JOURNAL".to_owned(), subjects.journal_stream(shard)));
        journals.chain(STREAMS.map(|name| (name.to_owned(), subjects.stream(name)))).collect()
    }
}

impl StreamUsage {
    fn add(&mut self, other: Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.subjects += other.subjects;
        // The sum of the bounds, if each has one.
        self.limit = self.limit.zip(other.limit).map(|(one, other)| one + other);
        let share = |(used, limit): &(u64, u64)| u128::from(*used) * 1000 / u128::from(*limit);
        self.fullest = self.fullest.into_iter().chain(other.fullest).max_by_key(share);
        self.oldest = self.oldest.into_iter().chain(other.oldest).min();
        self.of_a_day += other.of_a_day;
    }
}

/// Whether a fleet of a version before does not have a stream.
fn is_new(stream: &str) -> bool {
    ["SCHEDULES", "STEPS", "QUESTIONS", "LATER"].contains(&stream)
}

/// A part, as it would be of all.
fn scale(part: u64, all: u64, read: u64) -> u64 {
    let scaled = u128::from(part) * u128::from(all) / u128::from(read.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}
