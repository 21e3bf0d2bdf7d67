//! QUESTIONS: what workers ask people in the course of a turn, and the answers.
//!
//! What was asked stands on one subject while it is open, and the answer on another one, each written by a compare-and-set on there being none:
//! so the first answer counts, whoever gives it, and the time-out is one of them. What was asked is removed once there is an answer or the
//! message has ended. So what there is of it is what is open, but for what a crash has left, which whoever lists it removes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::HeaderMap;
use common::frame::ask::ShimAsk;
use common::message::MessageKey;
use common::question::{Answered, Asked, OpenQuestion};
use common::subject::QuestionSubject;
use common::{AgentName, ConversationId, MessageId, RequestTag, Timestamp};
use futures_util::StreamExt as _;
use tokio::time::Instant;

use crate::api::{Published, Record, code, header};
use crate::asked;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::events::CONVERSATION;
use crate::find::Standing;
use crate::journal::encode;
use crate::read::Reader;
use crate::wire::{CALL, pause};

/// How much is read at once.
const PAGE: u32 = 1 << 20;
/// How many records are looked at together for messages that are no longer there.
const SWEPT: u64 = 100;
/// How many questions are looked up at once.
const AT_ONCE: usize = 16;
/// Of how many messages it is looked up whether they have ended, where questions are only counted.
const CHECKED: usize = 256;
/// How many questions of one id are looked at.
const NAMED: usize = 50;

/// What there is of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuestionState {
    /// Nothing.
    Unknown,
    /// Nobody has answered yet.
    Open {
        /// What was asked.
        asked: Asked,
        /// When it ends, by the broker's clock.
        until: Timestamp,
    },
    /// It has an answer.
    Answered(Answered),
    /// Its message has ended.
    Gone,
}

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerEnd {
    /// It is on disk.
    Stored,
    /// Another one was first.
    Already(Box<Answered>),
}

/// The questions of one id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamedQuestions {
    /// Those that are open.
    pub open: Vec<OpenQuestion>,
    /// The answers of those that are not, with their messages; only where none is open.
    pub answered: Vec<(MessageKey, Answered)>,
}

/// What stands on the two subjects of a question.
fn state(records: &[Record], tag: &RequestTag) -> Result<QuestionState> {
    let mut open = QuestionState::Unknown;
    for record in records {
        if record.subject.ends_with(".answered") {
            // One that cannot be read is an answer, too: no other one can be stored.
            let answered = record.parse().unwrap_or_else(|error: BrokerError| Answered {
                request_id: String::new(),
                text: String::new(),
                error: Some(format!("the answer cannot be read: {error}")),
                is_default: false,
                by: None,
                write: String::new(),
                question: None,
            });
            return Ok(QuestionState::Answered(answered));
        }
        let asked: Asked = record.parse()?;
        if RequestTag::of(&asked.question.request_id) == *tag {
            open = QuestionState::Open { until: asked.until(record.at), asked };
        }
    }
    Ok(open)
}

impl Broker {
    fn questions_stream(&self) -> String {
        self.subjects().stream("QUESTIONS")
    }

