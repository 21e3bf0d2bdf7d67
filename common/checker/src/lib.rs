//! The verdict over a fleet's journal: no message lost, none answered twice, none run more often than its attempts allow.
//!
//! [`judge`] is a pure function of [`Facts`], which [`Facts::collect`] reads from the streams and from what the workers wrote down
//! themselves. It shares no code with the shim: where the shim decides, this compares.

mod collect;
mod fault;
mod rest;
#[cfg(test)]
mod tests;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::message::{Envelope, Final, MessageKey, Outcome};
use common::{AgentName, ConversationId, MessageId, Timestamp};
use serde::{Deserialize, Serialize};

pub use collect::witnessed;
pub use fault::Fault;
pub use rest::{judge_at_rest, settled};
pub use turns::{Notes, Turn};

/// A deadline has passed this much earlier for whoever estimates the broker's clock, in milliseconds.
const ESTIMATE: u64 = 1000;

/// A message that its sender was told is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// Whose it is.
    pub key: MessageKey,
    /// The ordering key.
    pub conversation_id: ConversationId,
    /// The text.
    pub text: String,
    /// The only right answer.
    pub answer: String,
}

/// A record of the journal, with its place in the stream of its shard.
#[derive(Debug, Clone, PartialEq)]
pub struct Placed<T> {
    /// Its sequence.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
    /// The record.
    pub value: T,
}

/// A run of a message, as its events tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Which attempt it was.
    pub attempt: u32,
    /// Which incarnation made it.
    pub incarnation: u64,
}

/// Everything that is known about one message: all records on its subjects, not only the last ones.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Life {
    /// Its requests; one, if all is well.
    pub requests: Vec<Placed<Envelope>>,
    /// Its final states; one, if all is well.
    pub finals: Vec<Placed<Final>>,
    /// Its runs by EVENTS and by what rode in the final state.
    pub runs: BTreeSet<Run>,
    /// Its runs by what the workers wrote down.
    pub witnessed: Vec<Turn>,
    /// The runs that ended with their shim, as the leader has recorded: whether a worker read them first, nobody can know.
    pub with_shims: BTreeSet<Run>,
    /// Whether it has a dead letter.
    pub dead: bool,
    /// Records on its request's subject that do not parse, and were injected as such.
    pub garbage: usize,
}

/// What is known about a fleet.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// What the senders were told, in the order in which they were told.
    pub accepted: Vec<Accepted>,
    /// How often each agent may try a message.
    pub attempts: BTreeMap<AgentName, u32>,
    /// All messages of the journal.
    pub lives: BTreeMap<MessageKey, Life>,
    /// Records that do not parse, and that nobody injected.
    pub malformed: Vec<String>,
    /// Requests that were injected so that nobody can read them; true where the stream confirmed it.
    pub injected: BTreeMap<MessageKey, bool>,
    /// Turns that workers wrote down of messages that the journal does not know.
    pub unstored: Notes,
}

impl Facts {
    /// The message that took longest, from when it was stored to its final state.
    #[must_use]
    pub fn slowest(&self) -> Option<(Duration, &MessageKey)> {
        let took = |life: &Life| {
            let (request, final_) = (life.requests.first()?, life.finals.first()?);
            Some(final_.at.since(request.at))
        };
        self.lives.iter().filter_map(|(key, life)| Some((took(life)?, key))).max()
    }
}

/// What came of it all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Broken rules; none if all is well.
    pub faults: Vec<Fault>,
    /// Messages that were accepted.
    pub accepted: usize,
    /// Messages in the journal: also those whose sender never heard that they were stored.
    pub stored: usize,
    /// Messages that were answered.
    pub completed: usize,
    /// Messages that were given up.
    pub failed: usize,
    /// Injected requests that nobody can read, and that were refused.
    pub refused: usize,
    /// Messages that ran more than once, by the workers' own count.
    pub repeated: usize,
    /// Messages with more attempts on record than workers wrote down: charged without a run, or killed before its first line.
    pub unwitnessed: Vec<MessageKey>,
}

