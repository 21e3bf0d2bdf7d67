//! What a shim may publish, and where it may listen.

use common::subject::Subjects;
use common::{AgentName, SenderName};

/// The subjects that a user may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
}

impl Rights {
    /// Those of an incarnation: its own consumer, what its agent answers and asks, and its own inbox. Nothing is read from a stream, and no
    /// consumer is made. `token`: that of its command subject.
    #[must_use]
    pub fn of_shim(subjects: &Subjects, agent: &AgentName, incarnation: u64, token: &str) -> Self {
        let stream = subjects.journal_stream(subjects.shard(agent));
        let consumers = subjects.consumers_of(agent, incarnation).flat_map(|consumer| {
            [
                format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"),
                format!("$JS.ACK.{stream}.{consumer}.>"),
                // As servers may spell it that are told the account and the domain.
                format!("$JS.ACK.*.*.{stream}.{consumer}.>"),
            ]
        });
        let sender = SenderName::from(agent.clone());
        let own = [
            subjects.finals_of(agent),
            subjects.events_of(agent),
            subjects.attempts_of(agent),
            subjects.logs(agent, incarnation),
            subjects.requests_by(&sender),
            subjects.shim_report(agent, incarnation),
            subjects.shim_ask(agent, incarnation),
            subjects.flush(),
        ];
        Self {
            publish: consumers.chain(own).collect(),
            subscribe: vec![
                format!("{}.>", subjects.shim_inbox(agent, incarnation)),
                subjects.shim_command(agent, token),
                subjects.done_for(&sender),
            ],
        }
    }
}
