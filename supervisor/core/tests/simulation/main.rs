//! A seeded simulation of the control plane: several replicas fold one log at their own pace and lead in turn, nodes crash,
//! return, are cut off and drained, incarnations become ready, crash and hang, everything sent is lost, repeated, reordered and
//! late, and people apply, stop, start, replace and remove. Processes and hosts stand still, every process has clocks of its own,
//! two supervisors have one id, two nodes one name, builds are mixed for a while, and a handover is as many requests as it is.
//! Then the network heals, and the fleet must converge.
//!
//! `MOZART_SIM_SEED` is the first seed, in decimal; `MOZART_SIM_RUNS` the number of seeds (200). A seed that fails is named,
//! and running it alone prints what happened, record by record. `MOZART_SIM_LOG` names a file for the log of the last one.

#![expect(clippy::print_stdout, reason = "what a run came to is for whoever runs it")]

mod broker;
mod chaos;
mod handover;
mod hears;
mod log;
mod node;
mod replica;
mod rng;
mod verdict;
mod world;

use world::{Outcome, World};

/// A rule that is broken on purpose, to see that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flaw {
    None,
    /// The fold obeys whoever once led.
    ObeyDeposedLeaders,
    /// A record that the log stored twice counts twice.
    CountTwice,
    /// What a removed agent leaves behind is forgotten, so that its numbers are given again.
    ForgetTombstones,
    /// An admission leaves the consumers of earlier incarnations as they are.
    KeepConsumers,
    /// Nobody asks who was admitted.
    NoFence,
    /// One replica folds by the authors' clocks.
    OwnTime,
    /// A leader's own standstill is others' silence.
    CountStandstill,
    /// A node obeys what another process of its name is told.
    AnyInstance,
    /// A report is believed about what it does not know yet.
    IgnoreSeen,
    /// A shim that hears nothing goes on starting turns.
    NoGate,
    /// The leader's timers are never set.
    NoTimers,
    /// Nobody stops what runs without being wanted.
    LeaveOrphans,
    /// A new leader does not take up what its predecessor left undone.
    NoResume,
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).unwrap_or_default();
    if text.is_empty() {
        return default;
    }
    text.parse().unwrap_or_else(|_| panic!("{name}={text}: a whole number is expected"))
}

fn run(seed: u64, flaw: Flaw) -> Outcome {
    World::new(seed, flaw, false).run()
}

#[test]
fn every_seed_converges_and_never_breaks_a_rule() {
    converge(setting("MOZART_SIM_SEED", 1), setting("MOZART_SIM_RUNS", 200));
}

/// Other ones each time; one that fails is named, and is the same run again by its name.
#[test]
fn fresh_seeds_converge_too() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let first = now.expect("it is after 1970").as_secs() * 1000;
    converge(first, 50);
}

fn converge(first: u64, runs: u64) {
    let mut totals = Outcome::default();
    for seed in first..first.saturating_add(runs) {
        let outcome = World::new(seed, Flaw::None, runs == 1).run();
        if let Some(violation) = &outcome.violation {
            panic!(
                "seed {seed}: {violation}\nsee it with MOZART_SIM_SEED={seed} MOZART_SIM_RUNS=1"
            );
        }
        totals.add(&outcome);
    }
    println!("{runs} seeds from {first}: {totals}");
    // A simulation in which nothing happens proves nothing.
    assert!(runs < 100 || totals.is_eventful(runs), "too little happened: {totals}");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [1, 7, 4_711] {
        let (once, again) = (run(seed, Flaw::None), run(seed, Flaw::None));
        assert_eq!(once.trace, again.trace, "seed {seed}");
        assert_eq!(once, again);
        assert_ne!(once.trace, run(seed + 1, Flaw::None).trace);
    }
}

/// Runs seeds until one breaks a rule, and returns which.
fn caught(flaw: Flaw) -> String {
    (1..=500)
        .find_map(|seed| run(seed, flaw).violation)
        .unwrap_or_else(|| panic!("{flaw:?} was not noticed in 500 seeds"))
}

