//! One open turn: the numbers of its events, what is still unpublished, its answer so far, its deadline. Pure.

use common::event::{ATTEMPT_STRIDE, Event, EventBody, sequence};

use crate::book::{GRACE_US, Now};
use crate::people::People;
use crate::secrets::Secrets;
use crate::steps::Steps;

/// Events wait this long for company, so that a burst is one publish and a quick turn none at all.
const COALESCE_US: u64 = 2_000;
/// A turn that says nothing is on record as delivered after this time.
const DELIVERED_US: u64 = 20_000;
/// Unpublished events of one turn beyond this many bytes stop the worker's pipe.
const CONGESTED: usize = 256 * 1024;
/// Events of at most this many bytes ride in the final state.
const TAIL: usize = 16 * 1024;
/// The longest text in one event, in bytes before JSON's escapes, which make six of one at most; longer ones are split.
const PIECE: usize = 128 * 1024;
/// The most bytes of events in one publish, unless a single event is larger.
const BATCH: usize = 256 * 1024;
/// The longest answer, in bytes, before JSON's escapes.
const ANSWER: usize = common::message::MAX_RECORD;
pub(crate) const TOO_LARGE: &str =
    "the answer does not fit a record of the journal (1,044,480 bytes)";
/// What one turn may say beside its texts, in bytes.
const SAID: usize = 8 << 20;
/// What an event takes beyond its body.
const FRAME: usize = 112;

/// An open turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) attempt: u32,
    /// When it is given up, unless the worker makes progress.
    pub(crate) deadline_us: u64,
    /// Set once the deadline has passed: when the worker is ended.
    pub(crate) grace_us: Option<u64>,
    /// Its message is final already: what the worker still says about it is dropped, and no progress.
    pub(crate) cancelled: bool,
    index: u64,
    /// With their sizes.
    pending: Vec<(Event, usize)>,
    pending_bytes: usize,
    flush_us: Option<u64>,
    in_flight: bool,
    /// When the events under way, or the final state, were first sent.
    sent_us: Option<u64>,
    text: String,
    /// The end of what the worker said so far that may be the beginning of a secret.
    held: String,
    /// Why it cannot be answered any more, though the worker has not ended it.
    broken: Option<String>,
    /// Bytes of events beside texts.
    said: usize,
    acknowledged: bool,
    /// Whether events were left out.
    omits: bool,
    overflow: Option<&'static str>,
    /// When the first text of the answer came.
    pub(crate) first_text_us: Option<u64>,
    /// What it stores as it goes; none if it never has.
    steps: Option<Box<Steps>>,
    /// What it has asked people; none if it never has.
    people: Option<Box<People>>,
}

impl Turn {
    pub(crate) fn new(attempt: u32, incarnation: u64, now: Now, timeout_us: u64) -> Self {
        let mut turn = Self::silent(attempt, now);
        turn.deadline_us = now.us.saturating_add(timeout_us);
        turn.flush_us = Some(now.us + DELIVERED_US);
        if attempt > 1 {
            turn.add(now, EventBody::Reset { attempt }, 0);
        }
        turn.add(now, EventBody::Delivered { incarnation }, 0);
        turn
    }

    /// A turn that never was, for a message that ends without one.
    pub(crate) fn silent(attempt: u32, now: Now) -> Self {
        Self {
            attempt,
            deadline_us: now.us,
            grace_us: None,
            cancelled: false,
            index: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            flush_us: None,
            in_flight: false,
            sent_us: None,
            text: String::new(),
            held: String::new(),
            broken: None,
            said: 0,
            acknowledged: false,
            omits: false,
            overflow: None,
            first_text_us: None,
            steps: None,
            people: None,
        }
    }

    /// A turn whose earlier attempts have stored these.
    pub(crate) fn with_steps(self, steps: Option<Box<Steps>>) -> Self {
        Self { steps, ..self }
    }

    /// Its steps; none if it has stored none.
    pub(crate) fn steps(&mut self) -> Option<&mut Steps> {
        self.steps.as_deref_mut()
    }

    /// The same, for one more.
    pub(crate) fn steps_mut(&mut self) -> &mut Steps {
        self.steps.get_or_insert_default()
    }

