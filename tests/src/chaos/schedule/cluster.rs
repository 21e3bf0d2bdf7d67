//! The schedule for a fleet whose roles are processes of their own, over a cluster of three nats-servers.

use std::time::Duration;

use super::{Blow, CALM, Deed, GAP, Target, deed, frozen, short_stop};
use chaos::Random;

/// How many there are of each.
pub(in crate::chaos) const SERVERS: usize = 3;
/// The same, of supervisors.
pub(in crate::chaos) const SUPERVISORS: usize = 2;
/// The same, of nodes.
pub(in crate::chaos) const NODES: usize = 2;

/// When the first server is hit, and the pause after each: it must have caught up before the next one is hit, which the storm waits
/// for if it takes longer.
const FIRST: Duration = Duration::from_secs(4);
const BETWEEN: Duration = Duration::from_secs(8);

/// The blows of a campaign over a cluster, in order: those at servers apart, since each of them waits until the one before is undone.
#[must_use]
pub fn cluster(
    seed: u64,
    length: Duration,
    agents: usize,
    freezes: &[Duration],
    hosts: bool,
) -> (Vec<Blow>, Vec<Blow>) {
    let whom = |random: &mut Random, agent| {
        let (supervisor, node) = (random.below(SUPERVISORS), random.below(NODES));
        [Target::Supervisor(supervisor), Target::Node(node), Target::Shim(agent)]
    };
    let frozen = frozen(seed, length, agents, freezes, whom);
    let mut blows = roles(seed, length, agents);
    blows.retain(|blow| !frozen.iter().any(|freeze| blow.disturbs(freeze)));
    blows.extend(frozen);
    blows.sort_by_key(|blow| blow.at);
    let at_servers =
        if hosts { links(seed, length, freezes) } else { servers(seed, length, freezes) };
    (blows, at_servers)
}

/// The host of each of the supervisors, and of the nodes, where they are on hosts; each server has one of its own.
pub(in crate::chaos) fn host_of(target: Target) -> Option<usize> {
    match target {
        Target::Server(number) | Target::Supervisor(number) | Target::Host(number) => Some(number),
        // On the first and the last one: the one between has no agents.
        Target::Node(number) => Some(2 * number),
        Target::Worker(_)
        | Target::Shim(_)
        | Target::Up
        | Target::Agent(_)
        | Target::Container(_) => None,
    }
}

/// For so long, in seconds, links are cut in turn: nobody notices, nodes are just lost, and everybody has noticed.
const CUTS: [u64; 3] = [5, 15, 30];

/// Blows at servers and their hosts, of each kind in turn.
fn links(seed: u64, length: Duration, freezes: &[Duration]) -> Vec<Blow> {
    let mut random = Random::new(seed.rotate_left(32));
    let mut freezes = freezes.iter().cycle();
    let mut blows = Vec::new();
    let mut at = FIRST;
    // Another length for each kind with each round.
    let mut cuts = CUTS.into_iter().cycle().map(Duration::from_secs);
    let mut cut = || cuts.next().unwrap_or_default();
    for kind in (0..10).cycle() {
        let number = random.below(SERVERS);
        let (server, host) = (Target::Server(number), Target::Host(number));
        let soon = |random: &mut Random| Duration::from_millis(random.between(0, 5000));
        let (target, deed) = match kind {
            0 => (host, Deed::Isolate(cut())),
            1 => (server, Deed::Kill(soon(&mut random))),
            2 => (host, Deed::Mute(cut())),
            3 => (host, Deed::PowerCut(soon(&mut random))),
            4 => (host, Deed::Part(cut())),
            5 => (server, Deed::Wipe(soon(&mut random))),
            6 => (host, Deed::Deafen(cut())),
            7 => (
                server,
                freezes.next().map_or_else(|| short_stop(&mut random), |one| Deed::Stop(*one)),
            ),
            8 => (host, Deed::Exclude(cut())),
            _ => (server, short_stop(&mut random)),
        };
        let blow = Blow { at, target, deed };
        if blow.undone_at() + CALM > length {
            break;
        }
        at = blow.undone_at() + BETWEEN;
        blows.push(blow);
    }
    blows
}

/// Blows at everybody but the servers.
fn roles(seed: u64, length: Duration, agents: usize) -> Vec<Blow> {
    let mut random = Random::new(seed);
    let mut blows = Vec::new();
    let mut at = CALM;
    while at + CALM < length {
        let agent = random.below(agents);
        let target = match random.between(1, 100) {
            1..=38 => Target::Worker(agent),
            39..=68 => Target::Shim(agent),
            69..=78 => Target::Agent(agent),
            79..=90 => Target::Supervisor(random.below(SUPERVISORS)),
            _ => Target::Node(random.below(NODES)),
        };
        blows.push(Blow { at, target, deed: deed(&mut random, target) });
        at += Duration::from_millis(random.between(GAP.0, GAP.1));
    }
    blows
}

