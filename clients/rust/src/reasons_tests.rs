use common::event::{Event, sequence};
use common::shim::Exit;
use common::spec::AgentSpec;
use common::{AgentName, ConversationId};
use supervisor_core::{State, step};

use super::super::reference::tests::envelope;
use super::*;
use common::control::{ControlEvent, ControlRecord};

fn record(at: u64, event: ControlEvent) -> ControlRecord {
    ControlRecord {
        id: None,
        at: Timestamp::from_millis(at),
        term: Some(1),
        author: "t".to_owned(),
        event,
    }
}

/// The agent `a` after these records.
fn agent(events: Vec<ControlEvent>) -> Option<Agent> {
    let name = AgentName::new("a").expect("valid");
    let spec = Box::new(AgentSpec::new(name.clone(), "test/model", "test"));
    let node = common::NodeName::new("n").expect("valid");
    let mut log = vec![
        ControlEvent::LeaderElected {
            supervisor: "s".to_owned(),
            run: "r".to_owned(),
            rules: supervisor_core::RULES,
        },
        ControlEvent::NodeSeen {
            node: node.clone(),
            instance: 1,
            runtimes: vec!["process".to_owned()],
            labels: Vec::new(),
            capacity: common::Capacity::default(),
        },
        ControlEvent::AgentApplied { spec, force: false, asked: None },
        ControlEvent::IncarnationAllocated {
            agent: name.clone(),
            incarnation: 1,
            generation: 1,
            node,
        },
    ];
    log.extend(events);
    let mut state = State::default();
    for (seq, event) in (1..).zip(log) {
        let _actions = step(&mut state, seq, Timestamp::from_millis(seq), &record(seq, event));
    }
    state.agent(&name).cloned()
}

fn ready() -> ControlEvent {
    let agent = AgentName::new("a").expect("valid");
    ControlEvent::IncarnationReady { agent, incarnation: 1, floor: 1 }
}

fn facts(agent: Option<Agent>) -> Facts {
    Facts {
        request: envelope("a", "m1"),
        final_: None,
        batches: Vec::new(),
        dead: None,
        agent,
        exits: BTreeMap::new(),
        ahead: Vec::new(),
        now: Timestamp::from_millis(60_001),
    }
}

fn batch(attempt: u32, incarnation: u64, body: EventBody) -> EventBatch {
    let request = envelope("a", "m1");
    let event = Event { seq: sequence(attempt, 1), at: Timestamp::from_millis(59_001), body };
    EventBatch {
        agent: request.agent,
        sender: request.sender,
        message_id: request.message_id,
        conversation_id: request.conversation_id,
        incarnation,
        attempt,
        events: vec![event],
    }
}

fn final_(status: Outcome, attempts: u32) -> Final {
    Final {
        status,
        response: None,
        reason: Some("exit code 1".to_owned()),
        attempts,
        incarnation: Some(1),
        at: Timestamp::from_millis(2_501),
        tail: Vec::new(),
    }
}

fn first(facts: &Facts) -> String {
    message(facts).swap_remove(0)
}

#[test]
fn a_message_to_a_stopped_agent_waits_for_its_start() {
    let name = AgentName::new("a").expect("valid");
    let mut history = vec![ready(), ControlEvent::AgentStopped { agent: name.clone() }];
    let line = first(&facts(agent(history.clone())));
    assert!(line.starts_with("Message m1 to a has been waiting for 60s: a is stopping"), "{line}");
    history.push(ControlEvent::IncarnationExited {
        agent: name,
        incarnation: 1,
        exit: Exit { code: Some(0), ..Exit::default() },
        clean: true,
    });
    let line = first(&facts(agent(history)));
    assert!(line.starts_with("Message m1 to a has been waiting for 60s: a is stopped"), "{line}");
    assert!(line.contains("`mozart start a`"), "{line}");
}

#[test]
fn a_message_to_nobody_says_how_to_end_it() {
    let line = first(&facts(None));
    assert!(line.contains("agent a no longer exists; `mozart cancel m1`"), "{line}");
}

