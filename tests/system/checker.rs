//! The checker can fail: rules are broken on purpose, in the journal of a fleet that really runs.

use std::fs;

use broker::{Broker, FinalOutcome};
use checker::{Accepted, Facts, Fault, judge, witnessed};
use common::message::{Final, MessageKey, Outcome};
use common::{AgentName, ConversationId, MessageId, SenderName, Timestamp};
use system_tests::harness::Fleet;

const SOUL: &str = "MODEL test/chaos\nSOUL You turn around what you hear.\n\
    WORKER [\"python3\", \"chaos.py\"]\nENV WITNESS=witness";

/// A fleet of one agent, and what was sent to it.
struct Checked {
    fleet: Fleet,
    broker: Broker,
    accepted: Vec<Accepted>,
}

impl Checked {
    async fn new() -> Self {
        let mut fleet = Fleet::new(&[("mirror", SOUL)]);
        fs::create_dir(fleet.souls().join("witness")).expect("a new folder");
        fs::write(fleet.souls().join(".mozartignore"), "/witness\n").expect("written");
        fleet.up(&[]).await;
        fleet.wait_state("mirror", "running").await;
        let broker = fleet.broker().await;
        Self { fleet, broker, accepted: Vec::new() }
    }

    fn key(id: &str) -> MessageKey {
        MessageKey {
            agent: AgentName::new("mirror").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new(id).expect("valid"),
        }
    }

    /// Sends a message of the one conversation.
    async fn send(&mut self, id: &str, more: &[&str]) {
        let text = format!("0 1 {id}");
        let args = ["send", "mirror", &text, "--id", id, "--conversation", "c"];
        let _stored = self.fleet.cli([&args[..], more].concat()).await.ok();
        let backwards: String = text.chars().rev().collect();
        self.accepted.push(Accepted {
            key: Self::key(id),
            conversation_id: ConversationId::new("c").expect("valid"),
            answer: format!("mirror: {backwards}"),
            text,
        });
    }

    async fn faults(&self) -> Vec<Fault> {
        let attempts = [(AgentName::new("mirror").expect("valid"), 3)].into();
        let notes = witnessed(&self.fleet.souls().join("witness")).expect("the workers' notes");
        let facts = Facts::collect(
            &self.broker,
            self.accepted.clone(),
            attempts,
            std::collections::BTreeMap::new(),
            notes,
        )
        .await;
        judge(&facts.expect("the broker answers")).faults
    }

    /// Removes a final state, as nothing in Mozart can.
    async fn remove_final(&self, id: &str) {
        let key = Self::key(id);
        let subjects = self.broker.subjects();
        let stream = subjects.journal_stream(subjects.shard(&key.agent));
        let filter = subjects.final_of(&key);
        let body = serde_json::json!({ "filter": filter }).to_string();
        let purge = format!("$JS.API.STREAM.PURGE.{stream}");
        let answer = self.broker.ask(purge, body.into(), std::time::Duration::from_secs(10)).await;
        let answer = String::from_utf8_lossy(&answer.expect("an answer")).into_owned();
        assert!(answer.contains("\"purged\":1"), "{answer}");
    }
}

#[tokio::test]
async fn a_final_state_that_is_gone_is_missed() {
    let mut checked = Checked::new().await;
    for id in ["a", "b", "c"] {
        checked.send(id, &["--wait"]).await;
    }
    assert_eq!(checked.faults().await, []);
    checked.remove_final("b").await;
    assert_eq!(checked.faults().await, [Fault::Open(Checked::key("b"))]);
}

#[tokio::test]
async fn an_answer_out_of_turn_is_seen() {
    let mut checked = Checked::new().await;
    checked.send("a", &["--wait"]).await;
    let _stopped = checked.fleet.cli(["stop", "mirror"]).await.ok();
    checked.fleet.wait_state("mirror", "stopped").await;
    checked.send("b", &[]).await;
    checked.send("c", &[]).await;
    // Somebody who is no shim of this agent answers the second one.
    let final_ = Final {
        status: Outcome::Completed,
        response: Some("mirror: c 1 0".to_owned()),
        reason: None,
        attempts: 1,
        incarnation: Some(1),
        at: Timestamp::from_millis(0),
        tail: Vec::new(),
    };
    let key = Checked::key("c");
    let timeout = std::time::Duration::from_secs(10);
    let tag = common::ConversationTag::none();
    let won = checked.broker.publish_final(&key, &tag, &final_, "a stranger", timeout).await;
    assert_eq!(won.expect("the broker answers"), FinalOutcome::Won);
    let _started = checked.fleet.cli(["start", "mirror"]).await.ok();
    let _idle = checked.fleet.cli(["wait", "mirror", "--for", "idle"]).await.ok();
    let faults = checked.faults().await;
    assert!(
        matches!(&faults[..], [Fault::AnsweredByNobody(nobody), Fault::OutOfOrder { earlier, later, .. }]
            if *nobody == key && earlier.as_str() == "b" && later.as_str() == "c"),
        "{faults:?}"
    );
}
