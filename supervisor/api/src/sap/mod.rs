//! The Synadia Agent Protocol on NATS: every agent is a service that anybody with the rights can discover and prompt. Any number of processes answer
//! side by side; where an answer is, is on record in the broker (ADR 0033), so that one goes on where another was killed.

mod heirs;
mod prompts;
mod telling;
mod voice;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use broker::{Asked, Attempt as _, FromWhom};
use bytes::Bytes;
use common::AgentName;
use common::api::{AgentRow, ApiError};
use common::subject::{SAP_SERVICE, parse_sap_discovery, sap_discovery};
use common::users::Scope;
use mozart_client::now;
use tokio::time::Instant;
use uuid::Uuid;

use crate::Api;
use crate::quota::Counts;
use words::Refusal;

/// How long after its start a process sends heartbeats, unless another one has.
const FIRST_BEAT: Duration = Duration::from_secs(1);
/// How much longer the others wait than the one that sent them last.
const STAND_BACK: Duration = Duration::from_secs(2);

/// What the tasks of one process share.
#[derive(Debug)]
struct Host {
    api: Api,
    /// Random, of this process.
    run: String,
    /// The inboxes that this process answers to.
    open: Mutex<BTreeSet<String>>,
    /// The agents as the supervisors last told them: they are there while no supervisor is.
    rows: Mutex<BTreeMap<AgentName, AgentRow>>,
    /// The prompts of each sender that are open.
    prompts: Counts,
}

/// Answers until it is dropped.
///
/// # Errors
/// When the client is closed.
pub(crate) async fn serve(api: Api) -> Result<(), ApiError> {
    let run = Uuid::now_v7().simple().to_string();
    let prompts = Counts::new(prompts::SHARE.min(api.quotas.streams.most()));
    let (open, rows) = (Mutex::default(), Mutex::default());
    let host = Arc::new(Host { api, run, open, rows, prompts });
    tokio::select! {
        ended = discovered(&host) => ended,
        ended = asked_how_they_are(&host) => ended,
        ended = prompts::take(&host) => ended,
        ended = heirs::inherit(&host) => ended,
        ended = alive(&host) => ended,
        ended = beats(&host) => ended,
    }
}

impl Host {
    /// The agents.
    async fn rows(&self) -> Vec<AgentRow> {
        let told = self.api.client.brief_rows(None).await;
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Ok(rows) => *known = rows.into_iter().map(|row| (row.agent.clone(), row)).collect(),
            Err(error) => tracing::debug!("what was last known of the agents is told: {error}"),
        }
        known.values().cloned().collect()
    }

    /// One agent, which alone is asked for; none if there is no such agent.
    async fn row(&self, agent: &AgentName) -> Option<AgentRow> {
        let told = self.api.client.row(agent, true).await;
        let mut known = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        match told {
            Ok(Some(row)) => {
                known.insert(agent.clone(), row.clone());
                Some(row)
            }
            Ok(None) => {
                known.remove(agent);
                None
            }
            Err(error) => {
                tracing::debug!("what was last known of {agent} is told: {error}");
                known.get(agent).cloned()
            }
        }
    }

    /// Notes that this process answers to an inbox, until what is yielded is dropped; none if it does already.
    fn open(&self, inbox: &str) -> Option<Open<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(inbox.to_owned()).then(|| Open { host: self, inbox: inbox.to_owned() })
    }

    fn is_open(&self, inbox: &str) -> bool {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).contains(inbox)
    }

    /// Whether whoever asks may see the agents: users of this fleet.
    async fn sees(&self, asked: &Asked) -> bool {
        match &asked.by {
            FromWhom::Fleet => true,
            FromWhom::User(name) => match self.api.client.broker.user_named(name).await {
                Ok(user) => user.is_some_and(|user| user.scope >= Scope::Read),
                Err(error) => {
                    tracing::debug!("cannot look up user {name}: {error}");
                    false
                }
            },
            FromWhom::Others => false,
        }
    }

    /// Answers with one message; a caller that does not hear it asks again.
    async fn tell(&self, to: &str, answer: Bytes) {
        if let Err(error) = self.api.client.broker.tell(to.to_owned(), answer).await {
            tracing::debug!("an answer is not sent: {error}");
        }
    }

    /// Answers that a request is refused, and that this was all.
    async fn refuse(&self, to: &str, refusal: &Refusal) {
        tracing::debug!(code = refusal.code, "refused: {}", refusal.why);
        let broker = &self.api.client.broker;
        let (code, body) = (refusal.code, refusal.body());
        if let Err(error) = broker.tell_error(to.to_owned(), code, &refusal.why, body).await {
            tracing::debug!("a refusal is not sent: {error}");
        }
        self.tell(to, Bytes::new()).await;
    }
}

