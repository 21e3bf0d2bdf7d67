//! What the leader has not seen, because its link was down or it stood still, is nobody's silence.

use super::*;

#[test]
fn its_own_blindness_is_nobodys_silence() {
    let fleet = running();
    let mut eyes = eyes(0);
    eyes.node_report(&fleet.state, 1_000, &report(&[1]));
    eyes.link(false, 2_000);
    assert_eq!(look(&mut eyes, &fleet, 2_000, 60_000), []);
    eyes.link(true, 60_000);
    eyes.link(true, 65_000);
    let expected = [(70_000, lost())];
    assert_eq!(look(&mut eyes, &fleet, 61_000, 70_000), expected, "the whole window must be seen");
}

#[test]
fn its_own_standstill_is_nobodys_silence() {
    // As long as one likes: a stopped process, a closed lid, a frozen machine.
    for gap in [3_000, 11_000, 50_000, 86_400_000] {
        let fleet = running();
        let mut eyes = eyes(0);
        let beat = Heartbeat::default();
        eyes.node_report(&fleet.state, 1_000, &report(&[1]));
        eyes.shim_heartbeat(&fleet.state, 1_000, &mender(), 1, &beat);
        assert_eq!(look(&mut eyes, &fleet, 2_000, 5_000), []);
        let back = 5_000 + gap;
        // Whatever comes first after it: a tick, a report, or a word of somebody else.
        match gap % 3 {
            0 => assert_eq!(eyes.tick(&fleet.state, back), []),
            1 => assert_eq!(eyes.awake(back), gap),
            _ => assert!(eyes.shim_heard(&fleet.state, back, &mender(), 1)),
        }
        // The window begins anew, and then it counts.
        let all = look(&mut eyes, &fleet, back, back + 10_000);
        assert_eq!(all, [(back + 10_000, lost())], "{gap}");
    }
}

#[test]
fn a_standstill_makes_no_shim_hang_and_nothing_stable() {
    let mut fleet = running();
    let hangs = |eyes: &mut Observer, fleet: &Fleet, from: u64, to: u64| {
        let seconds = (from..=to).step_by(1_000);
        seconds
            .map(|now| {
                eyes.node_report(&fleet.state, now, &report(&[1]));
                eyes.tick(&fleet.state, now).len()
            })
            .sum::<usize>()
    };
    let mut observer = eyes(0);
    observer.shim_heartbeat(&fleet.state, 0, &mender(), 1, &Heartbeat::default());
    assert_eq!(hangs(&mut observer, &fleet, 1_000, 5_000), 0);
    assert_eq!(hangs(&mut observer, &fleet, 55_000, 84_000), 0, "fifty seconds of it were ours");
    assert_eq!(hangs(&mut observer, &fleet, 85_000, 85_000), 1, "thirty were its own");

    fleet.exited(1, code(1));
    fleet.later(1_000).fire(common::control::Timer::Restart, 1);
    fleet.ready(2);
    let busy = Heartbeat { finished: 1, ..Heartbeat::default() };
    let mut eyes = eyes(0);
    eyes.shim_heartbeat(&fleet.state, 0, &mender(), 2, &busy);
    assert_eq!(eyes.shim_heartbeat(&fleet.state, 60_000, &mender(), 2, &busy), [], "unseen");
}

#[test]
fn a_standstill_makes_nothing_absent() {
    let fleet = running();
    let mut eyes = eyes(0);
    assert_eq!(eyes.node_report(&fleet.state, 1_000, &report(&[])), []);
    // What was on its way meanwhile comes now, all at once.
    for _ in 0..5 {
        assert_eq!(eyes.node_report(&fleet.state, 12_000, &report(&[])), []);
    }
    assert_eq!(eyes.node_report(&fleet.state, 13_000, &report(&[1])), []);
}

#[test]
fn what_is_overdue_after_a_standstill_is_heard_first() {
    let mut eyes = eyes(0);
    assert!(!eyes.has_listened(4_999), "a new leader has heard nobody yet");
    for now in (0..6_000).step_by(1_000) {
        eyes.awake(now);
    }
    assert!(eyes.has_listened(5_000));
    eyes.awake(60_000);
    assert!(!eyes.has_listened(60_000));
    for now in (60_000..66_000).step_by(1_000) {
        eyes.awake(now);
    }
    assert!(eyes.has_listened(65_000));
    eyes.link(false, 65_000);
    assert!(!eyes.has_listened(80_000));
}

/// When a new leader that followed from 0 on says that alpha, heard at `heard`, is lost; it leads from 9 s on.
fn lost_at(ears: &Ears) -> Option<u64> {
    let fleet = running();
    let mut eyes = Observer::after(TERM, 9_000, ears);
    (9_000..40_000).step_by(500).find(|now| !eyes.tick(&fleet.state, *now).is_empty())
}

#[test]
fn a_new_leader_knows_how_long_it_has_not_heard_a_node_while_it_followed() {
    let mut ears = Ears::new(0);
    for now in (0..9_000).step_by(1_000) {
        ears.awake(now);
    }
    // Heard last before it led: silent for 10 s at 12 s, and had its chance at 13 s.
    let mut heard = ears.clone();
    heard.heard(&node_name("alpha"), 2_000);
    assert_eq!(lost_at(&heard), Some(13_000));
    let mut heard = ears.clone();
    heard.heard(&node_name("alpha"), 8_000);
    assert_eq!(lost_at(&heard), Some(18_000));
    // Never heard, though it listened from 0 on.
    assert_eq!(lost_at(&ears), Some(13_000));
    // Its link was down until 7 s, or it stood still until then: it cannot tell what was before.
    let mut cut = ears.clone();
    cut.link(false, 3_000);
    cut.link(true, 7_000);
    assert_eq!(lost_at(&cut), Some(17_000));
    let mut still = Ears::new(0);
    still.awake(7_000);
    assert_eq!(lost_at(&still), Some(17_000));
}

#[test]
fn a_shim_that_only_its_node_hears_may_be_out_of_the_leaders_reach() {
    let fleet = running();
    let mut eyes = eyes(0);
    let mut second = |second: u64, node: bool, beats: bool| {
        let now = second * 1_000;
        if node {
            let _news = eyes.node_report(&fleet.state, now, &report(&[1]));
        }
        if beats {
            let beat = Heartbeat::default();
            let _news = eyes.shim_heartbeat(&fleet.state, now, &mender(), 1, &beat);
        }
        let _news = eyes.tick(&fleet.state, now);
        eyes.unheard(&fleet.state, now)
    };
    // It is never heard: since it runs, as its node says.
    for at in 1..12 {
        assert_eq!(second(at, true, false), None);
    }
    assert_eq!(second(12, true, false), Some(11_000));
    assert_eq!(second(13, true, true), None);
    // One heartbeat is lost.
    for at in 14..24 {
        assert_eq!(second(at, true, false), None);
    }
    assert_eq!(second(24, true, false), Some(11_000));
    // Nor is its node heard: that host is lost, or cut off.
    for at in 25..28 {
        let _silent = second(at, false, false);
    }
    assert_eq!(second(28, false, false), None);
}
