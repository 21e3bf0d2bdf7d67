//! What is stored and what is sent: read back as it was written, and never a panic on what somebody else wrote.

use std::time::Duration;

use common::api::Query;
use common::codec::{self, decode, encode};
use common::control::{ControlEvent, ControlRecord, Timer};
use common::event::{self, Event, EventBody};
use common::frame::{
    NodeCommand, NodeCommandBody, NodeReport, ShimCommand, ShimReport, StartIncarnation,
};
use common::message::{Final, Outcome};
use common::shim::Exit;
use common::spec::AgentSpec;
use common::worker::{self, FromWorker};
use common::{AgentName, Capacity, NodeName, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

fn agent() -> AgentName {
    AgentName::new("writer").expect("valid")
}

/// Reads the bytes as every frame there is.
fn read_as_anything(bytes: &[u8]) {
    drop(decode::<ShimCommand>(bytes));
    drop(decode::<ShimReport>(bytes));
    drop(decode::<NodeCommand>(bytes));
    drop(decode::<NodeReport>(bytes));
    drop(event::decode(bytes));
    worker::read(bytes, &mut |said| drop(said));
    drop(worker::too_long(bytes));
    drop(serde_json::from_slice::<ControlRecord>(bytes));
    drop(serde_json::from_slice::<Final>(bytes));
}

fn frame() -> Vec<u8> {
    let start = StartIncarnation {
        agent: agent(),
        generation: 1,
        incarnation: 2,
        token: "t".repeat(32),
        spec: json!({"name": "writer"}).to_string(),
    };
    let body = NodeCommandBody::Start(Box::new(start));
    let command = NodeCommand { term: 3, instance: Some(7), number: 1, body };
    encode(&command).expect("small")
}

proptest! {
    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in vec(any::<u8>(), 0..200)) {
        read_as_anything(&bytes);
        // Behind the right version there is more to go wrong.
        for version in [codec::BEFORE, codec::VERSION] {
            read_as_anything(&[&[version][..], &bytes].concat());
        }
    }

    #[test]
    fn a_damaged_frame_is_a_value_or_an_error(
        damage in vec((0_usize..100, any::<u8>()), 1..4),
        kept in 0_usize..100,
    ) {
        let mut bytes = frame();
        let length = bytes.len();
        for (at, byte) in damage {
            bytes[at % length] = byte;
        }
        read_as_anything(&bytes);
        read_as_anything(&bytes[..kept.min(length)]);
    }

    #[test]
    fn events_are_read_as_they_were_written(events in vec(any_event(), 0..8)) {
        prop_assert_eq!(event::decode(&event::encode(&events)), events);
    }

    #[test]
    fn one_number_orders_the_events_of_all_attempts(
        attempt in 1_u32..10_000,
        index in 1_u64..=event::ATTEMPT_STRIDE,
    ) {
        let seq = event::sequence(attempt, index);
        prop_assert_eq!(event::attempt_of(seq), attempt);
        prop_assert!(seq < event::sequence(attempt + 1, 1));
    }
}

fn any_event() -> impl Strategy<Value = Event> {
    // Milliseconds up to the year 9999, the last that RFC 3339 can write.
    let at = (0_u64..253_402_300_800_000).prop_map(Timestamp::from_millis);
    let value = prop_oneof![
        any::<String>().prop_map(|text| json!({"type": "tool", "text": text})),
        any::<i64>().prop_map(|number| json!({"type": "n", "seq": number, "at": [null, 1.5]})),
        Just(json!("bare")),
    ];
    let body = prop_oneof![
        any::<u64>().prop_map(|incarnation| EventBody::Delivered { incarnation }),
        Just(EventBody::Acknowledged),
        any::<String>().prop_map(|text| EventBody::Text { text }),
        value.prop_map(|event| EventBody::Worker { event }),
        any::<String>().prop_map(|error| EventBody::Error { error }),
        any::<u32>().prop_map(|attempt| EventBody::Reset { attempt }),
    ];
    (any::<u64>(), at, body).prop_map(|(seq, at, body)| Event { seq, at, body })
}

#[test]
fn events_of_a_newer_version_are_left_out() {
    let known = Event {
        seq: 1,
        at: Timestamp::from_millis(0),
        body: EventBody::Text { text: "a\nb".into() },
    };
    let mut payload = event::encode(std::slice::from_ref(&known));
    payload.extend_from_slice(
        b"{\"seq\":2,\"at\":\"1970-01-01T00:00:00Z\",\"type\":\"dance\"}\n\nx\n",
    );
    payload.extend(event::encode(std::slice::from_ref(&known)));
    assert_eq!(event::decode(&payload), [known.clone(), known]);
}