#[test]
fn a_message_waits_for_the_one_before_it_in_its_conversation() {
    let mut facts = facts(agent(vec![ready()]));
    facts.request.conversation_id = ConversationId::new("c").expect("valid");
    let id = |text| MessageId::new(text).expect("valid");
    facts.ahead = vec![(false, id("m7")), (true, id("m8")), (true, id("m9"))];
    let line = first(&facts);
    assert!(line.contains("it comes after m8 and 1 more of the same conversation (c)"), "{line}");
    facts.ahead.truncate(1);
    let line = first(&facts);
    assert!(line.contains("a answers 1 at a time (CONCURRENCY), and 1 are ahead of it"), "{line}");
    facts.ahead.clear();
    assert!(first(&facts).contains("nothing blocks it"));
}

#[test]
fn a_delayed_attempt_says_when_it_begins_or_why_it_does_not() {
    let mut facts = facts(agent(vec![ready()]));
    facts.batches = vec![batch(1, 1, EventBody::Error { error: "busy".to_owned() })];
    facts.now = Timestamp::from_millis(59_501);
    let lines = message(&facts);
    let due = "attempt 2 begins at 1970-01-01T00:01:00.001Z, after the backoff of 1s (ATTEMPTS)";
    assert!(lines[0].contains(due), "{lines:?}");
    assert_eq!(lines[1], "It was tried once before; another attempt follows.");
    // Longer than any backoff: its worker asked for it.
    facts.now = Timestamp::from_millis(90_000);
    let line = first(&facts);
    assert!(line.contains("attempt 2 is delayed") && line.contains("`retryAfterMs`"), "{line}");
    // The incarnation that delayed it is gone: the next one does not.
    facts.batches = vec![batch(2, 0, EventBody::Error { error: "busy".to_owned() })];
    let lines = message(&facts);
    assert!(lines[0].contains("nothing blocks it"), "{lines:?}");
    assert_eq!(lines[1], "It was tried 2 times before; another attempt follows.");
}

#[test]
fn an_attempt_under_way_is_told_with_its_patience() {
    let mut facts = facts(agent(vec![ready()]));
    facts.batches = vec![batch(1, 1, EventBody::Delivered { incarnation: 1 })];
    assert_eq!(
        first(&facts),
        "Message m1 is being answered by a: attempt 1 in incarnation 1; the last event was 1.0s ago. \
         The attempt is given up after 10m without progress."
    );
}

#[test]
fn every_broken_attempt_says_how_it_ended() {
    let mut facts = facts(agent(vec![ready()]));
    facts.final_ = Some(final_(Outcome::Completed, 3));
    facts.batches = vec![
        batch(1, 1, EventBody::Error { error: "exit code 1".to_owned() }),
        batch(2, 2, EventBody::Delivered { incarnation: 2 }),
        batch(3, 3, EventBody::Delivered { incarnation: 3 }),
    ];
    facts.exits.insert(2, "signal 9".to_owned());
    assert_eq!(
        message(&facts),
        [
            "Message m1 was answered by a in 3 attempts, 2.5s after it was sent.",
            "It was sent by user at 1970-01-01T00:00:00.001Z.",
            "Attempt 1 in incarnation 1 ended with: exit code 1.",
            "Attempt 2 in incarnation 2 ended with its incarnation: signal 9.",
        ]
    );
}

#[test]
fn a_failure_names_its_cause_first_and_the_dead_letter_last() {
    let mut facts = facts(agent(vec![ready()]));
    facts.final_ = Some(final_(Outcome::Failed, 3));
    facts.dead = Some(DeadLetter {
        envelope: envelope("a", "m1"),
        reason: "exit code 1".to_owned(),
        attempts: Vec::new(),
        log: Vec::new(),
        at: Timestamp::from_millis(1),
        redriven_as: None,
        cut: false,
    });
    let lines = message(&facts);
    assert_eq!(lines[0], "Message m1 to a failed after 3 attempts: exit code 1.");
    assert!(lines.last().is_some_and(|line| line.contains("`mozart dead redrive m1`")));
}
