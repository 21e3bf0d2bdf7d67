//! Clients that list agents, with figures from their journals.
//!
//! They are answered together, and those who come meanwhile are answered together after that: however many ask, and however often since the
//! answer is late, each journal is asked once at a time.

use common::AgentName;
use common::api::ApiError;
use common::failure;

/// Clients that wait, at most.
const WAITING: usize = 1024;

/// What one of them wants to see.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub(super) reply: String,
    pub(super) wanted: Wanted,
}

/// Whom it wants to see, and how much of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    /// As many as fit, and at most so many, of those whose names come after this one.
    Page {
        after: Option<AgentName>,
        limit: usize,
        /// Only those that are in trouble.
        in_trouble: bool,
    },
    One(AgentName),
    /// With everything that is known of it.
    Detail(AgentName),
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Looks {
    under_way: bool,
    waiting: Vec<Look>,
}

impl Looks {
    /// Another one.
    ///
    /// # Errors
    /// When too many wait.
    pub(super) fn ask(&mut self, look: Look) -> Result<(), ApiError> {
        if self.waiting.len() >= WAITING {
            let cause = format!("{WAITING} clients are already waiting");
            let try_ = "retry in a few seconds";
            return Err(failure::error(failure::LIMIT, "too many requests", cause, try_));
        }
        self.waiting.push(look);
        Ok(())
    }

    /// Those who are to be answered now; none while others are being answered.
    pub(super) fn begin(&mut self) -> Option<Vec<Look>> {
        if self.under_way || self.waiting.is_empty() {
            return None;
        }
        self.under_way = true;
        Some(std::mem::take(&mut self.waiting))
    }

    /// Those who were to be answered have been.
    pub(super) fn done(&mut self) {
        self.under_way = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(reply: usize) -> Look {
        Look { reply: reply.to_string(), wanted: Wanted::All }
    }

    #[test]
    fn who_asks_while_others_are_answered_is_answered_with_all_the_others_that_do() {
        let mut looks = Looks::default();
        assert_eq!(looks.begin(), None);
        looks.ask(look(1)).expect("room");
        assert_eq!(looks.begin(), Some(vec![look(1)]));
        for reply in 2..5 {
            looks.ask(look(reply)).expect("room");
            assert_eq!(looks.begin(), None);
        }
        looks.done();
        assert_eq!(looks.begin(), Some(vec![look(2), look(3), look(4)]));
        looks.done();
        assert_eq!(looks.begin(), None);
    }

    #[test]
    fn too_many_are_told_so() {
        let mut looks = Looks::default();
        for reply in 0..WAITING {
            looks.ask(look(reply)).expect("room");
        }
        assert_eq!(looks.ask(look(0)).expect_err("full").code, failure::LIMIT);
        assert_eq!(looks.begin().map(|looks| looks.len()), Some(WAITING));
        looks.ask(look(0)).expect("room again");
    }
}