/// What a worker tells is stored in EVENTS and in the final state, some levels deeper than in its line: nothing that is taken
/// from a worker may be too deep for the reader of those.
#[test]
fn the_deepest_event_of_a_worker_can_be_read_back() {
    let line = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(
            "{{\"type\":\"event\",\"messageId\":\"m\",\"event\":{{\"type\":\"x\",\"x\":{open}{close}}}}}"
        )
    };
    let mut taken = 0;
    for depth in
        [1, 10, 62, 63, 64, 100, 120, 121, 122, 123, 124, 125, 126, 127, 128, 1000, 100_000]
    {
        let line = line(depth);
        let mut event = None;
        worker::read(line.as_bytes(), &mut |said| match said {
            Ok(FromWorker::Event { event: said, .. }) => event = Some(said),
            other => assert!(matches!(other, Ok(FromWorker::TooDeep { .. })), "{other:?}"),
        });
        let Some(event) = event else { continue };
        taken = depth;
        let at = Timestamp::from_millis(0);
        let told = Event { seq: 1, at, body: EventBody::Worker { event } };
        let payload = event::encode(std::slice::from_ref(&told));
        assert_eq!(event::decode(&payload), std::slice::from_ref(&told), "depth {depth}");
        let last = Final {
            status: Outcome::Completed,
            response: None,
            reason: None,
            attempts: 1,
            incarnation: Some(1),
            at,
            tail: vec![told],
        };
        let stored = serde_json::to_vec(&last).expect("written");
        let read: Final = serde_json::from_slice(&stored).expect("readable at any depth taken");
        assert_eq!(read, last, "depth {depth}");
    }
    // The object around the arrays is a level too.
    assert_eq!(taken + 1, worker::MAX_DEPTH);
}

#[test]
fn every_control_record_is_read_as_it_was_written() {
    let (agent, node) = (agent(), NodeName::new("n1").expect("valid"));
    let spec = Box::new(AgentSpec::new(agent.clone(), "test/model", "you"));
    let exit = Exit { code: Some(1), ..Exit::default() };
    let schedule = common::ScheduleId::new("k3jq2ab7c").expect("valid");
    let of = || agent.clone();
    let at = || node.clone();
    let events = [
        ControlEvent::AgentApplied { spec: spec.clone(), force: true, asked: None },
        ControlEvent::AgentApplied { spec, force: true, asked: Some("image nginx:2".into()) },
        ControlEvent::AgentStarted { agent: of() },
        ControlEvent::AgentStopped { agent: of() },
        ControlEvent::AgentRestarted { agent: of() },
        ControlEvent::AgentReplaced { agent: of() },
        ControlEvent::AgentRemoved { agent: of() },
        ControlEvent::AgentMoved { agent: of(), to: at() },
        ControlEvent::SanctumMoved { agent: of(), copy: 9, copied: vec!["/data".into()] },
        ControlEvent::SanctumNotMoved { agent: of(), copy: 9, reason: "full".into() },
        ControlEvent::SanctumKept { agent: of(), copy: 9, folders: vec!["/old".into()] },
        ControlEvent::SchedulePaused { agent: of(), schedule: schedule.clone() },
        ControlEvent::ScheduleResumed { agent: of(), schedule },
        ControlEvent::NodeDrained { node: at(), parallel: 3 },
        ControlEvent::NodeUndrained { node: at() },
        ControlEvent::NodeRemoved { node: at() },
        ControlEvent::FleetRestored {
            backup: "b".into(),
            taken: Timestamp::from_millis(1),
            incarnations: 1 << 40,
        },
        ControlEvent::MessagesForgotten {
            agent: of(),
            by: "ada@host".into(),
            done: true,
            conversation: true,
            before: Some(Timestamp::from_millis(1)),
            messages: 2,
            records: 9,
            bytes: 1 << 40,
        },
        ControlEvent::LeaderElected { supervisor: "s".into(), run: "r".into(), rules: 2 },
        ControlEvent::IncarnationAllocated {
            agent: of(),
            incarnation: 7,
            generation: 2,
            node: at(),
        },
        ControlEvent::IncarnationReturned {
            agent: of(),
            incarnation: 7,
            generation: 2,
            node: at(),
        },
        ControlEvent::IncarnationBegun { agent: of(), incarnation: 7 },
        ControlEvent::NodeSeen {
            node: at(),
            instance: u64::MAX,
            runtimes: vec!["process".into()],
            labels: vec![("zone".into(), "eu".into())],
            capacity: Capacity { agents: Some(2), memory: Some(1 << 40), milli_cpus: Some(500) },
        },
        ControlEvent::NodeDraining { node: at() },
        ControlEvent::NodeLost { node: at() },
        ControlEvent::IncarnationReady { agent: of(), incarnation: 7, floor: 1 },
        ControlEvent::IncarnationExited { agent: of(), incarnation: 7, exit, clean: false },
        ControlEvent::StartFailed { agent: of(), incarnation: 7, reason: "no".into() },
        ControlEvent::IncarnationDrained { agent: of(), incarnation: 7 },
        ControlEvent::IncarnationHung { agent: of(), incarnation: 7, silent_for: 30 },
        ControlEvent::IncarnationStable { agent: of(), incarnation: 7 },
        ControlEvent::TimerFired { agent: of(), timer: Timer::Ready, incarnation: 7, said: None },
        ControlEvent::Unknown,
    ];
    for event in events {
        let record = ControlRecord {
            id: None,
            at: Timestamp::from_millis(1_700_000_000_123),
            term: event.is_leaders().then_some(3),
            author: "s".into(),
            event,
        };
        let json = serde_json::to_string(&record).expect("written");
        let read: ControlRecord = serde_json::from_str(&json).expect(&json);
        assert_eq!(read, record, "{json}");
    }
}

