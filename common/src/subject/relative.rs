//! Subjects without what the namespace and the number of journal shards make of them: as a backup has them.

use super::Subjects;
use crate::AgentName;

impl Subjects {
    /// What every subject of the namespace begins with, as a filter.
    #[must_use]
    pub fn all(&self) -> String {
        format!("{}.>", self.prefix)
    }

    /// A subject without its namespace, and without its shard; none if it is not of this namespace.
    #[must_use]
    pub fn relative<'a>(&self, subject: &'a str) -> Option<&'a str> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        match rest.starts_with("journal.") && self.shards > 1 {
            true => rest.rsplit_once('.').map(|(rest, _)| rest),
            false => Some(rest),
        }
    }

    /// The subject of this namespace that [`Self::relative`] was made from, in whatever namespace that was. None if it is of a journal
    /// and names no agent.
    #[must_use]
    pub fn absolute(&self, relative: &str) -> Option<String> {
        let subject = format!("{}.{relative}", self.prefix);
        match relative.strip_prefix("journal.") {
            Some(rest) => {
                let agent = AgentName::new(rest.split('.').next()?).ok()?;
                Some(self.sharded(subject, self.shard(&agent)))
            }
            None => Some(subject),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Namespace;

    fn subjects(namespace: &str, shards: u32) -> Subjects {
        Subjects::new(Namespace::new(namespace).expect("valid"), shards)
    }

    #[test]
    fn a_subject_goes_to_another_namespace_and_another_number_of_shards() {
        let (from, to, one) = (subjects("a", 4), subjects("b", 3), subjects("b", 1));
        let agent = AgentName::new("mender").expect("valid");
        for relative in ["journal.mender.user.m1.c1.request", "journal.mender.user.m1.c1.final"] {
            let there = from.absolute(relative).expect("a subject");
            assert_eq!(there, format!("mozart.a.{relative}.{}", from.shard(&agent)));
            assert_eq!(from.relative(&there), Some(relative));
            let moved = to.absolute(relative).expect("a subject");
            assert!(to.parse_journal(&moved).is_some(), "{moved}");
            let moved = one.absolute(relative).expect("a subject");
            assert!(one.parse_journal(&moved).is_some(), "{moved}");
        }
        for relative in ["history.a.c", "control._fleet", "dead.a.user.m", "files.00ff"] {
            assert_eq!(from.relative(&format!("mozart.a.{relative}")), Some(relative));
            assert_eq!(to.absolute(relative), Some(format!("mozart.b.{relative}")));
        }
        assert_eq!(from.relative("mozart.ab.history.a.c"), None);
        assert_eq!(from.absolute("journal._.user.m1.c1.request"), None);
    }
}
