//! The SANCTUMs of agents that are moved: the leader asks the node that is to have one, until it has it, and then the one that had it to put
//! its own aside.

use std::collections::BTreeMap;
use std::time::Duration;

use broker::{Broker, Moment};
use bytes::Bytes;
use common::api::{ApiError, CarryRow, CarryState, Reply};
use common::control::ControlEvent;
use common::frame::carry::{CarryAnswer, CarryAsk, Take, TakeFolder};
use common::{AgentName, NodeName, codec, failure};
use supervisor_core::{Agent, Carry, CarryEnd, NodePhase, folders, others_in};

use super::query::{Waiting, send_reply};
use super::{Done, Supervisor};

/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long it may take to look at folders, for which it may ask another node.
const CHECK: Duration = Duration::from_secs(12);
/// A node that has not answered for so long does not take anything.
const SILENT: Duration = Duration::from_secs(30);
/// The pause after a question that was not answered.
const AGAIN: Duration = Duration::from_secs(1);
/// The pause before something is decided again that is not on record yet.
const DECIDED: Duration = Duration::from_secs(5);

/// What was asked about a copy.
#[derive(Debug)]
pub(super) struct Asked {
    copy: u64,
    /// Whether it is complete, and what it was made from is to be put aside.
    is_complete: bool,
    /// Whether an answer is on its way.
    waits: bool,
    /// When it is asked again.
    again: Moment,
    /// When there was an answer last.
    answered: Moment,
}

/// An answer about a copy.
#[derive(Debug)]
pub(super) struct Heard {
    agent: AgentName,
    copy: u64,
    answer: Result<CarryAnswer, String>,
}

impl Supervisor {
    /// Asks about the copies that something is to be done about. Costs nothing where there are none.
    pub(super) fn carry_next(&mut self) {
        let now = Moment::now();
        let Some(term) = self.acting().and_then(|leading| leading.term()) else { return };
        let mut asks = Vec::new();
        for agent in self.state.carrying() {
            let Some(carry) = &agent.carry else { continue };
            if let Some((node, ask)) = self.next_ask(term, agent, carry) {
                asks.push((agent.name.clone(), carry.copy, node, ask));
            }
        }
        let Some(leading) = &mut self.leading else { return };
        if leading.carries.is_empty() && asks.is_empty() {
            return;
        }
        let is_open = |agent: &AgentName| self.state.carrying().any(|one| one.name == *agent);
        leading.carries.retain(|agent, _| is_open(agent));
        let (mut due, mut used) = (Vec::new(), Vec::new());
        for (agent, copy, node, ask) in asks {
            let is_complete = matches!(ask, CarryAsk::PutAside { .. });
            let fresh = || Asked { copy, is_complete, waits: false, again: now, answered: now };
            let known = leading.carries.entry(agent.clone()).or_insert_with(fresh);
            if (known.copy, known.is_complete) != (copy, is_complete) {
                *known = fresh();
            }
            if known.waits || known.again > now {
                continue;
            }
            if let CarryAsk::PutAside { folders, .. } = &ask
                && let Some(other) = others_in(&self.state, &agent, &node, folders)
            {
                tracing::warn!("what {agent} left on {node} is not renamed: {other} uses it");
                known.again = now.after(DECIDED);
                let folders = folders.clone();
                used.push(ControlEvent::SanctumKept { agent, copy, folders });
                continue;
            }
            known.waits = true;
            due.push((agent, copy, node, ask));
        }
        for event in used {
            self.decide(event);
        }
        for (agent, copy, node, ask) in due {
            let broker = self.broker.clone();
            self.task(async move {
                let answer = ask_node(&broker, &node, &ask, ANSWER).await;
                Done::Carried(Heard { agent, copy, answer })
            });
        }
    }

    /// What is to be asked next, and whom; none while something of the agent still runs.
    fn next_ask(&self, term: u64, agent: &Agent, carry: &Carry) -> Option<(NodeName, CarryAsk)> {
        match &carry.end {
            None if agent.incarnations().next().is_some() => None,
            None => Some((carry.to.clone(), CarryAsk::Take { term, take: take(agent, carry) })),
            Some(CarryEnd::Moved { at, copied, kept: None }) => {
                let is_up = self.state.node(&carry.from).map(|node| node.phase);
                let time: String =
                    at.to_string().chars().take(19).filter(|c| *c != '-' && *c != ':').collect();
                let ask = CarryAsk::PutAside {
                    term,
                    agent: agent.name.clone(),
                    copy: carry.copy,
                    folders: copied.clone(),
                    suffix: format!(".moved-to-{}-{time}Z", carry.to),
                };
                (is_up == Some(NodePhase::Up)).then(|| (carry.from.clone(), ask))
            }
            Some(CarryEnd::Moved { .. } | CarryEnd::Failed { .. }) => None,
        }
    }