    /// Whether steps of it are being stored: the worker waits for that, and so does whatever comes after the turn.
    pub(crate) fn stores_steps(&self) -> bool {
        self.steps.as_ref().is_some_and(|steps| steps.are_under_way())
    }

    /// Its questions to people; none if it has asked none.
    pub(crate) fn people(&mut self) -> Option<&mut People> {
        self.people.as_deref_mut()
    }

    /// The same, for one more.
    pub(crate) fn people_mut(&mut self) -> &mut People {
        self.people.get_or_insert_default()
    }

    /// Whether the worker waits for a person: its deadline does not pass meanwhile, unless it is to end anyway.
    pub(crate) fn waits_for_people(&self) -> bool {
        !self.cancelled && self.people.as_ref().is_some_and(|people| people.are_open())
    }

    /// When something is to be done about its questions.
    pub(crate) fn people_us(&self) -> Option<u64> {
        self.people.as_ref().filter(|_| !self.cancelled)?.next_us()
    }

    /// The worker did something for this turn.
    pub(crate) fn progress(&mut self, now: Now, timeout_us: u64) {
        if self.grace_us.is_none() && !self.cancelled {
            self.deadline_us = now.us.saturating_add(timeout_us);
        }
    }

    /// For so long nobody could hear the worker.
    pub(crate) fn forgive(&mut self, us: u64) {
        self.deadline_us = self.deadline_us.saturating_add(us);
        self.grace_us = self.grace_us.map(|grace| grace.saturating_add(us));
    }

    fn add(&mut self, now: Now, body: EventBody, bytes: usize) {
        self.index += 1;
        if self.index > ATTEMPT_STRIDE {
            self.overflow = Some("more than 1000000 events in one turn");
            return;
        }
        let event = Event { seq: sequence(self.attempt, self.index), at: now.at, body };
        self.pending.push((event, bytes + FRAME));
        self.pending_bytes += bytes + FRAME;
    }

    /// An event that readers want to see soon. `bytes`: the size of what it says, as JSON.
    pub(crate) fn push(&mut self, now: Now, body: EventBody, bytes: usize) {
        self.add(now, body, bytes);
        let soon = now.us + COALESCE_US;
        self.flush_us = Some(self.flush_us.map_or(soon, |at| at.min(soon)));
    }

    /// The worker has the message: on record once.
    pub(crate) fn acknowledge(&mut self, now: Now) {
        if !std::mem::replace(&mut self.acknowledged, true) {
            self.push(now, EventBody::Acknowledged, 0);
        }
    }

    /// Whether another event of so many bytes is within what one turn may say beside its texts.
    pub(crate) fn may_say(&self, bytes: usize) -> bool {
        !self.omits && self.said + bytes + FRAME <= SAID
    }

    /// An event of the worker's own.
    pub(crate) fn say(&mut self, now: Now, event: serde_json::Value, bytes: usize) {
        self.said += bytes + FRAME;
        self.push(now, EventBody::Worker { event }, bytes);
    }

    /// An event is left out, and from then on all of this turn's: the first time that is said, and true.
    pub(crate) fn omit(&mut self, now: Now, why: &str) -> bool {
        let first = !std::mem::replace(&mut self.omits, true);
        if first {
            let event = serde_json::json!({ "type": "omitted", "reason": why });
            self.push(now, EventBody::Worker { event }, why.len() + FRAME);
        }
        first
    }

    /// An event is left out, and others are not.
    pub(crate) fn leave_out(&mut self, now: Now, why: &str) {
        if self.may_say(why.len()) {
            let event = serde_json::json!({ "type": "omitted", "reason": why });
            self.say(now, event, why.len() + FRAME);
        }
    }

    /// It cannot be answered any more: the worker has some time to end it.
    pub(crate) fn break_off(&mut self, now: Now, why: &str) {
        if self.broken.is_none() {
            self.broken = Some(why.to_owned());
            self.grace_us.get_or_insert(now.us.saturating_add(GRACE_US));
        }
    }

