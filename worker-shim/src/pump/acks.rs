//! Acks that are sent to the broker: a few at a time, together with a final state if there is one.

use std::time::{Duration, Instant};

use broker::Broker;

/// Acks wait this long for a final state to ride with.
const WITHIN: Duration = Duration::from_millis(20);
/// With this many they are sent at once, whether a final state comes or not.
const MANY: usize = 16;

/// What is to be acknowledged.
#[derive(Debug, Default)]
pub(super) struct Acks {
    replies: Vec<String>,
    due: Option<Instant>,
}

impl Acks {
    pub(super) fn push(&mut self, reply: String) {
        self.replies.push(reply);
        self.due.get_or_insert_with(|| Instant::now() + WITHIN);
    }

    /// Something goes out, and they can ride with it.
    pub(super) fn hurry(&mut self) {
        if self.due.is_some() {
            self.due = Some(Instant::now());
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn are_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now()) || self.replies.len() >= MANY
    }

    pub(super) async fn send(&mut self, broker: &Broker) {
        self.due = None;
        for reply in self.replies.drain(..) {
            // A lost ack is a redelivery, which the journal answers.
            if let Err(error) = broker.ack(&reply).await {
                tracing::warn!("cannot ack: {error}");
                break;
            }
        }
        self.replies.clear();
    }
}
