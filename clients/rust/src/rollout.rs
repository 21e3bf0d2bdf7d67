//! An agent's generations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker::Attempt as _;
use common::api::{AgentDetail, AgentRow, AgentState, ApiError, Earlier};
use common::control::{ControlEvent, Timer};
use common::spec::AgentSpec;
use common::{AgentName, Timestamp, failure};
use serde::Serialize;

use crate::changes::{self, Change};
use crate::client::Client;

/// Souls that were applied, read back from the newest one at most.
const MOST: usize = 100;

/// A soul that was applied.
struct Applied {
    at: Timestamp,
    author: String,
    asked: Option<String>,
    spec: AgentSpec,
    /// Whether it made a new generation whatever was there before.
    is_new: bool,
}

/// The state of a generation that was replaced by another.
const EARLIER: &str = "earlier";

/// What became of the incarnations on record, newest record first.
#[derive(Debug, Default)]
struct Tried {
    /// Incarnations that were ready, whose allocation is not read yet.
    ready: BTreeSet<u64>,
    /// Generations of which an incarnation was started, and whether one of them was ready.
    generations: BTreeMap<u64, bool>,
    /// How incarnations ended whose allocation is not read yet.
    ends: BTreeMap<u64, Vain>,
    /// How the last incarnation of a generation ended.
    why: BTreeMap<u64, Vain>,
}

/// How an incarnation that was never ready ended.
#[derive(Debug, PartialEq, Eq)]
enum Vain {
    /// It was not ready in time; the last line of its worker's output.
    Late(Option<String>),
    /// Otherwise.
    Ended(String),
}

impl Vain {
    /// `ready`: its time to become ready.
    fn words(&self, ready: Duration) -> String {
        let late = format!("it was not ready within {}", humantime::format_duration(ready));
        match self {
            Self::Late(Some(said)) => format!("{late}; the last line of its output: {said}"),
            Self::Late(None) => late,
            Self::Ended(how) => format!("it did not become ready: {how}"),
        }
    }
}

impl Tried {
    fn see(&mut self, event: &ControlEvent) {
        if let ControlEvent::IncarnationReady { incarnation, .. } = event {
            self.ready.insert(*incarnation);
        } else if let ControlEvent::IncarnationAllocated { incarnation, generation, .. } = event {
            let was_ready = self.ready.remove(incarnation);
            *self.generations.entry(*generation).or_default() |= was_ready;
            if let Some(why) = self.ends.remove(incarnation) {
                self.why.entry(*generation).or_insert(why);
            }
        } else if let ControlEvent::IncarnationExited { incarnation, exit, .. } = event {
            self.ends.insert(*incarnation, Vain::Ended(exit.words()));
        } else if let ControlEvent::StartFailed { incarnation, reason, .. } = event {
            self.ends.insert(*incarnation, Vain::Ended(reason.clone()));
        } else if let ControlEvent::TimerFired { timer: Timer::Ready, incarnation, said, .. } =
            event
        {
            // What its shim said when it was killed for that is of no use.
            self.ends.insert(*incarnation, Vain::Late(said.clone()));
        }
    }

    /// Whether a generation was started and never ready.
    fn in_vain(&self, generation: u64) -> bool {
        self.generations.get(&generation) == Some(&false)
    }
}

/// A generation that the control log still has.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Generation {
    /// Its number.
    pub generation: u64,
    /// When it was applied.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// What was asked for, if it was not a soul that was applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked: Option<String>,
    /// `running`, `starting`, `failed`, `earlier`, or the agent's state.
    pub state: &'static str,
    /// Why it failed, if that is still on record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Compared with the one before it; none if that is no longer on record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changes: Option<Vec<Change>>,
    /// What it was.
    #[serde(skip)]
    pub spec: AgentSpec,
}

/// The generations on record, newest first, and the state of the agent.
///
/// # Errors
/// 3 when there is no such agent; what the broker and the supervisors say.
pub async fn generations(
    client: &Client,
    agent: &AgentName,
) -> Result<(Box<AgentDetail>, Vec<Generation>), ApiError> {
    let mut applied: Vec<Applied> = Vec::new();
    let mut tried = Tried::default();
    let look = |_, _, record: &common::control::ControlRecord| {
        tried.see(&record.event);
        if let ControlEvent::AgentApplied { spec, force, asked } = &record.event {
            applied.push(Applied {
                at: record.at,
                author: record.author.clone(),
                asked: asked.clone(),
                spec: (**spec).clone(),
                is_new: *force,
            });
        } else if let (ControlEvent::AgentRemoved { .. }, Some(later)) =
            (&record.event, applied.last_mut())
        {
            // What was applied after it made a generation of its own.
            later.is_new = true;
        }
        (applied.len() > MOST).then_some(())
    };
    let what = format!("cannot read the generations of {agent}");
    client.broker.look_back(agent, 1, look).await.attempt(what)?;
    let detail = client.inspect(agent.clone()).await?;
    let mut numbered = number(applied, detail.row.generation);
    for one in &mut numbered {
        one.state = match state(&detail.row, one.generation) {
            EARLIER if tried.in_vain(one.generation) => "failed",
            state => state,
        };
        if one.state == "failed" {
            let why = tried.why.get(&one.generation);
            one.why = why.map(|why| why.words(one.spec.timeout.ready));
        }
    }
    Ok((detail, numbered))
}

