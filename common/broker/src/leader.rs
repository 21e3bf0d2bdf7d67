//! Whether an answer about a stream comes from its leader and can be trusted. Pure.
//!
//! While a group has no leader, nats-server 2.15 lets each of its members answer `STREAM.INFO`, with what that one happens to have: a
//! server that was suspended or came back with an empty disk lacks what the others have stored. So does a new member that is to lead
//! (`jsStreamInfoRequest`). Such an answer names no leader, or the leader is among the other servers that it names.

use std::time::Duration;

use serde::Deserialize;

/// A leader that was suspended, or is cut off, may not know for seconds that it was deposed; another one is elected after 4 s at the
/// earliest, and heartbeats go out every second (nats-server 2.15).
const LATELY: Duration = Duration::from_secs(3);

/// Where a stream's copies are, as the server knows that answers.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Cluster {
    /// Who leads, as far as it knows.
    #[serde(default)]
    leader: String,
    /// The copies that others have; none of a stream without any. Its own as well, while nobody leads.
    #[serde(default)]
    replicas: Vec<Peer>,
}

#[derive(Debug, Deserialize)]
struct Peer {
    #[serde(default)]
    name: String,
    /// When it was last heard, in nanoseconds before the answer.
    #[serde(default)]
    active: u64,
    /// Whether it has everything that the leader has.
    #[serde(default)]
    current: bool,
}

impl Cluster {
    /// Whether all `copies` are there and have everything, as the leader knows it.
    pub(crate) fn is_complete(&self, copies: usize) -> bool {
        self.replicas.iter().filter(|peer| peer.current).count() + 1 >= copies
    }

    /// Whether it is the leader that answers, and has heard most of the stream's servers lately.
    /// `copies`: how many the stream is configured to have. One that comes back with an empty disk may know of none.
    pub(crate) fn is_of_leader(&self, copies: usize) -> bool {
        if copies <= 1 && self.replicas.is_empty() {
            return true;
        }
        let others = &self.replicas;
        if self.leader.is_empty() || others.iter().any(|peer| peer.name == self.leader) {
            return false;
        }
        let heard = others.iter().filter(|peer| Duration::from_nanos(peer.active) < LATELY);
        // Fewer than configured belong to it while the replica of a server that was removed has no other place.
        2 * (heard.count() + 1) > copies.max(others.len() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server answers that takes `leader` for the leader, and heard others so many seconds ago.
    fn answer(leader: &str, heard: &[(&str, u64)]) -> Cluster {
        let seconds = 1_000_000_000;
        let peer = |(name, ago): &(&str, u64)| Peer {
            name: (*name).into(),
            active: ago * seconds,
            current: true,
        };
        Cluster { leader: leader.into(), replicas: heard.iter().map(peer).collect() }
    }

    #[test]
    fn a_leader_that_most_servers_have_not_answered_lately_is_not_believed() {
        let leader = |heard: &[u64]| {
            let names = ["b", "c", "d", "e"];
            answer("a", &names.into_iter().zip(heard.iter().copied()).collect::<Vec<_>>())
        };
        assert!(leader(&[]).is_of_leader(1), "a stream without copies");
        assert!(!leader(&[]).is_of_leader(3), "it has come back with an empty disk");
        assert!(leader(&[0]).is_of_leader(3), "one was removed");
        assert!(!leader(&[3]).is_of_leader(3));
        assert!(leader(&[0, 1]).is_of_leader(3));
        assert!(leader(&[60, 2]).is_of_leader(3), "one of three is away");
        assert!(!leader(&[60, 61]).is_of_leader(3), "it stood still for a minute");
        assert!(!leader(&[3]).is_of_leader(2));
        assert!(leader(&[0, 0, 60, 60]).is_of_leader(5));
        assert!(!leader(&[0, 60, 60, 60]).is_of_leader(3));
    }

    #[test]
    fn who_is_not_the_leader_is_not_believed() {
        let nobody_leads = answer("", &[("a", 0), ("b", 0), ("c", 0)]);
        assert!(!nobody_leads.is_of_leader(3));
        assert!(!answer("", &[("b", 0), ("c", 0)]).is_of_leader(3));
        let is_to_lead = answer("b", &[("b", 0), ("c", 0)]);
        assert!(!is_to_lead.is_of_leader(3));
        // A server alone may not say who leads.
        assert!(answer("", &[]).is_of_leader(1));
        assert!(!answer("", &[("a", 0), ("b", 0)]).is_of_leader(1), "being scaled up");
    }
}
