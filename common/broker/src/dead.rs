//! DEAD: messages that were given up.

use async_nats::HeaderMap;
use common::AgentName;
use common::message::{DeadLetter, MessageKey};

use crate::api::{Published, header};
use crate::connection::Broker;
use crate::error::Result;
use crate::journal::{Stored, encode, first_of};
use crate::read::Reader;
use crate::wire::CALL;

impl Broker {
    fn dead_stream(&self) -> String {
        self.subjects().stream("DEAD")
    }

    /// Stores a dead letter, if there is none for this message (true: it was new).
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn bury(&self, letter: &DeadLetter) -> Result<bool> {
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
                Ok(there.is_some_and(|there| there.value == *letter))
            }
            Published::WrongLast | Published::Duplicate(_) => Ok(false),
        }
    }

    /// Replaces a dead letter, if it still is the one at `seq` (marks it redriven). False: somebody was faster.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn rebury(&self, letter: &DeadLetter, seq: u64) -> Result<bool> {
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
                Ok(there.is_some_and(|there| there.value == *letter))
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
        let mut reader = Reader::new(self.wire(), stream, filter, 1, last_seq);
        let mut letters = Vec::new();
        while let Some(record) = reader.next().await? {
            match Stored::parse(&record) {
                Ok(letter) => letters.push(letter),
                Err(error) => tracing::warn!(%error, "skipping a dead letter"),
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