    /// A node has answered, or has not.
    pub(super) fn carry_heard(&mut self, heard: Heard) {
        let now = Moment::now();
        let Heard { agent, copy, answer } = heard;
        let known = self.leading.as_mut().and_then(|leading| leading.carries.get_mut(&agent));
        let Some(asked) = known.filter(|asked| asked.copy == copy && asked.waits) else { return };
        asked.waits = false;
        let silent_for = now.since(asked.answered);
        if answer.is_ok() {
            asked.answered = now;
        }
        asked.again = match &answer {
            Ok(CarryAnswer::Working { .. }) => now,
            Ok(_) => now.after(DECIDED),
            Err(_) => now.after(AGAIN),
        };
        let carry = self.state.agent(&agent).and_then(|agent| agent.carry.as_ref());
        let Some(carry) = carry.filter(|carry| carry.copy == copy) else { return };
        let (to, copied) = match &carry.end {
            None => (carry.to.clone(), None),
            Some(CarryEnd::Moved { copied, .. }) => (carry.to.clone(), Some(copied.clone())),
            Some(CarryEnd::Failed { .. }) => return,
        };
        let event = match (answer, copied) {
            (Ok(CarryAnswer::Taken { copied }), None) => {
                ControlEvent::SanctumMoved { agent, copy, copied }
            }
            (Ok(CarryAnswer::No(reason)), None) => {
                ControlEvent::SanctumNotMoved { agent, copy, reason }
            }
            (Err(error), None) if silent_for > SILENT => {
                let reason = format!("node {to} does not answer: {error}");
                ControlEvent::SanctumNotMoved { agent, copy, reason }
            }
            (Ok(CarryAnswer::Kept(folders)), Some(_)) => {
                ControlEvent::SanctumKept { agent, copy, folders }
            }
            (Ok(CarryAnswer::No(why)), Some(folders)) => {
                tracing::warn!("what {agent} left is not renamed: {why}");
                ControlEvent::SanctumKept { agent, copy, folders }
            }
            (Ok(_) | Err(_), _) => return,
        };
        self.decide(event);
    }

    /// Asks the node that an agent with a SANCTUM is to be moved to whether it could have that, before anything is stopped.
    pub(super) fn move_sanctum(
        &mut self,
        agent: &AgentName,
        pin: &NodeName,
        to: NodeName,
        reply: &str,
    ) -> Result<(), ApiError> {
        let refused = |cause: String, try_: String| {
            let what = format!("cannot move {agent} to {to}");
            Err(failure::error(failure::CONFLICT, what, cause, try_))
        };
        let known = self.known(agent)?;
        if self.state.rules() < 5 {
            let cause = format!(
                "its SANCTUM is on {pin}, and the leading supervisor is of a version that does not move it"
            );
            return refused(cause, "upgrade all supervisors".to_owned());
        }
        if let Some(carry) =
            known.carry.as_ref().filter(|carry| carry.is_under_way() && carry.to == to)
        {
            tracing::debug!("copy {} is under way already", carry.copy);
            return self
                .change(agent.clone(), reply, |agent| ControlEvent::AgentMoved { agent, to });
        }
        if let Some(why) = supervisor_core::cannot_carry(&self.state, known, &to) {
            return refused(why, format!("`mozart node show {pin}`, `mozart node show {to}`"));
        }
        let own: Vec<_> = folders(known).into_iter().filter(|one| !one.read_only).collect();
        let own: Vec<_> = own.into_iter().map(|one| one.path).collect();
        if let Some(other) = others_in(&self.state, agent, pin, &own) {
            let cause = format!("its SANCTUM on {pin} is also used by {other}");
            let try_ = format!(
                "give {other} a folder of its own, or share the folder between all nodes and declare it `shared`"
            );
            return refused(cause, try_);
        }
        let carry = Carry { copy: 0, from: pin.clone(), to: to.clone(), end: None };
        let (broker, ask) = (self.broker.clone(), CarryAsk::Check(take(known, &carry)));
        let (agent, reply, by) = (agent.clone(), reply.to_owned(), self.asks.clone());
        self.task(async move {
            let checked = match ask_node(&broker, &to, &ask, CHECK).await {
                Ok(CarryAnswer::Yes) => Ok(()),
                Ok(CarryAnswer::No(why)) => Err(why),
                Ok(other) => Err(format!("node {to} answered something else: {other:?}")),
                Err(why) => Err(format!("node {to} does not answer: {why}")),
            };
            Done::MoveChecked(Box::new(Checked { agent, to, reply, by, checked }))
        });
        Ok(())
    }

