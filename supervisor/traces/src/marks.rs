//! What a trace keeps of a message's events: when what kind of thing happened, and nothing of what was said.

use common::Timestamp;
use common::event::{Event, EventBody, attempt_of, sequence};
use common::message::{Final, Outcome};

/// The longest name of a worker's event, and the longest reason, that a trace tells, in bytes.
const LONGEST: usize = 256;
/// Marks of one message, at most.
const MOST: usize = 512;

/// Something that happened in an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) seq: u64,
    pub(crate) attempt: u32,
    pub(crate) at: Timestamp,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Delivered {
        incarnation: u64,
    },
    Acknowledged,
    /// The first text of the attempt.
    FirstText,
    /// An event of the worker's own, by its `type`.
    Worker(String),
    Error(String),
}

/// How a message ended, without what was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: Outcome,
    pub(crate) reason: Option<String>,
    pub(crate) attempts: u32,
    pub(crate) incarnation: Option<u64>,
    /// By its author's clock.
    pub(crate) said_at: Timestamp,
    /// When it was heard, by the broker's clock.
    pub(crate) at: Timestamp,
    pub(crate) marks: Vec<Mark>,
}

impl Ended {
    /// From a final state that was heard at `at`.
    pub(crate) fn new(final_: &Final, at: Timestamp) -> Self {
        let mut marks = Vec::new();
        add(&mut marks, &final_.tail);
        Self {
            status: final_.status,
            reason: final_.reason.as_deref().map(cut),
            attempts: final_.attempts,
            incarnation: final_.incarnation,
            said_at: final_.at,
            at,
            marks,
        }
    }

    /// Whether nothing that happened is missing here: the final state has all of a quick answer.
    pub(crate) fn is_whole(&self) -> bool {
        match self.attempts {
            0 => true,
            1 => self.marks.first().is_some_and(|mark| mark.seq == sequence(1, 1)),
            _ => false,
        }
    }
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST)].to_owned()
}

/// Adds events in their order. Of the texts of an attempt, the first.
pub(crate) fn add(marks: &mut Vec<Mark>, events: &[Event]) {
    for Event { seq, at, body } in events {
        if marks.len() >= MOST {
            return;
        }
        let attempt = attempt_of(*seq);
        let what = match body {
            EventBody::Delivered { incarnation } => What::Delivered { incarnation: *incarnation },
            EventBody::Acknowledged => What::Acknowledged,
            EventBody::Text { .. } => {
                let is_text = |mark: &Mark| mark.attempt == attempt && mark.what == What::FirstText;
                if marks.iter().any(is_text) {
                    continue;
                }
                What::FirstText
            }
            EventBody::Worker { event } => {
                What::Worker(cut(event["type"].as_str().unwrap_or("event")))
            }
            EventBody::Error { error } => What::Error(cut(error)),
            // The attempt that begins says so itself.
            EventBody::Reset { .. } => continue,
        };
        marks.push(Mark { seq: *seq, attempt, at: *at, what });
    }
}
