//! Filler subjects, which name nothing: what is stored there is removed at once.

use super::Subjects;

/// A stream that has subjects which name nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filled {
    /// A journal stream.
    Journal(u32),
    /// HISTORY.
    History,
    /// EVENTS.
    Events,
    /// LOGS.
    Logs,
    /// DEAD.
    Dead,
    /// STEPS.
    Steps,
    /// QUESTIONS.
    Questions,
}

impl Subjects {
    /// A subject of a stream that names nothing, the nth of them: what is stored there is there to be removed at once.
    #[must_use]
    pub fn filler(&self, filled: Filled, n: u32) -> String {
        let Self { prefix, .. } = self;
        match filled {
            Filled::Journal(shard) => self.sharded(format!("{prefix}.journal._._._._.{n}"), shard),
            Filled::History => format!("{prefix}.history._.{n}"),
            Filled::Events => format!("{prefix}.events._._.{n}"),
            Filled::Logs => format!("{prefix}.logs._.{n}"),
            Filled::Dead => format!("{prefix}.dead._._.{n}"),
            Filled::Steps => format!("{prefix}.steps._._.{n}"),
            Filled::Questions => format!("{prefix}.question._._._._.{n}"),
        }
    }

    /// All subjects of [`Self::filler`].
    #[must_use]
    pub fn fillers(&self, filled: Filled) -> String {
        let Self { prefix, .. } = self;
        match filled {
            Filled::Journal(shard) => self.sharded(format!("{prefix}.journal._.*.*.*.*"), shard),
            Filled::History => format!("{prefix}.history._.*"),
            Filled::Events => format!("{prefix}.events._.*.*"),
            Filled::Logs => format!("{prefix}.logs._.*"),
            Filled::Dead => format!("{prefix}.dead._.*.*"),
            Filled::Steps => format!("{prefix}.steps._.*.*"),
            Filled::Questions => format!("{prefix}.question._.*.*.*.*"),
        }
    }

    /// Whether a subject is one of [`Self::filler`], of any namespace. No agent has that name.
    #[must_use]
    pub fn is_filler(subject: &str) -> bool {
        // `mozart`, the namespace, what it is, and whose.
        subject.split('.').nth(3) == Some("_")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Namespace;

    #[test]
    fn fillers_are_of_their_streams_and_name_no_message() {
        for shards in [1, 4] {
            let subjects = Subjects::new(Namespace::new("t").expect("valid"), shards);
            let all = [
                Filled::Journal(0),
                Filled::History,
                Filled::Events,
                Filled::Logs,
                Filled::Dead,
                Filled::Steps,
                Filled::Questions,
            ];
            for filled in all {
                let subject = subjects.filler(filled, 7);
                assert!(Subjects::is_filler(&subject), "{subject}");
                assert_eq!(subjects.parse_journal(&subject), None);
                assert_eq!(subjects.parse_history(&subject), None);
                assert_eq!(subjects.parse_events(&subject), None);
                assert_eq!(subjects.parse_logs(&subject), None);
                assert_eq!(subjects.parse_steps(&subject), None);
                assert_eq!(subjects.parse_question(&subject), None);
                assert_eq!(subjects.agent_of(&subject), None);
            }
        }
        for other in ["mozart.t.history.a.-", "mozart._.history.a.-", "mozart.t.events.a.user._"] {
            assert!(!Subjects::is_filler(other), "{other}");
        }
    }
}
