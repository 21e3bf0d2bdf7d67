//! The only place that spells a subject, a stream's name or a consumer's name.
//!
//! Every subject starts with `mozart.<namespace>.`. With more than one journal shard a last token names the shard; the tokens
//! before it keep their positions.
//!
//! A message's name always consists of agent, sender and id. Its conversation's tag follows the name in the journal's
//! subjects, so that a conversation can be read by subject; it is not part of the name, and what must exist only once is
//! compared over all tags.

mod about;
mod carry;
mod files;
mod filler;
mod later;
mod node;
mod question;
mod relative;
mod sap;
mod schedule;
mod shim;
mod steps;
mod user;

use std::fmt::Write as _;

pub use self::filler::Filled;
pub use self::later::LaterKind;
pub use self::question::QuestionSubject;
pub use self::sap::{
    Discovery, SAP_KIND, SAP_SERVICE, is_inbox, parse_sap_discovery, sap_discovery,
    sap_heartbeats_of_all, sap_inboxes, sap_of_any_fleet,
};
pub use self::shim::CONSUMER_NAMES;
use crate::message::MessageKey;
use crate::{AgentName, ConversationTag, MessageId, Namespace, SenderName};

/// The subject token of the whole fleet in the control log. No agent can have this name.
pub const FLEET: &str = "_fleet";

/// Hosts that want to join a cluster ask here, before they know of any fleet.
pub const JOIN: &str = "mozart._cluster.join";

