//! Agents that publish far more than any worker has to say. Streams are shared, and drop their oldest records when they are full: without a
//! bound, one agent removes what the others have stored.

use std::collections::HashMap;
use std::time::Duration;

use broker::{Connection, Who};
use common::AgentName;

/// What an agent may publish for any length of time, in bytes a second. The busiest agent of the benchmarks publishes a third of it.
const RATE: u64 = 16 << 20;
/// What it may publish beyond that, once.
pub(super) const BURST: u64 = 256 << 20;
/// What a message costs beside its content: its subject and its headers are stored, too.
const EACH: u64 = 128;

/// What the agents have published.
#[derive(Debug, Default)]
pub(super) struct Floods {
    /// By connection, as of the last look.
    published: HashMap<(String, u64), u64>,
    /// By agent: what it has published beyond [`RATE`].
    beyond: HashMap<AgentName, u64>,
    /// Whether there was a look: a connection that is new then has published all that it has since.
    has_looked: bool,
}

impl Floods {
    /// Takes note of all connections, `since` the last look; which incarnations have published too much. Their account begins anew.
    pub(super) fn look(
        &mut self,
        connections: &[Connection],
        since: Duration,
    ) -> Vec<(AgentName, u64)> {
        let before = std::mem::take(&mut self.published);
        let mut since_then: HashMap<(&AgentName, u64), u64> = HashMap::new();
        for connection in connections {
            let Who::Shim(agent, incarnation) = &connection.who else { continue };
            let now = connection.bytes.saturating_add(connection.messages.saturating_mul(EACH));
            let id = connection.id();
            let counted = if self.has_looked { before.get(&id).copied().unwrap_or(0) } else { now };
            *since_then.entry((agent, *incarnation)).or_default() += now.saturating_sub(counted);
            self.published.insert(id, now);
        }
        self.has_looked = true;
        let allowed =
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX).saturating_mul(RATE) / 1000;
        let mut beyond = HashMap::new();
        let mut found = Vec::new();
        for ((agent, incarnation), published) in since_then {
            let level = self.beyond.get(agent).copied().unwrap_or(0).saturating_add(published);
            let level = level.saturating_sub(allowed);
            if level > BURST {
                found.push((agent.clone(), incarnation));
            } else if level > 0 {
                beyond.insert(agent.clone(), level);
            }
        }
        self.beyond = beyond;
        found
    }

    /// Nothing is known any more: somebody else has looked meanwhile, or nobody.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MIB: u64 = 1 << 20;

    fn connection(agent: &str, number: u64, bytes: u64, messages: u64) -> Connection {
        let who = Who::Shim(agent.parse().expect("valid"), 1);
        Connection::new(who, "s", number).with(messages, bytes)
    }

    /// What is found at each look, of an agent that has published so much by then.
    fn found(looks: &[(u64, u64)]) -> Vec<bool> {
        let mut floods = Floods::default();
        let look = |(bytes, messages): &(u64, u64)| {
            !floods.look(&[connection("a", 1, *bytes, *messages)], SECOND).is_empty()
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn an_agent_may_publish_at_the_rate_for_ever_and_more_than_that_for_a_while() {
        let steady: Vec<_> = (0..1000).map(|second| (second * RATE, 0)).collect();
        assert!(!found(&steady).contains(&true));
        assert_eq!(found(&[(0, 0), (RATE + BURST, 0), (RATE + BURST, 0)]), [false; 3]);
        assert_eq!(found(&[(0, 0), (RATE + BURST + 1, 0)]), [false, true]);
        let faster: Vec<_> = (0..20).map(|second| (second * (RATE + 32 * MIB), 0)).collect();
        assert_eq!(found(&faster).iter().position(|found| *found), Some(9));
    }

    #[test]
    fn messages_without_content_count() {
        assert_eq!(found(&[(0, 0), (0, (RATE + BURST) / EACH + 1)]), [false, true]);
    }

    #[test]
    fn what_was_published_before_the_first_look_does_not_count() {
        assert_eq!(found(&[(1 << 40, 0), (1 << 40, 0)]), [false, false]);
    }

    #[test]
    fn a_new_connection_does_not_begin_anew() {
        let mut floods = Floods::default();
        let look = |floods: &mut Floods, number: u64, bytes: u64| {
            floods.look(&[connection("a", number, bytes, 0)], SECOND).len()
        };
        assert_eq!(look(&mut floods, 1, 0), 0);
        let each = RATE + 100 * MIB;
        assert_eq!([2, 3, 4].map(|number| look(&mut floods, number, each)), [0, 0, 1]);
    }

    #[test]
    fn the_others_are_not_charged() {
        let mut floods = Floods::default();
        let look = |floods: &mut Floods, bytes| {
            floods.look(&[connection("a", 1, bytes, 0), connection("b", 2, 0, 0)], SECOND)
        };
        assert!(look(&mut floods, 0).is_empty());
        let found = look(&mut floods, 1 << 40);
        assert_eq!(found, [("a".parse().expect("valid"), 1)]);
        assert!(look(&mut floods, 1 << 40).is_empty(), "once");
    }
}