/// Judges a fleet that has come to rest.
#[must_use]
pub fn judge(facts: &Facts) -> Verdict {
    let mut verdict = Verdict {
        accepted: facts.accepted.len(),
        stored: facts.lives.values().filter(|life| !life.requests.is_empty()).count(),
        ..Verdict::default()
    };
    verdict.faults.extend(facts.malformed.iter().cloned().map(Fault::Malformed));
    for accepted in &facts.accepted {
        verdict.faults.extend(kept(accepted, facts.lives.get(&accepted.key)));
    }
    for (key, life) in facts.lives.iter().filter(|(key, _)| !facts.injected.contains_key(key)) {
        let allowed = facts.attempts.get(&key.agent).copied().unwrap_or_default();
        verdict.faults.extend(lived_well(key, life, allowed));
        verdict.count(key, life);
    }
    let nothing = Life::default();
    for (key, confirmed) in &facts.injected {
        let life = facts.lives.get(key).unwrap_or(&nothing);
        let faults = refused_well(key, life, *confirmed);
        verdict.refused += usize::from(faults.is_empty() && life.garbage > 0);
        verdict.faults.extend(faults);
    }
    verdict.faults.extend(out_of_order(facts));
    verdict.faults.extend(turns::faults(facts));
    verdict
}

impl Verdict {
    fn count(&mut self, key: &MessageKey, life: &Life) {
        match life.finals.first().map(|final_| final_.value.status) {
            Some(Outcome::Completed) => self.completed += 1,
            Some(Outcome::Failed) => self.failed += 1,
            Some(Outcome::Cancelled | Outcome::Expired) | None => {}
        }
        if life.witnessed.len() > 1 {
            self.repeated += 1;
        }
        if life.runs.len() > life.witnessed.len() {
            self.unwitnessed.push(key.clone());
        }
    }
}

/// Whether the journal holds what its sender was told it holds, and the answer is the right one.
fn kept(accepted: &Accepted, life: Option<&Life>) -> Vec<Fault> {
    let key = &accepted.key;
    let Some(request) = life.and_then(|life| life.requests.first()) else {
        return vec![Fault::Lost(key.clone())];
    };
    let mut faults = Vec::new();
    if request.value.message != accepted.text
        || request.value.conversation_id != accepted.conversation_id
    {
        faults.push(Fault::Altered(key.clone()));
    }
    for final_ in life.map(|life| life.finals.as_slice()).unwrap_or_default() {
        let right = final_.value.response.as_deref() == Some(accepted.answer.as_str());
        if final_.value.status == Outcome::Completed && !right {
            faults.push(Fault::WrongAnswer {
                key: key.clone(),
                expected: accepted.answer.clone(),
                found: final_.value.response.clone(),
            });
        }
    }
    faults
}

/// What becomes of a request that nobody can read: refused, once, and no worker hears of it.
fn refused_well(key: &MessageKey, life: &Life, confirmed: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    match life.garbage {
        0 if confirmed => faults.push(Fault::Lost(key.clone())),
        0 | 1 => {}
        _ => faults.push(Fault::StoredTwice(key.clone())),
    }
    match &life.finals[..] {
        [] if life.garbage > 0 => faults.push(Fault::Open(key.clone())),
        [] | [_] => {}
        several => {
            let seqs = several.iter().map(|final_| final_.seq).collect();
            faults.push(Fault::Doubled { key: key.clone(), seqs });
        }
    }
    let refused = life.finals.iter().all(|final_| final_.value.status == Outcome::Failed);
    if !refused || !life.witnessed.is_empty() || !life.requests.is_empty() {
        faults.push(Fault::GarbageTaken(key.clone()));
    }
    faults
}

