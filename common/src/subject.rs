//! The only place that spells a subject, a stream's name or a consumer's name.
//!
//! Every subject starts with `mozart.<namespace>.`. With more than one journal shard a last token names the shard; the tokens
//! before it keep their positions.

use std::fmt::Write as _;

use crate::{AgentName, MessageId, Namespace, NodeName, SenderName};

/// The subject token of the whole fleet in the control log. No agent can have this name.
pub const FLEET: &str = "_fleet";

/// The most journal shards that a fleet can have.
pub const MAX_SHARDS: u32 = 64;

/// The subjects of one namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    namespace: Namespace,
    prefix: String,
    shards: u32,
}

/// What a journal subject names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalSubject {
    /// Who is to answer.
    pub agent: AgentName,
    /// Who sent it.
    pub sender: SenderName,
    /// The id.
    pub message_id: MessageId,
    /// Whether it is the final state; else it is the request.
    pub is_final: bool,
}

impl Subjects {
    /// The subjects of a namespace whose journal has `shards` streams (1 to [`MAX_SHARDS`]).
    #[must_use]
    pub fn new(namespace: Namespace, shards: u32) -> Self {
        let prefix = format!("mozart.{namespace}");
        Self { namespace, prefix, shards: shards.clamp(1, MAX_SHARDS) }
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// How many streams the journal has.
    #[must_use]
    pub fn shards(&self) -> u32 {
        self.shards
    }

    /// The shard that holds an agent's messages: FNV-1a over its name.
    #[must_use]
    pub fn shard(&self, agent: &AgentName) -> u32 {
        let hash = agent
            .as_str()
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        hash % self.shards
    }

    fn sharded(&self, mut subject: String, shard: u32) -> String {
        if self.shards > 1 {
            // Writing to a string cannot fail.
            let _ = write!(subject, ".{shard}");
        }
        subject
    }

    fn journal(&self, agent: &AgentName, sender: &str, message: &str, what: &str) -> String {
        let subject = format!("{}.journal.{agent}.{sender}.{message}.{what}", self.prefix);
        self.sharded(subject, self.shard(agent))
    }

    /// Where a message is stored.
    #[must_use]
    pub fn request(&self, agent: &AgentName, sender: &SenderName, message: &MessageId) -> String {
        self.journal(agent, sender.as_str(), message.as_str(), "request")
    }

    /// Where its final state is stored.
    #[must_use]
    pub fn final_(&self, agent: &AgentName, sender: &SenderName, message: &MessageId) -> String {
        self.journal(agent, sender.as_str(), message.as_str(), "final")
    }

    /// All requests to an agent: the filter of its consumer.
    #[must_use]
    pub fn requests_of(&self, agent: &AgentName) -> String {
        self.journal(agent, "*", "*", "request")
    }

    /// All final states of an agent's messages.
    #[must_use]
    pub fn finals_of(&self, agent: &AgentName) -> String {
        self.journal(agent, "*", "*", "final")
    }

    /// Requests and final states of an agent.
    #[must_use]
    pub fn journal_of(&self, agent: &AgentName) -> String {
        self.journal(agent, "*", "*", "*")
    }

    /// A request by its id alone, whoever sent it and to whom, in one shard.
    #[must_use]
    pub fn request_anywhere(&self, message: &MessageId, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.*.{message}.request", self.prefix), shard)
    }

    /// Everything that one journal stream takes.
    #[must_use]
    pub fn journal_filter(&self, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.*.*.*", self.prefix), shard)
    }

    /// The source of the republish of stored finals, of one journal stream.
    #[must_use]
    pub fn republish_source(&self, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.*.*.final", self.prefix), shard)
    }

    /// The destination of the republish: `done.<agent>.<sender>.<message>`.
    #[must_use]
    pub fn republish_destination(&self) -> String {
        format!("{}.done.{{{{wildcard(1)}}}}.{{{{wildcard(2)}}}}.{{{{wildcard(3)}}}}", self.prefix)
    }

    /// Parses a journal subject.
    #[must_use]
    pub fn parse_journal(&self, subject: &str) -> Option<JournalSubject> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".journal.")?;
        let mut tokens = rest.split('.');
        let (agent, sender, message) = (tokens.next()?, tokens.next()?, tokens.next()?);
        let is_final = match tokens.next()? {
            "final" => true,
            "request" => false,
            _ => return None,
        };
        let agent = AgentName::new(agent).ok()?;
        let shard = (self.shards > 1).then(|| self.shard(&agent).to_string());
        if tokens.next() != shard.as_deref() || tokens.next().is_some() {
            return None;
        }
        let (sender, message_id) = (SenderName::new(sender).ok()?, MessageId::new(message).ok()?);
        Some(JournalSubject { agent, sender, message_id, is_final })
    }

    /// The name of a journal stream.
    #[must_use]
    pub fn journal_stream(&self, shard: u32) -> String {
        let base = self.stream("JOURNAL");
        if self.shards > 1 { format!("{base}_{shard}") } else { base }
    }

    /// The name of another stream: `EVENTS`, `CONTROL`, `DEAD`, `LOGS`, `ADVISORIES`.
    #[must_use]
    pub fn stream(&self, what: &str) -> String {
        format!("MOZART_{}_{what}", self.namespace)
    }

    /// The KV bucket of the leader's lease.
    #[must_use]
    pub fn lease_bucket(&self) -> String {
        self.stream("LEASE")
    }

    /// The consumer of one incarnation.
    #[must_use]
    pub fn consumer(&self, agent: &AgentName, incarnation: u64) -> String {
        format!("{agent}-{incarnation}")
    }

    /// Where the winner's final state is republished.
    #[must_use]
    pub fn done(&self, agent: &AgentName, sender: &SenderName, message: &MessageId) -> String {
        format!("{}.done.{agent}.{sender}.{message}", self.prefix)
    }

    /// The final states of everything that a sender asked.
    #[must_use]
    pub fn done_for(&self, sender: &SenderName) -> String {
        format!("{}.done.*.{sender}.*", self.prefix)
    }

    /// Every final state.
    #[must_use]
    pub fn done_all(&self) -> String {
        format!("{}.done.>", self.prefix)
    }

    /// Parses a republished final's subject.
    #[must_use]
    pub fn parse_done(&self, subject: &str) -> Option<JournalSubject> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".done.")?;
        let mut tokens = rest.split('.');
        let agent = AgentName::new(tokens.next()?).ok()?;
        let sender = SenderName::new(tokens.next()?).ok()?;
        let message_id = MessageId::new(tokens.next()?).ok()?;
        tokens.next().is_none().then_some(JournalSubject {
            agent,
            sender,
            message_id,
            is_final: true,
        })
    }

    /// The events of a message.
    #[must_use]
    pub fn events(&self, agent: &AgentName, message: &MessageId) -> String {
        format!("{}.events.{agent}.{message}", self.prefix)
    }

    /// The events of all of an agent's messages.
    #[must_use]
    pub fn events_of(&self, agent: &AgentName) -> String {
        format!("{}.events.{agent}.*", self.prefix)
    }

    /// Parses a subject of [`Self::events`].
    #[must_use]
    pub fn parse_events(&self, subject: &str) -> Option<(AgentName, MessageId)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".events.")?;
        let (agent, message) = rest.split_once('.')?;
        Some((AgentName::new(agent).ok()?, MessageId::new(message).ok()?))
    }

    /// Everything that EVENTS takes.
    #[must_use]
    pub fn events_filter(&self) -> String {
        format!("{}.events.>", self.prefix)
    }

    /// An agent's part of the control log.
    #[must_use]
    pub fn control(&self, agent: &AgentName) -> String {
        format!("{}.control.{agent}", self.prefix)
    }

    /// The fleet's part of the control log: leaders and nodes.
    #[must_use]
    pub fn control_fleet(&self) -> String {
        format!("{}.control.{FLEET}", self.prefix)
    }

    /// Everything that CONTROL takes.
    #[must_use]
    pub fn control_filter(&self) -> String {
        format!("{}.control.>", self.prefix)
    }

    /// A dead letter.
    #[must_use]
    pub fn dead(&self, agent: &AgentName, message: &MessageId) -> String {
        format!("{}.dead.{agent}.{message}", self.prefix)
    }

    /// The dead letters of an agent.
    #[must_use]
    pub fn dead_of(&self, agent: &AgentName) -> String {
        format!("{}.dead.{agent}.*", self.prefix)
    }

    /// Everything that DEAD takes.
    #[must_use]
    pub fn dead_filter(&self) -> String {
        format!("{}.dead.>", self.prefix)
    }

    /// The worker's log of one incarnation.
    #[must_use]
    pub fn logs(&self, agent: &AgentName, incarnation: u64) -> String {
        format!("{}.logs.{agent}.{incarnation}", self.prefix)
    }

    /// The worker's logs of all incarnations.
    #[must_use]
    pub fn logs_of(&self, agent: &AgentName) -> String {
        format!("{}.logs.{agent}.*", self.prefix)
    }

    /// Everything that LOGS takes.
    #[must_use]
    pub fn logs_filter(&self) -> String {
        format!("{}.logs.>", self.prefix)
    }

    /// The incarnation in a subject of [`Self::logs`].
    #[must_use]
    pub fn parse_logs(&self, subject: &str) -> Option<(AgentName, u64)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".logs.")?;
        let (agent, incarnation) = rest.split_once('.')?;
        Some((AgentName::new(agent).ok()?, incarnation.parse().ok()?))
    }

    /// Commands to one incarnation's shim; only who knows the token can address it.
    #[must_use]
    pub fn shim_command(&self, agent: &AgentName, token: &str) -> String {
        format!("{}.shim.{agent}.{token}.command", self.prefix)
    }

    /// Reports of one incarnation's shim.
    #[must_use]
    pub fn shim_report(&self, agent: &AgentName, incarnation: u64) -> String {
        format!("{}.shim.{agent}.{incarnation}.report", self.prefix)
    }

    /// Reports of all shims.
    #[must_use]
    pub fn shim_reports(&self) -> String {
        format!("{}.shim.*.*.report", self.prefix)
    }

    /// Parses a report's subject.
    #[must_use]
    pub fn parse_shim_report(&self, subject: &str) -> Option<(AgentName, u64)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".shim.")?;
        let mut tokens = rest.split('.');
        let agent = AgentName::new(tokens.next()?).ok()?;
        let incarnation = tokens.next()?.parse().ok()?;
        let is_report = tokens.next() == Some("report") && tokens.next().is_none();
        is_report.then_some((agent, incarnation))
    }

    /// Commands to a node.
    #[must_use]
    pub fn node_command(&self, node: &NodeName) -> String {
        format!("{}.node.{node}.command", self.prefix)
    }

    /// Commands to all nodes. No node can have this name.
    #[must_use]
    pub fn all_nodes_command(&self) -> String {
        format!("{}.node._all.command", self.prefix)
    }

    /// Reports of a node.
    #[must_use]
    pub fn node_report(&self, node: &NodeName) -> String {
        format!("{}.node.{node}.report", self.prefix)
    }

    /// Reports of all nodes.
    #[must_use]
    pub fn node_reports(&self) -> String {
        format!("{}.node.*.report", self.prefix)
    }

    /// The node in a subject of [`Self::node_report`].
    #[must_use]
    pub fn parse_node_report(&self, subject: &str) -> Option<NodeName> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".node.")?;
        NodeName::new(rest.strip_suffix(".report")?).ok()
    }

    /// A subject that nobody listens to: what is published there has passed the connection.
    #[must_use]
    pub fn flush(&self) -> String {
        format!("{}.flush", self.prefix)
    }

    /// Questions and requests to the supervisors.
    #[must_use]
    pub fn query(&self) -> String {
        format!("{}.query", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (AgentName, SenderName, MessageId) {
        (
            AgentName::new("writer").expect("valid"),
            SenderName::new("user").expect("valid"),
            MessageId::new("m1").expect("valid"),
        )
    }

    #[test]
    fn one_shard_spells_the_plain_subject() {
        let subjects = Subjects::new(Namespace::new("default").expect("valid"), 1);
        let (agent, sender, message) = names();
        assert_eq!(
            subjects.request(&agent, &sender, &message),
            "mozart.default.journal.writer.user.m1.request"
        );
        assert_eq!(subjects.done(&agent, &sender, &message), "mozart.default.done.writer.user.m1");
        assert_eq!(subjects.journal_stream(0), "MOZART_default_JOURNAL");
    }

    #[test]
    fn what_is_spelled_is_parsed_back() {
        for shards in [1, 4] {
            let subjects = Subjects::new(Namespace::new("t").expect("valid"), shards);
            let (agent, sender, message_id) = names();
            let subject = subjects.final_(&agent, &sender, &message_id);
            assert_eq!(
                subjects.parse_journal(&subject),
                Some(JournalSubject {
                    agent: agent.clone(),
                    sender: sender.clone(),
                    message_id: message_id.clone(),
                    is_final: true
                })
            );
            assert_eq!(subjects.parse_journal(&format!("{subject}.x")), None);
            let done = subjects.done(&agent, &sender, &message_id);
            assert!(subjects.parse_done(&done).is_some());
            assert_eq!(
                subjects.parse_shim_report(&subjects.shim_report(&agent, 7)),
                Some((agent.clone(), 7))
            );
            assert_eq!(subjects.parse_logs(&subjects.logs(&agent, 7)), Some((agent, 7)));
        }
    }

    #[test]
    fn a_shard_that_is_not_the_agents_is_refused() {
        let subjects = Subjects::new(Namespace::new("t").expect("valid"), 4);
        let (agent, ..) = names();
        let wrong = (subjects.shard(&agent) + 1) % 4;
        let subject = format!("mozart.t.journal.writer.user.m1.request.{wrong}");
        assert_eq!(subjects.parse_journal(&subject), None);
    }
}
