//! DEAD: messages that were given up.

use std::borrow::Cow;

use async_nats::HeaderMap;
use common::frame::ask::ShimAsk;
use common::message::{DeadLetter, Final, MessageKey};
use common::subject::Subjects;
use common::{AgentName, MessageId, SenderName};

use crate::api::{Published, header};
use crate::asked;
use crate::back::{BackReader, Last};
use crate::connection::Broker;
use crate::error::Result;
use crate::find::LISTED;
use crate::history::Beginning;
use crate::journal::{Stored, encode, first_of};
use crate::read::Reader;
use crate::wire::CALL;

/// The longest text of an attempt's end, of a log line, or of a reason that a letter without room keeps.
const SHORT: usize = 256;

/// How many are removed at once: their names are held in memory.
const DROPPED: usize = 500;

/// The letter as it fits a record.
fn fitting(letter: &DeadLetter, max: usize) -> Result<Cow<'_, DeadLetter>> {
    let fits = |letter: &DeadLetter| encode(letter).map(|payload| payload.len() <= max);
    if fits(letter)? {
        return Ok(Cow::Borrowed(letter));
    }
    let mut cut = letter.clone();
    for line in &mut cut.log {
        shorten(line, SHORT);
    }
    if fits(&cut)? {
        return Ok(Cow::Owned(cut));
    }
    // The last lines and the last attempts tell most.
    while !cut.log.is_empty() {
        cut.log.drain(..cut.log.len().div_ceil(2));
        if fits(&cut)? {
            return Ok(Cow::Owned(cut));
        }
    }
    shorten(&mut cut.reason, SHORT);
    for end in &mut cut.attempts {
        shorten(&mut end.error, SHORT);
    }
    while !fits(&cut)? && cut.attempts.len() > 1 {
        cut.attempts.drain(..cut.attempts.len() / 2);
    }
    // As JSON a byte may take six.
    let mut room = cut.envelope.message.len();
    let whole = room;
    while !fits(&cut)? && room > 0 {
        room /= 2;
        shorten(&mut cut.envelope.message, room);
        let note =
            format!("; the message of {whole} bytes is in the journal, here are its first {room}");
        cut.reason = letter.reason.clone();
        shorten(&mut cut.reason, SHORT);
        cut.reason.push_str(&note);
        cut.cut = true;
    }
    Ok(Cow::Owned(cut))
}

/// Cuts a text, and says so in it.
fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push_str(" [cut]");
    }
}

impl Broker {
    fn dead_stream(&self) -> String {
        self.subjects().stream("DEAD")
    }

