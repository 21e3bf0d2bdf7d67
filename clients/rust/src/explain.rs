//! The state of an agent or a message, the reason, and what to try. Reads only the broker, so that it works while no supervisor runs.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;
use std::time::Duration;

use broker::{Attempt as _, Broker, ControlItem, EventBatch, Stored};
use common::api::{AgentState, ApiError, Hello, Query, Reply};
use common::control::{ControlEvent, ControlRecord};
use common::event::attempt_of;
use common::message::{Envelope, Final};
use common::spec::AgentSpec;
use common::{AgentName, NodeName, Timestamp, failure, words};
use serde::Serialize;
use supervisor_core::{Agent, Phase, State};

use crate::client::{Client, now};
use crate::ends::{Incarnations, LastEnd};
use crate::reasons::{self, Facts};
use crate::reference::MessageRef;
use crate::{agents, describe, journal};

/// How many messages before the one in question are looked at.
const AHEAD: usize = 50;
/// Of how many open questions of its agent those of a message are told.
const ASKED: usize = 100;

/// How many of an agent's last records are looked at.
const RECORDS: usize = 500;

/// How many of an agent's dead letters are looked at.
const LETTERS: u64 = 200;

/// What is known of the state of an agent, or a message.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The agent of the message; none where the subject is an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// Why it is as it is, in sentences, most important first.
    pub explanation: Vec<String>,
    /// The last log lines of an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Vec<String>>,
    /// What happened last to an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent: Option<Vec<String>>,
    /// The agent, or the message.
    pub subject: String,
    /// Whether a supervisor answers.
    pub supervised: bool,
    /// What could not be read.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Explains an agent, or a message.
///
/// # Errors
/// 3 when there is neither such an agent nor such a message.
pub async fn explain(client: &Client, target: &str) -> Result<Explanation, ApiError> {
    let fleet = fold(client).await?;
    if let Ok(name) = AgentName::new(target)
        && (fleet.state.agent(&name).is_some() || fleet.state.tombstone(&name).is_some())
    {
        return agent(client, fleet, &name).await;
    }
    let unknown = |cause: String| {
        let what = format!("no agent or message {:?}", target);
        failure::error(failure::NOT_FOUND, what, cause, "`mozart ps -a`, `mozart journal ls`")
    };
    let reference = MessageRef::from_str(target).map_err(|error| unknown(error.to_string()))?;
    let request = match reference.resolve(&client.broker).await {
        Ok(request) => request,
        Err(error) if error.what.starts_with("no message") => {
            let names: Vec<&str> = fleet.state.agents().map(|agent| agent.name.as_str()).collect();
            let meant = agents::did_you_mean(target, &names);
            return Err(unknown(match meant {
                Some(name) => format!("did you mean {name:?}?"),
                // Several may begin like this.
                None if error.cause.starts_with("several ids") => error.cause,
                None => "it is neither in the control log nor in the journal".to_owned(),
            }));
        }
        Err(error) => return Err(error),
    };
    message(client, fleet, request.value, request.seq).await
}

/// Explains an agent.
///
/// # Errors
/// 3 when there is no such agent.
pub async fn of_agent(client: &Client, name: &AgentName) -> Result<Explanation, ApiError> {
    let fleet = fold(client).await?;
    match fleet.state.agent(name).is_some() || fleet.state.tombstone(name).is_some() {
        true => agent(client, fleet, name).await,
        false => Err(agents::meant(client, name).await),
    }
}

/// Explains a message that was found.
///
/// # Errors
/// When the broker does not answer.
pub async fn of_message(
    client: &Client,
    Stored { value, seq, .. }: Stored<Envelope>,
) -> Result<Explanation, ApiError> {
    let fleet = fold(client).await?;
    message(client, fleet, value, seq).await
}

/// The control log, folded here.
struct Fleet {
    state: State,
    /// Whether a supervisor answers.
    supervised: bool,
    /// Whether one of them leads.
    led: bool,
    /// What is wrong with what was read.
    warnings: Vec<String>,
}

