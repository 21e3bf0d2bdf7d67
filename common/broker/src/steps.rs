//! STEPS: the results that a worker has stored in the course of a turn, for the attempts that may follow.
//!
//! The records of a message are on one subject, in the order in which they were stored: each is written by compare-and-set on the one that its
//! author knows as the last. So two of one key cannot both be stored unnoticed, and an author that another incarnation has gone past finds that
//! out: what stands behind the last record that it knows is not its own.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::HeaderMap;
use common::frame::ask::ShimAsk;
use common::message::MessageKey;
use common::step::{Json, Step, StepMark, StepRecord};
use common::{AgentName, ConversationId};
use tokio::time::Instant;

use crate::api::{Published, Record, code, header};
use crate::asked;
use crate::connection::Broker;
use crate::error::Result;
use crate::events::CONVERSATION;
use crate::journal::encode;
use crate::quiet::Quiet;
use crate::read::Reader;
use crate::wire::{CALL, pause};

/// How much is read at once: a step is much smaller.
const PAGE: u32 = 1 << 20;
/// How many records are looked at together for messages that are no longer there.
const SWEPT: u64 = 100;

/// Whose steps are stored, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepsOf {
    /// The message.
    pub key: MessageKey,
    /// Its conversation, for whoever forgets that.
    pub conversation: ConversationId,
    /// The attempt.
    pub attempt: u32,
    /// The incarnation.
    pub incarnation: u64,
}

/// What earlier attempts have stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recalled {
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The sequence of the last record; 0 if there is none.
    pub last: u64,
}

/// What came of storing a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stepped {
    /// The sequence of the last record that is known by now.
    pub last: u64,
    /// Steps with other keys that an earlier incarnation had stored meanwhile, with their bytes.
    pub found: Vec<(String, usize)>,
    /// What became of the step.
    pub end: StepEnd,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepEnd {
    /// It is on disk.
    Stored,
    /// An earlier incarnation had stored one with this key meanwhile, with this result.
    Already(Json),
    /// A later incarnation has taken over.
    Fenced(u64),
    /// The message has left the journal.
    Gone,
}

/// What a record says; none if it cannot be read.
fn read(record: &Record) -> Option<StepRecord> {
    static UNREADABLE: Quiet = Quiet::new();
    let read = record.parse().inspect_err(|error| {
        if let Some(others) = UNREADABLE.count() {
            tracing::error!("cannot read a step: {error}{others}");
        }
    });
    read.ok()
}

/// What stands behind the last record that an author knows.
#[derive(Debug, PartialEq, Eq)]
enum Behind {
    /// An earlier try of the same call.
    Own,
    /// A later incarnation.
    Later(u64),
    /// The same key, of an earlier one.
    Same(Json),
    /// Nothing that is in the way.
    Others,
}

/// Looks at the records behind the last one that an author knows, and takes up what does not concern its step.
fn behind(
    of: &StepsOf,
    step: &Step,
    records: Vec<StepRecord>,
    found: &mut Vec<(String, usize)>,
) -> Behind {
    let mut end = Behind::Others;
    for record in records {
        if record.incarnation > of.incarnation {
            return Behind::Later(record.incarnation);
        }
        let own = (record.incarnation, record.attempt) == (of.incarnation, of.attempt);
        match record.step {
            Some(there) if there.key != step.key => found.push((there.key.clone(), there.bytes())),
            Some(there) if end == Behind::Others => {
                end = if own && there == *step { Behind::Own } else { Behind::Same(there.result) };
            }
            Some(_) | None => {}
        }
    }
    end
}

impl Broker {
    fn steps_stream(&self) -> String {
        self.subjects().stream("STEPS")
    }

