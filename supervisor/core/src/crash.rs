//! What follows a crash: a delay that grows, a limit, or nothing.
//!
//! Nothing here reads a clock or draws a random number: the jitter is a hash of the agent and its incarnation, so that a fleet
//! that crashed at once does not come back at once, and every replica computes the same time.

use std::time::Duration;

use common::AgentName;
use common::control::Timer;
use common::shim::Exit;
use common::spec::{Restart, RestartPolicy};

use crate::life::Life;
use crate::state::Hold;
use crate::text;

/// The delay before the nth restart since the agent was stable, `n` from 1.
fn delay(restart: &Restart, n: u32, agent: &AgentName, incarnation: u64) -> Duration {
    let doubled = 2_u32.checked_pow(n.saturating_sub(1)).unwrap_or(u32::MAX);
    let plain = restart.backoff_first.saturating_mul(doubled).min(restart.backoff_max);
    // The first one is exact: a single crash is over after exactly `backoff_first`.
    if n < 2 {
        return plain;
    }
    let millis = u64::try_from(plain.as_millis()).unwrap_or(u64::MAX);
    let spread = millis / 10;
    let jitter = hash(agent, incarnation) % spread.saturating_mul(2).saturating_add(1);
    Duration::from_millis((millis - spread).saturating_add(jitter))
}

/// FNV-1a, finished so that neighbouring incarnations land far apart: the standard library's hasher may change between releases.
fn hash(agent: &AgentName, incarnation: u64) -> u64 {
    let bytes = agent.as_str().bytes().chain(incarnation.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 29)
}

impl Life<'_> {
    /// How the worker ended, and when.
    pub(crate) fn ended_with(&mut self, exit: Exit) {
        self.agent.last_exit = Some(exit);
        self.agent.last_exit_at = Some(self.world.at);
    }

    /// The current one ended unasked.
    pub(crate) fn crashed(&mut self, why: String, exit: Exit) {
        let restart = self.agent.target_spec().restart;
        let how = exit.describe();
        // With a reason it was ended: by somebody's signal, or because it was of no use any more.
        let succeeded = exit.code == Some(0) && exit.reason.is_none();
        self.ended_with(exit);
        match restart.policy {
            RestartPolicy::Never => self.rest(Hold::GivenUp, why),
            RestartPolicy::OnFailure if succeeded => {
                self.rest(Hold::Completed, format!("completed: {how}"));
            }
            RestartPolicy::OnFailure | RestartPolicy::Always => {
                if self.within_limit(&restart) {
                    self.restart_later(&restart, why);
                } else {
                    let period = text::duration(restart.period);
                    let max = restart.max;
                    let reason =
                        format!("quarantined: {max} restarts within {period}; last: {how}");
                    self.rest(Hold::Quarantined, reason);
                }
            }
        }
    }

    fn rest(&mut self, hold: Hold, reason: String) {
        self.agent.hold = Some(hold);
        self.agent.reason = Some(reason);
    }

    /// Counts a restart, unless that would be one too many. The limit is a rate: being stable in between does not reset it.
    fn within_limit(&mut self, restart: &Restart) -> bool {
        if restart.max == 0 {
            return true;
        }
        let at = self.world.at;
        let restarts = &mut self.agent.restarts;
        restarts.retain(|earlier| at.since(*earlier) <= restart.period);
        let within = restarts.len() < usize::try_from(restart.max).unwrap_or(usize::MAX);
        if within {
            restarts.push(at);
        }
        within
    }

    fn restart_later(&mut self, restart: &Restart, why: String) {
        let agent = &mut *self.agent;
        agent.restart_count = agent.restart_count.saturating_add(1);
        let wait = delay(restart, agent.restart_count, &agent.name, agent.incarnation);
        if wait.is_zero() {
            return self.begin(Some(why));
        }
        let at = self.world.at.after(wait);
        agent.hold = Some(Hold::Backoff);
        agent.reason = Some(why);
        agent.next_try = Some(at);
        self.world.set_timer(&agent.name, Timer::Restart, agent.incarnation, at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        AgentName::new(name).expect("a valid name")
    }

    #[test]
    fn the_delay_doubles_from_exactly_one_second_to_one_minute() {
        let restart = Restart::default();
        let millis = |n| delay(&restart, n, &agent("a"), 7).as_millis();
        assert_eq!(millis(1), 1_000);
        for (n, plain) in [(2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000), (40, 60_000)] {
            let (low, high) = (plain - plain / 10, plain + plain / 10);
            assert!((low..=high).contains(&millis(n)), "{n}: {}", millis(n));
        }
        assert_eq!(millis(u32::MAX), millis(40));
    }

    #[test]
    fn jitter_spreads_a_fleet_and_is_the_same_everywhere() {
        let of = |n| delay(&Restart::default(), 7, &agent(&format!("a{n}")), 3).as_millis();
        let delays: std::collections::BTreeSet<_> = (0..100).map(of).collect();
        assert!(delays.len() > 80, "{}", delays.len());
        // Written down: replicas of several builds have to come to the same.
        assert_eq!([of(0), of(1), of(5)], [56_709, 54_181, 61_759]);
    }

    #[test]
    fn extreme_settings_do_not_panic() {
        let restart = Restart {
            backoff_first: Duration::MAX,
            backoff_max: Duration::MAX,
            ..Restart::default()
        };
        assert!(delay(&restart, 9, &agent("a"), u64::MAX) > Duration::from_secs(1));
    }
}