async fn fold(client: &Client) -> Result<Fleet, ApiError> {
    const WHAT: &str = "cannot read the control log";
    let answers = client.ask_within(&Query::Hello, Duration::from_secs(1));
    let log = async {
        let loaded = client.broker.load_snapshot(supervisor_core::restore).await.attempt(WHAT)?;
        let doubted = loaded
            .doubted
            .iter()
            .map(|(seq, doubt)| format!("snapshot {seq} of the control log is skipped: {doubt}"));
        let mut warnings: Vec<String> = doubted.collect();
        if !loaded.is_whole() {
            let first = loaded.extent.first;
            warnings.push(format!(
                "the control log begins with record {first}, and no snapshot covers what came before it"
            ));
        }
        let mut state = loaded.found.map(|(_, state)| state).unwrap_or_default();
        let from = state.seq() + 1;
        let mut log = client.broker.follow_control(from, None).await.attempt(WHAT)?;
        loop {
            match log.next().await.attempt(WHAT)? {
                ControlItem::Record { seq, at, record } => {
                    // What is to be done is the leader's business.
                    let _actions = supervisor_core::step(&mut state, seq, at, &record);
                }
                ControlItem::Malformed { seq, at, kind, .. } => {
                    supervisor_core::skip(&mut state, seq, at, kind);
                }
                ControlItem::CaughtUp => return Ok((state, warnings)),
            }
        }
    };
    let (answer, log) = tokio::join!(answers, log);
    let led = matches!(&answer, Ok(Reply::Hello(Hello { holder: Some(_), .. })));
    let (state, warnings) = log?;
    Ok(Fleet { state, supervised: answer.is_ok(), led, warnings })
}

/// The last records about an agent, newest first: how it came to be as it is, and how its last incarnations ended.
async fn records(broker: &Broker, name: &AgentName) -> Result<Vec<(u64, ControlRecord)>, ApiError> {
    let mut records = Vec::new();
    let take = |seq, _, record: &ControlRecord| {
        records.push((seq, record.clone()));
        (records.len() >= RECORDS).then_some(())
    };
    broker.look_back(name, 1, take).await.attempt("cannot read the control log")?;
    Ok(records)
}

const UNSUPERVISED: &str = "No supervisor answers: nothing is started or restarted until one does; running agents keep answering. \
                            `mozart up` starts one.";

const UNLED: &str = "No supervisor leads: nothing is started or restarted until one does; running agents keep answering. \
                     `mozart doctor` checks what keeps them from it.";

impl Fleet {
    /// That nothing is decided for want of a supervisor.
    fn undecided(&self) -> Option<&'static str> {
        match (self.supervised, self.led) {
            (true, true) => None,
            (true, false) => Some(UNLED),
            (false, _) => Some(UNSUPERVISED),
        }
    }
}

/// That the broker has no space for more, or has lost its data, and what to do about it.
async fn refuses(broker: &Broker, name: &AgentName) -> Option<String> {
    let ApiError { cause, try_, .. } = broker::failure("", broker.refuses(Some(name)).await?);
    Some(format!("New messages are refused, and answers may be held back: {cause}. Try: {try_}."))
}

