//! The control log, and beside it the judge: a fold of every record as it is stored, which all replicas must agree with.

use std::collections::{BTreeMap, BTreeSet};

use common::control::{ControlEvent, ControlRecord};
use common::{AgentName, Timestamp};
use supervisor_core::{Action, State, step};

use crate::Flaw;

/// A record as the log keeps it: its bytes, and when it was stored by the log's own clock.
#[derive(Clone)]
pub(crate) struct Stored {
    pub(crate) at: Timestamp,
    pub(crate) bytes: Vec<u8>,
    /// When that was, in truth.
    pub(crate) really: u64,
}

impl Stored {
    pub(crate) fn read(&self) -> ControlRecord {
        serde_json::from_slice(&self.bytes).expect("a record is plain")
    }
}

#[derive(Default)]
pub(crate) struct Log {
    records: Vec<Stored>,
    /// The state after each record, and what it led to.
    folded: Vec<(State, Vec<Action>)>,
    ids: BTreeSet<String>,
    started: BTreeMap<AgentName, u64>,
    admitted: BTreeMap<AgentName, u64>,
}

impl Log {
    pub(crate) fn last_seq(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn record(&self, seq: u64) -> Option<&Stored> {
        self.records.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// The state after everything stored so far.
    pub(crate) fn state(&self) -> State {
        self.folded.last().map(|(state, _)| state.clone()).unwrap_or_default()
    }

    /// Stores a record; whether it changed anything.
    ///
    /// # Errors
    /// Which rule the fold broke with it.
    pub(crate) fn append(
        &mut self,
        record: &ControlRecord,
        at: Timestamp,
        really: u64,
        flaw: Flaw,
    ) -> Result<bool, String> {
        let before = self.state();
        let mut state = before.clone();
        let actions = fold(&mut state, self.last_seq() + 1, at, record, flaw);
        let is_election = matches!(record.event, ControlEvent::LeaderElected { .. });
        let deposed =
            record.event.is_leaders() && !is_election && record.term != Some(before.term());
        let changed = !(actions.is_empty() && same(&before, &state));
        if deposed && changed {
            return Err(format!("a deposed leader decided: {record:?}"));
        }
        let is_new = record.id.clone().is_none_or(|id| self.ids.insert(id));
        if !is_new && changed && before.rules() >= 3 {
            return Err(format!("a record counts twice: {record:?}"));
        }
        self.judge(&state, &actions)?;
        let bytes = serde_json::to_vec(record).expect("a record is plain");
        self.records.push(Stored { at, bytes, really });
        self.folded.push((state, actions));
        Ok(changed)
    }

    fn judge(&mut self, state: &State, actions: &[Action]) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Start { agent, incarnation, .. } => {
                    let last = self.started.insert(agent.clone(), *incarnation).unwrap_or(0);
                    if *incarnation <= last {
                        return Err(format!("{agent}.{incarnation} is started again"));
                    }
                }
                Action::Admit { agent, incarnation, previous, .. } => {
                    let last = self.admitted.insert(agent.clone(), *incarnation).unwrap_or(0);
                    if *incarnation <= last {
                        return Err(format!("{agent}.{incarnation} is admitted after {last}"));
                    }
                    let of = state.agent(agent);
                    let previous = previous.and_then(|number| of?.incarnation(number));
                    // One that was taken up again is there, and gives way to this.
                    if previous.is_some_and(|one| one.phase != supervisor_core::Phase::Draining) {
                        return Err(format!(
                            "{agent}.{incarnation} and {previous:?} take messages"
                        ));
                    }
                }
                Action::Allocate { .. }
                | Action::Ask { .. }
                | Action::Refuse { .. }
                | Action::Dismiss { .. }
                | Action::Stop { .. }
                | Action::SetTimer { .. }
                | Action::CancelTimer { .. } => {}
            }
        }
        Ok(())
    }

    /// Compares a replica with the judge at the same sequence. A replica reads the records' bytes, at its own pace, goes on from
    /// snapshots, and is of an older build for a while: that it comes to the same is not a matter of course.
    ///
    /// # Errors
    /// When they disagree.
    pub(crate) fn compare(&self, state: &State, actions: &[Action]) -> Result<(), String> {
        let index = usize::try_from(state.seq()).unwrap_or(0).saturating_sub(1);
        match self.folded.get(index) {
            Some((expected, todo)) if expected == state && todo == actions => Ok(()),
            _ => Err(format!("replicas disagree after record {}", state.seq())),
        }
    }

    /// The log in lines of JSON, for whoever keeps it.
    pub(crate) fn lines(&self) -> String {
        let line = |(seq, stored): (u64, &Stored)| {
            let record: serde_json::Value = serde_json::from_slice(&stored.bytes).expect("JSON");
            serde_json::json!({ "seq": seq, "at": stored.at, "record": record }).to_string() + "\n"
        };
        (1..).zip(&self.records).map(line).collect()
    }
}

fn same(one: &State, other: &State) -> bool {
    one.agents().eq(other.agents()) && one.nodes().eq(other.nodes())
}

/// The fold under test, or a broken variety of it.
pub(crate) fn fold(
    state: &mut State,
    seq: u64,
    at: Timestamp,
    record: &ControlRecord,
    flaw: Flaw,
) -> Vec<Action> {
    let is_election = matches!(record.event, ControlEvent::LeaderElected { .. });
    if flaw == Flaw::ObeyDeposedLeaders && record.term.is_some() && !is_election {
        let term = Some(state.term());
        return step(state, seq, at, &ControlRecord { term, ..record.clone() });
    }
    if flaw == Flaw::CountTwice {
        return step(state, seq, at, &ControlRecord { id: None, ..record.clone() });
    }
    let actions = step(state, seq, at, record);
    if flaw == Flaw::ForgetTombstones {
        let mut json = serde_json::to_value(&*state).expect("a state is plain");
        json["tombstones"] = serde_json::json!({});
        *state = serde_json::from_value(json).expect("what we wrote");
    }
    actions
}