    /// Why it cannot be answered any more.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    /// A piece of the answer, without the secrets in it: one may be told in pieces.
    pub(crate) fn push_text(&mut self, now: Now, text: &str, secrets: &Secrets) {
        self.first_text_us.get_or_insert(now.us);
        if self.held.is_empty() && secrets.begun(text) == 0 {
            return self.say_text(now, &secrets.text(text.into()));
        }
        self.held.push_str(text);
        let said = secrets.text(std::mem::take(&mut self.held).into());
        let (said, held) = said.split_at(said.len() - secrets.begun(&said));
        self.say_text(now, said);
        if self.text.len() + held.len() > ANSWER {
            self.overflow = Some(TOO_LARGE);
        }
        self.held = held.to_owned();
    }

    /// What was held back: nothing comes after it.
    pub(crate) fn push_rest(&mut self, now: Now) {
        let rest = std::mem::take(&mut self.held);
        self.say_text(now, &rest);
    }

    fn say_text(&mut self, now: Now, text: &str) {
        if self.text.len() + text.len() > ANSWER {
            self.overflow = Some(TOO_LARGE);
            return;
        }
        self.text.push_str(text);
        let mut rest = text;
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rest.floor_char_boundary(PIECE));
            self.push(now, EventBody::Text { text: piece.to_owned() }, json_len(piece));
            rest = more;
        }
    }

    /// Why this turn cannot go on, if it said too much.
    pub(crate) fn overflow(&self) -> Option<&'static str> {
        self.overflow
    }

    /// The texts joined: the answer of a worker that gives none itself.
    pub(crate) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.text)
    }

    /// Whether the worker should be slowed down.
    pub(crate) fn congested(&self) -> bool {
        let steps = self.steps.as_ref().map_or(0, |steps| steps.waiting_bytes());
        self.pending_bytes > CONGESTED || steps > CONGESTED
    }

    /// Whether nothing of it was published, not even that it began.
    pub(crate) fn is_unsaid(&self) -> bool {
        !self.in_flight && self.pending.len() as u64 == self.index
    }

    /// Whether nothing is left to publish.
    pub(crate) fn is_published(&self) -> bool {
        !self.in_flight && self.pending.is_empty() && !self.stores_steps()
    }

    /// When [`Self::take_batch`] has something.
    pub(crate) fn due_us(&self) -> Option<u64> {
        if self.in_flight || self.pending.is_empty() { None } else { self.flush_us }
    }

    /// The next events to publish. One publish is under way at a time: that keeps their order.
    pub(crate) fn take_batch(&mut self, now: Now) -> Vec<Event> {
        let mut bytes = 0;
        let fits = |(_, size): &&(Event, usize)| {
            bytes += size;
            bytes <= BATCH
        };
        let count = self.pending.iter().take_while(fits).count().max(1).min(self.pending.len());
        let batch = self.pending.drain(..count).map(|(event, size)| {
            self.pending_bytes -= size;
            event
        });
        let batch: Vec<Event> = batch.collect();
        self.in_flight = !batch.is_empty();
        self.sent_us = self.in_flight.then_some(now.us);
        if self.pending.is_empty() {
            self.flush_us = None;
        }
        batch
    }

    /// The batch under way is stored.
    pub(crate) fn batch_stored(&mut self) {
        self.in_flight = false;
        self.sent_us = None;
    }

    /// Since when the broker owes an answer; none while it does not.
    pub(crate) fn sent_us(&self) -> Option<u64> {
        self.sent_us
    }

    /// The unpublished events, if they are few enough for the final state.
    pub(crate) fn take_tail(&mut self, now: Now) -> Option<Vec<Event>> {
        if self.in_flight || self.pending_bytes > TAIL || self.stores_steps() {
            return None;
        }
        self.sent_us = Some(now.us);
        self.pending_bytes = 0;
        self.flush_us = None;
        Some(self.pending.drain(..).map(|(event, _)| event).collect())
    }

    /// Undoes [`Self::take_tail`]: the events are to be published on their own, at once.
    pub(crate) fn put_back(&mut self, tail: Vec<Event>) {
        self.flush_us = Some(0);
        self.sent_us = None;
        // All of a tail fits one batch, whatever each of them takes.
        self.pending = tail.into_iter().map(|event| (event, FRAME)).collect();
        self.pending_bytes = self.pending.len() * FRAME;
    }
}

/// How many bytes a text takes as JSON, without its quotes.
pub(crate) fn json_len(text: &str) -> usize {
    let len = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(len).sum()
}
