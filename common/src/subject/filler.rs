//! Subjects that name nothing: what is stored there is there to be removed at once.

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
        }
    }

    /// Whether a subject is one of [`Self::filler`]. No agent has that name.
    #[must_use]
    pub fn is_filler(&self, subject: &str) -> bool {
        let rest = subject.strip_prefix(&self.prefix).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| rest.split('.').nth(1) == Some("_"))
    }
}