/// The same subject of every fleet, for the configuration of a server that has several. `rest`: what follows the namespace.
#[must_use]
pub fn of_any_fleet(rest: &str) -> String {
    format!("mozart.*.{rest}")
}
/// The members of a cluster are asked here to remove the server of a host that is lost.
pub const REMOVE: &str = "mozart._cluster.remove";

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
    /// The message.
    pub key: MessageKey,
    /// Its conversation's tag.
    pub conversation: ConversationTag,
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

    /// `rest`: what follows the agent.
    fn journal(&self, agent: &AgentName, rest: std::fmt::Arguments<'_>) -> String {
        let subject = format!("{}.journal.{agent}.{rest}", self.prefix);
        self.sharded(subject, self.shard(agent))
    }

    /// Where a message is stored.
    #[must_use]
    pub fn request(&self, key: &MessageKey, conversation: &ConversationTag) -> String {
        let MessageKey { agent, sender, message_id } = key;
        self.journal(agent, format_args!("{sender}.{message_id}.{conversation}.request"))
    }

    /// Where its final state is stored.
    #[must_use]
    pub fn final_(&self, key: &MessageKey, conversation: &ConversationTag) -> String {
        let MessageKey { agent, sender, message_id } = key;
        self.journal(agent, format_args!("{sender}.{message_id}.{conversation}.final"))
    }

    /// A message, whatever its conversation: there is at most one record of this filter.
    #[must_use]
    pub fn request_of(&self, key: &MessageKey) -> String {
        let MessageKey { agent, sender, message_id } = key;
        self.journal(agent, format_args!("{sender}.{message_id}.*.request"))
    }

    /// Its final state, whatever its conversation: there is at most one record of this filter.
    #[must_use]
    pub fn final_of(&self, key: &MessageKey) -> String {
        let MessageKey { agent, sender, message_id } = key;
        self.journal(agent, format_args!("{sender}.{message_id}.*.final"))
    }

    /// A message's request and final state, whatever its conversation.
    #[must_use]
    pub fn message_of(&self, key: &MessageKey) -> String {
        let MessageKey { agent, sender, message_id } = key;
        self.journal(agent, format_args!("{sender}.{message_id}.*.*"))
    }

    /// All requests to an agent: the filter of its consumer.
    #[must_use]
    pub fn requests_of(&self, agent: &AgentName) -> String {
        self.journal(agent, format_args!("*.*.*.request"))
    }

    /// All final states of an agent's messages.
    #[must_use]
    pub fn finals_of(&self, agent: &AgentName) -> String {
        self.journal(agent, format_args!("*.*.*.final"))
    }

    /// Requests and final states of an agent.
    #[must_use]
    pub fn journal_of(&self, agent: &AgentName) -> String {
        self.journal(agent, format_args!("*.*.*.*"))
    }

    /// Requests and final states of an agent's conversation.
    #[must_use]
    pub fn conversation_of(&self, agent: &AgentName, conversation: &ConversationTag) -> String {
        self.journal(agent, format_args!("*.*.{conversation}.*"))
    }

    /// The requests of an agent's conversation.
    #[must_use]
    pub fn requests_within(&self, agent: &AgentName, conversation: &ConversationTag) -> String {
        self.journal(agent, format_args!("*.*.{conversation}.request"))
    }

    /// Requests and final states of what a sender has sent to an agent, in a conversation or in any.
    #[must_use]
    pub fn journal_from(
        &self,
        agent: &AgentName,
        sender: &SenderName,
        conversation: Option<&ConversationTag>,
    ) -> String {
        match conversation {
            Some(conversation) => self.journal(agent, format_args!("{sender}.*.{conversation}.*")),
            None => self.journal(agent, format_args!("{sender}.*.*.*")),
        }
    }

    /// Final states of an agent's conversation.
    #[must_use]
    pub fn finals_in(&self, agent: &AgentName, conversation: &ConversationTag) -> String {
        self.journal(agent, format_args!("*.*.{conversation}.final"))
    }

    /// A request by its id alone, whoever sent it and to whom, in one shard.
    #[must_use]
    pub fn request_anywhere(&self, message: &MessageId, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.*.{message}.*.request", self.prefix), shard)
    }

    /// The requests to an agent that have this id, whoever sent them.
    #[must_use]
    pub fn requests_named(&self, agent: &AgentName, message: &MessageId) -> String {
        self.journal(agent, format_args!("*.{message}.*.request"))
    }

    /// The requests that an agent sent, to whomever, in one shard.
    #[must_use]
    pub fn questions_of(&self, sender: &AgentName, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.{sender}.*.*.request", self.prefix), shard)
    }

    /// All requests of one shard.
    #[must_use]
    pub fn requests_in(&self, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.*.*.*.request", self.prefix), shard)
    }

    /// Everything that one journal stream takes.
    #[must_use]
    pub fn journal_filter(&self, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.*.*.*.*", self.prefix), shard)
    }

    /// The source of the republish of stored finals, of one journal stream.
    #[must_use]
    pub fn republish_source(&self, shard: u32) -> String {
        self.sharded(format!("{}.journal.*.*.*.*.final", self.prefix), shard)
    }

    /// The destination of the republish: `done.<agent>.<sender>.<message>.<conversation>`.
    #[must_use]
    pub fn republish_destination(&self) -> String {
        let tokens = (1..=4).map(|n| format!("{{{{wildcard({n})}}}}"));
        format!("{}.done.{}", self.prefix, tokens.collect::<Vec<_>>().join("."))
    }

    /// Parses a journal subject.
    #[must_use]
    pub fn parse_journal(&self, subject: &str) -> Option<JournalSubject> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".journal.")?;
        let mut tokens = rest.split('.');
        let (key, conversation) = (key(&mut tokens)?, ConversationTag::new(tokens.next()?).ok()?);
        let is_final = match tokens.next()? {
            "final" => true,
            "request" => false,
            _ => return None,
        };
        let shard = (self.shards > 1).then(|| self.shard(&key.agent).to_string());
        if tokens.next() != shard.as_deref() || tokens.next().is_some() {
            return None;
        }
        Some(JournalSubject { key, conversation, is_final })
    }

    /// The name of a journal stream.
    #[must_use]
    pub fn journal_stream(&self, shard: u32) -> String {
        let base = self.stream("JOURNAL");
        if self.shards > 1 { format!("{base}_{shard}") } else { base }
    }

    /// The finished messages of a conversation that have left the journal.
    #[must_use]
    pub fn history(&self, agent: &AgentName, conversation: &ConversationTag) -> String {
        format!("{}.history.{agent}.{conversation}", self.prefix)
    }

    /// Those of an agent.
    #[must_use]
    pub fn history_of(&self, agent: &AgentName) -> String {
        format!("{}.history.{agent}.*", self.prefix)
    }

    /// Everything that HISTORY takes.
    #[must_use]
    pub fn history_filter(&self) -> String {
        format!("{}.history.*.*", self.prefix)
    }

    /// Parses a subject of [`Self::history`].
    #[must_use]
    pub fn parse_history(&self, subject: &str) -> Option<(AgentName, ConversationTag)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".history.")?;
        let (agent, conversation) = rest.split_once('.')?;
        Some((AgentName::new(agent).ok()?, ConversationTag::new(conversation).ok()?))
    }

    /// A part of the index of HISTORY; see the `broker` package for what the parts are.
    #[must_use]
    pub fn index(&self, bucket: &str) -> String {
        format!("{}.index.{bucket}", self.prefix)
    }

    /// Everything that INDEX takes.
    #[must_use]
    pub fn index_filter(&self) -> String {
        format!("{}.index.*", self.prefix)
    }

    /// The name of another stream: `HISTORY`, `INDEX`, `EVENTS`, `ATTEMPTS`, `STEPS`, `QUESTIONS`, `CONTROL`, `SNAPSHOTS`,
    /// `FILES`, `DEAD`, `LOGS`, `SCHEDULES`, `LATER`.
    #[must_use]
    pub fn stream(&self, what: &str) -> String {
        format!("MOZART_{}_{what}", self.namespace)
    }

    /// The KV bucket of the leader's lease.
    #[must_use]
    pub fn lease_bucket(&self) -> String {
        self.stream("LEASE")
    }

    /// The first consumer of an incarnation.
    #[must_use]
    pub fn consumer(&self, agent: &AgentName, incarnation: u64) -> String {
        format!("{agent}-{incarnation}")
    }

    /// The incarnation that a consumer is of.
    #[must_use]
    pub fn parse_consumer(&self, name: &str) -> Option<(AgentName, u64)> {
        let (agent, incarnation) = name.rsplit_once('-')?;
        let incarnation = incarnation.split('_').next()?;
        Some((AgentName::new(agent).ok()?, incarnation.parse().ok()?))
    }

    /// Where the winner's final state is republished, whatever its conversation: a filter.
    #[must_use]
    pub fn done(&self, key: &MessageKey) -> String {
        let MessageKey { agent, sender, message_id } = key;
        format!("{}.done.{agent}.{sender}.{message_id}.*", self.prefix)
    }

    /// The final states of everything that a sender asked.
    #[must_use]
    pub fn done_for(&self, sender: &SenderName) -> String {
        format!("{}.done.*.{sender}.*.*", self.prefix)
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
        let (key, conversation) = (key(&mut tokens)?, ConversationTag::new(tokens.next()?).ok()?);
        tokens.next().is_none().then_some(JournalSubject { key, conversation, is_final: true })
    }

    fn of_message(&self, what: &str, key: &MessageKey) -> String {
        let MessageKey { agent, sender, message_id } = key;
        format!("{}.{what}.{agent}.{sender}.{message_id}", self.prefix)
    }

    fn parse_of_message(&self, what: &str, subject: &str) -> Option<MessageKey> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        let rest = rest.strip_prefix(what)?.strip_prefix('.')?;
        let mut tokens = rest.split('.');
        let key = key(&mut tokens)?;
        tokens.next().is_none().then_some(key)
    }

    /// The events of a message.
    #[must_use]
    pub fn events(&self, key: &MessageKey) -> String {
        self.of_message("events", key)
    }

    /// The events of all of an agent's messages.
    #[must_use]
    pub fn events_of(&self, agent: &AgentName) -> String {
        format!("{}.events.{agent}.*.*", self.prefix)
    }

    /// Parses a subject of [`Self::events`].
    #[must_use]
    pub fn parse_events(&self, subject: &str) -> Option<MessageKey> {
        self.parse_of_message("events", subject)
    }

    /// Everything that EVENTS takes.
    #[must_use]
    pub fn events_filter(&self) -> String {
        format!("{}.events.*.*.*", self.prefix)
    }

    /// The record of a message's attempts.
    #[must_use]
    pub fn attempts(&self, key: &MessageKey) -> String {
        self.of_message("attempts", key)
    }

    /// The records of attempts of all of an agent's messages.
    #[must_use]
    pub fn attempts_of(&self, agent: &AgentName) -> String {
        format!("{}.attempts.{agent}.*.*", self.prefix)
    }

    /// Parses a subject of [`Self::attempts`].
    #[must_use]
    pub fn parse_attempts(&self, subject: &str) -> Option<MessageKey> {
        self.parse_of_message("attempts", subject)
    }

    /// Everything that ATTEMPTS takes.
    #[must_use]
    pub fn attempts_filter(&self) -> String {
        format!("{}.attempts.*.*.*", self.prefix)
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

    /// The chunks of a snapshot of the control log, as of one of its records.
    #[must_use]
    pub fn snapshot(&self, seq: u64) -> String {
        format!("{}.snapshot.{seq}", self.prefix)
    }

    /// Everything that SNAPSHOTS takes.
    #[must_use]
    pub fn snapshot_filter(&self) -> String {
        format!("{}.snapshot.*", self.prefix)
    }

    /// The sequence in a subject of [`Self::snapshot`].
    #[must_use]
    pub fn parse_snapshot(&self, subject: &str) -> Option<u64> {
        let seq = subject.strip_prefix(&self.prefix)?.strip_prefix(".snapshot.")?.parse().ok()?;
        // `007` and `+7` are other subjects than `7`.
        (self.snapshot(seq) == subject).then_some(seq)
    }

    /// A dead letter.
    #[must_use]
    pub fn dead(&self, key: &MessageKey) -> String {
        self.of_message("dead", key)
    }

    /// The dead letters of an agent.
    #[must_use]
    pub fn dead_of(&self, agent: &AgentName) -> String {
        format!("{}.dead.{agent}.*.*", self.prefix)
    }

    /// The dead letters of all messages that have these names; none is any.
    #[must_use]
    pub fn dead_named(
        &self,
        agent: Option<&AgentName>,
        sender: Option<&SenderName>,
        message: Option<&MessageId>,
    ) -> String {
        let agent = agent.map_or("*", AgentName::as_str);
        let sender = sender.map_or("*", SenderName::as_str);
        let message = message.map_or("*", MessageId::as_str);
        format!("{}.dead.{agent}.{sender}.{message}", self.prefix)
    }

    /// Parses a subject of [`Self::dead`].
    #[must_use]
    pub fn parse_dead(&self, subject: &str) -> Option<MessageKey> {
        self.parse_of_message("dead", subject)
    }

    /// Everything that DEAD takes.
    #[must_use]
    pub fn dead_filter(&self) -> String {
        format!("{}.dead.*.*.*", self.prefix)
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

    /// A subject without subscribers: what is published there has passed the connection.
    #[must_use]
    pub fn flush(&self) -> String {
        format!("{}.flush", self.prefix)
    }

    /// Questions and requests to the supervisors, one of which gets each.
    #[must_use]
    pub fn query(&self) -> String {
        format!("{}.query", self.prefix)
    }

    /// How full the broker's disk is: answered by a process on its machine.
    #[must_use]
    pub fn disk(&self) -> String {
        format!("{}.disk", self.prefix)
    }

    /// Questions that every supervisor answers.
    #[must_use]
    pub fn query_of_all(&self) -> String {
        format!("{}.query._all", self.prefix)
    }
}

/// The next three tokens: agent, sender and id.
fn key<'a>(tokens: &mut impl Iterator<Item = &'a str>) -> Option<MessageKey> {
    Some(MessageKey {
        agent: AgentName::new(tokens.next()?).ok()?,
        sender: SenderName::new(tokens.next()?).ok()?,
        message_id: MessageId::new(tokens.next()?).ok()?,
    })
}

#[cfg(test)]
mod tests;
