//! A reader's view of the events of one message: what to show, in which order, and when it ends. Pure.
//!
//! Events come live, from the store, and with the final state; twice, late, or from an incarnation that is no longer the
//! current one. What comes out is in order, each event once, and never text of two attempts without a [`Item::Reset`] between.

use broker::EventBatch;
use common::MessageId;
use common::event::{ATTEMPT_STRIDE, Event, EventBody, attempt_of, sequence};
use common::message::{Final, Outcome, Status};
use serde::Serialize;
use serde_json::Value;

/// What a reader sees. `seq` is the position in the stream of events: a reader that goes on after it misses nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "type")]
#[expect(missing_docs, reason = "a field of an item is what its name says")]
pub enum Item {
    /// A piece of the answer.
    Text { text: String, seq: u64, attempt: u32 },
    /// Another event of the worker.
    Event { event: Value, seq: u64, attempt: u32 },
    /// The attempt ended without an answer.
    Error { error: String, seq: u64, attempt: u32 },
    /// Forget what came before. `incarnation`: which one begins the attempt anew, where another one had begun it; none where it is another
    /// attempt.
    Reset {
        seq: u64,
        attempt: u32,
        #[serde(skip)]
        incarnation: Option<u64>,
    },
    /// The last one.
    Done {
        status: Status,
        #[serde(skip_serializing_if = "Option::is_none")]
        response: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        seq: u64,
        attempt: u32,
    },
}

impl Item {
    /// Its position.
    #[must_use]
    pub fn seq(&self) -> u64 {
        match self {
            Self::Text { seq, .. }
            | Self::Event { seq, .. }
            | Self::Error { seq, .. }
            | Self::Reset { seq, .. }
            | Self::Done { seq, .. } => *seq,
        }
    }
}

/// An item with its message, as programs read it.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Line<'a> {
    /// The item.
    #[serde(flatten)]
    pub item: &'a Item,
    /// The message.
    pub message_id: &'a MessageId,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for more.
    Wait,
    /// Something is missing: read the stored events and hand them to [`Stream::stored`].
    Read,
    /// Nothing more will come.
    End,
}

/// One reader of one message.
#[derive(Debug)]
pub struct Stream {
    /// Whether a broken attempt is followed by the next one; else it is the end.
    follow: bool,
    /// Events up to this one are known to the reader,
    from: u64,
    /// of this incarnation, where the reader says so.
    of: Option<u64>,
    turn: Option<Turn>,
    status: Status,
    final_: Option<Box<Final>>,
    ended: bool,
}

/// The attempt that is being read.
#[derive(Debug)]
struct Turn {
    attempt: u32,
    incarnation: u64,
    /// The number of its last event.
    last: u64,
    /// Its texts joined.
    text: String,
    /// Whether its error was shown.
    broken: bool,
    /// Whether events of it are lost for good.
    gap: bool,
    /// Whether another incarnation had begun it before.
    anew: bool,
}

impl Stream {
    /// A reader who knows the events up to `from`. Where two incarnations have begun that attempt, the reader gets all of the later one.
    pub fn new(follow: bool, from: u64) -> Self {
        Self::after(follow, from, None)
    }

    /// The same, of a reader who knows which incarnation the events are of: none of them comes again.
    pub fn after(follow: bool, from: u64, of: Option<u64>) -> Self {
        let status = Status::Pending;
        Self { follow, from, of, turn: None, status, final_: None, ended: false }
    }

    /// The status of the message, as far as this reader knows.
    pub fn status(&self) -> Status {
        self.final_.as_ref().map_or(self.status, |final_| final_.status.into())
    }

    /// The final state, once it was seen.
    pub fn final_(&self) -> Option<&Final> {
        self.final_.as_deref()
    }

    /// Whether the last item was given.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The number of the last event that the reader knows.
    pub fn last(&self) -> u64 {
        self.turn.as_ref().map_or(0, |turn| turn.last).max(self.from)
    }

