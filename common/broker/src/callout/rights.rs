//! What shims, nodes and users may publish, and where they may listen.

use common::subject::{Subjects, sap_discovery, sap_heartbeats_of_all, sap_inboxes};
use common::users::{Scope, User};
use common::{AgentName, NodeName, SenderName};

use super::{AGENTS, APP, NODES, OPS};
use crate::streams::STREAMS;

/// The subjects that a user may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub(super) account: &'static str,
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
            subjects.steps_of(agent),
            subjects.asked_by(agent),
            subjects.logs(agent, incarnation),
            subjects.requests_by(&sender),
            subjects.shim_report(agent, incarnation),
            subjects.shim_ask(agent, incarnation),
            subjects.flush(),
        ];
        Self {
            account: AGENTS,
            publish: consumers.chain(own).collect(),
            subscribe: vec![
                format!("{}.>", subjects.shim_inbox(agent, incarnation)),
                subjects.shim_command(agent, token),
                subjects.done_for(&sender),
            ],
        }
    }

    /// Those of a node: what it reports, asks and is told, and its own inbox. It reads no stream and stores nothing. The logins of what it
    /// starts come with the commands to start it.
    #[must_use]
    pub fn of_node(subjects: &Subjects, node: &NodeName) -> Self {
        Self {
            account: NODES,
            publish: vec![subjects.node_report(node), subjects.node_ask(node), subjects.flush()],
            subscribe: vec![
                format!("{}.>", subjects.node_inbox(node)),
                subjects.node_command(node),
                subjects.all_nodes_command(),
            ],
        }
    }

    /// Those of a user that is no node. Whoever may read, reads the whole fleet: what a permission can see of a read is the stream, not the record. The
    /// lease's bucket, with the fleet's secret, is not among them.
    #[must_use]
    pub fn of_user(subjects: &Subjects, user: &User) -> Self {
        let User { name, scope, agents, .. } = user;
        if *scope == Scope::Admin {
            let all = || vec![">".to_owned()];
            return Self { account: APP, publish: all(), subscribe: all() };
        }
        let mut publish = reads(subjects);
        publish.push(subjects.query_by(*scope, name));
        publish.push(subjects.query_of_all_by(*scope, name));
        // Other clients of agents than ours: whoever may read sees which there are, and whoever may send prompts them.
        publish.extend(sap_discovery().into_iter().chain([subjects.sap_statuses()]));
        if *scope >= Scope::Send {
            publish.extend(match agents.as_slice() {
                [] => vec![subjects.sap_prompts()],
                agents => agents.iter().map(|agent| subjects.sap_prompt(agent)).collect(),
            });
        }
        if *scope >= Scope::Send {
            let agents: Vec<&str> = match agents.as_slice() {
                [] => vec!["*"],
                agents => agents.iter().map(AgentName::as_str).collect(),
            };
            publish.extend(agents.iter().flat_map(|agent| {
                [
                    subjects.journal_by(agent, name.as_str(), "request"),
                    subjects.journal_by(agent, name.as_str(), "final"),
                    subjects.later_by(agent, name.as_str(), "request"),
                    subjects.later_by(agent, name.as_str(), "final"),
                    subjects.of_sender("attempts", agent, name),
                ]
            }));
        }
        if *scope >= Scope::Operate {
            publish.extend([
                subjects.journal_by("*", "*", "request"),
                subjects.journal_by("*", "*", "final"),
                subjects.later_by("*", "*", "request"),
                subjects.later_by("*", "*", "final"),
                subjects.all_of("attempts"),
                subjects.all_of("dead"),
                subjects.all_of("files"),
            ]);
        }
        let mut subscribe = vec![format!("{}.>", subjects.user_inbox(name))];
        subscribe.extend(HEARD.map(|what| subjects.all_of(what)));
        subscribe.push(sap_heartbeats_of_all());
        // They have their inboxes nowhere else.
        subscribe.extend(sap_inboxes());
        Self { account: OPS, publish, subscribe }
    }
}

/// What whoever may read hears as it happens.
const HEARD: [&str; 5] = ["events", "done", "logs", "control", "journal"];

/// The requests of whoever may read.
fn reads(subjects: &Subjects) -> Vec<String> {
    let journals = (0..subjects.shards()).map(|shard| subjects.journal_stream(shard));
    let streams = journals.chain(STREAMS.map(|what| subjects.stream(what)));
    let of_streams = streams.flat_map(|stream| {
        [
            format!("$JS.API.STREAM.INFO.{stream}"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}"),
            format!("$JS.API.DIRECT.GET.{stream}.>"),
            format!("$JS.API.CONSUMER.INFO.{stream}.*"),
            format!("$JS.API.CONSUMER.NAMES.{stream}"),
        ]
    });
    of_streams.chain(["$JS.API.INFO".to_owned(), subjects.disk(), subjects.flush()]).collect()
}