    /// The node could have it, or could not.
    pub(super) async fn move_checked(&mut self, checked: Checked) {
        let Checked { agent, to, reply, by, checked } = checked;
        if let Err(cause) = checked {
            let what = format!("cannot move {agent} to {to}");
            let (cause, try_) = match cause.split_once("; try: ") {
                Some((cause, try_)) => (cause.to_owned(), try_.to_owned()),
                None => (cause, format!("`mozart node show {to}`")),
            };
            let error = failure::error(failure::CONFLICT, what, cause, try_);
            return self.reply(&reply, &Reply::Error(error)).await;
        }
        let before = self.before(agent.clone());
        let waiting = Waiting::of(&reply, vec![before], 1);
        let asks = std::mem::replace(&mut self.asks, by);
        self.append(ControlEvent::AgentMoved { agent, to }, None, Some(waiting));
        self.asks = asks;
    }

    /// Tells what has become of the last copy of an agent's SANCTUM.
    pub(super) fn show_carry(&mut self, agent: &AgentName, reply: &str) -> Result<(), ApiError> {
        let row = self.known(agent)?.carry.as_ref().map(row);
        let (broker, agent, reply) = (self.broker.clone(), agent.clone(), reply.to_owned());
        self.task(async move {
            let mut row = row;
            if let Some(row) = row.as_mut().filter(|row| row.state == CarryState::Copying) {
                let ask = CarryAsk::Progress { agent, copy: row.copy };
                if let Ok(CarryAnswer::Working { done, of }) =
                    ask_node(&broker, &row.to, &ask, AGAIN).await
                {
                    (row.bytes, row.of) = (Some(done), Some(of));
                }
            }
            send_reply(&broker, reply, &Reply::Carried(row)).await;
            Done::Nothing
        });
        Ok(())
    }
}

/// A move whose node was asked whether it could have the SANCTUM.
#[derive(Debug)]
pub(super) struct Checked {
    agent: AgentName,
    to: NodeName,
    reply: String,
    /// The user who wants it.
    by: Option<common::SenderName>,
    checked: Result<(), String>,
}

/// What is asked about leaderships' copies.
pub(super) type Carries = BTreeMap<AgentName, Asked>;

fn take(agent: &Agent, carry: &Carry) -> Take {
    let folders = folders(agent).into_iter();
    let folders = folders.map(|one| TakeFolder { path: one.path, read_only: one.read_only });
    let (agent, copy, from) = (agent.name.clone(), carry.copy, carry.from.clone());
    Take { agent, copy, from, folders: folders.collect() }
}

async fn ask_node(
    broker: &Broker,
    node: &NodeName,
    ask: &CarryAsk,
    within: Duration,
) -> Result<CarryAnswer, String> {
    let frame = Bytes::from(codec::encode(ask).map_err(|error| error.to_string())?);
    let answer = broker.ask(broker.subjects().node_carry(node), frame, within).await;
    codec::decode(&answer.map_err(|error| error.to_string())?).map_err(|error| error.to_string())
}

fn row(carry: &Carry) -> CarryRow {
    let mut row = CarryRow {
        copy: carry.copy,
        from: carry.from.clone(),
        to: carry.to.clone(),
        state: CarryState::Copying,
        bytes: None,
        of: None,
        reason: None,
        copied: Vec::new(),
        kept: None,
    };
    match &carry.end {
        None => {}
        Some(CarryEnd::Failed { reason }) => {
            (row.state, row.reason) = (CarryState::Failed, Some(reason.clone()));
        }
        Some(CarryEnd::Moved { copied, kept, .. }) => {
            (row.state, row.copied, row.kept) = (CarryState::Moved, copied.clone(), kept.clone());
        }
    }
    row
}