    /// The incarnation that has the message, unless its attempt has ended.
    pub fn open_incarnation(&self) -> Option<u64> {
        self.turn.as_ref().filter(|turn| !turn.broken).map(|turn| turn.incarnation)
    }

    /// Events as they come.
    pub fn live(&mut self, batch: EventBatch, out: &mut Vec<Item>) -> Next {
        self.take(batch, out, true)
    }

    /// All stored events: what is not among them is lost.
    pub fn stored(&mut self, batches: Vec<EventBatch>, out: &mut Vec<Item>) -> Next {
        for batch in batches {
            if self.stored_part(batch, out) == Next::End {
                return Next::End;
            }
        }
        self.stored_end(out)
    }

    /// Some of the stored events, in order, from the first one on.
    pub fn stored_part(&mut self, batch: EventBatch, out: &mut Vec<Item>) -> Next {
        self.take(batch, out, false)
    }

    /// There are no more: what was not among them is lost.
    pub fn stored_end(&mut self, out: &mut Vec<Item>) -> Next {
        self.finish(out)
    }

    /// The final state. The shim stores it after all events that it does not hold itself.
    pub fn finally(&mut self, final_: Final, out: &mut Vec<Item>) -> Next {
        if self.ended {
            return Next::End;
        }
        let complete = match (final_.tail.first(), &self.turn) {
            (Some(first), turn) => first.seq == turn.as_ref().map_or(1, |turn| turn.last + 1),
            (None, Some(turn)) => final_.response.as_deref() == Some(turn.text.as_str()),
            (None, None) => false,
        };
        self.final_ = Some(Box::new(final_));
        if complete { self.finish(out) } else { Next::Read }
    }

    /// An incarnation is gone, and what it had to say is stored. If it had the message, the attempt is broken.
    pub fn exited(&mut self, incarnation: u64, how: &str, out: &mut Vec<Item>) -> Next {
        if self.ended {
            return Next::End;
        }
        if self.open_incarnation() != Some(incarnation) {
            return Next::Wait;
        }
        self.broken(how.to_owned(), out)
    }

    /// The reader is disconnected.
    pub fn close(&mut self, why: &str, out: &mut Vec<Item>) -> Next {
        if !self.ended {
            let (seq, attempt) = (self.last(), self.attempt());
            out.push(Item::Error { error: why.to_owned(), seq, attempt });
            self.done(out);
        }
        Next::End
    }

    fn attempt(&self) -> u32 {
        self.turn.as_ref().map_or(1, |turn| turn.attempt)
    }

    fn take(&mut self, batch: EventBatch, out: &mut Vec<Item>, live: bool) -> Next {
        if self.ended {
            return Next::End;
        }
        let ours = (batch.attempt, batch.incarnation);
        let current = self.turn.as_ref().map(|turn| (turn.attempt, turn.incarnation));
        if current.is_some_and(|current| ours < current) {
            // Late words of an attempt that is over.
            return Next::Wait;
        }
        let before = sequence(batch.attempt, 0);
        let last = match &self.turn {
            Some(turn) if current == Some(ours) => turn.last,
            _ => before,
        };
        let Some(first) = batch.events.iter().map(|event| event.seq).find(|seq| *seq > last) else {
            return Next::Wait;
        };
        let missing = first != last + 1;
        // Of an earlier attempt the end may be missing: the store knows.
        let skipped = current.is_some_and(|(attempt, _)| ours.0 > attempt + 1);
        if live && (missing || skipped || (current.is_none() && ours.0 > 1)) {
            return Next::Read;
        }
        if current != Some(ours) && self.begin(ours, &batch.events, out) == Next::End {
            return Next::End;
        }
        if let Some(turn) = &mut self.turn {
            turn.gap |= missing;
        }
        self.events(batch.events, out)
    }

