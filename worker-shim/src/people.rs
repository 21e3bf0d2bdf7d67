//! The questions to people that a turn has open: which are being stored or looked for, when they are looked for again, and when they end. Pure.
//!
//! Whoever answers has the shim told. That may be lost, so a question that is open is looked for from time to time.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::QuestionState;
use common::RequestTag;
use common::question::{Answered, MAX_OPEN, Question};

/// A question is looked for after this time, and then after twice the time before,
const LOOK_FIRST_US: u64 = 5_000_000;
/// and at least this often.
const LOOK_MAX_US: u64 = 60_000_000;

/// The questions of a turn.
#[derive(Debug, Default)]
pub(crate) struct People(BTreeMap<String, Open>);

#[derive(Debug)]
struct Open {
    question: Question,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// It is being stored, looked for or ended. `again`: it has an answer since.
    Busy { ends_us: Option<u64>, pause_us: u64, again: bool },
    /// It is stored.
    Waits { ends_us: u64, look_us: u64, pause_us: u64 },
}

/// What is to be done about a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Store it, unless it was asked before.
    Ask,
    /// Look for its answer.
    Look,
    /// Nobody has answered in time: that is its answer, unless there is one.
    End,
}

/// What came of an [`Act`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Acted {
    /// What there is of it, and how long it is open yet.
    Is(Box<QuestionState>, Duration),
    /// That is not known: the broker has not answered.
    NotKnown,
    /// It cannot be asked.
    Refused(String),
}

/// What became of a question.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It has just been stored: how long it is open.
    Open(Question, Duration),
    /// The worker is to be told this.
    Answered(Answered),
    /// There will be no answer.
    Failed(String),
}

impl People {
    /// Another question, or why it cannot be asked.
    pub(crate) fn ask(&mut self, question: Question) -> Result<(), String> {
        if self.0.contains_key(&question.request_id) {
            return Err("a question with this `requestId` is open in this turn".to_owned());
        }
        if self.0.len() >= MAX_OPEN {
            return Err(format!("the turn has {MAX_OPEN} open questions: no more can be asked"));
        }
        let phase = Phase::Busy { ends_us: None, pause_us: LOOK_FIRST_US, again: false };
        self.0.insert(question.request_id.clone(), Open { question, phase });
        Ok(())
    }

    /// Whether any is open: then the worker waits, and its turn's deadline with it.
    pub(crate) fn are_open(&self) -> bool {
        !self.0.is_empty()
    }

    /// When [`Self::due`] has something.
    pub(crate) fn next_us(&self) -> Option<u64> {
        let next = |open: &Open| match open.phase {
            Phase::Waits { ends_us, look_us, .. } => Some(ends_us.min(look_us)),
            Phase::Busy { .. } => None,
        };
        self.0.values().filter_map(next).min()
    }

    /// What is to be done by now.
    pub(crate) fn due(&mut self, now_us: u64) -> Vec<(Act, Question)> {
        let mut due = Vec::new();
        for open in self.0.values_mut() {
            let Phase::Waits { ends_us, look_us, pause_us } = open.phase else { continue };
            let act = if ends_us <= now_us {
                Act::End
            } else if look_us <= now_us {
                Act::Look
            } else {
                continue;
            };
            open.phase = Phase::Busy { ends_us: Some(ends_us), pause_us, again: false };
            due.push((act, open.question.clone()));
        }
        due
    }

    /// Somebody has answered one.
    pub(crate) fn answered(&mut self, tag: &RequestTag) {
        for open in self.0.values_mut() {
            if RequestTag::of(&open.question.request_id) != *tag {
                continue;
            }
            match &mut open.phase {
                Phase::Busy { again, .. } => *again = true,
                Phase::Waits { look_us, .. } => *look_us = 0,
            }
        }
    }

    /// What came of an [`Act`].
    pub(crate) fn acted(&mut self, now_us: u64, request_id: &str, acted: Acted) -> Option<News> {
        let open = self.0.get_mut(request_id)?;
        let Phase::Busy { ends_us, pause_us, again } = open.phase else { return None };
        let (ends, is_new) = match acted {
            Acted::Is(state, left) => match *state {
                QuestionState::Open { .. } => {
                    let left_us = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
                    (now_us.saturating_add(left_us), ends_us.is_none().then_some(left))
                }
                QuestionState::Answered(answered) => {
                    self.0.remove(request_id);
                    return Some(News::Answered(answered));
                }
                QuestionState::Unknown | QuestionState::Gone => {
                    self.0.remove(request_id);
                    return Some(News::Failed("its message has ended".to_owned()));
                }
            },
            // What was never stored is not looked for.
            Acted::NotKnown => (ends_us?, None),
            Acted::Refused(why) => {
                self.0.remove(request_id);
                return Some(News::Failed(why));
            }
        };
        let look_us = if again { now_us } else { now_us.saturating_add(pause_us) };
        let pause_us = if again { LOOK_FIRST_US } else { (pause_us * 2).min(LOOK_MAX_US) };
        open.phase = Phase::Waits { ends_us: ends, look_us, pause_us };
        is_new.map(|left| News::Open(open.question.clone(), left))
    }