    /// Stores a dead letter, if there is none for this message (true: it was new). What does not fit a record is cut: first the
    /// log, then the attempts, and the message only at the very last, which the letter then says.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn bury(&self, letter: &DeadLetter) -> Result<bool> {
        let letter = &fitting(letter, self.max_record())?;
        let key = letter.envelope.key();
        let payload = encode(letter)?;
        self.check_size(payload.len())?;
        let subject = self.subjects().dead(&key);
        // The next incarnation may bury it again, after somebody has dropped it: with the time, since it may die once more.
        let id =
            format!("{}.{}.{}.{}", key.agent, key.sender, key.message_id, letter.at.as_millis());
        let headers = || {
            let mut headers = first_of(&subject);
            headers.insert(header::MESSAGE_ID, id.as_str());
            headers
        };
        let (published, tries) =
            self.wire().publish(subject.clone(), headers, payload, CALL).await?;
        match published {
            Published::Stored(_) => Ok(true),
            // Ours, if an earlier try stored it and its answer was lost.
            Published::WrongLast | Published::Duplicate(_) if tries > 1 => {
                let there = self.dead_letter(&key).await?;
                Ok(there.is_some_and(|there| there.value == **letter))
            }
            Published::WrongLast | Published::Duplicate(_) => Ok(false),
        }
    }

    /// Stores the dead letter of a message that has failed, with what became of its attempts. False: there is one, or the message was
    /// forgotten meanwhile, and a letter would bring its text back.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn bury_failed(
        &self,
        key: &MessageKey,
        final_: &Final,
        log: Vec<String>,
    ) -> Result<bool> {
        let bury = || -> Result<ShimAsk> {
            let (key, final_, log) = (key.clone(), encode(final_)?.to_vec(), log.clone());
            Ok(ShimAsk::Bury { key, final_, log })
        };
        if self.as_shim().is_some() {
            let bury = bury()?;
            if let Some(told) = self.asked(|| bury).await? {
                return asked::done(&told).map(|()| true);
            }
        }
        let Some(request) = self.message_of(key).await? else { return Ok(false) };
        let history = self.events(key).await?;
        let history = history.into_iter().flat_map(|batch| {
            batch.events.into_iter().map(move |event| (batch.incarnation, event))
        });
        self.bury(&DeadLetter::new(request.value, final_, history, log)).await
    }

    /// Replaces a dead letter, if it is still the one at `seq` (marks it redriven). False: it was changed meanwhile.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn rebury(&self, letter: &DeadLetter, seq: u64) -> Result<bool> {
        let letter = &fitting(letter, self.max_record())?;
        let key = letter.envelope.key();
        let payload = encode(letter)?;
        self.check_size(payload.len())?;
        let headers = || {
            let mut headers = HeaderMap::new();
            headers.insert(header::EXPECTED_LAST, seq.to_string());
            headers
        };
        let subject = self.subjects().dead(&key);
        let (published, tries) = self.wire().publish(subject, headers, payload, CALL).await?;
        match published {
            Published::Stored(_) | Published::Duplicate(_) => Ok(true),
            Published::WrongLast if tries > 1 => {
                let there = self.dead_letter(&key).await?;
                Ok(there.is_some_and(|there| there.value == **letter))
            }
            Published::WrongLast => Ok(false),
        }
    }

    /// Reads a dead letter.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn dead_letter(&self, key: &MessageKey) -> Result<Option<Stored<DeadLetter>>> {
        let subject = self.subjects().dead(key);
        let record = self.wire().last(&self.dead_stream(), &subject).await?;
        record.as_ref().map(Stored::parse).transpose()
    }

    /// All dead letters that are there now, of one agent or of all, oldest first. One that is replaced meanwhile comes at most once, as
    /// it was.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn dead_letters(&self, agent: Option<&AgentName>) -> Result<DeadLetters> {
        let source = LetterSource::All(self.dead_reader(agent).await?);
        Ok(DeadLetters { source, unreadable: 0 })
    }

    /// The last `limit` dead letters before a sequence, or of all there are, oldest first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn dead_page(
        &self,
        agent: Option<&AgentName>,
        before: Option<u64>,
        limit: u64,
    ) -> Result<DeadLetters> {
        let of = (self.dead_stream(), self.subjects().dead_named(agent, None, None));
        let reader = BackReader::new(self.wire(), of, self.replicas(), before, limit).await?;
        Ok(DeadLetters { source: LetterSource::Last(reader.last().await?), unreadable: 0 })
    }

    async fn dead_reader(&self, agent: Option<&AgentName>) -> Result<Reader> {
        let stream = self.dead_stream();
        let last_seq = self.wire().last_seq(&stream).await?;
        let filter = self.subjects().dead_named(agent, None, None);
        Ok(Reader::new(self.wire(), stream, filter, 1, last_seq).of(self.replicas()))
    }

    /// The dead letters of the messages that have this id, of one agent and sender or of any.
    ///
    /// # Errors
    /// When the broker does not answer, or one of them cannot be parsed.
    pub async fn dead_named(
        &self,
        agent: Option<&AgentName>,
        sender: Option<&SenderName>,
        message: &MessageId,
    ) -> Result<Vec<Stored<DeadLetter>>> {
        let filter = self.subjects().dead_named(agent, sender, Some(message));
        let records = self.wire().all_of(&self.dead_stream(), &filter).await?;
        records.iter().map(Stored::parse).collect()
    }

    /// The ids that begin like this and have dead letters. Where these are too many to list, those of all messages, as [`Self::ids`].
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn dead_ids(
        &self,
        agent: Option<&AgentName>,
        sender: Option<&SenderName>,
        beginning: &str,
    ) -> Result<Beginning> {
        let stream = self.dead_stream();
        if self.wire().stream_info(&stream, CALL).await??.state.messages > LISTED {
            return self.ids(beginning).await;
        }
        let filter = self.subjects().dead_named(agent, sender, None);
        let index = self.wire().index(&stream, &filter).await?;
        let keys = index.subjects.keys().filter_map(|subject| self.subjects().parse_dead(subject));
        let ids = keys.map(|key| key.message_id).filter(|id| id.as_str().starts_with(beginning));
        Ok(Beginning::Found(ids.collect()))
    }

    /// Removes a dead letter. False: it does not exist.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_dead_letter(&self, key: &MessageKey) -> Result<bool> {
        let removed = self.wire().purge(&self.dead_stream(), &self.subjects().dead(key)).await?;
        Ok(removed > 0)
    }

    /// Removes the dead letters that are there now, of one agent or of all: also those that cannot be read.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_dead_letters(&self, agent: Option<&AgentName>) -> Result<DeadDrop> {
        let filter = self.subjects().dead_named(agent, None, None);
        let reader = self.dead_reader(agent).await?;
        Ok(DeadDrop { broker: self.clone(), reader, filter })
    }
}