    /// An attempt begins with these events. A reader that saw events of an earlier one is told to forget them.
    fn begin(
        &mut self,
        (attempt, incarnation): (u32, u64),
        events: &[Event],
        out: &mut Vec<Item>,
    ) -> Next {
        if let Some(earlier) = self.turn.as_ref().map(|turn| turn.attempt)
            && !self.follow
        {
            return self.broken(format!("attempt {earlier} was interrupted"), out);
        }
        let last = sequence(attempt, 0);
        let told = matches!(events.first(), Some(Event { body: EventBody::Reset { .. }, .. }));
        let knows_earlier = self.turn.is_some() || self.position().is_some();
        let is_known = self.is_of_reader(attempt, |of| incarnation <= of);
        let anew = self.is_anew(attempt, incarnation);
        if anew {
            // What the reader knows of this attempt, another incarnation has said.
            (self.from, self.of) = (last, Some(incarnation));
        }
        if knows_earlier && !is_known && !told && last >= self.from {
            let incarnation = anew.then_some(incarnation);
            out.push(Item::Reset { seq: last, attempt, incarnation });
        }
        let (text, broken, gap) = (String::new(), false, false);
        self.turn = Some(Turn { attempt, incarnation, last, text, broken, gap, anew });
        Next::Wait
    }

    /// Whether an incarnation begins an attempt anew of which the reader knows what an earlier one has said.
    fn is_anew(&self, attempt: u32, incarnation: u64) -> bool {
        if self.position().is_some_and(|known| attempt < known) {
            return false;
        }
        match (&self.turn, self.of.filter(|_| self.position() == Some(attempt))) {
            // Its position says of which one it knows.
            (_, Some(of)) => incarnation > of,
            (Some(turn), None) => turn.attempt == attempt,
            (None, None) => false,
        }
    }

    /// The attempt that the reader knows events of; none: it knows nothing. Who has been told that an attempt begins, knows of that one.
    fn position(&self) -> Option<u32> {
        let knows = self.from > 0 || self.of.is_some();
        knows.then(|| u32::try_from(self.from / ATTEMPT_STRIDE + 1).unwrap_or(u32::MAX))
    }

    /// Whether an attempt is the one that the reader knows of, and its incarnation stands so to the one that is compared.
    fn is_of_reader(&self, attempt: u32, is: impl Fn(u64) -> bool) -> bool {
        self.position() == Some(attempt) && self.of.is_some_and(is)
    }

    /// The events of the turn that are new.
    fn events(&mut self, events: Vec<Event>, out: &mut Vec<Item>) -> Next {
        for event in events {
            let known = self.turn.as_ref().map_or(0, |turn| turn.last);
            if event.seq > known && self.event(event, out) == Next::End {
                return Next::End;
            }
        }
        Next::Wait
    }

    fn event(&mut self, event: Event, out: &mut Vec<Item>) -> Next {
        let Event { seq, body, .. } = event;
        let attempt = self.attempt();
        if let Some(turn) = &mut self.turn {
            turn.last = seq;
        }
        match body {
            EventBody::Delivered { .. } => self.status = Status::Delivered,
            EventBody::Acknowledged => self.status = Status::Acknowledged,
            EventBody::Text { text } => {
                if let Some(turn) = &mut self.turn {
                    turn.text.push_str(&text);
                }
                self.show(seq, Item::Text { text, seq, attempt }, out);
            }
            EventBody::Worker { event } => {
                self.show(seq, Item::Event { event, seq, attempt }, out);
            }
            EventBody::Reset { .. } => {
                let turn = self.turn.as_ref().filter(|turn| turn.anew);
                let incarnation = turn.map(|turn| turn.incarnation);
                self.show(seq, Item::Reset { seq, attempt, incarnation }, out);
            }
            EventBody::Error { error } => {
                self.show(seq, Item::Error { error, seq, attempt }, out);
                return self.end_attempt(out);
            }
        }
        Next::Wait
    }

    /// The attempt ended, and no event says so.
    fn broken(&mut self, error: String, out: &mut Vec<Item>) -> Next {
        let (seq, attempt) = (self.last(), self.attempt());
        out.push(Item::Error { error, seq, attempt });
        self.end_attempt(out)
    }

