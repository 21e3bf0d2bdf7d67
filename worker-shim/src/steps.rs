//! The steps of one open turn: what is stored, what is on its way, and what waits behind it. Pure.
//!
//! One is on its way at a time: each is stored behind the last record of its message that is known.

use std::collections::{HashSet, VecDeque};

use broker::{Recalled, StepEnd, Stepped};
use common::step::{Json, MAX_BYTES, MAX_STEPS, Step};

/// What a step that waits takes beside its key and its result, at least.
const FRAME: usize = 64;

/// A worker's steps; empty for those that store none.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    /// The sequence of the last record; 0 if there is none.
    last: u64,
    /// The keys that are stored or on their way.
    keys: HashSet<String>,
    /// With their results, in bytes.
    bytes: usize,
    in_flight: Option<(String, usize)>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

#[derive(Debug)]
enum Waiting {
    New(Step),
    /// One with this key is stored, or was before it.
    Again(String),
}

/// What the worker is to be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) key: String,
    pub(crate) duplicate: bool,
    pub(crate) result: Option<Json>,
    pub(crate) error: Option<String>,
    /// Whether another attempt may store it.
    pub(crate) retryable: bool,
}

impl Answer {
    fn stored(key: String) -> Self {
        Self { key, duplicate: false, result: None, error: None, retryable: false }
    }

    fn refused(key: String, error: String) -> Self {
        Self { error: Some(error), ..Self::stored(key) }
    }

    fn passing(key: String, error: String) -> Self {
        Self { retryable: true, ..Self::refused(key, error) }
    }
}

impl Steps {
    /// Those of a turn whose earlier attempts have stored some.
    pub(crate) fn of(recalled: &Recalled) -> Self {
        Self {
            last: recalled.last,
            keys: recalled.steps.iter().map(|step| step.key.clone()).collect(),
            bytes: recalled.steps.iter().map(Step::bytes).sum(),
            ..Self::default()
        }
    }

    /// A step of the worker's, or why it is not stored.
    pub(crate) fn add(&mut self, step: Step) -> Result<(), String> {
        let bytes = step.bytes();
        if self.keys.contains(&step.key) {
            self.waiting_bytes += step.key.len() + FRAME;
            self.waiting.push_back(Waiting::Again(step.key));
            return Ok(());
        }
        if self.keys.len() >= MAX_STEPS {
            return Err(format!("the message has {MAX_STEPS} steps: no more are stored"));
        }
        if self.bytes + bytes > MAX_BYTES {
            return Err(format!(
                "the steps of the message have {} bytes, and {} with this one: at most {MAX_BYTES} are stored",
                self.bytes,
                self.bytes + bytes
            ));
        }
        self.keys.insert(step.key.clone());
        self.bytes += bytes;
        self.waiting_bytes += bytes + FRAME;
        self.waiting.push_back(Waiting::New(step));
        Ok(())
    }

    /// The next one to store, with the record that it is to follow, unless one is on its way; and what is to be told of those before it.
    pub(crate) fn next(&mut self) -> (Vec<Answer>, Option<(Step, u64)>) {
        let mut answers = Vec::new();
        while self.in_flight.is_none()
            && let Some(waiting) = self.waiting.pop_front()
        {
            match waiting {
                Waiting::New(step) => {
                    self.waiting_bytes -= step.bytes() + FRAME;
                    self.in_flight = Some((step.key.clone(), step.bytes()));
                    return (answers, Some((step, self.last)));
                }
                Waiting::Again(key) => {
                    self.waiting_bytes -= key.len() + FRAME;
                    answers.push(match self.keys.contains(&key) {
                        true => Answer { duplicate: true, ..Answer::stored(key) },
                        false => Answer::passing(
                            key,
                            "the step with this key before it was not stored".to_owned(),
                        ),
                    });
                }
            }
        }
        (answers, None)
    }

    /// What came of the one that was on its way.
    pub(crate) fn ended(&mut self, ended: Result<Stepped, String>) -> Option<Answer> {
        let (key, bytes) = self.in_flight.take()?;
        let refuse = |steps: &mut Self, key: String, why: String| {
            steps.keys.remove(&key);
            steps.bytes = steps.bytes.saturating_sub(bytes);
            Answer::passing(key, why)
        };
        let Stepped { last, found, end } = match ended {
            Ok(stepped) => stepped,
            Err(why) => return Some(refuse(self, key, why)),
        };
        self.last = last;
        for (key, bytes) in found {
            if self.keys.insert(key) {
                self.bytes += bytes;
            }
        }
        Some(match end {
            StepEnd::Stored => Answer::stored(key),
            StepEnd::Already(result) => {
                Answer { duplicate: true, result: Some(result), ..Answer::stored(key) }
            }
            StepEnd::Fenced(incarnation) => Answer {
                retryable: false,
                ..refuse(
                    self,
                    key,
                    format!("incarnation {incarnation} has taken over this message"),
                )
            },
            StepEnd::Gone => Answer {
                retryable: false,
                ..refuse(self, key, "the message is no longer in the journal".to_owned())
            },
        })
    }