#[test]
fn obeying_a_deposed_leader_is_noticed() {
    assert!(caught(Flaw::ObeyDeposedLeaders).contains("deposed leader"));
}

#[test]
fn a_record_that_counts_twice_is_noticed() {
    assert!(caught(Flaw::CountTwice).contains("counts twice"));
}

#[test]
fn giving_a_number_again_is_noticed() {
    assert!(caught(Flaw::ForgetTombstones).contains("again"));
}

#[test]
fn two_that_take_messages_are_noticed() {
    assert!(caught(Flaw::KeepConsumers).contains("take messages"));
}

#[test]
fn replicas_that_disagree_are_noticed() {
    assert!(caught(Flaw::OwnTime).contains("disagree"));
}

/// One leader stands still between its claim and its consumer; another one admits the next incarnation meanwhile.
fn late_handover(flaw: Flaw) -> Result<(), String> {
    use handover::{Handover, Step};
    let agent = common::AgentName::new("able").expect("a valid name");
    let mut world = World::new(1, flaw, false);
    for (host, incarnation) in [(0, 1), (1, 2)] {
        world.hosts[host].workers.insert((agent.clone(), incarnation), node::Worker::ready());
    }
    let asks = |incarnation: u64, step| Handover {
        replica: 0,
        run: 0,
        term: 1,
        agent: agent.clone(),
        incarnation,
        over: (1..incarnation).collect(),
        step,
    };
    world.broker_does(asks(1, Step::Claim))?;
    for step in [Step::Claim, Step::Delete(0), Step::Delete(1), Step::Create] {
        world.broker_does(asks(2, step))?;
    }
    let made = world.broker.consumer(&agent, 2).expect("it was made");
    world.begin(&agent, 2, made)?;
    world.broker_does(asks(1, Step::Create))?;
    let late = world.broker.consumer(&agent, 1).expect("it was made");
    let before = world.outcome.admissions;
    world.broker_does(asks(1, Step::Check(late)))?;
    if world.outcome.admissions > before {
        world.begin(&agent, 1, late)?;
    }
    Ok(())
}

#[test]
fn an_admission_without_a_fence_is_noticed() {
    assert_eq!(late_handover(Flaw::None), Ok(()));
    let why = late_handover(Flaw::NoFence).expect_err("nobody asks who was admitted");
    assert!(why.contains("take messages"), "{why}");
}

#[test]
fn a_standstill_that_counts_as_silence_is_noticed() {
    // Nothing else happens: every supervisor stands still for as long as a lid is closed.
    let run = |flaw| {
        let mut world = World::new(1, flaw, false);
        world.calm = true;
        world.later(62_000, world::Event::Standstill(25_000));
        world.run().violation
    };
    assert_eq!(run(Flaw::None), None);
    let why = run(Flaw::CountStandstill).expect("it takes its own standstill for others' silence");
    assert!(why.contains("counts as lost, and is there"), "{why}");
}

#[test]
fn a_node_that_obeys_what_its_double_is_told_is_noticed() {
    let why = caught(Flaw::AnyInstance);
    assert!(why.contains("again, on another node"), "{why}");
}

#[test]
fn a_report_that_is_believed_about_what_it_cannot_know_is_noticed() {
    assert!(caught(Flaw::IgnoreSeen).contains("counts as gone"));
}

#[test]
fn a_shim_that_hears_nothing_and_goes_on_is_noticed() {
    assert!(caught(Flaw::NoGate).contains("starts a turn after"));
}

#[test]
fn forgotten_timers_are_noticed() {
    assert!(caught(Flaw::NoTimers).contains("converge"));
}

#[test]
fn orphans_are_noticed() {
    assert!(caught(Flaw::LeaveOrphans).contains("converge"));
}

#[test]
fn a_leader_that_does_not_resume_is_noticed() {
    assert!(caught(Flaw::NoResume).contains("converge"));
}
