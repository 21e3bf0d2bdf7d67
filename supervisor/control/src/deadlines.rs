//! The deadlines of messages to agents that do not run: no shim is there to notice that they pass.
//!
//! The leader reads what is new in the journals of such agents, a page at a time, and keeps the deadlines that it meets. Once one has passed, it
//! stores `expired` as the message's final state, on condition that there is none. A journal in which nothing happens is not read again, and
//! however many agents and deadlines there are, a second's work is bounded.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use broker::{BrokerError, FinalOutcome, Requested};
use common::message::{Final, MessageKey, Outcome};
use common::words::count;
use common::{AgentName, ConversationTag, Timestamp};
use futures_util::StreamExt as _;
use supervisor_core::Agent;

use super::reads::Reads;
use super::{Done, Supervisor};

/// Deadlines that are kept. While there are so many, no further journal is read.
const MOST: usize = 10_000;
/// Agents whose journals are looked at in a second, and messages that expire in one.
const LOOKS: usize = 100;
const EXPIRE: usize = 200;
/// How many of them at once.
const AT_ONCE: usize = 8;
/// How long storing a final state may take.
const STORE: Duration = Duration::from_secs(5);

/// What is known of the deadlines of agents that do not run.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    reading: bool,
    storing: bool,
    /// Whose journal was looked at last.
    after: Option<AgentName>,
    /// Up to where each journal was read.
    read: BTreeMap<AgentName, u64>,
    /// By the time at which they pass.
    due: BTreeMap<(Timestamp, AgentName, u64), Message>,
}

/// A message that has a deadline, at its sequence.
#[derive(Debug, Clone)]
pub(super) struct Message {
    key: MessageKey,
    conversation: ConversationTag,
}

pub(super) type Entry = ((Timestamp, AgentName, u64), Message);

/// What was read of a journal.
#[derive(Debug)]
pub(super) struct Look {
    agent: AgentName,
    /// The sequence to go on from.
    next: u64,
    found: Vec<Entry>,
}

/// Whether nothing of an agent runs, as far as is known.
fn is_down(agent: &Agent) -> bool {
    agent.incarnations().next().is_none()
}

impl Deadlines {
    /// Forgets agents of which something runs again, or that are no more.
    fn keep(&mut self, down: &BTreeSet<&AgentName>) {
        let known = self.read.len();
        self.read.retain(|agent, _| down.contains(agent));
        if self.read.len() < known {
            self.due.retain(|(_, agent, _), _| down.contains(agent));
        }
    }

    /// The next agents to be looked at, in the order of names, and from where on; none with a journal that is being read.
    fn next(&mut self, down: &BTreeSet<&AgentName>) -> Vec<(AgentName, Option<u64>)> {
        if self.reading || self.due.len() >= MOST {
            return Vec::new();
        }
        let after = self.after.take();
        let rest = down.iter().filter(|agent| after.as_ref().is_none_or(|after| **agent > after));
        let next: Vec<AgentName> = rest.take(LOOKS).map(|agent| (*agent).clone()).collect();
        // At the end of the names, it begins with the first again.
        self.after = next.last().filter(|_| next.len() == LOOKS).cloned();
        next.into_iter().map(|agent| (agent.clone(), self.read.get(&agent).copied())).collect()
    }

    fn looked(&mut self, looks: Vec<Look>) {
        self.reading = false;
        for Look { agent, next, found } in looks {
            self.read.insert(agent, next);
            self.due.extend(found);
        }
    }

    /// Those that have passed.
    fn passed(&mut self, now: Timestamp) -> Vec<Entry> {
        let mut passed = Vec::new();
        while !self.storing
            && passed.len() < EXPIRE
            && let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= now)
        {
            passed.push(first.remove_entry());
        }
        passed
    }
}