/// An inbox that this process answers to.
#[derive(Debug)]
struct Open<'a> {
    host: &'a Host,
    inbox: String,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let open = &self.host.open;
        open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.inbox);
    }
}

fn closed() -> ApiError {
    common::failure::error(common::failure::UNREACHABLE, "the client is closed", "", "")
}

/// Tells which agents there are. One process of the fleet does.
async fn discovered(host: &Host) -> Result<(), ApiError> {
    let broker = &host.api.client.broker;
    let subjects = broker.subjects();
    // Other fleets on the server tell of theirs.
    let group = format!("mozart-{}", subjects.namespace());
    let asking = broker.asked_at(sap_discovery(), &group).await;
    let mut asking = asking.attempt("cannot answer who is there")?;
    while let Some(asked) = asking.next().await {
        let (Some(reply), Some(discovery)) = (&asked.reply, parse_sap_discovery(&asked.subject))
        else {
            continue;
        };
        if !host.sees(&asked).await {
            continue;
        }
        let rows = match &discovery.instance {
            None => host.rows().await,
            Some(instance) => match subjects.parse_sap_instance(instance) {
                Some(agent) => host.row(&agent).await.into_iter().collect(),
                None => Vec::new(),
            },
        };
        for row in rows {
            let told = match discovery.info {
                true => words::info(subjects, &row),
                false => words::pong(subjects, &row),
            };
            host.tell(reply, told).await;
        }
    }
    Err(closed())
}

/// Tells how an agent is.
async fn asked_how_they_are(host: &Host) -> Result<(), ApiError> {
    let broker = &host.api.client.broker;
    let subjects = broker.subjects();
    let asking = broker.asked_at(vec![subjects.sap_statuses()], SAP_SERVICE).await;
    let mut asking = asking.attempt("cannot answer how agents are")?;
    while let Some(asked) = asking.next().await {
        let Some(reply) = &asked.reply else { continue };
        if !host.sees(&asked).await {
            host.refuse(reply, &Refusal::new(403, "only users of this fleet may ask")).await;
            continue;
        }
        let name = subjects.parse_sap_status(&asked.subject).unwrap_or_default();
        let row = match AgentName::new(name) {
            Ok(agent) => host.row(&agent).await,
            Err(_) => None,
        };
        match row {
            Some(row) => host.tell(reply, words::beat(subjects, &row, now())).await,
            None => host.refuse(reply, &nobody(name)).await,
        }
    }
    Err(closed())
}

/// That there is no such agent.
fn nobody(name: &str) -> Refusal {
    Refusal::new(404, format!("no agent {name:?}; `mozart ps -a` lists the agents"))
}

/// Tells other processes that this one is there: its answers are not theirs to take over.
async fn alive(host: &Host) -> Result<(), ApiError> {
    let broker = &host.api.client.broker;
    let subject = broker.subjects().api_alive(&host.run);
    let asked = broker.subscribe(subject, None).await;
    let mut asked = asked.attempt("cannot answer other processes of the API")?;
    while let Some(message) = asked.next().await {
        if let Some(reply) = message.reply {
            host.tell(&reply, Bytes::new()).await;
        }
    }
    Err(closed())
}

/// Sends the heartbeats of all agents, if no other process has just done so.
async fn beats(host: &Host) -> Result<(), ApiError> {
    let broker = &host.api.client.broker;
    let subjects = broker.subjects();
    let interval = Duration::from_secs(words::INTERVAL);
    let sent = broker.subscribe(subjects.api_beat(), None).await;
    let mut sent = sent.attempt("cannot hear other processes of the API")?;
    let mut due = Instant::now() + FIRST_BEAT;
    loop {
        tokio::select! {
            message = sent.next() => match message {
                Some(message) if message.payload == host.run.as_bytes() => {}
                Some(_) => due = Instant::now() + interval + STAND_BACK,
                None => return Err(closed()),
            },
            () = tokio::time::sleep_until(due) => {
                due = Instant::now() + interval;
                host.tell(&subjects.api_beat(), Bytes::from(host.run.clone())).await;
                for row in host.rows().await {
                    let beat = words::beat(subjects, &row, now());
                    host.tell(&subjects.sap_heartbeat(&row.agent), beat).await;
                }
            }
        }
    }
}

/// The agent of a prompt's subject.
fn agent(name: &str) -> Result<AgentName, Refusal> {
    AgentName::new(name).map_err(|_| nobody(name))
}