    fn end_attempt(&mut self, out: &mut Vec<Item>) -> Next {
        if let Some(turn) = &mut self.turn {
            turn.broken = true;
        }
        if self.follow {
            return Next::Wait;
        }
        self.done(out);
        Next::End
    }

    /// Ends with the final state, if it is known.
    fn finish(&mut self, out: &mut Vec<Item>) -> Next {
        if self.ended {
            return Next::End;
        }
        let Some(mut final_) = self.final_.take() else {
            return Next::Wait;
        };
        let tail = std::mem::take(&mut final_.tail);
        self.final_ = Some(final_.clone());
        if self.tail(&final_, tail, out) == Next::End {
            return Next::End;
        }
        match final_.status {
            Outcome::Completed => self.mend(&final_, out),
            Outcome::Failed | Outcome::Cancelled | Outcome::Expired => {
                if self.turn.as_ref().is_none_or(|turn| !turn.broken) {
                    let (seq, attempt) = (self.last(), self.attempt());
                    let status = Status::from(final_.status).as_str();
                    let error = final_.reason.unwrap_or_else(|| status.to_owned());
                    out.push(Item::Error { error, seq, attempt });
                }
            }
        }
        self.done(out);
        Next::End
    }

    /// The events that came with the final state.
    fn tail(&mut self, final_: &Final, tail: Vec<Event>, out: &mut Vec<Item>) -> Next {
        let Some(first) = tail.first().map(|event| event.seq) else {
            return Next::Wait;
        };
        let current = self.turn.as_ref().map(|turn| (turn.attempt, turn.incarnation));
        let incarnation = final_.incarnation.or(current.map(|(_, incarnation)| incarnation));
        let ours = (attempt_of(first), incarnation.unwrap_or(0));
        if current.is_some_and(|current| ours < current) {
            // An earlier attempt was first to answer after all: `mend` shows its answer whole.
            return Next::Wait;
        }
        if current != Some(ours) && self.begin(ours, &tail, out) == Next::End {
            return Next::End;
        }
        if let Some(turn) = &mut self.turn {
            turn.gap |= first > turn.last + 1;
        }
        self.events(tail, out)
    }

    /// The texts since the last reset are the answer: also where the worker gave it whole, where events are lost, and where
    /// another attempt than the last one won.
    fn mend(&mut self, final_: &Final, out: &mut Vec<Item>) {
        let text = final_.response.clone().unwrap_or_default();
        let (seq, attempt) = (self.last(), final_.attempts.max(1));
        let (wrong, shown) = match &self.turn {
            Some(turn) if turn.attempt != attempt => (true, true),
            Some(turn) => (turn.gap && turn.text != text, !turn.text.is_empty()),
            None => (false, false),
        };
        if wrong {
            out.push(Item::Reset { seq, attempt, incarnation: None });
        }
        let known = self.from > 0 && self.from >= seq;
        if (wrong || !shown && !known) && !text.is_empty() {
            out.push(Item::Text { text, seq, attempt });
        }
    }

    fn show(&self, seq: u64, item: Item, out: &mut Vec<Item>) {
        // What the incarnation before the reader's said in this attempt was taken back.
        let is_old = self
            .turn
            .as_ref()
            .is_some_and(|turn| self.is_of_reader(turn.attempt, |of| turn.incarnation < of));
        if seq > self.from && !is_old {
            out.push(item);
        }
    }

    fn done(&mut self, out: &mut Vec<Item>) {
        self.ended = true;
        let (response, reason) = match &self.final_ {
            Some(final_) => (final_.response.clone(), final_.reason.clone()),
            None => (None, None),
        };
        let (status, seq, attempt) = (self.status(), self.last(), self.attempt());
        out.push(Item::Done { status, response, reason, seq, attempt });
    }
}

#[cfg(test)]
#[path = "stream_tests.rs"]
mod tests;