impl Supervisor {
    /// Expires what has passed, and reads on.
    pub(super) fn expire_next(&mut self) {
        let now = self.now();
        let state = &self.state;
        let Some(leading) = self.leading.as_mut().filter(|leading| leading.term().is_some()) else {
            return;
        };
        let down: BTreeSet<&AgentName> =
            state.agents().filter(|agent| is_down(agent)).map(|agent| &agent.name).collect();
        let deadlines = &mut leading.deadlines;
        deadlines.keep(&down);
        let passed = deadlines.passed(now);
        deadlines.storing |= !passed.is_empty();
        let next = deadlines.next(&down);
        deadlines.reading |= !next.is_empty();
        let floor = |agent: &AgentName| state.agent(agent).map_or(1, |agent| agent.floor.max(1));
        let next: Vec<_> = next
            .into_iter()
            .map(|(agent, from)| {
                let floor = floor(&agent);
                (agent, from, floor)
            })
            .collect();
        let (reads, author) = (self.reads.clone(), format!("expired.{}", self.run));
        if !passed.is_empty() {
            let (reads, metrics) = (reads.clone(), self.metrics.clone());
            self.task(async move {
                let (ended, rest) = expire(&reads, passed, &author).await;
                if let Some(metrics) = metrics {
                    (0..ended).for_each(|_| metrics.expired());
                }
                Done::Expired(rest)
            });
        }
        if !next.is_empty() {
            self.task(async move { Done::Deadlines(read(&reads, next).await) });
        }
    }

    pub(super) fn read_deadlines(&mut self, looks: Vec<Look>) {
        if let Some(leading) = &mut self.leading {
            leading.deadlines.looked(looks);
        }
    }

    /// What could not be stored is tried again.
    pub(super) fn expired(&mut self, rest: Vec<Entry>) {
        if let Some(leading) = &mut self.leading {
            leading.deadlines.storing = false;
            leading.deadlines.due.extend(rest);
        }
    }
}

/// Reads journals on. One that nothing was added to is not read, nor one that the broker does not tell of.
async fn read(reads: &Reads, agents: Vec<(AgentName, Option<u64>, u64)>) -> Vec<Look> {
    let mut last = HashMap::new();
    let mut grown = Vec::new();
    for (agent, from, floor) in agents {
        let shard = reads.broker.subjects().shard(&agent);
        let last = match last.get(&shard) {
            Some(last) => *last,
            None => {
                let Ok(seq) = reads.broker.journal_last_seq(&agent).await else { continue };
                last.insert(shard, seq);
                seq
            }
        };
        if from.is_none_or(|from| from <= last) {
            grown.push((agent, from, floor, last));
        }
    }
    let looks = grown.into_iter().map(|(agent, from, floor, last)| async move {
        let look = look(reads, &agent, from, floor, last).await;
        look.inspect_err(|error| tracing::warn!("cannot read the deadlines of {agent}: {error}"))
            .ok()
    });
    let looks = futures_util::stream::iter(looks).buffer_unordered(AT_ONCE);
    looks.filter_map(std::future::ready).collect().await
}

async fn look(
    reads: &Reads,
    agent: &AgentName,
    from: Option<u64>,
    floor: u64,
    last: u64,
) -> Result<Look, BrokerError> {
    let from = match from {
        Some(from) => from,
        // What is settled before the first open one may be long.
        None => reads.first_open(agent, floor).await?.floor(),
    };
    let (requests, more) = match from <= last {
        true => reads.requests_between(agent, from, last).await?,
        false => (Vec::new(), false),
    };
    let next = match requests.last() {
        Some(request) if more => request.seq() + 1,
        Some(_) | None => from.max(last + 1),
    };
    let found = requests.into_iter().filter_map(|requested| {
        let Requested::Request(request) = requested else { return None };
        let (seq, at, envelope) = (request.seq, request.at, request.envelope);
        // Deadline and time of making are by the sender's clock, the time of storing is by the broker's.
        let within = envelope.deadline?.since(envelope.created_at);
        let message = Message { key: envelope.key(), conversation: envelope.tag() };
        Some(((at.after(within), agent.clone(), seq), message))
    });
    Ok(Look { agent: agent.clone(), next, found: found.collect() })
}

/// Stores the final states of messages whose deadlines have passed; yields how many these were, and those that it could not be stored for.
async fn expire(reads: &Reads, passed: Vec<Entry>, author: &str) -> (usize, Vec<Entry>) {
    let ends = passed.into_iter().map(|entry| async move {
        let ended = end(reads, &entry.1, entry.0.2, author).await;
        ended.map_err(|error| (entry, error))
    });
    let ends = futures_util::stream::iter(ends).buffer_unordered(AT_ONCE);
    let ends: Vec<Result<bool, (Entry, BrokerError)>> = ends.collect().await;
    let ended = ends.iter().filter(|end| matches!(end, Ok(true))).count();
    let rest: Vec<(Entry, BrokerError)> = ends.into_iter().filter_map(Result::err).collect();
    if let Some((_, error)) = rest.first() {
        let messages = count(rest.len() as u64, "message has", "messages have");
        tracing::warn!("cannot store that {messages} expired: {error}");
    }
    (ended, rest.into_iter().map(|(entry, _)| entry).collect())
}

