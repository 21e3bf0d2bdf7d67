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
    /// When it was last heard, in nanoseconds before the answer; 0 if it never was since the leader was elected
    /// (nats-server 2.15, `JetStream.clusterInfo`).
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
        self.heard_most(copies).is_some()
    }

    /// How long ago the leader that answers had heard most of the stream's servers; none if that is too long ago, or it does not lead.
    pub(crate) fn heard_most(&self, copies: usize) -> Option<Duration> {
        if copies <= 1 && self.replicas.is_empty() {
            return Some(Duration::ZERO);
        }
        let others = &self.replicas;
        if self.leader.is_empty() || others.iter().any(|peer| peer.name == self.leader) {
            return None;
        }
        let heard = others.iter().map(|peer| peer.active).filter(|active| *active > 0);
        let mut heard: Vec<_> = heard.map(Duration::from_nanos).collect();
        heard.sort_unstable();
        // With itself they are most. Fewer than configured belong to it while the replica of a server that was removed has no other place.
        let needed = copies.max(others.len() + 1) / 2;
        let last = match needed.checked_sub(1) {
            Some(last) => heard.get(last).copied(),
            None => Some(Duration::ZERO),
        };
        last.filter(|last| *last < LATELY)
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
            active: (ago * seconds).max(1_000),
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
        // Whoever was not heard since the election is not heard now.
        let never = |name: &str| Peer { name: name.into(), active: 0, current: false };
        let mut cut_off = leader(&[6]);
        cut_off.replicas.push(never("c"));
        assert!(!cut_off.is_of_leader(3));
        let mut lacks_one = leader(&[1]);
        lacks_one.replicas.push(never("c"));
        assert!(lacks_one.is_of_leader(3));
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(leader(&[60, 2]).heard_most(3), seconds(2));
        assert_eq!(leader(&[1, 2]).heard_most(3), seconds(1));
        assert_eq!(leader(&[2, 1, 1, 60]).heard_most(5), seconds(1));
        assert_eq!(leader(&[]).heard_most(1), seconds(0));
        assert_eq!(leader(&[60, 3]).heard_most(3), None);
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
