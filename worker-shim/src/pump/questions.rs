//! The worker's questions to other agents that wait for an answer.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use common::AgentName;
use futures_util::FutureExt as _;
use futures_util::future::{AbortHandle, abortable};

use super::tasks::Tasks;
use crate::book::{Book, Question};
use crate::publish::Done;
use crate::route;

/// A worker's questions that wait for an answer, at most.
const MOST: usize = 256;
/// An agent that answered within this time is still there: asking it again needs no look at the control log.
const KNOWN: Duration = Duration::from_secs(5);

/// The questions.
#[derive(Debug)]
pub(super) struct Questions {
    me: AgentName,
    incarnation: u64,
    /// Tasks that ask.
    waiting: usize,
    /// Those of turns, by their messages' sequences and attempts.
    of_turns: Vec<(u64, u32, AbortHandle)>,
    /// Agents that answered, and when they last did; at most [`MOST`].
    answered: HashMap<AgentName, Instant>,
}

impl Questions {
    pub(super) fn new(me: AgentName, incarnation: u64) -> Self {
        Self { me, incarnation, waiting: 0, of_turns: Vec::new(), answered: HashMap::new() }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Asks, or says why not.
    pub(super) fn ask(
        &mut self,
        question: &Question,
        book: &Book,
        tasks: &mut Tasks,
    ) -> Result<(), String> {
        self.forget(book);
        if self.waiting >= MOST {
            return Err(format!("more than {MOST} questions wait for an answer"));
        }
        let now = SystemTime::now().into();
        let asked = route::envelope(&self.me, self.incarnation, question, now)?;
        self.waiting += 1;
        let known = self.answered.get(&asked.envelope.agent);
        let known = known.is_some_and(|at| at.elapsed() < KNOWN);
        let asking = route::ask(tasks.broker(), tasks.gate(), asked, known);
        let (asking, handle) = abortable(asking);
        tasks.start(asking.map(|answered| answered.unwrap_or(Done::NotAsked)));
        if let Some(asker) = &question.asker {
            self.of_turns.push((asker.seq, asker.attempt, handle));
        }
        Ok(())
    }

    /// A task that asked has ended: with whether this agent answered, if it was asked to the end.
    pub(super) fn ended(&mut self, agent: Option<(AgentName, bool)>) {
        self.waiting -= 1;
        let Some((agent, answered)) = agent else { return };
        if answered && self.answered.len() < MOST {
            self.answered.insert(agent, Instant::now());
        } else {
            self.answered.remove(&agent);
        }
    }

    /// Gives up the questions of turns that are over: they would pile up where nobody answers, and another attempt asks anew.
    pub(super) fn forget(&mut self, book: &Book) {
        self.of_turns.retain(|(seq, attempt, question)| {
            let open = book.is_open(*seq, *attempt);
            if !open {
                question.abort();
            }
            open
        });
    }
}
