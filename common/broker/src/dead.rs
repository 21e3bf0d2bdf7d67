//! DEAD: messages that were given up.

use std::borrow::Cow;

use async_nats::HeaderMap;
use common::AgentName;
use common::message::{DeadLetter, MessageKey};

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::{Stored, encode, first_of};
use crate::read::Reader;
use crate::wire::CALL;

/// The longest text of an attempt's end, of a log line, or of a reason that a letter without room keeps.
const SHORT: usize = 256;

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

    /// Replaces a dead letter, if it still is the one at `seq` (marks it redriven). False: somebody was faster.
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

    /// All dead letters, of one agent or of all, oldest first.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn dead_letters(&self, agent: Option<&AgentName>) -> Result<Vec<Stored<DeadLetter>>> {
        let stream = self.dead_stream();
        let last_seq = self.wire().last_seq(&stream).await?;
        let filter = match agent {
            Some(agent) => self.subjects().dead_of(agent),
            None => self.subjects().dead_filter(),
        };
        let mut reader = Reader::new(self.wire(), stream, filter, 1, last_seq).of(self.replicas());
        let mut letters = Vec::new();
        while let Some(record) = reader.next().await? {
            match Stored::parse(&record) {
                Ok(letter) => letters.push(letter),
                Err(error) => tracing::warn!(%error, "skipped a dead letter that cannot be read"),
            }
        }
        Ok(letters)
    }

    /// Removes a dead letter. False: not there.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn drop_dead_letter(&self, key: &MessageKey) -> Result<bool> {
        let removed = self.wire().purge(&self.dead_stream(), &self.subjects().dead(key)).await?;
        Ok(removed > 0)
    }
}
