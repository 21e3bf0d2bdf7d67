//! Finding messages by name, in the journal or else in HISTORY. A message is in HISTORY before it leaves the journal, so
//! that this order misses nothing.

use std::collections::BTreeSet;

use common::frame::ask::ShimAsk;
use common::message::{Envelope, Final, MessageKey};
use common::subject::LaterKind;
use common::{AgentName, MessageId};
use futures_util::future::try_join_all;

use crate::asked;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::history::{Archived, Beginning};
use crate::journal::{Stored, read_final};
use crate::read::Reader;
use crate::wire::CALL;

/// In a journal with more records than this, ids cannot be looked up by how they begin: all of them would have to be read.
pub(crate) const LISTED: u64 = 100_000;

/// The state of a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It has no final state.
    Open,
    /// It has one.
    Final(Stored<Final>),
    /// It does not exist: it was never sent, or is no longer kept.
    Gone,
}

/// A message that was looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The message.
    pub request: Stored<Envelope>,
    /// What became of it, where it has left the journal; without the request.
    pub archived: Option<Archived>,
}

impl Broker {
    /// Finds messages by id alone.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn find(&self, message: &MessageId) -> Result<Vec<Stored<Envelope>>> {
        let found = self.find_whole(None, message).await?;
        Ok(found.into_iter().map(|found| found.request).collect())
    }

    /// The same, of one agent or of all, with what the history says of those that have left the journal: it need not be looked up again.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn find_whole(
        &self,
        agent: Option<&AgentName>,
        message: &MessageId,
    ) -> Result<Vec<Found>> {
        // Before the journal: that is where it goes.
        let later = self.find_later(agent, message).await?;
        let hot = self.find_hot(agent, message);
        let (hot, cold) = tokio::try_join!(hot, self.archived(message))?;
        // What left the journal between the two looks.
        let is_nowhere = hot.is_empty() && cold.is_empty() && later.is_empty();
        let cold = if is_nowhere { self.archived(message).await? } else { cold };
        let mut found: Vec<Found> =
            hot.into_iter().map(|request| Found { request, archived: None }).collect();
        for mut archived in cold {
            if agent.is_some_and(|agent| *agent != archived.key.agent) {
                continue;
            }
            let is_known = found.iter().any(|found| found.request.value.key() == archived.key);
            if let Some(request) = archived.request.take().filter(|_| !is_known) {
                found.push(Found { request, archived: Some(archived) });
            }
        }
        let is_known = |one: &Stored<Envelope>| {
            found.iter().any(|it| it.request.value.key() == one.value.key())
        };
        let waiting: Vec<_> = later.into_iter().filter(|one| !is_known(one)).collect();
        found.extend(waiting.into_iter().map(|request| Found { request, archived: None }));
        Ok(found)
    }

    async fn find_later(
        &self,
        agent: Option<&AgentName>,
        message: &MessageId,
    ) -> Result<Vec<Stored<Envelope>>> {
        if !self.has_later().await? {
            return Ok(Vec::new());
        }
        let filter = self.subjects().later_named(agent, message);
        let reader = Reader::new(self.wire(), self.later_stream(), filter, 1, u64::MAX);
        let records = reader.of(self.replicas()).rest().await?;
        Ok(records.iter().filter_map(|record| Stored::parse(record).ok()).collect())
    }

    async fn find_hot(
        &self,
        agent: Option<&AgentName>,
        message: &MessageId,
    ) -> Result<Vec<Stored<Envelope>>> {
        let subjects = self.subjects();
        let places: Vec<_> = match agent {
            Some(agent) => {
                vec![(self.journal_stream(agent), subjects.requests_named(agent, message))]
            }
            None => (0..subjects.shards())
                .map(|shard| {
                    (subjects.journal_stream(shard), subjects.request_anywhere(message, shard))
                })
                .collect(),
        };
        let shards = places.into_iter().map(|(stream, filter)| {
            let reader = Reader::new(self.wire(), stream, filter, 1, u64::MAX);
            reader.of(self.replicas()).rest()
        });
        let found = try_join_all(shards).await?;
        found
            .iter()
            .flatten()
            // What is not on its own agent's shard, or not an envelope, is not one of ours.
            .filter(|record| subjects.parse_journal(&record.subject).is_some())
            .filter_map(|record| match Stored::parse(record) {
                Err(BrokerError::Malformed { .. }) => None,
                parsed => Some(parsed),
            })
            .collect()
    }

    /// A message by its whole name.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn message_of(&self, key: &MessageKey) -> Result<Option<Stored<Envelope>>> {
        if let Some(told) = self.asked(|| ShimAsk::Message(key.clone())).await? {
            return asked::record(told)?.as_ref().map(Stored::parse).transpose();
        }
        if let Some(request) = self.request_of(key).await? {
            return Ok(Some(request));
        }
        if let Some(request) = self.later_request(key).await? {
            return Ok(Some(request));
        }
        // It may have left LATER just now.
        if let Some(request) = self.request_of(key).await? {
            return Ok(Some(request));
        }
        Ok(self.archived_of(key).await?.and_then(|archived| archived.request))
    }

    /// A message's final state: for those who wait for it, however long.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn outcome_of(&self, key: &MessageKey) -> Result<Option<Stored<Final>>> {
        Ok(match self.standing_of(key).await? {
            Standing::Final(final_) => Some(final_),
            Standing::Open | Standing::Gone => None,
        })
    }

    /// The state of a message.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn standing_of(&self, key: &MessageKey) -> Result<Standing> {
        if let Some(told) = self.asked(|| ShimAsk::Standing(key.clone())).await? {
            return asked::standing(told);
        }
        if let Some(standing) = self.standing_in_journal(key).await? {
            return Ok(standing);
        }
        // Whoever waits for it: what is decided about it, it is in the journal only later.
        let is_later = match self.last_later(key).await? {
            Some((LaterKind::Final, record)) => return Ok(Standing::Final(read_final(&record))),
            Some((LaterKind::Request, _)) => return Ok(Standing::Open),
            Some((LaterKind::Given, _)) => true,
            None => false,
        };
        // It may have left LATER just now.
        if let Some(standing) = self.standing_in_journal(key).await? {
            return Ok(standing);
        }
        // Nothing is there, or it left just now.
        Ok(match self.archived_of(key).await? {
            Some(archived) => Standing::Final(archived.final_),
            None if is_later => Standing::Open,
            None => Standing::Gone,
        })
    }

    /// The state of a message that is in the journal; none of another.
    async fn standing_in_journal(&self, key: &MessageKey) -> Result<Option<Standing>> {
        // The stream's index tells both, without a body: on a slow connection a request may take long.
        let stream = self.journal_stream(&key.agent);
        let index = self.wire().index(&stream, &self.subjects().message_of(key)).await?;
        let named = index.subjects.keys().filter_map(|it| self.subjects().parse_journal(it));
        let (finals, requests): (Vec<_>, Vec<_>) = named.partition(|named| named.is_final);
        if finals.is_empty() && !requests.is_empty() {
            return Ok(Some(Standing::Open));
        }
        if finals.is_empty() {
            return Ok(None);
        }
        Ok(self.final_of(key).await?.map(Standing::Final))
    }

    /// The ids that begin like this; two tell as much as all of them.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn ids(&self, beginning: &str) -> Result<Beginning> {
        let mut found = BTreeSet::new();
        let mut all = true;
        for shard in 0..self.subjects().shards() {
            let stream = self.subjects().journal_stream(shard);
            if self.wire().stream_info(&stream, CALL).await??.state.messages > LISTED {
                all = false;
                continue;
            }
            let filter = self.subjects().requests_in(shard);
            let index = self.wire().index(&stream, &filter).await?;
            let named =
                index.subjects.keys().filter_map(|subject| self.subjects().parse_journal(subject));
            let ids = named.map(|named| named.key.message_id);
            found.extend(ids.filter(|id| id.as_str().starts_with(beginning)));
        }
        if self.has_later().await? {
            let index =
                self.wire().index(&self.later_stream(), &self.subjects().later_requests()).await?;
            let named = index.subjects.keys().filter_map(|it| self.subjects().parse_later(it));
            let ids = named.map(|(named, _)| named.key.message_id);
            found.extend(ids.filter(|id| id.as_str().starts_with(beginning)));
        }
        match self.archived_ids(beginning).await? {
            Beginning::Found(archived) => found.extend(archived),
            Beginning::Unclear if found.len() > 1 => {}
            // There may be others like it.
            Beginning::Unclear => return Ok(Beginning::Unclear),
        }
        Ok(if all || found.len() > 1 { Beginning::Found(found) } else { Beginning::Unclear })
    }
}
