//! The book's rules, one test each, and what holds over any run of it.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one kind of deed among many")]

mod broker;
mod damage;
mod figures;
mod memory;
mod people;
mod properties;
mod steps;
mod turns;
mod words;

use std::sync::Arc;
use std::time::Duration;

use common::event::{Event, EventBody};
use common::message::{Envelope, Final, Kind, Outcome};
use common::worker::{FromWorker, ToWorker, TurnRef};
use common::{AgentName, ConversationId, MessageId, SenderName, Timestamp};

use super::{Arrival, Book, Do, Now, Rules};
use crate::secrets::Secrets;

const SECOND: u64 = 1_000_000;

fn agent() -> AgentName {
    AgentName::new("me").expect("valid")
}

fn sender(name: &str) -> SenderName {
    SenderName::new(name).expect("valid")
}

fn id(text: &str) -> MessageId {
    MessageId::new(text).expect("valid")
}

fn envelope(message: &str, conversation: &str) -> Envelope {
    Envelope {
        message_id: id(message),
        agent: agent(),
        sender: sender("user"),
        kind: Kind::Chat,
        conversation_id: ConversationId::new(conversation).expect("valid"),
        message: format!("text of {message}"),
        created_at: Timestamp::from_millis(1),
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: None,
        traceparent: None,
        scheduled_for: None,
        deliver_at: None,
    }
}

fn final_(status: Outcome) -> Box<Final> {
    Box::new(Final {
        status,
        response: None,
        reason: None,
        attempts: 1,
        incarnation: None,
        at: Timestamp::from_millis(1),
        tail: Vec::new(),
    })
}

fn turn(message: &str) -> TurnRef<'_> {
    TurnRef { message_id: Some(message.into()), conversation_id: None }
}

fn done<'a>(message: &'a str, response: &'a str) -> FromWorker<'a> {
    FromWorker::Done { turn: turn(message), response: Some(response.into()) }
}

fn text<'a>(message: &'a str, text: &'a str) -> FromWorker<'a> {
    FromWorker::Text { turn: turn(message), text: text.into() }
}

fn error(message: &str, retryable: bool) -> FromWorker<'_> {
    FromWorker::Error {
        turn: turn(message),
        error: "no luck".into(),
        retryable,
        retry_after_ms: None,
    }
}

/// A book with a clock, that remembers nothing but hands back what is to be done.
struct Desk {
    book: Book,
    us: u64,
}

impl Desk {
    fn new(concurrency: usize) -> Self {
        Self::with_secret(concurrency, None)
    }

    fn with_secret(concurrency: usize, secrets: Option<(String, String)>) -> Self {
        let rules = Rules {
            agent: agent(),
            incarnation: 7,
            concurrency,
            attempts: 3,
            retry_first_us: SECOND,
            retry_max_us: 30 * SECOND,
            turn_timeout_us: 60 * SECOND,
            secrets: Arc::new(Secrets::new(&secrets.into_iter().collect())),
            memory: false,
            traces: None,
        };
        Self { book: Book::new(rules), us: SECOND }
    }

    fn now(&self) -> Now {
        Now { us: self.us, at: Timestamp::from_millis(self.us / 1000) }
    }

    fn deliver(&mut self, seq: u64, message: &str, conversation: &str) -> Vec<Do> {
        self.deliver_as(seq, envelope(message, conversation), false)
    }

    fn deliver_as(&mut self, seq: u64, envelope: Envelope, check: bool) -> Vec<Do> {
        self.arrive(seq, envelope, &format!("reply {seq}"), check)
    }

    fn arrive(&mut self, seq: u64, envelope: Envelope, reply: &str, check: bool) -> Vec<Do> {
        let left = envelope.deadline.map(|deadline| deadline.since(self.now().at));
        let arrival =
            Arrival { seq, envelope, reply: reply.into(), check, left, age: Duration::ZERO };
        self.book.deliver(self.now(), arrival)
    }

    fn line(&mut self, line: FromWorker<'_>) -> Vec<Do> {
        self.book.line(self.now(), line)
    }

    /// Time passes, then the book is told.
    fn after(&mut self, us: u64) -> Vec<Do> {
        self.us += us;
        self.book.tick(self.now(), false)
    }

    fn looked_up(&mut self, seq: u64, final_: Option<Box<Final>>, attempts: u32) -> Vec<Do> {
        self.book.looked_up(self.now(), seq, final_, attempts, false)
    }

    /// The final state among these is stored.
    fn stored(&mut self, todo: &[Do], won: bool) -> Vec<Do> {
        let (seq, final_) = settle(todo);
        self.book.settled(self.now(), seq, won, Box::new(final_))
    }

    /// Publishes what is due, all of it if `all`, and returns it.
    fn publish(&mut self, all: bool) -> (Vec<Event>, Vec<Do>) {
        let batches = self.book.take_batches(self.now(), all);
        let (mut events, mut todo) = (Vec::new(), Vec::new());
        for batch in batches {
            events.extend(batch.events);
            todo.extend(self.book.batch_stored(self.now(), batch.seq));
        }
        (events, todo)
    }
}

/// The ids of the messages that go to the worker.
fn told(todo: &[Do]) -> Vec<String> {
    let chat = |act: &Do| match act {
        Do::Tell(ToWorker::Chat { message_id, .. } | ToWorker::Route { message_id, .. }) => {
            Some(message_id.clone())
        }
        _ => None,
    };
    todo.iter().filter_map(chat).collect()
}

/// The ids of the turns that the worker is to give up.
fn cancelled(todo: &[Do]) -> Vec<String> {
    let cancel = |act: &Do| match act {
        Do::Tell(ToWorker::Cancel { message_id }) => Some(message_id.clone()),
        _ => None,
    };
    todo.iter().filter_map(cancel).collect()
}

fn acked(todo: &[Do]) -> Vec<&str> {
    todo.iter()
        .filter_map(|act| match act {
            Do::Ack { reply } => Some(reply.as_str()),
            _ => None,
        })
        .collect()
}

/// The one final state that is to be stored.
fn settle(todo: &[Do]) -> (u64, Final) {
    let finals: Vec<_> = todo
        .iter()
        .filter_map(|act| match act {
            Do::Settle { seq, final_, .. } => Some((*seq, (**final_).clone())),
            _ => None,
        })
        .collect();
    assert_eq!(finals.len(), 1, "{todo:?}");
    finals.into_iter().next().expect("one")
}

fn bodies(events: &[Event]) -> Vec<&EventBody> {
    events.iter().map(|event| &event.body).collect()
}

fn notes(todo: &[Do]) -> usize {
    todo.iter().filter(|act| matches!(act, Do::Note(_))).count()
}