async fn agent(client: &Client, fleet: Fleet, name: &AgentName) -> Result<Explanation, ApiError> {
    let what = || format!("cannot look up agent {name}");
    let mut why = supervisor_core::explain(&fleet.state, name);
    let agent = fleet.state.agent(name);
    let is_down = |agent: &Agent| matches!(agent.state(), AgentState::Error | AgentState::Starting);
    let failed = |agent: &Agent| is_down(agent) || agent.given_up.is_some();
    if let Some(agent) = agent.filter(|agent| failed(agent)) {
        let running = agent.current.as_ref().filter(|one| one.phase == Phase::Ready);
        let running = running.map(|one| one.number);
        let line = last_words(&client.broker, name, agent.incarnation, running).await;
        let is_new = |line: &String| !why.iter().any(|said| said.contains(line));
        if let Some(line) = line.filter(is_new) {
            let whose = if is_down(agent) { "Its log" } else { "The log of what was given up" };
            why.push(format!("{whose} ends with: {line}"));
        }
    }
    let records = records(&client.broker, name).await?;
    why.extend(LastEnd::of(&records).map(|end| end.words()));
    why.extend(fleet.undecided().map(str::to_owned));
    why.extend(refuses(&client.broker, name).await);
    let floor = agent.map_or(1, |agent| agent.floor.max(1));
    let open = client.broker.open_requests(name, floor, 1).await.attempt(what())?;
    why.push(match open.open.first() {
        None => "All its messages are final.".to_owned(),
        Some((_, key, at)) => format!(
            "{} not final; the oldest, {}, was sent {} ago.",
            words::count(open.total, "message is", "messages are"),
            key.message_id,
            words::short(now().since(*at))
        ),
    });
    why.extend(consumer(&client.broker, &fleet, name).await?);
    let mut letters = client.broker.dead_page(Some(name), None, LETTERS).await.attempt(what())?;
    let mut dead = 0;
    while let Some(letter) = letters.next().await.attempt(what())? {
        dead += u64::from(letter.value.redriven_as.is_none());
    }
    if dead > 0 {
        let dead = match letters.has_earlier() {
            true => format!("{dead} or more of its messages were"),
            false => words::count(dead, "of its messages was", "of its messages were"),
        };
        why.push(format!(
            "{dead} given up and not redriven since: `mozart dead ls --agent {name}`."
        ));
    }
    let troubled = agent.is_none_or(|agent| agent.last_exit.is_some() || failed(agent));
    let log: Vec<String> = if troubled {
        let lines = client.broker.logs(name, None, 5).await.attempt(what())?;
        lines.into_iter().map(|line| format!("{} {}", line.at, line.text)).collect()
    } else {
        Vec::new()
    };
    let recent = recent(&client.broker, agent, &records).await?;
    Ok(Explanation {
        agent: None,
        explanation: why,
        log: Some(log),
        recent: Some(recent),
        subject: name.to_string(),
        supervised: fleet.supervised,
        warnings: fleet.warnings,
    })
}

/// An agent's last records as lines, oldest first, with the losses of the nodes that it was on.
async fn recent(
    broker: &Broker,
    agent: Option<&Agent>,
    records: &[(u64, ControlRecord)],
) -> Result<Vec<String>, ApiError> {
    const SHOWN: usize = 8;
    let mut incarnations = Incarnations::default();
    let mut lines = BTreeMap::new();
    for place in (0..records.len()).rev() {
        let (seq, record) = &records[place];
        if place < SHOWN {
            let before = applied_before(&records[place + 1..]);
            let words = describe::control_after(record, before, &incarnations);
            lines.insert(*seq, format!("{}  #{seq}  {words}", record.at));
        }
        incarnations.see(&record.event);
    }
    if agent.is_some() {
        for (seq, line) in losses(broker, records).await? {
            lines.insert(seq, line);
        }
    }
    let excess = lines.len().saturating_sub(SHOWN);
    Ok(lines.into_values().skip(excess).collect())
}

/// The losses of the nodes that an agent's incarnations were on, which ended them.
async fn losses(
    broker: &Broker,
    records: &[(u64, ControlRecord)],
) -> Result<Vec<(u64, String)>, ApiError> {
    /// How many records about the fleet are looked at.
    const FLEET: usize = 200;
    let from = records.last().map_or(1, |(seq, _)| *seq);
    let (mut losses, mut looked) = (Vec::new(), 0);
    let look = |seq, _, record: &ControlRecord| {
        if let ControlEvent::NodeLost { node } = &record.event
            && let Some(number) = given_up_with(node, seq, records)
        {
            let what = format!("node {node} was lost; incarnation {number} was given up");
            losses.push((seq, format!("{}  #{seq}  {what}", record.at)));
        }
        looked += 1;
        (looked >= FLEET).then_some(())
    };
    broker.look_back_fleet(from, look).await.attempt("cannot read the control log")?;
    Ok(losses)
}

