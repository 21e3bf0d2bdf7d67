//! Souls of the workers that tests use, and messages for them.

use std::time::SystemTime;

use common::message::{Envelope, Kind};
use common::{ConversationId, MessageId};

/// The soul of the worker of `examples/flaky`: what is given, and where that says nothing about them, short times.
#[must_use]
pub fn flaky(more: &str) -> String {
    let mut soul = "MODEL test/flaky\nSOUL You do what you are told.\n".to_owned();
    let quick = [
        "WORKER [\"python3\", \"worker.py\"]",
        "RESTART always backoff=100ms..1s",
        "TIMEOUT drain=2s",
    ];
    let given = |keyword: &str| more.lines().any(|line| line.split(' ').next() == Some(keyword));
    for line in quick {
        if !line.split(' ').next().is_some_and(given) {
            soul.push_str(line);
            soul.push('\n');
        }
    }
    soul + more + "\n"
}

/// The soul of `tests/workers/seed.py`: a worker that speaks the seed's protocol and writes down what it reads, in this folder.
pub(super) fn seed(folder: &str, more: &str) -> String {
    format!(
        "MODEL test/model\nSOUL test agent\nWORKER [\"python3\", \"seed.py\"]\nENV SEEN={folder}\n{more}\n"
    )
}

/// A message of the user's, for [`Broker::send`](broker::Broker::send): faster than a process for each.
///
/// # Panics
/// When a name or an id is not valid.
#[must_use]
pub fn message(agent: &str, id: &str, text: &str) -> Envelope {
    let message_id = MessageId::new(id).expect("valid");
    Envelope {
        agent: agent.parse().expect("valid"),
        sender: "user".parse().expect("valid"),
        kind: Kind::Chat,
        conversation_id: ConversationId::from(&message_id),
        message_id,
        message: text.to_owned(),
        created_at: SystemTime::now().into(),
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: None,
        traceparent: None,
        scheduled_for: None,
        deliver_at: None,
    }
}