/// Counts down from the newest generation.
fn number(applied: Vec<Applied>, newest: u64) -> Vec<Generation> {
    let mut generation = newest;
    let mut all = Vec::new();
    let mut applied = applied.into_iter().peekable();
    while let Some(one) = applied.next() {
        let before = applied.peek();
        let is_same = before.is_some_and(|before| before.spec == one.spec);
        if is_same && !one.is_new {
            continue;
        }
        let changes = before.map(|before| changes::between(&before.spec, &one.spec));
        let Applied { at, author, asked, spec, .. } = one;
        let state = EARLIER;
        let why = None;
        all.push(Generation { generation, at, by: author, asked, state, why, changes, spec });
        generation = generation.saturating_sub(1);
    }
    all
}

/// The state of a generation.
fn state(row: &AgentRow, generation: u64) -> &'static str {
    if row.running_generation == Some(generation) {
        "running"
    } else if generation != row.generation {
        EARLIER
    } else if row.given_up.is_some() {
        "failed"
    } else if row.state == AgentState::Running {
        "starting"
    } else {
        row.state.as_str()
    }
}

/// What a generation was.
///
/// # Errors
/// 3 when it is not on record, 4 when it is running.
pub async fn earlier(
    client: &Client,
    agent: &AgentName,
    wanted: u64,
) -> Result<Box<Earlier>, ApiError> {
    let (detail, all) = generations(client, agent).await?;
    if detail.row.running_generation == Some(wanted) && detail.row.generation == wanted {
        let what = format!("cannot go back to generation {wanted} of {agent}");
        let cause = "it is already running";
        let try_ = format!("`mozart rollout history {agent}`");
        return Err(failure::error(failure::CONFLICT, what, cause, try_));
    }
    let known: Vec<String> = all.iter().rev().map(|one| one.generation.to_string()).collect();
    let found = all.into_iter().find(|one| one.generation == wanted);
    let Some(Generation { spec, .. }) = found else {
        let what = format!("no generation {wanted} of {agent}");
        let cause = format!("the control log has generations {}", known.join(", "));
        let try_ = format!("`mozart rollout history {agent}`");
        return Err(failure::error(failure::NOT_FOUND, what, cause, try_));
    };
    Ok(Box::new(Earlier { generation: wanted, spec }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(attempts: u32, is_new: bool) -> Applied {
        let mut spec = AgentSpec::new(AgentName::new("a").expect("valid"), "m/m", "You.");
        spec.attempts = attempts;
        let (at, author) = (Timestamp::default(), "cli".to_owned());
        Applied { at, author, asked: None, spec, is_new }
    }

    #[test]
    fn a_generation_that_was_never_ready_stays_failed() {
        let agent = || AgentName::new("a").expect("valid");
        let node = || common::NodeName::new("n").expect("valid");
        let allocated = |incarnation, generation| ControlEvent::IncarnationAllocated {
            agent: agent(),
            incarnation,
            generation,
            node: node(),
        };
        let ready =
            |incarnation| ControlEvent::IncarnationReady { agent: agent(), incarnation, floor: 0 };
        let mut tried = Tried::default();
        // Oldest first: 1 was ready, 2 was tried twice in vain, 3 was ready at the second try.
        let log = [
            allocated(1, 1),
            ready(1),
            allocated(2, 2),
            allocated(3, 2),
            allocated(4, 3),
            allocated(5, 3),
            ready(5),
        ];
        log.iter().rev().for_each(|event| tried.see(event));
        assert_eq!(
            [1, 2, 3, 4].map(|generation| tried.in_vain(generation)),
            [false, true, false, false]
        );
        // The reason is that of the last try, and of one that was late that it was late.
        let reason = Some(common::shim::Exit::UNREPORTED.to_owned());
        let exit = common::shim::Exit { code: Some(137), reason, ..Default::default() };
        let log = [
            allocated(6, 4),
            ControlEvent::StartFailed {
                agent: agent(),
                incarnation: 6,
                reason: "SECRET X is not set".into(),
            },
            allocated(7, 5),
            ControlEvent::TimerFired {
                agent: agent(),
                timer: Timer::Ready,
                incarnation: 7,
                said: None,
            },
            ControlEvent::IncarnationExited { agent: agent(), incarnation: 7, exit, clean: false },
        ];
        let mut tried = Tried::default();
        log.iter().rev().for_each(|event| tried.see(event));
        let why = |generation| tried.why[&generation].words(Duration::from_secs(5));
        assert_eq!(why(4), "it did not become ready: SECRET X is not set");
        assert_eq!(why(5), "it was not ready within 5s");
    }

    #[test]
    fn generations_are_counted_back_from_the_newest() {
        // Newest first: changed, repeated, forced, changed, the first on record.
        let log = vec![
            applied(5, false),
            applied(4, false),
            applied(4, true),
            applied(4, false),
            applied(3, false),
        ];
        let all = number(log, 7);
        let numbers: Vec<(u64, u32)> =
            all.iter().map(|one| (one.generation, one.spec.attempts)).collect();
        assert_eq!(numbers, [(7, 5), (6, 4), (5, 4), (4, 3)]);
        let words =
            |changes: &[Change]| changes.first().map_or(String::new(), |one| one.field.clone());
        let changed: Vec<Option<String>> =
            all.iter().map(|one| one.changes.as_deref().map(words)).collect();
        let attempts = || Some("attempts".to_owned());
        assert_eq!(changed, [attempts(), Some(String::new()), attempts(), None]);
    }
}
