//! Which fault comes when: a pure function of the seed, the length, the number of agents and the kinds.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::kind::Kind;
use crate::random::Random;

/// How many supervisors, and how many nodes, a throwaway fleet has.
pub(crate) const SUPERVISORS: usize = 2;
pub(crate) const NODES: usize = 2;

/// Nothing happens in the first and the last moments.
const CALM: Duration = Duration::from_secs(1);
/// The pause between two faults, in milliseconds.
const GAP: (u64, u64) = (300, 1500);
/// When a killed process is started again, in milliseconds.
const BACK: (u64, u64) = (0, 3000);
/// How long a freeze or a cut lasts, in milliseconds: mostly, and now and then in a longer run, which is longer than a leader's lease.
const SHORT: (u64, u64) = (1000, 5000);
const LONG: (u64, u64) = (6000, 15_000);
const LONG_RUN: Duration = Duration::from_secs(60);
/// How many of 100 are long there.
const LONG_SHARE: u64 = 15;
/// How long an orderly restart is expected to take: nothing else is done to the process meanwhile.
const RESTART: Duration = Duration::from_secs(8);

/// A process that may be hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The supervisor with this number.
    Supervisor(usize),
    /// The node with this number.
    Node(usize),
    /// The shim of the agent with this number.
    Shim(usize),
    /// The worker of the agent with this number.
    Worker(usize),
}

/// What does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// What goes to the broker.
    Sent,
    /// What comes from it.
    Received,
    /// Both.
    Both,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// SIGKILL. A supervisor or node is started again after this time; of the rest the fleet takes care.
    Kill(Target, Duration),
    /// SIGSTOP, and SIGCONT after this time.
    Freeze(Target, Duration),
    /// No byte passes between a supervisor or a node, with the shims it started, and the broker for this time; none is lost.
    Cut(Target, Cut, Duration),
    /// SIGTERM of a supervisor or node, and a start when it has ended.
    Restart(Target),
    /// `mozart replace` of the agent with this number.
    Replace(usize),
    /// SIGKILL of the leader, which is started again after this time.
    Leader(Duration),
}

/// A fault and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blow {
    /// When, from the start of the load.
    pub at: Duration,
    /// What.
    pub deed: Deed,
}

/// The name of an agent by its number.
pub(crate) fn agent_name(number: usize) -> String {
    format!("echo-{number}")
}

/// The name of a supervisor by its number.
pub(crate) fn supervisor_name(number: usize) -> String {
    format!("s{number}")
}

/// The name of a node by its number.
pub(crate) fn node_name(number: usize) -> String {
    format!("n{number}")
}

/// The faults of a run, in order. Every kind comes as often as the others, give or take one. What is down, frozen, cut off or on its way
/// down is left alone until that is over.
#[must_use]
pub fn schedule(seed: u64, length: Duration, agents: usize, kinds: &[Kind]) -> Vec<Blow> {
    let mut draw = Draw {
        random: Random::new(seed),
        agents: agents.max(1),
        longest: length.saturating_sub(CALM),
        may_be_long: length >= LONG_RUN,
        busy: BTreeMap::new(),
    };
    let mut blows = Vec::new();
    let mut bag = Vec::new();
    let mut at = CALM;
    while at + CALM < length && !kinds.is_empty() {
        if bag.is_empty() {
            bag = kinds.to_vec();
        }
        let kind = bag.swap_remove(draw.random.below(bag.len()));
        blows.extend(draw.deed(kind, at).map(|deed| Blow { at, deed }));
        at += millis(&mut draw.random, GAP);
    }
    blows
}

fn millis(random: &mut Random, (low, high): (u64, u64)) -> Duration {
    Duration::from_millis(random.between(low, high))
}

struct Draw {
    random: Random,
    agents: usize,
    /// When the run's last fault is over.
    longest: Duration,
    may_be_long: bool,
    /// Until when something is being done to it.
    busy: BTreeMap<Target, Duration>,
}

impl Draw {
    /// None: all that this kind could be done to is busy.
    fn deed(&mut self, kind: Kind, at: Duration) -> Option<Deed> {
        match kind {
            Kind::Kill => {
                let target = self.anybody(at)?;
                let back = millis(&mut self.random, BACK);
                self.occupy(target, at + back + CALM);
                Some(Deed::Kill(target, back))
            }
            Kind::Freeze => {
                let target = self.anybody(at)?;
                let length = self.length(at);
                self.occupy(target, at + length);
                Some(Deed::Freeze(target, length))
            }
            Kind::Cut => {
                let target = self.role(at)?;
                let cut = match self.random.between(1, 4) {
                    1 => Cut::Sent,
                    2 => Cut::Received,
                    _ => Cut::Both,
                };
                let length = self.length(at);
                self.occupy(target, at + length);
                Some(Deed::Cut(target, cut, length))
            }
            Kind::Restart => {
                let target = self.role(at)?;
                self.occupy(target, at + RESTART);
                Some(Deed::Restart(target))
            }
            Kind::Replace => Some(Deed::Replace(self.random.below(self.agents))),
            Kind::Leader => Some(Deed::Leader(millis(&mut self.random, BACK))),
        }
    }

    fn occupy(&mut self, target: Target, until: Duration) {
        self.busy.insert(target, until);
    }

    /// How long something lasts that ends with the run, or soon after.
    fn length(&mut self, at: Duration) -> Duration {
        let is_long = self.may_be_long && self.random.chance(LONG_SHARE);
        let length = millis(&mut self.random, if is_long { LONG } else { SHORT });
        length.min(self.longest.saturating_sub(at).max(Duration::from_millis(SHORT.0)))
    }