/// Dead letters, one after the other.
#[derive(Debug)]
pub struct DeadLetters {
    source: LetterSource,
    unreadable: usize,
}

#[derive(Debug)]
enum LetterSource {
    All(Reader),
    Last(Last),
}

impl DeadLetters {
    /// The next one; none at the end. What cannot be parsed is left out, and counted.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<Stored<DeadLetter>>> {
        loop {
            let record = match &mut self.source {
                LetterSource::All(reader) => reader.next().await?,
                LetterSource::Last(last) => last.next().await?,
            };
            let Some(record) = record else { return Ok(None) };
            match Stored::parse(&record) {
                Ok(letter) => return Ok(Some(letter)),
                Err(_) if Subjects::is_filler(&record.subject) => {}
                Err(_) => self.unreadable += 1,
            }
        }
    }

    /// Whether there are earlier ones than those of this page.
    #[must_use]
    pub fn has_earlier(&self) -> bool {
        match &self.source {
            LetterSource::All(_) => false,
            LetterSource::Last(last) => last.has_earlier(),
        }
    }

    /// How many were met that cannot be parsed.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.unreadable
    }
}

/// Dead letters on their way out, some at a time: memory does not grow with their number.
#[derive(Debug)]
pub struct DeadDrop {
    broker: Broker,
    reader: Reader,
    filter: String,
}

impl DeadDrop {
    /// Removes the next ones, and returns their messages' names; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<Vec<MessageKey>>> {
        let (mut keys, mut last) = (Vec::new(), 0);
        while keys.len() < DROPPED
            && let Some(record) = self.reader.next().await?
        {
            last = record.seq;
            keys.extend(self.broker.subjects().parse_dead(&record.subject));
        }
        if last == 0 {
            return Ok(None);
        }
        // One request for all of them, up to the last that was seen: what has been stored since stays.
        let body = serde_json::json!({ "filter": self.filter, "seq": last + 1 });
        let stream = self.broker.dead_stream();
        let purged = self.broker.wire().purge_as(&stream, &body).await?;
        if purged >= keys.len() as u64 {
            return Ok(Some(keys));
        }
        // Some have been replaced or dropped since they were read, or an earlier try of this purge removed them.
        let mut gone = Vec::new();
        for key in keys {
            if self.broker.dead_letter(&key).await?.is_none() {
                gone.push(key);
            }
        }
        Ok(Some(gone))
    }
}
