//! Messages, the newest first: of the journal and of HISTORY as one, a page at a time, however many there are.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::str::FromStr;

use common::message::{AttemptEnd, Envelope, Final, MessageKey};
use common::{AgentName, ConversationTag};

use super::record::Archived;
use super::{FIRST, PART, SECOND};
use crate::api::Record;
use crate::back::BackReader;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::inbox::believe;
use crate::journal::{Stored, read_final};

/// What is listed.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only this agent's,
    pub agent: Option<AgentName>,
    /// and of them only this conversation's.
    pub conversation: Option<ConversationTag>,
    /// Only what comes after this place of an earlier list.
    pub after: Option<Cursor>,
    /// How many are wanted, about: it decides how much is read at once.
    pub about: usize,
    /// Only what is in the journal: what is open is nowhere else.
    pub hot: bool,
}

/// A message in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    /// Its request.
    pub request: Stored<Envelope>,
    /// Its final state, if it has one.
    pub final_: Option<Stored<Final>>,
    /// What its attempts ended with, of a message that has left the journal.
    pub attempts: Vec<AttemptEnd>,
    /// Whether it has left the journal.
    pub archived: bool,
}

/// A place in a list: text for people to pass on, without meaning to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(Vec<u64>);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl FromStr for Cursor {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let numbers = text.split('.').map(str::parse).collect::<std::result::Result<_, _>>();
        numbers.map(Self).map_err(|_| "not a place printed by a list".to_owned())
    }
}

/// A list under way.
#[derive(Debug)]
pub struct Listing {
    broker: Broker,
    sources: Vec<Source>,
    /// What was given lately: a message that is being archived is in both.
    given: HashSet<MessageKey>,
    /// Whether final states may come before the place at which this list begins.
    later: bool,
}

/// A stream, with the next message of it.
#[derive(Debug)]
struct Source {
    reader: BackReader,
    is_history: bool,
    /// With its sequence.
    head: Option<(u64, Listed)>,
    /// The sequence of the last one that was given.
    place: u64,
    /// Final states whose requests come later.
    finals: HashMap<MessageKey, Stored<Final>>,
    /// The second record of a message whose first one comes later.
    second: Option<Record>,
    unreadable: usize,
}

impl Broker {
    /// Lists messages, the newest first.
    ///
    /// # Errors
    /// When the broker does not answer, or the place is of another fleet's list.
    pub async fn list(&self, query: &ListQuery) -> Result<Listing> {
        let mut streams = vec![(self.history_stream(), self.history_filter(query), true)];
        match &query.agent {
            Some(agent) => {
                let filter = match &query.conversation {
                    Some(tag) => self.subjects().conversation_of(agent, tag),
                    None => self.subjects().journal_of(agent),
                };
                streams.push((self.journal_stream(agent), filter, false));
            }
            None => streams.extend(
                (0..self.subjects().shards())
                    .map(|shard| (self.subjects().journal_stream(shard), ">".to_owned(), false)),
            ),
        }
        if let Some(Cursor(places)) = &query.after
            && places.len() != streams.len()
        {
            return Err(BrokerError::other("the place is from another list"));
        }
        let about = query.about.clamp(10, 1000) as u64;
        let mut sources = Vec::new();
        for (number, (stream, filter, is_history)) in streams.into_iter().enumerate() {
            let mut before = query.after.as_ref().and_then(|after| after.0.get(number).copied());
            if is_history && query.hot {
                before = Some(0);
            }
            // A message in the journal has two records.
            let page = if is_history { about } else { 2 * about };
            let reader =
                BackReader::new(self.wire(), (stream, filter), self.replicas(), before, page)
                    .await?;
            let place = before.unwrap_or(u64::MAX);
            let mut source = Source {
                reader,
                is_history,
                head: None,
                place,
                finals: HashMap::new(),
                second: None,
                unreadable: 0,
            };
            source.advance(self).await?;
            sources.push(source);
        }
        Ok(Listing {
            broker: self.clone(),
            sources,
            given: HashSet::new(),
            later: query.after.is_some(),
        })
    }