    fn step_headers(of: &StepsOf, after: u64) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::EXPECTED_LAST, after.to_string());
        headers.insert(CONVERSATION, of.conversation.as_str());
        headers
    }

    /// Stores a step behind the record that the caller knows as the message's last, 0 if none is known.
    ///
    /// Repeating it is harmless.
    ///
    /// # Errors
    /// Full, or no answer in time: then it may be stored.
    pub async fn store_step(
        &self,
        of: &StepsOf,
        step: &Step,
        after: u64,
        timeout: Duration,
    ) -> Result<Stepped> {
        let StepsOf { key, attempt, incarnation, .. } = of;
        let record =
            StepRecord { attempt: *attempt, incarnation: *incarnation, step: Some(step.clone()) };
        let payload = encode(&record)?;
        self.check_size(payload.len())?;
        // The rest is reserved for answers.
        self.take_room(self.subjects().shard(&key.agent), payload.len()).await?;
        let deadline = Instant::now() + timeout;
        let (mut last, mut found) = (after, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let (subject, payload) = (self.subjects().steps(key), payload.clone());
            let headers = || Self::step_headers(of, last);
            let (published, _) = self.wire().publish(subject, headers, payload, left).await?;
            if let Published::Stored(seq) = published {
                return Ok(Stepped { last: seq, found, end: StepEnd::Stored });
            }
            let records = self.records_of_steps(key, last).await?;
            let Some(end) = records.last().map(|record| record.seq) else {
                if last > 0 && self.records_of_steps(key, 0).await?.is_empty() {
                    return Ok(Stepped { last, found, end: StepEnd::Gone });
                }
                // Another write to the subject is still on its way through the cluster.
                pause(deadline, timeout).await?;
                continue;
            };
            last = end;
            let records = records.iter().filter_map(read).collect();
            let end = match behind(of, step, records, &mut found) {
                Behind::Others => continue,
                Behind::Own => StepEnd::Stored,
                Behind::Same(result) => StepEnd::Already(result),
                Behind::Later(incarnation) => StepEnd::Fenced(incarnation),
            };
            return Ok(Stepped { last, found, end });
        }
    }

    /// The steps of earlier attempts of a message, for one that begins. From then on no earlier incarnation can add any, if there are some: a
    /// record says that this one goes on from here.
    ///
    /// # Errors
    /// When the broker does not answer in time. Repeating it is harmless.
    pub async fn recall_steps(&self, of: &StepsOf, timeout: Duration) -> Result<Recalled> {
        let StepsOf { key, attempt, incarnation, .. } = of;
        let deadline = Instant::now() + timeout;
        loop {
            let records = self.records_of_steps(key, 0).await?;
            let Some(last) = records.last() else { return Ok(Recalled::default()) };
            let (seq, author) = (last.seq, read(last).map(|record| record.incarnation));
            let steps = || -> Vec<Step> {
                records.iter().filter_map(|record| read(record)?.step).collect()
            };
            if author == Some(*incarnation) {
                return Ok(Recalled { steps: steps(), last: seq });
            }
            let fence = StepRecord { attempt: *attempt, incarnation: *incarnation, step: None };
            let left = deadline.saturating_duration_since(Instant::now());
            let headers = || Self::step_headers(of, seq);
            let subject = self.subjects().steps(key);
            let published = self.wire().publish(subject, headers, encode(&fence)?, left).await?;
            if let (Published::Stored(last), _) = published {
                return Ok(Recalled { steps: steps(), last });
            }
            // One more was stored, or this very fence; or the message leaves.
            pause(deadline, timeout).await?;
        }
    }

    /// Whether a message has steps: whatever stood in STEPS a moment ago counts.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn has_steps_of(&self, key: &MessageKey) -> Result<bool> {
        let ask = || ShimAsk::Steps { key: key.clone(), after: 0 };
        if let Some(told) = self.asked(ask).await? {
            return asked::records(told).map(|(records, _)| !records.is_empty());
        }
        let subject = self.subjects().steps(key);
        Ok(self.has_steps().await?
            && self.wire().last(&self.steps_stream(), &subject).await?.is_some())
    }

    /// The records of a message's steps after a sequence; that these are all is confirmed.
    async fn records_of_steps(&self, key: &MessageKey, mut after: u64) -> Result<Vec<Record>> {
        let mut all = Vec::new();
        loop {
            let ask = || ShimAsk::Steps { key: key.clone(), after };
            let (records, more) = match self.asked(ask).await? {
                Some(told) => asked::records(told)?,
                None => self.page_of_steps(key, after, u32::MAX).await?,
            };
            after = records.last().map_or(after, |record| record.seq);
            all.extend(records);
            if !more {
                return Ok(all);
            }
        }
    }

    /// As many of them as have so many bytes, at least one; and whether there may be more.
    pub(crate) async fn page_of_steps(
        &self,
        key: &MessageKey,
        after: u64,
        bytes: u32,
    ) -> Result<(Vec<Record>, bool)> {
        let (mut records, mut size) = (Vec::new(), 0);
        if !self.has_steps().await? {
            return Ok((records, false));
        }
        let (stream, subject) = (self.steps_stream(), self.subjects().steps(key));
        let reader = Reader::new(self.wire(), stream, subject, after + 1, u64::MAX);
        let mut reader = reader.of(self.replicas()).pages(PAGE.min(bytes));
        while let Some(record) = reader.next().await? {
            size += record.payload.len();
            records.push(record);
            if size >= bytes as usize {
                return Ok((records, true));
            }
        }
        Ok((records, false))
    }

    /// Whether any message has steps. A fleet whose supervisors know of none has no such stream.
    pub(crate) async fn has_steps(&self) -> Result<bool> {
        match self.wire().stream_info(&self.steps_stream(), CALL).await? {
            Ok(info) => Ok(info.state.messages > 0),
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The sequence of the last record that there has been, while there are any.
    pub(crate) async fn last_step(&self) -> Result<Option<u64>> {
        match self.has_steps().await? {
            true => self.wire().last_seq(&self.steps_stream()).await.map(Some),
            false => Ok(None),
        }
    }

    /// The steps of a message, as they are shown; with their results, if those are wanted.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn steps(&self, key: &MessageKey, results: bool) -> Result<Vec<StepMark>> {
        let records = self.records_of_steps(key, 0).await?;
        let mark = |record: &Record| {
            let StepRecord { attempt, step, .. } = read(record)?;
            let Step { key, result } = step?;
            let (bytes, at) = (result.text().len() as u64, record.at);
            Some(StepMark { key, bytes, attempt, at, result: results.then_some(result) })
        };
        Ok(records.iter().filter_map(mark).collect())
    }

    /// Removes the steps of messages that leave the journal. `erase`: also from the files of the server.
    pub(crate) async fn drop_steps(&self, keys: &[MessageKey], erase: bool) -> Result<()> {
        if keys.is_empty() || !self.has_steps().await? {
            return Ok(());
        }
        let stream = self.steps_stream();
        for key in keys {
            let subject = self.subjects().steps(key);
            if erase {
                let reader = Reader::new(self.wire(), stream.clone(), subject, 1, u64::MAX);
                let records = reader.of(self.replicas()).rest().await?;
                let seqs = records.iter().map(|record| record.seq).collect();
                self.remove(&stream, seqs, true).await?;
            } else if self.wire().last(&stream, &subject).await?.is_some() {
                self.wire().purge(&stream, &subject).await?;
            }
        }
        Ok(())
    }

    /// Removes the steps of messages that have left the journal, as a power cut may bring them back: looks at some records from a sequence on,
    /// up to another one. Where to go on; none at the end.
    pub(crate) async fn sweep_steps(
        &self,
        from: u64,
        until: u64,
        keep: &BTreeSet<AgentName>,
    ) -> Result<Option<u64>> {
        if from > until || !self.has_steps().await? {
            return Ok(None);
        }
        let (stream, wire) = (self.steps_stream(), self.wire());
        let reader = Reader::new(wire, stream.clone(), ">".to_owned(), from, until);
        let mut reader = reader.of(self.replicas()).pages(PAGE).expecting(SWEPT);
        let (mut keys, mut next) = (BTreeSet::new(), None);
        for _ in 0..SWEPT {
            let Some(record) = reader.next().await? else {
                next = None;
                break;
            };
            next = Some(record.seq + 1);
            let key = self.subjects().parse_steps(&record.subject);
            keys.extend(key.filter(|key| !keep.contains(&key.agent)));
        }
        for key in keys {
            if self.has_left(&key).await? {
                wire.purge(&stream, &self.subjects().steps(&key)).await?;
            }
        }
        Ok(next)
    }

    /// Whether a message is in the journal no more. That nothing is there is confirmed.
    async fn has_left(&self, key: &MessageKey) -> Result<bool> {
        Ok(self.request_of(key).await.is_ok_and(|it| it.is_none())
            && self.final_of(key).await?.is_none())
    }

    /// Removes the steps of an agent's messages that have left the journal, once the last of a message's is older than this. The cost grows with
    /// what is removed, and with the steps of messages that are open for longer. How many messages that were, up to a bound: there may be more.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_old_steps(&self, agent: &AgentName, older: Duration) -> Result<u64> {
        if !self.has_steps().await? {
            return Ok(0);
        }
        let (stream, wire) = (self.steps_stream(), self.wire());
        let Some(cut) = self.cut(&stream, older).await? else { return Ok(0) };
        let filter = self.subjects().steps_of(agent);
        let reader = Reader::new(wire, stream.clone(), filter, 1, u64::MAX);
        let mut reader = reader.of(self.replicas()).pages(PAGE).expecting(SWEPT);
        let (mut seen, mut dropped) = (BTreeSet::new(), 0);
        while let Some(record) = reader.next().await?
            && record.at < cut
            && dropped < SWEPT
        {
            let Some(key) = self.subjects().parse_steps(&record.subject) else { continue };
            if !seen.insert(key.clone()) {
                continue;
            }
            let subject = self.subjects().steps(&key);
            let last = wire.last(&stream, &subject).await?;
            if last.is_some_and(|last| last.at < cut) && self.has_left(&key).await? {
                wire.purge(&stream, &subject).await?;
                dropped += 1;
            }
        }
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use common::{AgentName, MessageId, SenderName};

    use super::*;

    fn of(incarnation: u64, attempt: u32) -> StepsOf {
        StepsOf {
            key: MessageKey {
                agent: AgentName::new("a").expect("valid"),
                sender: SenderName::new("user").expect("valid"),
                message_id: MessageId::new("m").expect("valid"),
            },
            conversation: ConversationId::new("c").expect("valid"),
            attempt,
            incarnation,
        }
    }

    fn step(key: &str, result: &str) -> Step {
        Step { key: key.to_owned(), result: Json::new(result.to_owned()).expect("JSON") }
    }

    fn record(incarnation: u64, attempt: u32, step: Option<Step>) -> StepRecord {
        StepRecord { attempt, incarnation, step }
    }

    #[test]
    fn what_stands_behind_the_last_known_record_decides() {
        let wanted = step("k", "1");
        let result = |text: &str| Json::new(text.to_owned()).expect("JSON");
        for (records, end, taken) in [
            (vec![], Behind::Others, 0),
            // The answer to an earlier try was lost.
            (vec![record(5, 2, Some(step("k", "1")))], Behind::Own, 0),
            // The worker has thought again: the first result counts.
            (vec![record(5, 2, Some(step("k", "2")))], Behind::Same(result("2")), 0),
            (vec![record(5, 1, Some(step("k", "1")))], Behind::Same(result("1")), 0),
            (vec![record(4, 1, Some(step("k", "9")))], Behind::Same(result("9")), 0),
            (vec![record(4, 1, Some(step("x", "9"))), record(4, 1, None)], Behind::Others, 1),
            (
                vec![record(4, 1, Some(step("k", "9"))), record(4, 1, Some(step("x", "1")))],
                Behind::Same(result("9")),
                1,
            ),
            (vec![record(6, 3, None)], Behind::Later(6), 0),
            (vec![record(5, 2, Some(step("k", "1"))), record(6, 3, None)], Behind::Later(6), 0),
        ] {
            let mut found = Vec::new();
            assert_eq!(behind(&of(5, 2), &wanted, records, &mut found), end);
            assert_eq!(found.len(), taken);
        }
    }
}
