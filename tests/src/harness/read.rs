//! What a fleet says about its agents and messages.

use std::time::Duration;

use broker::ControlItem;
use common::api::MessageDetail;
use common::control::{ControlEvent, ControlRecord};
use serde_json::Value;
use tokio::time::timeout;

use super::fleet::Fleet;
use super::wait::{self, eventually, within};

impl Fleet {
    /// The row of `ps` of an agent.
    ///
    /// # Panics
    /// When there is no such row.
    pub async fn row(&self, agent: &str) -> Value {
        let rows = self.json(["ps", agent]).await;
        rows.get(0).unwrap_or_else(|| panic!("no row of {agent}: {rows}")).clone()
    }

    /// Waits for an agent's state; its row then.
    ///
    /// # Panics
    /// When it does not come within 30 s.
    pub async fn wait_state(&self, agent: &str, state: &str) -> Value {
        eventually(&format!("{agent} is {state}"), async || {
            let output = self.cli(["ps", agent, "-o", "json"]).await;
            let rows = if output.code == 0 { output.json() } else { Value::Null };
            match rows.get(0) {
                Some(row) if row["state"] == state => Ok(row.clone()),
                _ => Err(output.to_string()),
            }
        })
        .await
    }

    /// Waits until an agent runs with exactly this many incarnations begun, and no process of an older one is left.
    ///
    /// # Panics
    /// When it does not come within 30 s.
    pub async fn wait_incarnation(&self, agent: &str, incarnation: u64) -> Value {
        eventually(&format!("{agent} runs as incarnation {incarnation}"), async || {
            let row = self.row(agent).await;
            let is_it = row["state"] == "running" && row["incarnation"] == incarnation;
            if is_it && self.shims(agent).len() == 1 { Ok(row) } else { Err(row.to_string()) }
        })
        .await
    }

    /// Stores a message; its id.
    ///
    /// # Panics
    /// When `send` refuses it.
    pub async fn send(&self, agent: &str, text: &str) -> String {
        self.send_with(agent, text, &[]).await
    }

    /// Stores a message, with more options; its id.
    ///
    /// # Panics
    /// When `send` refuses it.
    pub async fn send_with(&self, agent: &str, text: &str, more: &[&str]) -> String {
        let args = ["send", agent, text].into_iter().chain(more.iter().copied());
        self.cli(args).await.ok().stdout.trim().to_owned()
    }

    /// The answer to a message, awaited.
    ///
    /// # Panics
    /// When it fails.
    pub async fn ask(&self, agent: &str, text: &str) -> String {
        let output = self.cli(["send", agent, text, "--wait"]).await.ok();
        output.stdout.trim_end_matches('\n').to_owned()
    }

    /// A message with its history.
    ///
    /// # Panics
    /// When there is no such message.
    pub async fn show(&self, message: &str) -> MessageDetail {
        let json = self.json(["journal", "show", message]).await;
        serde_json::from_value(json.clone()).unwrap_or_else(|error| panic!("{error}: {json}"))
    }

    /// Waits until a message stands so.
    ///
    /// # Panics
    /// When it does not within 30 s.
    pub async fn wait_status(&self, message: &str, status: &str) -> MessageDetail {
        self.wait_status_within(wait::DEADLINE, message, status).await
    }

    /// The same, with a deadline of the test's own.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    pub async fn wait_status_within(
        &self,
        deadline: Duration,
        message: &str,
        status: &str,
    ) -> MessageDetail {
        within(deadline, &format!("{message} is {status}"), async || {
            let detail = self.show(message).await;
            if detail.row.status.as_str() == status {
                Ok(detail)
            } else {
                Err(format!("{detail:?}"))
            }
        })
        .await
    }

    /// The control log, read from the broker.
    ///
    /// # Panics
    /// When it cannot be read within 10 s.
    pub async fn control(&self) -> Vec<ControlRecord> {
        let broker = self.broker().await;
        let mut follower = broker.follow_control(1, None).await.expect("the broker answers");
        let mut records = Vec::new();
        let read = timeout(Duration::from_secs(10), async {
            loop {
                match follower.next().await.expect("the broker answers") {
                    ControlItem::Record { record, .. } => records.push(*record),
                    ControlItem::Malformed { seq, cause, .. } => panic!("record {seq}: {cause}"),
                    ControlItem::CaughtUp => break,
                }
            }
        });
        read.await.expect("the log has an end");
        records
    }

    /// What the control log says about one agent.
    ///
    /// # Panics
    /// When it cannot be read within 10 s.
    pub async fn control_of(&self, agent: &str) -> Vec<ControlRecord> {
        let mut records = self.control().await;
        records.retain(|record| record.event.agent().is_some_and(|name| name.as_str() == agent));
        records
    }

    /// Waits for a record about an agent.
    ///
    /// # Panics
    /// When none comes within 30 s.
    pub async fn wait_record(
        &self,
        agent: &str,
        what: &str,
        is_it: impl Fn(&ControlEvent) -> bool,
    ) -> ControlRecord {
        eventually(&format!("the control log says of {agent}: {what}"), async || {
            let records = self.control_of(agent).await;
            let found = records.iter().find(|record| is_it(&record.event));
            found.cloned().ok_or_else(|| format!("{records:#?}"))
        })
        .await
    }

    /// What the incarnations of an agent of [`seed`](super::Runtime::seed) read from their stdin, in order; each line with its
    /// `incarnation`.
    ///
    /// # Panics
    /// When a line is no JSON.
    #[must_use]
    pub fn seen(&self, agent: &str) -> Vec<Value> {
        let path = self.souls().join(format!("seen/{agent}.jsonl"));
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The last line may be on its way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        whole.lines().map(parse).collect()
    }

    /// The lines of one type among them.
    #[must_use]
    pub fn seen_of(&self, agent: &str, kind: &str) -> Vec<Value> {
        let mut seen = self.seen(agent);
        seen.retain(|line| line["type"] == kind);
        seen
    }

    /// Waits until an agent of [`seed`](super::Runtime::seed) has read so many lines of a type; these lines.
    ///
    /// # Panics
    /// When it has not within 30 s.
    pub async fn wait_seen(&self, agent: &str, kind: &str, count: usize) -> Vec<Value> {
        eventually(&format!("{agent} has read {count} lines of type {kind}"), async || {
            let seen = self.seen_of(agent, kind);
            if seen.len() >= count { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
        .await
    }

    /// Waits until an agent of [`seed`](super::Runtime::seed) has read a message; the line.
    ///
    /// # Panics
    /// When it has not within 30 s.
    pub async fn wait_seen_message(&self, agent: &str, id: &str) -> Value {
        eventually(&format!("{agent} has read the message {id}"), async || {
            let seen = self.seen(agent);
            let found = seen.iter().find(|line| line["messageId"] == *id);
            found.cloned().ok_or_else(|| format!("{seen:?}"))
        })
        .await
    }
}