    /// How many messages each of an agent's conversations has; those that are conversations of their own are together.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn conversation_sizes(
        &self,
        agent: &AgentName,
    ) -> Result<BTreeMap<ConversationTag, u64>> {
        let subjects = self.subjects();
        let (history, journal) = (self.history_stream(), self.journal_stream(agent));
        let (history_of, requests_of) = (subjects.history_of(agent), subjects.requests_of(agent));
        let (cold, hot) = tokio::try_join!(
            self.wire().index(&history, &history_of),
            self.wire().index(&journal, &requests_of)
        )?;
        let mut sizes = BTreeMap::new();
        for (subject, count) in cold.subjects {
            if let Some((_, tag)) = subjects.parse_history(&subject) {
                *sizes.entry(tag).or_default() += count;
            }
        }
        for subject in hot.subjects.keys() {
            if let Some(named) = subjects.parse_journal(subject) {
                *sizes.entry(named.conversation).or_default() += 1;
            }
        }
        Ok(sizes)
    }

    fn history_filter(&self, query: &ListQuery) -> String {
        match (&query.agent, &query.conversation) {
            (Some(agent), Some(tag)) => self.subjects().history(agent, tag),
            (Some(agent), None) => self.subjects().history_of(agent),
            (None, _) => ">".to_owned(),
        }
    }
}

impl Listing {
    /// The next message; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<Listed>> {
        loop {
            let at = |source: &Source| source.head.as_ref().map(|(_, head)| head.request.at);
            let Some(source) = self.sources.iter_mut().max_by_key(|source| at(source)) else {
                return Ok(None);
            };
            let Some((place, mut listed)) = source.head.take() else { return Ok(None) };
            source.place = place;
            source.advance(&self.broker).await?;
            let key = listed.request.value.key();
            if !self.given.insert(key.clone()) {
                continue;
            }
            if listed.final_.is_none() && self.later {
                listed.final_ = self.broker.outcome_of(&key).await?;
            }
            return Ok(Some(listed));
        }
    }

    /// What comes after the last message that was given.
    #[must_use]
    pub fn place(&self) -> Cursor {
        Cursor(self.sources.iter().map(|source| source.place).collect())
    }

    /// How many records were met that do not parse.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.sources.iter().map(|source| source.unreadable).sum()
    }
}

impl Source {
    /// Looks for the next message.
    async fn advance(&mut self, broker: &Broker) -> Result<()> {
        while let Some(record) = self.reader.next().await? {
            if broker.subjects().is_filler(&record.subject) {
                continue;
            }
            let read = match self.is_history {
                true => self.archived(broker, record)?,
                false => self.stored(broker, &record),
            };
            if read.is_some() {
                self.head = read;
                return Ok(());
            }
        }
        Ok(())
    }

    fn archived(&mut self, broker: &Broker, record: Record) -> Result<Option<(u64, Listed)>> {
        if record.header(PART) == Some(SECOND) {
            self.second = Some(record);
            return Ok(None);
        }
        let seq = record.seq;
        let mut records = vec![record];
        if records.iter().any(|record| record.header(PART) == Some(FIRST)) {
            records.extend(self.second.take());
        }
        match broker.read_archived(&records) {
            Ok(Archived { request: Some(request), final_, attempts, .. }) => {
                let listed = Listed { request, final_: Some(final_), attempts, archived: true };
                Ok(Some((seq, listed)))
            }
            Ok(Archived { request: None, .. }) | Err(BrokerError::Malformed { .. }) => {
                self.unreadable += 1;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn stored(&mut self, broker: &Broker, record: &Record) -> Option<(u64, Listed)> {
        let Some(named) = broker.subjects().parse_journal(&record.subject) else {
            self.unreadable += 1;
            return None;
        };
        if named.is_final {
            self.finals.insert(named.key, read_final(record));
            return None;
        }
        let final_ = self.finals.remove(&named.key);
        match believe(named, &record.payload) {
            Ok(value) => {
                let request = Stored { value, seq: record.seq, at: record.at };
                let listed = Listed { request, final_, attempts: Vec::new(), archived: false };
                Some((record.seq, listed))
            }
            Err(_) => {
                self.unreadable += 1;
                None
            }
        }
    }
}
