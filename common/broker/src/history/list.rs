//! Messages, the newest first: of the journal and of HISTORY as one, a page at a time, however many there are.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::message::{AttemptEnd, Envelope, Final, MessageKey};
use common::subject::{LaterKind, Subjects};
use common::{AgentName, ConversationTag, SenderName};

use super::cursor::{self, Cursor, Part, Places};
use super::parts::{belongs, is_half};
use super::record::Archived;
use super::{PART, SECOND};
use crate::api::Record;
use crate::back::BackReader;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::inbox::believe;
use crate::journal::{Stored, read_final};

/// With this many parts of HISTORY, the journals are not read on until one has ended: a cursor has a few numbers for each of them.
const PARTS: usize = 16;

/// What is listed.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only this agent's,
    pub agent: Option<AgentName>,
    /// and of them only this conversation's.
    pub conversation: Option<ConversationTag>,
    /// Of this agent's in the journal, only this sender's: what has left it comes whoever sent it, since HISTORY's subjects do not say so.
    pub sender: Option<SenderName>,
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
    query: ListQuery,
    /// Which list it is.
    list: u32,
    /// HISTORY, the newest part first. Each was opened when messages had moved since the one after it was.
    parts: Vec<Source>,
    /// The journals, in the order of their numbers.
    journals: Vec<Source>,
    /// What waits to be delivered later. What moves to the journal while the list is read is new there, and may be missing.
    later: Source,
    /// HISTORY's last sequence when it was last looked at: the parts are what is up to here.
    end: u64,
    /// There are too many parts: one of them has to end before the journals are read on.
    is_full: bool,
    /// What was given lately: a message that is being archived is in both.
    given: HashSet<MessageKey>,
    /// Records that cannot be parsed, of parts that have ended.
    unreadable: usize,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// In a part of HISTORY.
    Part(usize),
    /// In LATER.
    Later,
    /// In a journal.
    Journal(usize),
}

/// A stream, or a part of one, with the next message of it.
#[derive(Debug)]
struct Source {
    /// None: there is no such stream.
    reader: Option<BackReader>,
    /// With its sequence.
    head: Option<(u64, Listed)>,
    /// The sequence of the last one that was given, or where it begins.
    place: u64,
    has_ended: bool,
    /// Of HISTORY: which part of it.
    part: Option<Bounds>,
    /// Final states whose requests come later.
    finals: HashMap<MessageKey, Stored<Final>>,
    /// The second record of a message whose first one comes later.
    second: Option<Record>,
    unreadable: usize,
}

/// A part of HISTORY.
#[derive(Debug, Clone)]
struct Bounds {
    /// It begins after this sequence.
    after: u64,
    /// Of each journal, the sequence from which on everything was given before it moved to this part.
    from: Vec<u64>,
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
                let filter = match (&query.sender, &query.conversation) {
                    (Some(sender), tag) => subjects.journal_from(agent, sender, tag.as_ref()),
                    (None, Some(tag)) => subjects.conversation_of(agent, tag),
                    (None, None) => subjects.journal_of(agent),
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
        let places = after.unwrap_or_default();
        // A message has two records there.
        let page = 2 * page_of(query);
        let mut sources = Vec::new();
        for (number, of) in journals.into_iter().enumerate() {
            let before = places.journals.get(number).copied();
            let reader = BackReader::new(self.wire(), of, self.replicas(), before, page).await?;
            let place = reader.before();
            sources.push(Source::new(Some(reader), place, None));
        }
        let later = self.later_source(query, places.later, page).await?;
        let mut listing = Listing {
            broker: self.clone(),
            query: query.clone(),
            list,
            parts: Vec::new(),
            journals: sources,
            later,
            end: places.end,
            is_full: false,
            given: HashSet::new(),
            unreadable: 0,
        };
        for Part { before, after, from } in places.parts {
            let part = listing.part(Some(before), Bounds { after, from }).await?;
            listing.add(listing.parts.len(), part);
        }
        listing.is_full = listing.parts.len() >= PARTS;
        if !listing.is_full {
            listing.read_journals().await?;
        }
        Ok(listing)
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

    /// What waits to be delivered later.
    async fn later_source(
        &self,
        query: &ListQuery,
        before: Option<u64>,
        page: u64,
    ) -> Result<Source> {
        if !self.has_later().await? {
            return Ok(Source::new(None, 0, None));
        }
        let (sender, tag) = (query.sender.as_ref(), query.conversation.as_ref());
        let filter = match &query.agent {
            Some(agent) => self.subjects().later_to(agent, sender, tag),
            None => self.subjects().later_filter(),
        };
        let of = (self.later_stream(), filter);
        let reader = BackReader::new(self.wire(), of, self.replicas(), before, page).await?;
        let place = reader.before();
        Ok(Source::new(Some(reader), place, None))
    }

    fn history_filter(&self, query: &ListQuery) -> String {
        match (&query.agent, &query.conversation) {
            (Some(agent), Some(tag)) => self.subjects().history(agent, tag),
            (Some(agent), None) => self.subjects().history_of(agent),
            (None, _) => ">".to_owned(),
        }
    }
}

/// How many messages are read at once.
fn page_of(query: &ListQuery) -> u64 {
    query.about.clamp(10, 1000) as u64
}

impl Listing {
    /// The next message; none at the end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn next(&mut self) -> Result<Option<Listed>> {
        loop {
            let Some(newest) = self.newest() else { return Ok(None) };
            let source = match newest {
                Place::Part(number) => &mut self.parts[number],
                Place::Later => &mut self.later,
                Place::Journal(number) => &mut self.journals[number],
            };
            let Some((place, mut listed)) = source.head.take() else { return Ok(None) };
            source.place = place;
            let read = source.before();
            source.advance(&self.broker).await?;
            let (now_read, has_ended) = (source.before(), source.has_ended);
            match newest {
                Place::Part(number) if has_ended => self.end_part(number).await?,
                Place::Journal(number) if read != now_read => {
                    // What has left the journal before it was read on.
                    let mut from = self.read_from();
                    from[number] = read;
                    self.open(from).await?;
                }
                Place::Part(_) | Place::Later | Place::Journal(_) => {}
            }
            let key = listed.request.value.key();
            if !self.given.insert(key.clone()) {
                continue;
            }
            self.skip_given().await?;
            if listed.final_.is_none() && self.query.after.is_some() {
                // It may come before the place at which this list begins.
                listed.final_ = self.broker.outcome_of(&key).await?;
            }
            return Ok(Some(listed));
        }
    }

