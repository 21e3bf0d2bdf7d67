//! Which blow falls when: a pure function of the seed.

use std::fmt;
use std::time::Duration;

use super::random::Random;

/// Nothing falls in the first and the last moments.
const CALM: Duration = Duration::from_secs(2);
/// The pause between two blows, in milliseconds.
const GAP: (u64, u64) = (100, 1000);

/// How many of 100 blows hit containers, where there are any.
const CONTAINERS: u64 = 30;

/// Who is hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The worker of the agent with this number.
    Worker(usize),
    /// The shim of the agent with this number.
    Shim(usize),
    /// `mozart up`: supervisor and node.
    Supervisor,
    /// nats-server.
    Server,
    /// The agent with this number, as a whole.
    Agent(usize),
    /// The container of the agent with this number, by way of its engine.
    Container(usize),
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL. A supervisor is started again after this time; of the rest the fleet takes care itself.
    Kill(Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Stop(Duration),
    /// A new incarnation that takes over from the running one.
    Replace,
    /// A new incarnation after the running one.
    Restart,
    /// `docker pause`, and nobody wakes it.
    Pause,
    /// `docker network disconnect`.
    Disconnect,
    /// `docker rm --force`.
    Remove,
}

/// A blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    /// When, counted from the start of the load.
    pub at: Duration,
    /// Whom it hits.
    pub target: Target,
    /// What it does.
    pub deed: Deed,
}

/// The blows of a campaign, in order. Where agents are in containers, some hit these.
#[must_use]
pub fn schedule(seed: u64, length: Duration, agents: usize, in_containers: bool) -> Vec<Blow> {
    let mut random = Random::new(seed);
    let mut blows = Vec::new();
    let mut at = CALM;
    while at + CALM < length {
        let last = u64::try_from(agents.max(1) - 1).unwrap_or_default();
        let agent = usize::try_from(random.between(0, last)).unwrap_or_default();
        blows.push(if in_containers && random.chance(CONTAINERS) {
            container_blow(&mut random, at, agent)
        } else {
            blow(&mut random, at, agent)
        });
        at += Duration::from_millis(random.between(GAP.0, GAP.1));
    }
    blows
}

fn container_blow(random: &mut Random, at: Duration, agent: usize) -> Blow {
    let deed = match random.between(1, 100) {
        1..=40 => Deed::Kill(Duration::ZERO),
        41..=70 => Deed::Remove,
        71..=85 => Deed::Pause,
        _ => Deed::Disconnect,
    };
    Blow { at, target: Target::Container(agent), deed }
}

fn blow(random: &mut Random, at: Duration, agent: usize) -> Blow {
    let target = match random.between(1, 100) {
        1..=36 => Target::Worker(agent),
        37..=64 => Target::Shim(agent),
        65..=72 => Target::Agent(agent),
        73..=86 => Target::Supervisor,
        _ => Target::Server,
    };
    let deed = if let Target::Agent(_) = target {
        if random.chance(70) { Deed::Replace } else { Deed::Restart }
    } else if random.chance(60) {
        Deed::Kill(Duration::from_millis(random.between(0, 3000)))
    } else {
        Deed::Stop(Duration::from_millis(random.between(1000, 5000)))
    };
    Blow { at, target, deed }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whom = match self.target {
            Target::Worker(agent) => format!("the worker of {}", super::ground::agent_name(agent)),
            Target::Shim(agent) => format!("the shim of {}", super::ground::agent_name(agent)),
            Target::Supervisor => "the supervisor".to_owned(),
            Target::Server => "nats-server".to_owned(),
            Target::Agent(agent) => super::ground::agent_name(agent),
            Target::Container(agent) => {
                format!("the container of {}", super::ground::agent_name(agent))
            }
        };
        match (self.deed, self.target) {
            (Deed::Kill(again), Target::Supervisor) => {
                write!(f, "kill {whom}, start it again {again:?} later")
            }
            (Deed::Kill(_), _) => write!(f, "kill {whom}"),
            (Deed::Stop(length), _) => write!(f, "stop {whom} for {length:?}"),
            (Deed::Replace, _) => write!(f, "replace {whom}"),
            (Deed::Restart, _) => write!(f, "restart {whom}"),
            (Deed::Pause, _) => write!(f, "pause {whom}"),
            (Deed::Disconnect, _) => write!(f, "disconnect {whom}"),
            (Deed::Remove, _) => write!(f, "remove {whom}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_same_seed_is_the_same_schedule() {
        assert_eq!(schedule(7, MINUTE, 20, false), schedule(7, MINUTE, 20, false));
        assert_ne!(schedule(7, MINUTE, 20, false), schedule(8, MINUTE, 20, false));
    }

    #[test]
    fn a_longer_campaign_begins_as_a_shorter_one() {
        let (short, long) = (schedule(7, MINUTE, 20, false), schedule(7, 2 * MINUTE, 20, false));
        assert_eq!(short[..], long[..short.len()]);
    }

    /// Every kind of target, killed (or replaced) and stopped (or restarted).
    fn misses(blows: &[Blow]) -> usize {
        let kinds: [fn(Target) -> bool; 5] = [
            |target| matches!(target, Target::Worker(_)),
            |target| matches!(target, Target::Shim(_)),
            |target| target == Target::Supervisor,
            |target| target == Target::Server,
            |target| matches!(target, Target::Agent(_)),
        ];
        let hit = |kind: fn(Target) -> bool, kill: bool| {
            blows.iter().any(|blow| {
                kind(blow.target) && matches!(blow.deed, Deed::Kill(_) | Deed::Replace) == kill
            })
        };
        let both = kinds.iter().flat_map(|kind| [(*kind, true), (*kind, false)]);
        both.filter(|(kind, kill)| !hit(*kind, *kill)).count()
    }

    #[test]
    fn a_minute_hits_everybody_in_both_ways() {
        assert_eq!(misses(&schedule(1, MINUTE, 20, false)), 0, "the seed that runs with the tests");
        // Drawn at random, a kind of blow may be missing from a minute, but not from many.
        let missed: usize = (1..=20).map(|seed| misses(&schedule(seed, MINUTE, 20, false))).sum();
        assert!(missed <= 4, "{missed} of 200 are missing");
        for seed in 1..=20 {
            let blows = schedule(seed, MINUTE, 20, false);
            assert!(blows.windows(2).all(|pair| pair[0].at < pair[1].at));
            assert!(blows.last().is_some_and(|last| last.at + CALM < MINUTE));
        }
    }

    #[test]
    fn a_minute_hits_containers_in_every_way() {
        let blows = schedule(1, MINUTE, 8, true);
        let hit = |wanted: fn(Deed) -> bool| {
            let of_containers =
                blows.iter().filter(|blow| matches!(blow.target, Target::Container(_)));
            of_containers.filter(|blow| wanted(blow.deed)).count()
        };
        let counts = [
            hit(|deed| matches!(deed, Deed::Kill(_))),
            hit(|deed| deed == Deed::Remove),
            hit(|deed| deed == Deed::Pause),
            hit(|deed| deed == Deed::Disconnect),
        ];
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        assert!(counts.iter().sum::<usize>() * 2 < blows.len(), "{counts:?} of {}", blows.len());
    }
}