    /// Whether the worker waits for one of them to be stored.
    pub(crate) fn are_under_way(&self) -> bool {
        self.in_flight.is_some() || !self.waiting.is_empty()
    }

    /// The bytes of those that wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(key: &str, result: &str) -> Step {
        Step { key: key.to_owned(), result: Json::new(result.to_owned()).expect("JSON") }
    }

    fn stored(last: u64) -> Result<Stepped, String> {
        Ok(Stepped { last, found: Vec::new(), end: StepEnd::Stored })
    }

    fn sent(steps: &mut Steps) -> Option<(String, u64)> {
        let (answers, next) = steps.next();
        assert_eq!(answers, []);
        next.map(|(step, after)| (step.key, after))
    }

    #[test]
    fn each_is_stored_behind_the_one_before() {
        let mut steps = Steps::default();
        assert!(!steps.are_under_way());
        steps.add(step("a", "1")).expect("room");
        steps.add(step("b", "2")).expect("room");
        assert_eq!(sent(&mut steps), Some(("a".to_owned(), 0)));
        assert_eq!(sent(&mut steps), None, "one at a time");
        assert_eq!(steps.ended(stored(7)), Some(Answer::stored("a".to_owned())));
        assert!(steps.are_under_way());
        assert_eq!(sent(&mut steps), Some(("b".to_owned(), 7)));
        assert_eq!(steps.ended(stored(9)), Some(Answer::stored("b".to_owned())));
        assert!(!steps.are_under_way());
        assert_eq!(steps.waiting_bytes(), 0);
        assert_eq!(steps.ended(stored(9)), None, "none was on its way");
    }

    #[test]
    fn the_first_of_a_key_counts_and_the_second_waits_for_it() {
        let mut steps = Steps::default();
        for result in ["1", "2"] {
            steps.add(step("a", result)).expect("room");
        }
        assert_eq!(sent(&mut steps), Some(("a".to_owned(), 0)));
        steps.ended(stored(7)).expect("told");
        let again = Answer { duplicate: true, ..Answer::stored("a".to_owned()) };
        assert_eq!(steps.next(), (vec![again], None));
        // What was not stored may be tried again, and its repetition is not stored either.
        let mut steps = Steps::default();
        for result in ["1", "2"] {
            steps.add(step("a", result)).expect("room");
        }
        sent(&mut steps).expect("the first");
        let refused = steps.ended(Err("full".to_owned())).expect("told");
        assert_eq!(refused.error.as_deref(), Some("full"));
        let (answers, next) = steps.next();
        assert!(next.is_none() && answers[0].error.is_some(), "{answers:?}");
        steps.add(step("a", "3")).expect("room");
        assert_eq!(sent(&mut steps), Some(("a".to_owned(), 0)));
    }

    #[test]
    fn what_earlier_attempts_have_stored_counts() {
        let recalled = Recalled { steps: vec![step("a", "1")], last: 5 };
        let mut steps = Steps::of(&recalled);
        steps.add(step("a", "9")).expect("room");
        steps.add(step("b", "2")).expect("room");
        let (answers, next) = steps.next();
        assert!(answers[0].duplicate && answers[0].result.is_none(), "{answers:?}");
        assert_eq!(next.map(|(step, after)| (step.key, after)), Some(("b".to_owned(), 5)));
        // An earlier incarnation was still at work.
        let found = vec![("c".to_owned(), 4)];
        let end = StepEnd::Already(Json::new("7".to_owned()).expect("JSON"));
        let told = steps.ended(Ok(Stepped { last: 8, found, end })).expect("told");
        assert!(told.duplicate && told.result.is_some_and(|result| result.text() == "7"));
        steps.add(step("c", "3")).expect("room");
        assert!(steps.next().0[0].duplicate);
        steps.add(step("d", "4")).expect("room");
        assert_eq!(sent(&mut steps), Some(("d".to_owned(), 8)));
        let end = StepEnd::Fenced(9);
        let told = steps.ended(Ok(Stepped { last: 9, found: Vec::new(), end })).expect("told");
        assert!(told.error.is_some_and(|why| why.contains("incarnation 9")));
    }

    #[test]
    fn their_number_and_their_bytes_are_bounded() {
        let mut steps = Steps::default();
        for n in 0..MAX_STEPS {
            steps.add(step(&n.to_string(), "1")).expect("room");
        }
        let why = steps.add(step("more", "1")).expect_err("too many");
        assert!(why.contains("1000 steps"), "{why}");
        steps.add(step("0", "1")).expect("its key is there");
        let mut steps = Steps::default();
        let large = format!("\"{}\"", "x".repeat(common::step::MAX_RESULT - 2));
        for n in 0..31 {
            steps.add(step(&n.to_string(), &large)).expect("room");
        }
        steps.add(step("last", "1")).expect("room");
        let why = steps.add(step("over", &large)).expect_err("too large");
        assert!(why.contains("at most 8388608"), "{why}");
    }
}