    /// None is waited for any more: their ids.
    pub(crate) fn give_up(&mut self) -> Vec<String> {
        std::mem::take(&mut self.0).into_keys().collect()
    }
}

#[cfg(test)]
mod tests {
    use common::question::Asked;
    use common::{ConversationId, Timestamp};

    use super::*;

    const SECOND: u64 = 1_000_000;

    fn question(id: &str) -> Question {
        Question {
            request_id: id.to_owned(),
            text: "Go?".to_owned(),
            options: Vec::new(),
            default: None,
            timeout_ms: 600_000,
        }
    }

    fn open(id: &str, left: u64) -> Acted {
        let conversation_id = ConversationId::new("c").expect("valid");
        let question = question(id);
        let asked = Asked { question, attempt: 1, incarnation: 1, conversation_id };
        let until = Timestamp::from_millis(600_000);
        Acted::Is(Box::new(QuestionState::Open { asked, until }), Duration::from_micros(left))
    }

    fn answer(id: &str) -> Acted {
        let answered = Answered::by(question(id), "yes", "ada", "w".to_owned());
        Acted::Is(Box::new(QuestionState::Answered(answered)), Duration::ZERO)
    }

    fn acts(people: &mut People, now_us: u64) -> Vec<(Act, String)> {
        people.due(now_us).into_iter().map(|(act, question)| (act, question.request_id)).collect()
    }

    #[test]
    fn a_question_is_looked_for_less_and_less_often_until_it_ends() {
        let mut people = People::default();
        people.ask(question("a")).expect("room");
        assert_eq!(people.next_us(), None, "it is being stored");
        let told = people.acted(SECOND, "a", open("a", 300 * SECOND));
        assert_eq!(told, Some(News::Open(question("a"), Duration::from_secs(300))));
        let mut looks = Vec::new();
        loop {
            let now = people.next_us().expect("it is open");
            let due = acts(&mut people, now);
            if due == [(Act::End, "a".to_owned())] {
                assert_eq!(now, 301 * SECOND);
                break;
            }
            assert_eq!(due, [(Act::Look, "a".to_owned())]);
            looks.push(now / SECOND);
            let still = open("a", 301 * SECOND - now);
            assert_eq!(people.acted(now, "a", still), None);
        }
        assert_eq!(looks, [6, 16, 36, 76, 136, 196, 256]);
        let nobody = Answered::nobody(question("a"), "w".to_owned());
        let acted = Acted::Is(Box::new(QuestionState::Answered(nobody.clone())), Duration::ZERO);
        assert_eq!(people.acted(0, "a", acted), Some(News::Answered(nobody)));
        assert!(!people.are_open());
    }

    #[test]
    fn an_answer_that_is_told_is_looked_for_at_once_also_if_something_is_under_way() {
        let mut people = People::default();
        people.ask(question("a")).expect("room");
        let tag = RequestTag::of("a");
        people.answered(&tag);
        people.acted(0, "a", open("a", 100 * SECOND)).expect("it is stored");
        assert_eq!(acts(&mut people, 0), [(Act::Look, "a".to_owned())], "told meanwhile");
        assert_eq!(people.acted(0, "a", Acted::NotKnown), None);
        assert_eq!(acts(&mut people, 0), []);
        people.answered(&RequestTag::of("b"));
        assert_eq!(acts(&mut people, 0), [], "another one");
        people.answered(&tag);
        assert_eq!(acts(&mut people, 0), [(Act::Look, "a".to_owned())]);
        assert!(matches!(people.acted(0, "a", answer("a")), Some(News::Answered(_))));
        assert_eq!(people.acted(0, "a", answer("a")), None, "once");
    }

    #[test]
    fn too_many_and_two_of_one_id_are_refused_and_what_failed_can_be_asked_again() {
        let mut people = People::default();
        for n in 0..MAX_OPEN {
            people.ask(question(&n.to_string())).expect("room");
        }
        assert!(
            people.ask(question("0")).expect_err("it is open").contains("is open in this turn")
        );
        assert!(people.ask(question("x")).expect_err("full").contains("16 open questions"));
        let failed = people.acted(0, "0", Acted::Refused("full".to_owned()));
        assert_eq!(failed, Some(News::Failed("full".to_owned())));
        people.ask(question("0")).expect("room");
        assert_eq!(people.give_up().len(), MAX_OPEN);
        assert!(!people.are_open());
    }
}