/// The incarnation that was on a node when it was lost: the last one that had been started, unless it had ended. `records`: newest
/// first.
fn given_up_with(node: &NodeName, lost: u64, records: &[(u64, ControlRecord)]) -> Option<u64> {
    let mut over = BTreeSet::new();
    for (_, record) in records.iter().filter(|(seq, _)| *seq < lost) {
        if let ControlEvent::IncarnationExited { incarnation, .. }
        | ControlEvent::StartFailed { incarnation, .. } = &record.event
        {
            over.insert(*incarnation);
        } else if let ControlEvent::IncarnationAllocated { incarnation, node: on, .. } =
            &record.event
        {
            return (on == node && !over.contains(incarnation)).then_some(*incarnation);
        }
    }
    None
}

/// What an agent was last applied with, by its records, newest first.
fn applied_before(records: &[(u64, ControlRecord)]) -> Option<&AgentSpec> {
    for (_, record) in records {
        if let ControlEvent::AgentApplied { spec, .. } = &record.event {
            return Some(spec);
        }
        if let ControlEvent::AgentRemoved { .. } = &record.event {
            return None;
        }
    }
    None
}

/// What the broker says about the incarnation that takes the messages.
async fn consumer(
    broker: &Broker,
    fleet: &Fleet,
    name: &AgentName,
) -> Result<Option<String>, ApiError> {
    let running = fleet.state.agent(name).filter(|agent| agent.state() == AgentState::Running);
    let Some(incarnation) = running.and_then(|agent| agent.begun) else {
        return Ok(None);
    };
    let figures =
        broker.consumer(name, incarnation).await.attempt("cannot look up its consumer")?;
    Ok(match figures {
        None => Some(format!(
            "The broker has no consumer for incarnation {incarnation}, as after a restart of the broker; the leader recreates it."
        )),
        Some(figures) if figures.pending + figures.ack_pending > 0 => Some(format!(
            "The broker has {} pending for incarnation {incarnation}, and {} delivered to it.",
            words::count(figures.pending, "message", "messages"),
            figures.ack_pending
        )),
        Some(_) => None,
    })
}

async fn message(
    client: &Client,
    fleet: Fleet,
    request: Envelope,
    seq: u64,
) -> Result<Explanation, ApiError> {
    let what = || format!("cannot look up message {}", request.message_id);
    let (broker, key, name) = (&client.broker, request.key(), &request.agent);
    let final_ = broker.outcome_of(&key).await.attempt(what())?.map(|stored| stored.value);
    let mut batches = broker.events(&key).await.attempt(what())?;
    batches.extend(final_.as_ref().and_then(|final_| tail(&request, final_)));
    let dead = broker.dead_letter(&key).await.attempt(what())?.map(|stored| stored.value);
    if final_.is_none()
        && let Some(at) = request.deliver_at
        && broker.request_of(&key).await.attempt(what())?.is_none()
    {
        return Ok(waits(fleet, request, at));
    }
    let agent = fleet.state.agent(name);
    let mut ahead = Vec::new();
    if final_.is_none() {
        let floor = agent.map_or(1, |agent| agent.floor.max(1));
        let open = broker.open_requests(name, floor, AHEAD).await.attempt(what())?;
        for (before, key, _) in open.open.into_iter().filter(|(before, ..)| *before < seq) {
            let other = broker.request_of(&key).await.attempt(what())?;
            let same =
                other.is_some_and(|other| other.value.conversation_id == request.conversation_id);
            ahead.push((same, before, key.message_id));
        }
    }
    let facts = Facts {
        exits: exits(&records(broker, name).await?),
        agent: agent.cloned(),
        final_,
        batches,
        dead,
        ahead: ahead.into_iter().map(|(same, _, id)| (same, id)).collect(),
        now: now(),
        request,
    };
    let mut why = reasons::message(&facts);
    let steps = journal::steps(broker, &key, facts.final_.is_some()).await?;
    why.extend(reasons::steps(&steps));
    if facts.final_.is_none() {
        let open = client.question_page(Some(key.agent.clone()), 0, ASKED).await;
        // What no supervisor tells is left out.
        let asked = open.map(|page| reasons::asks(&page.rows, &key)).unwrap_or_default();
        why.splice(1..1, asked);
        why.extend(fleet.undecided().map(str::to_owned));
        why.extend(refuses(broker, &facts.request.agent).await);
    }
    Ok(Explanation {
        agent: Some(facts.request.agent),
        explanation: why,
        log: None,
        recent: None,
        subject: facts.request.message_id.to_string(),
        supervised: fleet.supervised,
        warnings: fleet.warnings,
    })
}