#[test]
fn a_control_record_is_plain_json() {
    let record = ControlRecord {
        id: None,
        at: Timestamp::from_millis(1_700_000_000_123),
        term: Some(3),
        author: "s".into(),
        event: ControlEvent::TimerFired {
            agent: agent(),
            timer: Timer::Restart,
            incarnation: 7,
            said: None,
        },
    };
    assert_eq!(
        serde_json::to_value(&record).expect("written"),
        json!({
            "at": "2023-11-14T22:13:20.123Z",
            "term": 3,
            "author": "s",
            "type": "timerFired",
            "agent": "writer",
            "timer": "restart",
            "incarnation": 7,
        })
    );
}

#[test]
fn what_an_older_version_wrote_without_the_new_fields_is_read() {
    let spec = AgentSpec::new(agent(), "m", "i");
    let record = json!({
        "at": "2023-11-14T22:13:20Z", "author": "cli", "type": "agentApplied", "spec": spec, "force": false,
    });
    let record: ControlRecord = serde_json::from_value(record).expect("readable");
    let applied = ControlEvent::AgentApplied { spec: Box::new(spec), force: false, asked: None };
    assert_eq!(record.event, applied);
    let plain = json!({"op": "replace", "agent": "writer"});
    let query: Query = serde_json::from_value(plain.clone()).expect("readable");
    assert_eq!(query, Query::Replace { agent: agent(), image: None });
    assert_eq!(serde_json::to_value(&query).expect("written"), plain);
}

#[test]
fn a_control_record_of_a_newer_version_is_kept_as_unknown() {
    for json in [
        json!({"at": "2023-11-14T22:13:20.123Z", "author": "s", "type": "agentPraised", "agent": "writer"}),
        json!({"at": "2023-11-14T22:13:20Z", "author": "s", "term": 9, "type": "x", "new": {"deep": [1, 2]}}),
    ] {
        let record: ControlRecord = serde_json::from_value(json).expect("readable");
        assert_eq!(record.event, ControlEvent::Unknown);
        assert!(!record.event.is_leaders());
    }
    // A field that a newer version added does not keep an older one from reading the rest.
    let more = json!({
        "at": "2023-11-14T22:13:20Z", "author": "s", "type": "nodeLost", "node": "n1", "since": 5,
    });
    let record: ControlRecord = serde_json::from_value(more).expect("readable");
    assert!(matches!(record.event, ControlEvent::NodeLost { .. }));
}

#[test]
fn a_spec_goes_through_json_whole() {
    let mut spec = AgentSpec::new(agent(), "m", "i");
    spec.timeout.turn = Duration::from_millis(1);
    spec.env.insert("A".into(), "\u{0}\"\n".into());
    let json = serde_json::to_string(&spec).expect("written");
    assert_eq!(serde_json::from_str::<AgentSpec>(&json).expect("readable"), spec);
}