/// The rules that each message in the journal obeys, whether its sender heard of it or not.
fn lived_well(key: &MessageKey, life: &Life, allowed: u32) -> Vec<Fault> {
    let mut faults = Vec::new();
    let of = |fault: fn(MessageKey) -> Fault| fault(key.clone());
    let seqs = |finals: &[Placed<Final>]| finals.iter().map(|final_| final_.seq).collect();
    match life.requests.len() {
        0 if life.finals.is_empty() => faults.push(of(Fault::Stray)),
        0 => faults.push(of(Fault::FinalOfNothing)),
        1 => {}
        _ => faults.push(of(Fault::StoredTwice)),
    }
    match life.finals.len() {
        0 if !life.requests.is_empty() => faults.push(of(Fault::Open)),
        0 | 1 => {}
        _ => faults.push(Fault::Doubled { key: key.clone(), seqs: seqs(&life.finals) }),
    }
    let expires = life.requests.iter().filter_map(expires_at).max();
    let too_early = |final_: &Placed<Final>| match final_.value.status {
        Outcome::Completed | Outcome::Failed => false,
        // Nobody cancels.
        Outcome::Cancelled => true,
        Outcome::Expired => expires.is_none_or(|at| final_.at.as_millis() + ESTIMATE < at),
    };
    if life.finals.iter().any(too_early) {
        faults.push(of(Fault::EndedEarly));
    }
    let charged = life.finals.iter().map(|final_| final_.value.attempts);
    let numbered = life.runs.iter().map(|run| run.attempt);
    let counted = u32::try_from(life.runs.len()).unwrap_or(u32::MAX);
    let on_record = charged.chain(numbered).chain([counted]).max().unwrap_or_default();
    let witnessed = u32::try_from(life.witnessed.len()).unwrap_or(u32::MAX);
    if on_record > allowed || witnessed > allowed {
        faults.push(Fault::RanTooOften { key: key.clone(), on_record, witnessed, allowed });
    }
    let died_with_shims = !life.runs.is_empty() && life.runs.is_subset(&life.with_shims);
    let is = |outcome| life.finals.iter().any(|final_| final_.value.status == outcome);
    if is(Outcome::Completed) && witnessed == 0 {
        faults.push(of(Fault::AnsweredByNobody));
    }
    if is(Outcome::Failed) && witnessed == 0 && !died_with_shims {
        faults.push(of(Fault::GivenUpUnseen));
    }
    if is(Outcome::Failed) != life.dead && !life.finals.is_empty() {
        faults.push(of(if life.dead { Fault::NeedlesslyDead } else { Fault::NoDeadLetter }));
    }
    faults
}

/// When a message expires, in milliseconds of the broker's clock: its deadline is as long after it was stored as its sender said that it
/// is after it was made, and no two clocks are compared.
fn expires_at(request: &Placed<Envelope>) -> Option<u64> {
    let Envelope { deadline, created_at, .. } = &request.value;
    let within = u64::try_from(deadline.as_ref()?.since(*created_at).as_millis()).ok()?;
    Some(request.at.as_millis() + within)
}

/// Requests and answers of each conversation, compared by their places in the stream.
fn out_of_order(facts: &Facts) -> Vec<Fault> {
    type Conversation<'a> = (&'a AgentName, &'a ConversationId);
    // The places of request and answer.
    type Answered<'a> = (u64, u64, &'a MessageId);
    let mut conversations: BTreeMap<Conversation<'_>, Vec<Answered<'_>>> = BTreeMap::new();
    for (key, life) in &facts.lives {
        // A cancelled message, or one that is too late, ends without a turn: whenever that is seen.
        let answer = life.finals.iter().find(|final_| match final_.value.status {
            Outcome::Completed | Outcome::Failed => true,
            Outcome::Cancelled | Outcome::Expired => false,
        });
        if let (Some(request), Some(answer)) = (life.requests.first(), answer) {
            let conversation = (&key.agent, &request.value.conversation_id);
            let answered = (request.seq, answer.seq, &key.message_id);
            conversations.entry(conversation).or_default().push(answered);
        }
    }
    let mut faults = Vec::new();
    for ((agent, conversation), mut answered) in conversations {
        answered.sort_unstable();
        for pair in answered.windows(2) {
            if let [(_, first, earlier), (_, second, later)] = *pair
                && first > second
            {
                faults.push(Fault::OutOfOrder {
                    agent: agent.clone(),
                    conversation: conversation.clone(),
                    earlier: earlier.clone(),
                    later: later.clone(),
                });
            }
        }
    }
    faults.extend(sent_out_of_order(facts));
    faults
}

/// A sender that waits for each message to be accepted before it sends the next finds them in that order.
fn sent_out_of_order(facts: &Facts) -> Vec<Fault> {
    let mut last: BTreeMap<(&AgentName, &ConversationId), (u64, &MessageId)> = BTreeMap::new();
    let mut faults = Vec::new();
    for Accepted { key, conversation_id, .. } in &facts.accepted {
        let request = facts.lives.get(key).and_then(|life| life.requests.first());
        let Some(request) = request else { continue };
        let here = (request.seq, &key.message_id);
        let before = last.insert((&key.agent, conversation_id), here);
        if let Some((seq, earlier)) = before
            && seq > request.seq
        {
            faults.push(Fault::OutOfOrder {
                agent: key.agent.clone(),
                conversation: conversation_id.clone(),
                earlier: earlier.clone(),
                later: key.message_id.clone(),
            });
        }
    }
    faults
}