/// A message that is to be delivered later.
fn waits(fleet: Fleet, request: Envelope, at: Timestamp) -> Explanation {
    let Envelope { message_id, agent, .. } = request;
    let mut why = vec![format!(
        "It waits to be delivered at {at}, by the broker's clock; then it is a message as any other. `mozart cancel {message_id}` cancels it."
    )];
    if fleet.state.agent(&agent).is_none() {
        why.push(format!("There is no agent {agent} now: without it, the message is cancelled when its time comes."));
    }
    match (fleet.supervised, fleet.led) {
        (true, true) => {}
        (true, false) | (false, _) => why.push(
            "No supervisor leads: it is not delivered until one does. `mozart up` starts one, `mozart doctor` checks what keeps it from leading."
                .to_owned(),
        ),
    }
    Explanation {
        agent: Some(agent),
        explanation: why,
        log: None,
        recent: None,
        subject: message_id.to_string(),
        supervised: fleet.supervised,
        warnings: fleet.warnings,
    }
}

/// The events that came with the final state.
fn tail(request: &Envelope, final_: &Final) -> Option<EventBatch> {
    let first = final_.tail.first()?;
    Some(EventBatch {
        agent: request.agent.clone(),
        sender: request.sender.clone(),
        message_id: request.message_id.clone(),
        conversation_id: request.conversation_id.clone(),
        incarnation: final_.incarnation.unwrap_or(0),
        attempt: attempt_of(first.seq),
        events: final_.tail.clone(),
    })
}

/// How the agent's incarnations ended.
fn exits(records: &[(u64, ControlRecord)]) -> BTreeMap<u64, String> {
    let exit = |(_, record): &(u64, ControlRecord)| {
        let ControlEvent::IncarnationExited { incarnation, exit, .. } = &record.event else {
            return None;
        };
        Some((*incarnation, exit.words()))
    };
    records.iter().filter_map(exit).collect()
}

/// The last log line of the newest incarnation that does not run: the last but one where the last has only just been started.
pub async fn last_words(
    broker: &Broker,
    agent: &AgentName,
    newest: u64,
    running: Option<u64>,
) -> Option<String> {
    for incarnation in [Some(newest), newest.checked_sub(1)].into_iter().flatten() {
        if incarnation == 0 || running == Some(incarnation) {
            continue;
        }
        // It adds to what is said; without it, that is still true.
        if let Ok(Some(line)) = broker.last_line(agent, incarnation).await {
            return Some(line);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_took_with_it_is_what_ran_there() {
        let agent = || AgentName::new("a").expect("valid");
        let node = |name| NodeName::new(name).expect("valid");
        let record = |event| ControlRecord {
            id: None,
            at: common::Timestamp::default(),
            term: Some(1),
            author: "t".to_owned(),
            event,
        };
        let allocated = |incarnation, on| {
            let (generation, node) = (1, node(on));
            record(ControlEvent::IncarnationAllocated {
                agent: agent(),
                incarnation,
                generation,
                node,
            })
        };
        let exit = common::shim::Exit::default();
        let exited = record(ControlEvent::IncarnationExited {
            agent: agent(),
            incarnation: 2,
            exit,
            clean: true,
        });
        // Newest first.
        let records = [(9, exited), (7, allocated(2, "h2")), (5, allocated(1, "h1"))];
        let lost = |name, at| given_up_with(&node(name), at, &records);
        assert_eq!((lost("h1", 6), lost("h2", 6)), (Some(1), None));
        assert_eq!((lost("h1", 8), lost("h2", 8)), (None, Some(2)));
        assert_eq!(lost("h2", 10), None, "it had ended before");
    }
}