/// Blows at servers: one is killed, one frozen for each of the lengths in turn, one wiped, one stopped for seconds, and so on.
fn servers(seed: u64, length: Duration, freezes: &[Duration]) -> Vec<Blow> {
    // Apart from the other blows' numbers.
    let mut random = Random::new(seed.rotate_left(32));
    let mut freezes = freezes.iter().cycle();
    let mut blows = Vec::new();
    let mut at = FIRST;
    for kind in (0..4).cycle() {
        let target = Target::Server(random.below(SERVERS));
        let deed = match kind {
            0 => Deed::Kill(Duration::from_millis(random.between(0, 5000))),
            1 => freezes.next().map_or_else(|| short_stop(&mut random), |one| Deed::Stop(*one)),
            2 => Deed::Wipe(Duration::from_millis(random.between(0, 3000))),
            _ => short_stop(&mut random),
        };
        let blow = Blow { at, target, deed };
        if blow.undone_at() + CALM > length {
            break;
        }
        at = blow.undone_at() + BETWEEN;
        blows.push(blow);
    }
    blows
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const FREEZE: Duration = Duration::from_secs(15);

    #[test]
    fn the_same_seed_is_the_same_schedule() {
        assert_eq!(
            cluster(7, MINUTE, 8, &[FREEZE], false),
            cluster(7, MINUTE, 8, &[FREEZE], false)
        );
        let (blows, servers) = cluster(7, MINUTE, 8, &[FREEZE], false);
        let (others, other_servers) = cluster(8, MINUTE, 8, &[FREEZE], false);
        assert_ne!(blows, others);
        assert_ne!(servers, other_servers);
    }

    #[test]
    fn servers_are_hit_one_after_the_other_with_a_pause_between() {
        for seed in 1..=50 {
            let (blows, servers) = cluster(seed, 10 * MINUTE, 8, &[FREEZE, MINUTE], false);
            let is_server = |blow: &Blow| matches!(blow.target, Target::Server(_));
            assert!(servers.iter().all(is_server) && !blows.iter().any(is_server));
            assert!(servers.len() >= 16, "{}", servers.len());
            for pair in servers.windows(2) {
                assert!(pair[0].undone_at() + BETWEEN <= pair[1].at, "{pair:?}");
            }
            assert!(servers.iter().all(|blow| blow.undone_at() + CALM <= 10 * MINUTE));
        }
    }

    #[test]
    fn a_minute_kills_a_server_freezes_one_and_wipes_one() {
        for seed in 1..=50 {
            let (_, servers) = cluster(seed, MINUTE, 8, &[FREEZE], false);
            let any = |is: fn(Deed) -> bool| servers.iter().any(|blow| is(blow.deed));
            assert!(any(|deed| matches!(deed, Deed::Kill(_))), "{servers:?}");
            assert!(any(|deed| deed == Deed::Stop(FREEZE)), "{servers:?}");
            assert!(any(|deed| matches!(deed, Deed::Wipe(_))), "{servers:?}");
        }
    }

    #[test]
    fn ten_minutes_freeze_every_kind_for_every_length_and_hit_every_server() {
        let (blows, servers) = cluster(1, 10 * MINUTE, 8, &[FREEZE, MINUTE], false);
        for length in [FREEZE, MINUTE] {
            let frozen = |is: fn(Target) -> bool| {
                let all = blows.iter().chain(&servers);
                all.filter(|blow| blow.deed == Deed::Stop(length) && is(blow.target)).count()
            };
            let counts = [
                frozen(|target| matches!(target, Target::Supervisor(_))),
                frozen(|target| matches!(target, Target::Node(_))),
                frozen(|target| matches!(target, Target::Shim(_))),
                frozen(|target| matches!(target, Target::Server(_))),
            ];
            assert!(counts.iter().all(|count| *count > 0), "{length:?}: {counts:?}");
        }
        for number in 0..SERVERS {
            assert!(servers.iter().any(|blow| blow.target == Target::Server(number)));
        }
    }

    #[test]
    fn whoever_is_frozen_is_left_alone_meanwhile_and_the_other_of_its_kind_is_not() {
        let mut others = 0;
        for seed in 1..=20 {
            let (blows, _) = cluster(seed, 10 * MINUTE, 8, &[FREEZE], false);
            let freezes = blows.iter().filter(|blow| blow.deed == Deed::Stop(FREEZE));
            for freeze in freezes {
                let during = freeze.at..freeze.undone_at();
                let hit = blows.iter().filter(|blow| during.contains(&blow.at));
                let same = hit.clone().filter(|blow| blow.target == freeze.target).count();
                assert_eq!(same, 1, "only the freeze itself: {freeze:?}");
                if let Target::Node(frozen) = freeze.target {
                    let other = Target::Node(NODES - 1 - frozen);
                    others += hit.filter(|blow| blow.target == other).count();
                }
            }
        }
        assert!(others > 0, "no node was hit while the other one was frozen");
    }

    #[test]
    fn ten_minutes_over_hosts_have_every_kind_of_cut() {
        let (_, blows) = cluster(1, 10 * MINUTE, 8, &[FREEZE], true);
        let kinds: std::collections::BTreeSet<_> = blows
            .iter()
            .map(|blow| std::mem::discriminant(&blow.deed))
            .map(|kind| format!("{kind:?}"))
            .collect();
        assert_eq!(kinds.len(), 9, "{blows:?}");
        for pair in blows.windows(2) {
            assert!(pair[0].undone_at() + BETWEEN <= pair[1].at, "{pair:?}");
        }
    }
}
