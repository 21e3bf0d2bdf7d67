//! Messages, the newest first: of the journal and of HISTORY as one, a page at a time, however many there are.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::message::{AttemptEnd, Envelope, Final, MessageKey};
use common::subject::Subjects;
use common::{AgentName, ConversationTag};

use super::cursor::{self, Cursor, Given, Places};
use super::parts::{belongs, is_half};
use super::record::Archived;
use super::{PART, SECOND};
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

/// A list under way.
#[derive(Debug)]
pub struct Listing {
    broker: Broker,
    /// Which list it is.
    list: u32,
    /// The journals, in the order of their numbers, and HISTORY.
    sources: Vec<Source>,
    /// HISTORY's last sequence when this began, as far as it is listed.
    end: u64,
    /// What earlier pages gave of what has moved to HISTORY since.
    moved: Option<Given>,
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
    /// The sequence of the last one that was given, or where it begins.
    place: u64,
    /// Of HISTORY: what was given before it was there.
    moved: Option<Given>,
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
    /// When the broker does not answer, or the place is of another list.
    pub async fn list(&self, query: &ListQuery) -> Result<Listing> {
        let subjects = self.subjects();
        let journals = match &query.agent {
            Some(agent) => {
                let filter = match &query.conversation {
                    Some(tag) => subjects.conversation_of(agent, tag),
                    None => subjects.journal_of(agent),
                };
                vec![(self.journal_stream(agent), filter)]
            }
            None => (0..subjects.shards())
                .map(|shard| (subjects.journal_stream(shard), ">".to_owned()))
                .collect(),
        };
        let list = cursor::list(subjects.namespace().as_str(), query);
        let after = match &query.after {
            Some(after) => Some(after.places(list, journals.len()).ok_or(BrokerError::OtherList)?),
            None => None,
        };
        let about = query.about.clamp(10, 1000) as u64;
        let mut sources = Vec::new();
        for (number, of) in journals.into_iter().enumerate() {
            let before = after.as_ref().and_then(|after| after.journals.get(number).copied());
            // A message has two records there.
            let page = 2 * about;
            let reader = BackReader::new(self.wire(), of, self.replicas(), before, page).await?;
            let place = reader.before();
            let mut journal = Source::new(reader, place);
            journal.advance(self).await?;
            sources.push(journal);
        }
        // After the journals were looked at: what has left one of them before that is in HISTORY by now.
        let of = (self.history_stream(), self.history_filter(query));
        let place = after.as_ref().map_or(0, |after| after.history);
        let before = if query.hot { Some(0) } else { Some(place).filter(|place| *place > 0) };
        let reader = BackReader::new(self.wire(), of, self.replicas(), before, about).await?;
        let end = reader.before().saturating_sub(1);
        // As long as nothing has moved, or what has is behind this place, it is simply all that the journals have given so far.
        let given = after.map(|after| after.given);
        let moved = given.filter(|given| given.end < end);
        let mut history = Source { is_history: true, ..Source::new(reader, place) };
        history.moved = moved.clone();
        history.advance(self).await?;
        sources.push(history);
        Ok(Listing {
            broker: self.clone(),
            list,
            sources,
            end,
            moved,
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
        let (mut journals, mut history) = (Vec::new(), 0);
        for source in &self.sources {
            match source.is_history {
                true => history = source.place,
                false => journals.push(source.place),
            }
        }
        let all = || Given { end: self.end, from: journals.clone() };
        let given = self.moved.clone().unwrap_or_else(all);
        Cursor::new(self.list, Places { history, journals, given })
    }

    /// How many records were met that do not parse.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        self.sources.iter().map(|source| source.unreadable).sum()
    }
}

impl Source {
    fn new(reader: BackReader, place: u64) -> Self {
        Self {
            reader,
            is_history: false,
            head: None,
            place,
            moved: None,
            finals: HashMap::new(),
            second: None,
            unreadable: 0,
        }
    }

    /// Whether a message that is in HISTORY was given while it was in the journal.
    fn was_given(&self, broker: &Broker, agent: &AgentName, seq: u64, journal_seq: u64) -> bool {
        let moved = self.moved.as_ref().filter(|given| seq > given.end);
        let Some(Given { from, .. }) = moved else { return false };
        let journal = if from.len() == 1 { 0 } else { broker.subjects().shard(agent) as usize };
        from.get(journal).is_some_and(|from| journal_seq >= *from)
    }

    /// Looks for the next message.
    async fn advance(&mut self, broker: &Broker) -> Result<()> {
        while let Some(record) = self.reader.next().await? {
            if Subjects::is_filler(&record.subject) {
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
        let second = self.second.take();
        records.extend(second.filter(|second| records.iter().any(|first| belongs(first, second))));
        if is_half(&records) {
            return Ok(None);
        }
        match broker.read_archived(&records) {
            Ok(Archived { request: Some(request), key, .. })
                if self.was_given(broker, &key.agent, seq, request.seq) =>
            {
                Ok(None)
            }
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