    /// Goes past what is in HISTORY as well as in the journal while it is archived, and was given from there: the list may end a page here, and what
    /// is next in a part is what the page after begins with.
    async fn skip_given(&mut self) -> Result<()> {
        let mut number = 0;
        while let Some(part) = self.parts.get_mut(number) {
            let is_given =
                |(_, head): &mut (u64, Listed)| self.given.contains(&head.request.value.key());
            let Some((place, _)) = part.head.take_if(is_given) else {
                number += 1;
                continue;
            };
            part.place = place;
            part.advance(&self.broker).await?;
            if part.has_ended {
                self.end_part(number).await?;
                number = 0;
            }
        }
        Ok(())
    }

    /// A part has ended: there may be room for what has moved since.
    async fn end_part(&mut self, number: usize) -> Result<()> {
        let ended = self.parts.remove(number);
        self.unreadable += ended.unreadable;
        if self.is_full && self.parts.len() < PARTS {
            self.is_full = false;
            self.read_journals().await?;
        }
        Ok(())
    }

    /// Where the newest message is. Of two that are as new it is the journal's: it may move to HISTORY while the list is read.
    fn newest(&self) -> Option<Place> {
        // The oldest part is what was there when the list began. It is not what there are too many of.
        let parts = self.parts.len() - usize::from(self.is_full);
        let parts = self.parts.iter().take(parts).enumerate();
        let parts = parts.map(|(number, source)| (Place::Part(number), source));
        let journals = if self.is_full { &[] } else { self.journals.as_slice() };
        let journals = journals.iter().enumerate();
        let journals = journals.map(|(number, source)| (Place::Journal(number), source));
        let later = Some((Place::Later, &self.later)).filter(|_| !self.is_full);
        let all = parts.chain(later).chain(journals).filter_map(|(place, source)| {
            let (_, head) = source.head.as_ref()?;
            Some((head.request.at, place))
        });
        all.max().map(|(_, place)| place)
    }

    /// Of each journal, the sequence from which on it was read.
    fn read_from(&self) -> Vec<u64> {
        let read = |source: &Source| if source.has_ended { 0 } else { source.before() };
        self.journals.iter().map(read).collect()
    }

    /// Starts to read the journals where an earlier page ended.
    async fn read_journals(&mut self) -> Result<()> {
        // On the first page, nothing was given before.
        let is_first = self.query.after.is_none();
        let from = if is_first { Vec::new() } else { self.read_from() };
        // What has left it by then is in a journal.
        self.later.advance(&self.broker).await?;
        for journal in &mut self.journals {
            journal.advance(&self.broker).await?;
        }
        // After they were looked at: what has left one of them before that is in HISTORY by now.
        self.open(from).await
    }