    fn anybody(&mut self, at: Duration) -> Option<Target> {
        let agent = self.random.below(self.agents);
        match self.random.between(1, 100) {
            1..=35 => Some(Target::Worker(agent)),
            36..=65 => Some(Target::Shim(agent)),
            _ => self.role(at),
        }
    }

    fn role(&mut self, at: Duration) -> Option<Target> {
        let supervisors = (0..SUPERVISORS).map(Target::Supervisor);
        let roles = supervisors.chain((0..NODES).map(Target::Node));
        let is_free = |role: &Target| self.busy.get(role).is_none_or(|until| *until <= at);
        let free: Vec<_> = roles.filter(is_free).collect();
        // Drawn also where nobody is free: what follows depends on how many numbers were drawn.
        let chosen = self.random.below(free.len());
        free.get(chosen).copied()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Supervisor(number) => write!(f, "supervisor {}", supervisor_name(*number)),
            Self::Node(number) => write!(f, "node {}", node_name(*number)),
            Self::Shim(agent) => write!(f, "the shim of {}", agent_name(*agent)),
            Self::Worker(agent) => write!(f, "the worker of {}", agent_name(*agent)),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |time: &Duration| format!("{:.1} s", time.as_secs_f64());
        match self {
            Self::Kill(target @ (Target::Supervisor(_) | Target::Node(_)), back) => {
                write!(f, "kill {target}, start it again after {}", seconds(back))
            }
            Self::Kill(target @ (Target::Shim(_) | Target::Worker(_)), _) => {
                write!(f, "kill {target}")
            }
            Self::Freeze(target, length) => write!(f, "freeze {target} for {}", seconds(length)),
            Self::Cut(target, cut, length) => {
                let what = match cut {
                    Cut::Sent => format!("hold what {target} sends"),
                    Cut::Received => format!("hold what is sent to {target}"),
                    Cut::Both => format!("cut off {target}"),
                };
                write!(f, "{what} for {}", seconds(length))
            }
            Self::Restart(target) => write!(f, "restart {target}"),
            Self::Replace(agent) => write!(f, "replace {}", agent_name(*agent)),
            Self::Leader(back) => {
                write!(f, "kill the leader, start it again after {}", seconds(back))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn kind(deed: Deed) -> Kind {
        match deed {
            Deed::Kill(..) => Kind::Kill,
            Deed::Freeze(..) => Kind::Freeze,
            Deed::Cut(..) => Kind::Cut,
            Deed::Restart(_) => Kind::Restart,
            Deed::Replace(_) => Kind::Replace,
            Deed::Leader(_) => Kind::Leader,
        }
    }

    #[test]
    fn the_same_seed_is_the_same_schedule() {
        let one = schedule(7, MINUTE, 4, &Kind::ALL);
        assert_eq!(one, schedule(7, MINUTE, 4, &Kind::ALL));
        assert_ne!(one, schedule(8, MINUTE, 4, &Kind::ALL));
    }

    #[test]
    fn a_short_run_has_every_kind_and_only_those_that_were_asked_for() {
        for seed in 0..50 {
            let blows = schedule(seed, Duration::from_secs(18), 4, &Kind::ALL);
            for wanted in Kind::ALL {
                assert!(blows.iter().any(|blow| kind(blow.deed) == wanted), "{seed}: {wanted}");
            }
            let blows = schedule(seed, MINUTE, 4, &[Kind::Cut, Kind::Replace]);
            assert!(!blows.is_empty());
            let cut_or_replaced =
                |blow: &Blow| matches!(kind(blow.deed), Kind::Cut | Kind::Replace);
            assert!(blows.iter().all(cut_or_replaced), "{seed}");
        }
        assert_eq!(schedule(1, MINUTE, 4, &[]), []);
    }

    #[test]
    fn times_rise_within_the_run_and_nothing_is_done_to_what_is_away() {
        for seed in 0..50 {
            let blows = schedule(seed, 3 * MINUTE, 4, &Kind::ALL);
            assert!(blows.windows(2).all(|pair| pair[0].at < pair[1].at));
            assert!(blows.iter().all(|blow| blow.at >= CALM && blow.at + CALM < 3 * MINUTE));
            let mut away: BTreeMap<Target, Duration> = BTreeMap::new();
            for blow in blows {
                let (target, until) = match blow.deed {
                    Deed::Kill(target, time)
                    | Deed::Freeze(target, time)
                    | Deed::Cut(target, _, time) => (target, blow.at + time),
                    Deed::Restart(target) => (target, blow.at + RESTART),
                    Deed::Replace(_) | Deed::Leader(_) => continue,
                };
                if matches!(target, Target::Supervisor(_) | Target::Node(_)) {
                    let before = away.insert(target, until).unwrap_or_default();
                    assert!(before <= blow.at, "{seed}: {blow:?}");
                }
            }
        }
    }

    #[test]
    fn what_lasts_is_over_soon_after_the_run() {
        for seed in 0..50 {
            for blow in schedule(seed, MINUTE, 4, &[Kind::Freeze, Kind::Cut]) {
                let (Deed::Freeze(_, length) | Deed::Cut(_, _, length)) = blow.deed else {
                    continue;
                };
                assert!(blow.at + length <= MINUTE, "{blow:?}");
            }
        }
    }
}
