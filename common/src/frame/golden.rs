//! The bytes of every frame, in the version that is written and in the one before. Bytes that change break a fleet of mixed
//! versions silently: change `codec::VERSION` with them, and keep reading what was written before.

use std::fmt::{Debug, Write as _};

use super::*;
use crate::MessageId;
use crate::codec::{decode, encode};

fn agent() -> AgentName {
    AgentName::new("ab").expect("valid")
}

fn exit(signal: Option<i32>) -> IncarnationExit {
    IncarnationExit {
        agent: agent(),
        incarnation: 7,
        exit: Exit { code: None, signal, out_of_memory: true, reason: Some("r".into()) },
        clean: true,
        finished: 300,
        at: Timestamp::from_millis(1_700_000_000_123),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

/// What is written, and reads back the same.
fn golden<T: Frame + PartialEq + Debug>(frame: &T, expected: &str) {
    let encoded = encode(frame).expect("small");
    assert_eq!(hex(&encoded), expected, "{frame:?}");
    assert_eq!(&decode::<T>(&encoded).expect("what was written"), frame);
}

/// What the version before wrote, and what it means.
fn before<T: Frame + PartialEq + Debug>(frame: &T, written: &str) {
    assert_eq!(&decode::<T>(&bytes(written)).expect("what was written"), frame);
}

fn start() -> StartIncarnation {
    StartIncarnation {
        agent: agent(),
        generation: 3,
        incarnation: 7,
        token: "t0".into(),
        spec: "{}".into(),
    }
}

fn status(capacity: Capacity) -> NodeStatus {
    let running = RunningIncarnation {
        agent: agent(),
        generation: 3,
        incarnation: 8,
        started_at: Timestamp::from_millis(1),
        pid: 4242,
    };
    NodeStatus {
        node: NodeName::new("n1").expect("valid"),
        instance: u64::MAX,
        succeeds: vec![5],
        term: 9,
        seen: (9, 300),
        runtimes: vec!["process".into()],
        labels: vec![("zone".into(), "eu".into())],
        capacity,
        draining: false,
        running: vec![running],
        exits: vec![exit(Some(9))],
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        held: 1,
        open: 2,
        finished: 3,
        lost_finals: 4,
        refused: 5,
        quiet_ms: 6,
        worker_pid: 70_000,
    }
}

fn cancel() -> ShimCommand {
    let sender = SenderName::new("user").expect("valid");
    ShimCommand::Cancel { sender, message_id: MessageId::new("m1").expect("valid") }
}

const WITHIN: Duration = Duration::from_millis(1500);

#[test]
fn golden_bytes_of_every_frame() {
    let consumer = ConsumerId { name: "ab-7".into(), created: 300 };
    let begin = ShimCommand::Begin { horizon: 70_000, floor: 9, consumer };
    golden(&begin, "0300fc70110100090461622d37fb2c01");
    golden(&ShimCommand::Drain { within: WITHIN }, "030101fc0065cd1d");
    golden(&cancel(), "03020475736572026d31");
    golden(&ShimCommand::Ping, "0303");
    let (sender, message_id) = (SenderName::new("user").expect("valid"), MessageId::new("m1"));
    let tag = crate::RequestTag::new("x").expect("valid");
    let answered = ShimCommand::Answered { sender, message_id: message_id.expect("valid"), tag };
    golden(&answered, "03040475736572026d310178");

    golden(&ShimReport::Ready, "0300");
    golden(&ShimReport::Heartbeat(heartbeat()), "0301010203040506fc70110100");
    golden(&ShimReport::Drained, "0302");

    let command = |body| NodeCommand { term: 9, instance: Some(300), number: 5, body };
    golden(
        &command(NodeCommandBody::Start(Box::new(start()))),
        "030901fb2c0105000261620307027430027b7d",
    );
    let stop = NodeCommandBody::Stop { agent: agent(), incarnation: 7, within: WITHIN };
    golden(&command(stop), "030901fb2c0105010261620701fc0065cd1d");
    let list = NodeCommand { term: 9, instance: None, number: 5, body: NodeCommandBody::List };
    golden(&list, "0309000502");
    golden(&command(NodeCommandBody::Refused), "030901fb2c010503");

    let capacity = Capacity { agents: Some(20), memory: Some(70_000), milli_cpus: None };
    golden(
        &NodeReport::Running(status(capacity)),
        "0300026e31fdffffffffffffffff01050909fb2c01010770726f6365737301047a6f6e65026575011401fc70110100000001026162030801fb921001026162070001120101017201fb2c01fd7b68e5cf8b010000",
    );
    let instance = Some(300);
    golden(
        &NodeReport::Exited { instance, exit: exit(None) },
        "030101fb2c010261620700000101017201fb2c01fd7b68e5cf8b010000",
    );
    let (incarnation, reason) = (7, "no".into());
    golden(
        &NodeReport::StartFailed { instance, agent: agent(), incarnation, reason },
        "030201fb2c0102616207026e6f",
    );
    let doing = "pulling".into();
    golden(
        &NodeReport::Preparing { instance, agent: agent(), incarnation, doing },
        "030301fb2c01026162070770756c6c696e67",
    );
}

#[test]
fn golden_bytes_of_the_version_before() {
    let consumer = ConsumerId { name: "ab-7".into(), created: 300 };
    let begin = ShimCommand::Begin { horizon: 70_000, floor: 9, consumer };
    before(&begin, "0200fc70110100090461622d37fb2c01");
    before(&ShimCommand::Drain { within: WITHIN }, "020101fc0065cd1d");
    before(&cancel(), "02020475736572026d31");
    before(&ShimCommand::Ping, "0203");

    before(&ShimReport::Ready, "0200");
    before(&ShimReport::Heartbeat(heartbeat()), "0201010203040506fc70110100");
    before(&ShimReport::Drained, "0202");

    let command = |body| NodeCommand { term: 9, instance: Some(300), number: 5, body };
    before(
        &command(NodeCommandBody::Start(Box::new(start()))),
        "020901fb2c0105000261620307027430027b7d",
    );
    let stop = NodeCommandBody::Stop { agent: agent(), incarnation: 7, within: WITHIN };
    before(&command(stop), "020901fb2c0105010261620701fc0065cd1d");
    let list = NodeCommand { term: 9, instance: None, number: 5, body: NodeCommandBody::List };
    before(&list, "0209000502");
    before(&command(NodeCommandBody::Refused), "020901fb2c010503");

    before(
        &NodeReport::Running(status(Capacity::default())),
        "0200026e31fdffffffffffffffff01050909fb2c01010770726f6365737301047a6f6e650265750001026162030801fb921001026162070001120101017201fb2c01fd7b68e5cf8b010000",
    );
    let instance = Some(300);
    before(
        &NodeReport::Exited { instance, exit: exit(None) },
        "020101fb2c010261620700000101017201fb2c01fd7b68e5cf8b010000",
    );
    let (incarnation, reason) = (7, "no".into());
    before(
        &NodeReport::StartFailed { instance, agent: agent(), incarnation, reason },
        "020201fb2c0102616207026e6f",
    );
    let doing = "pulling".into();
    before(
        &NodeReport::Preparing { instance, agent: agent(), incarnation, doing },
        "020301fb2c01026162070770756c6c696e67",
    );
}

#[test]
fn golden_bytes_of_what_is_asked_of_sanctums() {
    use carry::{CarryAnswer, CarryAsk, Item, ItemKind, NextPart, Part, Take, TakeFolder};
    let node = || NodeName::new("n1").expect("valid");
    let folder = TakeFolder { path: "/d".into(), read_only: true };
    let take = || Take { agent: agent(), copy: 300, from: node(), folders: vec![folder.clone()] };
    golden(&CarryAsk::Check(take()), "0300026162fb2c01026e3101022f6401");
    golden(&CarryAsk::Take { term: 9, take: take() }, "030109026162fb2c01026e3101022f6401");
    golden(&CarryAsk::Progress { agent: agent(), copy: 3 }, "030202616203");
    let mark = CarryAsk::Mark { agent: agent(), folder: "/d".into(), nonce: 7, there: true };
    golden(&mark, "0303026162022f640701");
    let folders = || vec!["/d".to_owned()];
    let open = CarryAsk::Open { agent: agent(), copy: 3, to: node(), folders: folders() };
    golden(&open, "030402616203026e3101022f64");
    let aside = CarryAsk::PutAside {
        term: 9,
        agent: agent(),
        copy: 3,
        folders: folders(),
        suffix: ".x".into(),
    };
    golden(&aside, "0305090261620301022f64022e78");

    golden(&CarryAnswer::Yes, "0300");
    golden(&CarryAnswer::Working { done: 1, of: 300 }, "030101fb2c01");
    golden(&CarryAnswer::Taken { copied: folders() }, "030201022f64");
    golden(&CarryAnswer::Opened { session: 7, bytes: 300 }, "030307fb2c01");
    golden(&CarryAnswer::Kept(folders()), "030401022f64");
    golden(&CarryAnswer::No("no".into()), "0305026e6f");
    golden(&CarryAnswer::Later("no".into()), "0306026e6f");

    golden(&NextPart { part: 300 }, "03fb2c01");
    let entry = |kind| Item::Entry {
        path: b"p".to_vec(),
        kind,
        mode: 0o644,
        user: 1,
        group: 2,
        modified: (3, 4),
    };
    let items = vec![
        Item::Root(1),
        entry(ItemKind::Folder),
        entry(ItemKind::File(5)),
        entry(ItemKind::Link(b"t".to_vec())),
        Item::Data { at: 6, bytes: 7 },
    ];
    golden(
        &Part::Items(items),
        "030005000101017000fba401010206040101700105fba40101020604010170020174fba40101020604020607",
    );
    golden(&Part::End { sha256: [0xab; 32], parts: 2 }, &format!("0301{}02", "ab".repeat(32)));
    golden(&Part::Failed("no".into()), "0302026e6f");
    assert_eq!(carry::split(&carry::join(b"ab", b"cd")), Some((&b"ab"[..], &b"cd"[..])));
    assert_eq!((carry::split(b"abc"), carry::split(b"\x09\0\0\0x")), (None, None));
}