    fn first_of_question(conversation: &ConversationId) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::EXPECTED_LAST, "0");
        headers.insert(CONVERSATION, conversation.as_str());
        headers
    }

    /// Stores a question, unless it was asked before; then that is what counts. Repeating it is harmless.
    ///
    /// # Errors
    /// Full, or no answer in time: then it may be stored.
    pub async fn ask_person(
        &self,
        key: &MessageKey,
        asked: &Asked,
        timeout: Duration,
    ) -> Result<QuestionState> {
        let tag = RequestTag::of(&asked.question.request_id);
        let payload = encode(asked)?;
        self.check_size(payload.len())?;
        let deadline = Instant::now() + timeout;
        // A question that an earlier attempt has asked may have its answer.
        if asked.attempt > 1
            && let answered @ QuestionState::Answered(_) = self.question(key, &tag).await?
        {
            return Ok(answered);
        }
        // The rest is reserved for answers. What is stored already takes no room.
        if let Err(full) = self.take_room(self.subjects().shard(&key.agent), payload.len()).await {
            let state = self.question(key, &tag).await?;
            return if state == QuestionState::Unknown { Err(full) } else { Ok(state) };
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let subject = self.subjects().question(key, &tag);
            let headers = || Self::first_of_question(&asked.conversation_id);
            self.wire().publish(subject, headers, payload.clone(), left).await?;
            // Only now: an answer that came before removes what was asked, and this would be there again.
            let state = self.question(key, &tag).await?;
            if matches!(state, QuestionState::Answered(_)) {
                self.close_questions(key).await?;
            }
            if state != QuestionState::Unknown {
                return Ok(state);
            }
            if self.standing_of(key).await? != Standing::Open {
                return Ok(QuestionState::Gone);
            }
            // Another write is still on its way through the cluster.
            pause(deadline, timeout).await?;
        }
    }

    /// What there is of a question.
    ///
    /// # Errors
    /// When the broker does not answer, or what was asked cannot be read.
    pub async fn question(&self, key: &MessageKey, tag: &RequestTag) -> Result<QuestionState> {
        let ask = || ShimAsk::Question { key: key.clone(), tag: tag.clone() };
        let records = match self.asked(ask).await? {
            Some(told) => asked::records(told)?.0,
            None => self.records_of_question(key, tag).await?,
        };
        state(&records, tag)
    }

    pub(crate) async fn records_of_question(
        &self,
        key: &MessageKey,
        tag: &RequestTag,
    ) -> Result<Vec<Record>> {
        if !self.has_questions().await? {
            return Ok(Vec::new());
        }
        let filter = self.subjects().question_and_answer(key, tag);
        self.wire().all_of(&self.questions_stream(), &filter).await
    }

    /// Stores an answer, unless there is one. Repeating it is harmless.
    ///
    /// # Errors
    /// When the broker does not answer in time, or has no room.
    pub async fn answer_question(
        &self,
        key: &MessageKey,
        conversation: &ConversationId,
        answered: &Answered,
        timeout: Duration,
    ) -> Result<AnswerEnd> {
        let tag = RequestTag::of(&answered.request_id);
        let payload = encode(answered)?;
        self.check_size(payload.len())?;
        let deadline = Instant::now() + timeout;
        let end = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let subject = self.subjects().answer(key, &tag);
            let headers = || Self::first_of_question(conversation);
            let (published, _) =
                self.wire().publish(subject, headers, payload.clone(), left).await?;
            if published != Published::WrongLast {
                break AnswerEnd::Stored;
            }
            match self.question(key, &tag).await? {
                // An earlier try of the same call.
                QuestionState::Answered(there) if there.write == answered.write => {
                    break AnswerEnd::Stored;
                }
                QuestionState::Answered(there) => break AnswerEnd::Already(Box::new(there)),
                QuestionState::Unknown | QuestionState::Open { .. } | QuestionState::Gone => {
                    pause(deadline, timeout).await?;
                }
            }
        };
        // What stays is found by whoever lists it next.
        if let Err(error) = self.close_questions(key).await {
            tracing::warn!("a question that is answered stays listed for now: {error}");
        }
        Ok(end)
    }

    /// Removes what was asked in the course of a message and has an answer; all of it, once the message has ended.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn close_questions(&self, key: &MessageKey) -> Result<()> {
        if let Some(told) = self.asked(|| ShimAsk::CloseQuestions(key.clone())).await? {
            return asked::done(&told);
        }
        if !self.has_questions().await? {
            return Ok(());
        }
        self.open_tags(key).await.map(drop)
    }

    /// The tags of a message's open questions. What is not open any more is removed.
    async fn open_tags(&self, key: &MessageKey) -> Result<BTreeSet<RequestTag>> {
        let (stream, subjects) = (self.questions_stream(), self.subjects());
        let index = self.wire().index(&stream, &subjects.asked_in(key)).await?;
        let named = index.subjects.keys().filter_map(|subject| subjects.parse_question(subject));
        let (answered, open): (Vec<_>, Vec<_>) = named.partition(|named| named.is_answer);
        let tags = |named: Vec<QuestionSubject>| named.into_iter().map(|named| named.tag);
        let answered: BTreeSet<RequestTag> = tags(answered).collect();
        let mut open: BTreeSet<RequestTag> = tags(open).collect();
        for tag in open.intersection(&answered) {
            self.wire().purge(&stream, &subjects.question(key, tag)).await?;
        }
        open.retain(|tag| !answered.contains(tag));
        if !open.is_empty() && self.standing_of(key).await? != Standing::Open {
            self.wire().purge(&stream, &subjects.open_questions_of(key)).await?;
            open.clear();
        }
        Ok(open)
    }

    /// The questions that are open, of one agent or of all, after a sequence: as many as have so many bytes, at least one. And where to go on;
    /// none at the end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn open_questions(
        &self,
        agent: Option<&AgentName>,
        after: u64,
        most: usize,
        bytes: usize,
    ) -> Result<(Vec<OpenQuestion>, Option<u64>)> {
        let filter = self.subjects().questions_named(agent, None, None, false);
        self.listed(filter, after, most, bytes).await
    }

    async fn listed(
        &self,
        filter: String,
        mut after: u64,
        most: usize,
        bytes: usize,
    ) -> Result<(Vec<OpenQuestion>, Option<u64>)> {
        let (mut open, mut size) = (Vec::new(), 0);
        if !self.has_questions().await? {
            return Ok((open, None));
        }
        let stream = self.questions_stream();
        let reader = Reader::new(self.wire(), stream, filter, after + 1, u64::MAX);
        let mut reader = reader.of(self.replicas()).pages(PAGE);
        loop {
            let mut records = Vec::new();
            while records.len() < AT_ONCE
                && let Some(record) = reader.next().await?
            {
                records.push(record);
            }
            if records.is_empty() {
                return Ok((open, None));
            }
            let mut looked = futures_util::stream::iter(records)
                .map(async |record| (self.still_open(&record).await, record))
                .buffered(AT_ONCE);
            while let Some((found, record)) = looked.next().await {
                let found = found?;
                let length = record.payload.len();
                if found.is_some()
                    && !open.is_empty()
                    && (open.len() == most || size + length > bytes)
                {
                    return Ok((open, Some(after)));
                }
                after = record.seq;
                size += if found.is_some() { length } else { 0 };
                open.extend(found);
            }
        }
    }

    /// What was asked, as it is listed; none if it is not open any more.
    async fn still_open(&self, record: &Record) -> Result<Option<OpenQuestion>> {
        let Some(named) = self.subjects().parse_question(&record.subject) else { return Ok(None) };
        let Ok(asked) = record.parse::<Asked>() else { return Ok(None) };
        let QuestionSubject { key, tag, .. } = named;
        let until = asked.until(record.at);
        if until <= self.now() || !self.open_tags(&key).await?.contains(&tag) {
            return Ok(None);
        }
        let question = asked.question;
        Ok(Some(OpenQuestion {
            agent: key.agent,
            sender: key.sender,
            message_id: key.message_id,
            conversation_id: asked.conversation_id,
            request_id: question.request_id,
            text: question.text,
            options: question.options,
            default: question.default,
            asked: record.at,
            until,
        }))
    }

    /// The questions of an id, of one agent and message or of all.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn questions_named(
        &self,
        agent: Option<&AgentName>,
        message: Option<&MessageId>,
        request_id: &str,
    ) -> Result<NamedQuestions> {
        let tag = RequestTag::of(request_id);
        let filter =
            |is_answer| self.subjects().questions_named(agent, message, Some(&tag), is_answer);
        let (open, _) = self.listed(filter(false), 0, NAMED, usize::MAX).await?;
        let mut answered = Vec::new();
        if open.is_empty() && self.has_questions().await? {
            let (stream, filter) = (self.questions_stream(), filter(true));
            let reader = Reader::new(self.wire(), stream, filter, 1, u64::MAX);
            let mut reader = reader.of(self.replicas()).pages(PAGE);
            while answered.len() < NAMED
                && let Some(record) = reader.next().await?
            {
                let named = self.subjects().parse_question(&record.subject);
                let key = named.map(|named| named.key);
                answered.extend(key.zip(record.parse().ok()));
            }
        }
        Ok(NamedQuestions { open, answered })
    }

    /// How many questions agents have open, of one or of all; those with none are left out.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn count_questions(
        &self,
        agent: Option<&AgentName>,
    ) -> Result<BTreeMap<AgentName, u64>> {
        let mut counts = BTreeMap::new();
        if !self.has_questions().await? {
            return Ok(counts);
        }
        let filter = self.subjects().questions_named(agent, None, None, false);
        let index = self.wire().index(&self.questions_stream(), &filter).await?;
        let named = index.subjects.keys().filter_map(|it| self.subjects().parse_question(it));
        let mut messages: BTreeMap<MessageKey, u64> = BTreeMap::new();
        for named in named {
            *messages.entry(named.key).or_default() += 1;
        }
        let mut counted = futures_util::stream::iter(messages.into_iter().enumerate())
            .map(async |(at, (key, asked))| {
                let open = match at < CHECKED {
                    true => self.open_tags(&key).await.map(|open| open.len() as u64),
                    false => Ok(asked),
                };
                open.map(|open| (key.agent, open))
            })
            .buffered(AT_ONCE);
        while let Some(counted) = counted.next().await {
            let (agent, open) = counted?;
            if open > 0 {
                *counts.entry(agent).or_default() += open;
            }
        }
        Ok(counts)
    }

    /// Whether there are any records. A fleet whose supervisors know of none has no such stream.
    pub(crate) async fn has_questions(&self) -> Result<bool> {
        match self.wire().stream_info(&self.questions_stream(), CALL).await? {
            Ok(info) => Ok(info.state.messages > 0),
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The sequence of the last record that there has been, while there are any.
    pub(crate) async fn last_question(&self) -> Result<Option<u64>> {
        match self.has_questions().await? {
            true => self.wire().last_seq(&self.questions_stream()).await.map(Some),
            false => Ok(None),
        }
    }

    /// Removes the questions of messages that leave the journal, and the answers. `erase`: also from the files of the server.
    pub(crate) async fn drop_questions(&self, keys: &[MessageKey], erase: bool) -> Result<()> {
        if keys.is_empty() || !self.has_questions().await? {
            return Ok(());
        }
        let stream = self.questions_stream();
        for key in keys {
            let filter = self.subjects().asked_in(key);
            if erase {
                let reader = Reader::new(self.wire(), stream.clone(), filter, 1, u64::MAX);
                let records = reader.of(self.replicas()).rest().await?;
                let seqs = records.iter().map(|record| record.seq).collect();
                self.remove(&stream, seqs, true).await?;
            } else if self.wire().last(&stream, &filter).await?.is_some() {
                self.wire().purge(&stream, &filter).await?;
            }
        }
        Ok(())
    }

    /// Removes the questions of messages that have left the journal: looks at some records from a sequence on, up to another one. Where to go
    /// on; none at the end.
    pub(crate) async fn sweep_questions(&self, from: u64, until: u64) -> Result<Option<u64>> {
        if from > until || !self.has_questions().await? {
            return Ok(None);
        }
        let (stream, wire) = (self.questions_stream(), self.wire());
        let reader = Reader::new(wire, stream.clone(), ">".to_owned(), from, until);
        let mut reader = reader.of(self.replicas()).pages(PAGE).expecting(SWEPT);
        let (mut keys, mut next) = (BTreeSet::new(), None);
        for _ in 0..SWEPT {
            let Some(record) = reader.next().await? else {
                next = None;
                break;
            };
            next = Some(record.seq + 1);
            let named = self.subjects().parse_question(&record.subject);
            keys.extend(named.map(|named| named.key));
        }
        for key in keys {
            // That nothing is there is confirmed.
            if self.request_of(&key).await.is_ok_and(|it| it.is_none())
                && self.final_of(&key).await?.is_none()
            {
                wire.purge(&stream, &self.subjects().asked_in(&key)).await?;
            }
        }
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use common::question::Question;

    use super::*;

    fn question() -> Question {
        Question {
            request_id: "q".to_owned(),
            text: "Go?".to_owned(),
            options: Vec::new(),
            default: None,
            timeout_ms: 1000,
        }
    }

    fn record(end: &str, payload: Vec<u8>) -> Record {
        let subject = format!("mozart.t.question.a.user.m.x.{end}");
        let (at, headers) = (Timestamp::from_millis(500), HeaderMap::new());
        Record { subject, seq: 1, at, headers, payload: payload.into() }
    }

    #[test]
    fn an_answer_counts_also_where_the_question_stands_beside_it_again() {
        let asked = Asked {
            question: question(),
            attempt: 1,
            incarnation: 3,
            conversation_id: ConversationId::new("c").expect("valid"),
        };
        let answered = Answered::by(question(), "yes", "ada", "w".to_owned());
        let open = record("asked", serde_json::to_vec(&asked).expect("it encodes"));
        let answer = record("answered", serde_json::to_vec(&answered).expect("it encodes"));
        let tag = RequestTag::of("q");
        let of = |records: &[Record]| state(records, &tag).expect("it is read");
        assert_eq!(of(&[]), QuestionState::Unknown);
        let until = Timestamp::from_millis(1500);
        assert_eq!(of(std::slice::from_ref(&open)), QuestionState::Open { asked, until });
        for records in
            [vec![answer.clone()], vec![answer.clone(), open.clone()], vec![open, answer]]
        {
            assert_eq!(of(&records), QuestionState::Answered(answered.clone()));
        }
        let QuestionState::Answered(broken) = of(&[record("answered", b"{".to_vec())]) else {
            panic!("no other answer can be stored");
        };
        assert!(broken.error.is_some_and(|why| why.starts_with("the answer cannot be read")));
    }
}