    /// Adds what has moved to HISTORY since it was looked at.
    async fn open(&mut self, from: Vec<u64>) -> Result<()> {
        // All was given from the journals.
        if self.query.hot || (!from.is_empty() && from.iter().all(|from| *from == 0)) {
            return Ok(());
        }
        // Where nothing was given since, it is one part with the one before.
        let newest = self.parts.first().filter(|part| part.place == self.end + 1);
        let bounds = newest.and_then(|newest| newest.part.as_ref());
        let extends = bounds.filter(|bounds| bounds.from == from).map(|bounds| bounds.after);
        let after = extends.unwrap_or(self.end);
        let part = self.part(None, Bounds { after, from }).await?;
        let end = part.place.saturating_sub(1);
        if end > self.end {
            if extends.is_some() {
                self.parts.remove(0);
            }
            self.end = end;
            self.add(0, part);
        }
        Ok(())
    }

    fn add(&mut self, at: usize, part: Source) {
        match part.has_ended {
            true => self.unreadable += part.unreadable,
            false => self.parts.insert(at, part),
        }
    }

    /// A part of HISTORY before a sequence, or the end.
    async fn part(&self, before: Option<u64>, bounds: Bounds) -> Result<Source> {
        let of = (self.broker.history_stream(), self.broker.history_filter(&self.query));
        let (broker, page) = (&self.broker, page_of(&self.query));
        let reader = BackReader::new(broker.wire(), of, broker.replicas(), before, page).await?;
        let reader = reader.after(bounds.after);
        let place = reader.before();
        let mut part = Source::new(Some(reader), place, Some(bounds));
        part.advance(broker).await?;
        Ok(part)
    }

    /// What comes after the last message that was given.
    #[must_use]
    pub fn place(&self) -> Cursor {
        let place = |source: &Source| if source.has_ended { 0 } else { source.place };
        let journals: Vec<u64> = self.journals.iter().map(place).collect();
        let part = |source: &Source| {
            let Bounds { after, from } = source.part.clone()?;
            // What was read and not given is read again.
            let from = from.iter().zip(&journals).map(|(read, given)| *read.max(given)).collect();
            Some(Part { before: source.place, after, from })
        };
        let parts = self.parts.iter().filter_map(part).collect();
        let later = Some(place(&self.later));
        Cursor::new(self.list, Places { end: self.end, journals, later, parts })
    }

    /// How many records were met that cannot be parsed.
    #[must_use]
    pub fn unreadable(&self) -> usize {
        let sources = self.parts.iter().chain(&self.journals).chain([&self.later]);
        self.unreadable + sources.map(|source| source.unreadable).sum::<usize>()
    }
}

impl Source {
    fn new(reader: Option<BackReader>, place: u64, part: Option<Bounds>) -> Self {
        Self {
            reader,
            head: None,
            place,
            has_ended: false,
            part,
            finals: HashMap::new(),
            second: None,
            unreadable: 0,
        }
    }

    /// The sequence before which it is read on.
    fn before(&self) -> u64 {
        self.reader.as_ref().map_or(0, BackReader::before)
    }

    /// Whether a message that is in HISTORY was given while it was in the journal.
    fn was_given(&self, broker: &Broker, agent: &AgentName, journal_seq: u64) -> bool {
        let Some(Bounds { from, .. }) = &self.part else { return false };
        let journal = if from.len() == 1 { 0 } else { broker.subjects().shard(agent) as usize };
        from.get(journal).is_some_and(|from| journal_seq >= *from)
    }

    /// Looks for the next message.
    async fn advance(&mut self, broker: &Broker) -> Result<()> {
        while let Some(reader) = &mut self.reader
            && let Some(record) = reader.next().await?
        {
            if Subjects::is_filler(&record.subject) {
                continue;
            }
            let read = match self.part {
                Some(_) => self.archived(broker, record)?,
                None => self.stored(broker, &record),
            };
            if read.is_some() {
                self.head = read;
                return Ok(());
            }
        }
        self.has_ended = true;
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
                if self.was_given(broker, &key.agent, request.seq) =>
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
        let subjects = broker.subjects();
        let named = match subjects.parse_later(&record.subject) {
            // Its request comes, and it may be in the journal.
            Some((_, LaterKind::Given)) => return None,
            Some((named, LaterKind::Request | LaterKind::Final)) => Some(named),
            None => subjects.parse_journal(&record.subject),
        };
        let Some(named) = named else {
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