/// Whether it is stored that it expired.
async fn end(
    reads: &Reads,
    Message { key, conversation }: &Message,
    seq: u64,
    author: &str,
) -> Result<bool, BrokerError> {
    let mark = reads.broker.last_mark(key).await?;
    if mark.is_some_and(|mark| !mark.ended) {
        // A worker may have it: the node of an agent that does not run may only be disconnected. The next incarnation decides.
        return Ok(false);
    }
    let final_ = Final {
        status: Outcome::Expired,
        response: None,
        reason: Some(format!("its deadline passed while {} was not running", key.agent)),
        attempts: mark.map_or(0, |mark| mark.attempt),
        incarnation: None,
        at: SystemTime::now().into(),
        tail: Vec::new(),
    };
    let settled = reads.broker.settle(key, conversation, seq, &final_, author, STORE).await?;
    match settled {
        FinalOutcome::Won => {
            tracing::info!("message {} to {} has expired", key.message_id, key.agent);
            Ok(true)
        }
        // It was answered, cancelled or forgotten.
        FinalOutcome::Lost(_) | FinalOutcome::Gone => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{MessageId, SenderName};

    fn name(name: &str) -> AgentName {
        AgentName::new(name).expect("valid")
    }

    fn entry(agent: &str, seq: u64, at: u64) -> Entry {
        let key = MessageKey {
            agent: name(agent),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new(format!("m{seq}")).expect("valid"),
        };
        let message = Message { key, conversation: ConversationTag::none() };
        ((Timestamp::from_millis(at), name(agent), seq), message)
    }

    fn look(agent: &str, next: u64, found: Vec<Entry>) -> Look {
        Look { agent: name(agent), next, found }
    }

    #[test]
    fn deadlines_pass_in_their_order_and_not_before_their_time() {
        let mut deadlines = Deadlines::default();
        deadlines.looked(vec![look("a", 3, vec![entry("a", 1, 20), entry("a", 2, 10)])]);
        let seqs = |passed: Vec<Entry>| passed.iter().map(|entry| entry.0.2).collect::<Vec<_>>();
        assert_eq!(seqs(deadlines.passed(Timestamp::from_millis(9))), [0; 0]);
        assert_eq!(seqs(deadlines.passed(Timestamp::from_millis(10))), [2]);
        // Not while others are being stored.
        deadlines.storing = true;
        assert_eq!(seqs(deadlines.passed(Timestamp::from_millis(20))), [0; 0]);
        deadlines.storing = false;
        assert_eq!(seqs(deadlines.passed(Timestamp::from_millis(20))), [1]);
    }

    #[test]
    fn an_agent_that_runs_again_is_its_shims_business() {
        let mut deadlines = Deadlines::default();
        deadlines.looked(vec![
            look("a", 3, vec![entry("a", 1, 20)]),
            look("b", 3, vec![entry("b", 2, 20)]),
        ]);
        let (a, b) = (name("a"), name("b"));
        deadlines.keep(&BTreeSet::from([&b]));
        assert_eq!(deadlines.passed(Timestamp::from_millis(20)).len(), 1);
        assert_eq!(
            deadlines.next(&BTreeSet::from([&a, &b])),
            [(a.clone(), None), (b.clone(), Some(3))]
        );
        deadlines.reading = true;
        assert_eq!(deadlines.next(&BTreeSet::from([&a, &b])), []);
    }

    #[test]
    fn all_agents_have_their_turn_and_what_is_kept_is_bounded() {
        let names: Vec<AgentName> = (0..LOOKS + 50).map(|n| name(&format!("a{n:04}"))).collect();
        let down: BTreeSet<&AgentName> = names.iter().collect();
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.next(&down).len(), LOOKS);
        assert_eq!(deadlines.next(&down).len(), 50);
        assert_eq!(deadlines.next(&down).len(), LOOKS);
        let many = (0..MOST as u64).map(|seq| entry("a0000", seq, 1_000)).collect();
        deadlines.looked(vec![look("a0000", 9, many)]);
        assert_eq!(deadlines.next(&down), []);
    }
}
