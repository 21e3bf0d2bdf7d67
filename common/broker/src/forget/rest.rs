//! What belongs to messages: events, dead letters, log lines.

use common::MessageId;
use common::log::LogLine;
use common::message::{DeadLetter, MessageKey};

use super::{Forgetting, TOGETHER};
use crate::api::Record;
use crate::error::Result;
use crate::events::CONVERSATION;
use crate::logs;
use crate::read::Reader;

impl Forgetting<'_> {
    pub(super) async fn events(&mut self, end: u64) -> Result<()> {
        let filter = self.broker.subjects().events_of(&self.what.agent);
        self.all("EVENTS", filter, end, |this, record| {
            let key = this.broker.subjects().parse_events(&record.subject);
            let conversation = record.header(CONVERSATION);
            let wanted = this.what.conversation.as_ref();
            this.is_before(record.at)
                && key.is_none_or(|key| !this.open.contains(&key))
                && wanted.is_none_or(|wanted| conversation == Some(wanted.as_str()))
        })
        .await
    }

    pub(super) async fn steps(&mut self, end: u64) -> Result<()> {
        if !self.broker.has_steps().await? {
            return Ok(());
        }
        let filter = self.broker.subjects().steps_of(&self.what.agent);
        self.all("STEPS", filter, end, |this, record| {
            let key = this.broker.subjects().parse_steps(&record.subject);
            let conversation = record.header(CONVERSATION);
            let wanted = this.what.conversation.as_ref();
            this.is_before(record.at)
                && key.is_none_or(|key| !this.open.contains(&key))
                && wanted.is_none_or(|wanted| conversation == Some(wanted.as_str()))
        })
        .await
    }

    pub(super) async fn questions(&mut self, end: u64) -> Result<()> {
        if !self.broker.has_questions().await? {
            return Ok(());
        }
        let filter = self.broker.subjects().asked_by(&self.what.agent);
        self.all("QUESTIONS", filter, end, |this, record| {
            let named = this.broker.subjects().parse_question(&record.subject);
            let conversation = record.header(CONVERSATION);
            let wanted = this.what.conversation.as_ref();
            this.is_before(record.at)
                && named.is_none_or(|named| !this.open.contains(&named.key))
                && wanted.is_none_or(|wanted| conversation == Some(wanted.as_str()))
        })
        .await
    }

    pub(super) async fn dead(&mut self, end: u64) -> Result<()> {
        let filter = self.broker.subjects().dead_of(&self.what.agent);
        self.all("DEAD", filter, end, |this, record| {
            let key = this.broker.subjects().parse_dead(&record.subject);
            let is_open = key.as_ref().is_some_and(|key| this.open.contains(key));
            let is_known = key.is_some_and(|key| this.is_known(&key));
            let letter = record.parse::<DeadLetter>().ok();
            let conversation = letter.map(|letter| letter.envelope.conversation_id);
            let of_it = this.what.conversation.is_none()
                || conversation == this.what.conversation
                || is_known;
            this.is_before(record.at) && !is_open && of_it
        })
        .await
    }

    /// Log records; of a conversation, those with a line of one of its messages.
    pub(super) async fn logs(&mut self, end: u64) -> Result<()> {
        let filter = self.broker.subjects().logs_of(&self.what.agent);
        self.all("LOGS", filter, end, |this, record| {
            this.is_before(record.at)
                && (this.what.conversation.is_none() || this.has_known_line(record))
        })
        .await
    }

    /// What came of messages that are forgotten by now, whenever that was: a shim may have had it on its way.
    pub(super) async fn late(&mut self) -> Result<()> {
        let subjects = self.broker.subjects();
        let agent = &self.what.agent;
        let (events, dead, logs) =
            (subjects.events_of(agent), subjects.dead_of(agent), subjects.logs_of(agent));
        self.all("EVENTS", events, u64::MAX, |this, record| {
            let key = this.broker.subjects().parse_events(&record.subject);
            key.is_some_and(|key| this.is_known(&key) && !this.open.contains(&key))
        })
        .await?;
        self.all("DEAD", dead, u64::MAX, |this, record| {
            let key = this.broker.subjects().parse_dead(&record.subject);
            key.is_some_and(|key| this.is_known(&key) && !this.open.contains(&key))
        })
        .await?;
        self.all("LOGS", logs, u64::MAX, Self::has_known_line).await?;
        if self.broker.has_steps().await? {
            let steps = self.broker.subjects().steps_of(&self.what.agent);
            self.all("STEPS", steps, u64::MAX, |this, record| {
                let key = this.broker.subjects().parse_steps(&record.subject);
                key.is_some_and(|key| this.is_known(&key) && !this.open.contains(&key))
            })
            .await?;
        }
        if self.broker.has_questions().await? {
            let questions = self.broker.subjects().asked_by(&self.what.agent);
            self.all("QUESTIONS", questions, u64::MAX, |this, record| {
                let named = this.broker.subjects().parse_question(&record.subject);
                named.is_some_and(|it| this.is_known(&it.key) && !this.open.contains(&it.key))
            })
            .await?;
        }
        Ok(())
    }

    /// What came of a message at the bound in time or after it.
    pub(super) async fn later_of(&mut self, key: &MessageKey) -> Result<()> {
        let subjects = self.broker.subjects();
        let (events, dead) = (subjects.events(key), subjects.dead(key));
        let later = |this: &Self, record: &Record| !this.is_before(record.at);
        self.all("EVENTS", events, u64::MAX, later).await?;
        self.all("DEAD", dead, u64::MAX, later).await?;
        if self.broker.has_steps().await? {
            let steps = self.broker.subjects().steps(key);
            self.all("STEPS", steps, u64::MAX, later).await?;
        }
        if self.broker.has_questions().await? {
            let questions = self.broker.subjects().asked_in(key);
            self.all("QUESTIONS", questions, u64::MAX, later).await?;
        }
        Ok(())
    }

    fn has_known_line(&self, record: &Record) -> bool {
        let is_one = |line: LogLine| {
            let id = line.message_id.and_then(|id| MessageId::new(id).ok());
            id.is_some_and(|id| self.is_known_id(&id))
        };
        logs::decode(&record.payload, 0).any(is_one)
    }

    /// The records of a filter up to a sequence that are wanted.
    async fn all(
        &mut self,
        name: &'static str,
        filter: String,
        end: u64,
        is_wanted: impl Fn(&Self, &Record) -> bool,
    ) -> Result<()> {
        let stream = self.broker.subjects().stream(name);
        let reader = Reader::new(self.broker.wire(), stream.clone(), filter, 1, end);
        let mut reader = reader.of(self.broker.replicas());
        let mut seqs = Vec::new();
        while let Some(record) = reader.next().await? {
            if is_wanted(self, &record) {
                self.done.add(name, record.payload.len());
                seqs.push(record.seq);
            }
            if seqs.len() == TOGETHER {
                let some = std::mem::take(&mut seqs);
                if self.erase {
                    self.broker.remove(&stream, some, true).await?;
                }
            }
        }
        if self.erase { self.broker.remove(&stream, seqs, true).await } else { Ok(()) }
    }
}
