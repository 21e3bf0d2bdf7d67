//! The kinds of faults.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// SIGKILL of a supervisor, a node, a shim or a worker.
    Kill,
    /// SIGSTOP of one of these, and SIGCONT some seconds later.
    Freeze,
    /// Nothing passes between a supervisor or a node and the broker for some seconds, in one or both directions.
    Cut,
    /// SIGTERM of a supervisor or a node, which is started again when it has ended.
    Restart,
    /// A new incarnation of an agent, which takes over from the running one.
    Replace,
    /// SIGKILL of the supervisor that leads.
    Leader,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Kill, Self::Freeze, Self::Cut, Self::Restart, Self::Replace, Self::Leader];

    fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Cut => "cut",
            Self::Restart => "restart",
            Self::Replace => "replace",
            Self::Leader => "leader",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.word() == text).ok_or_else(|| {
            format!("unknown kind; expected one of {}", Self::ALL.map(Self::word).join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_written_and_an_unknown_one_is_told_the_others() {
        for kind in Kind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        let error = "flood".parse::<Kind>().expect_err("there is none");
        assert!(error.ends_with("kill, freeze, cut, restart, replace, leader"), "{error}");
    }
}
