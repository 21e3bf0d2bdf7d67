//! What clients ask about schedules, and want of them.

use broker::{BrokerError, SendOutcome};
use common::api::{ApiError, Reply, SchedulePage, ScheduleRow};
use common::control::ControlEvent;
use common::schedule::{Fate, Occurrences, trigger};
use common::spec::Schedule;
use common::{AgentName, MessageId, ScheduleId, failure};
use supervisor_core::Agent;

use super::super::query::send_reply;
use super::super::{Done, Supervisor};
use super::{Key, blocked};

/// The most schedules of one answer.
const PAGE: usize = 300;
/// The longest prompt that is shown, in characters.
const SHOWN: usize = 200;
/// How often a record is tried to be stored that comes between those of the leader.
const TRIES: u32 = 20;
/// How long storing a message may take.
const STORE: std::time::Duration = std::time::Duration::from_secs(5);

impl Supervisor {
    /// The schedules after one, of one agent or of all, in the order of agents and ids.
    pub(in super::super) async fn show_schedules(
        &mut self,
        agent: Option<&AgentName>,
        after: Option<&(AgentName, ScheduleId)>,
        limit: usize,
        reply: &str,
    ) -> Result<(), ApiError> {
        if let Some(agent) = agent {
            self.known(agent)?;
        }
        let limit = limit.clamp(1, PAGE);
        let is_shown = |it: &&Agent| !it.removing && agent.is_none_or(|agent| it.name == *agent);
        let from = after.map(|(agent, _)| agent);
        let agents = self.state.agents().filter(|it| from.is_none_or(|from| it.name >= *from));
        let mut rows = Vec::new();
        for agent in agents.filter(is_shown) {
            let mut of_agent: Vec<(ScheduleId, &Schedule)> = agent.schedules().collect();
            of_agent.sort_by(|(one, _), (other, _)| one.cmp(other));
            let rest = of_agent.into_iter().filter(|(id, _)| {
                after.is_none_or(|(name, last)| *name != agent.name || id > last)
            });
            rows.extend(rest.map(|(id, schedule)| row(agent, id, schedule)));
            if rows.len() > limit {
                break;
            }
        }
        let more = rows.len() > limit;
        rows.truncate(limit);
        self.reply(reply, &Reply::Schedules(SchedulePage { rows, more })).await;
        Ok(())
    }

    /// Pauses a schedule, or lets it go on.
    pub(in super::super) fn pause_schedule(
        &mut self,
        (agent, schedule): Key,
        paused: bool,
        reply: &str,
    ) -> Result<(), ApiError> {
        self.scheduled(&agent, &schedule)?;
        self.change(agent, reply, |agent| match paused {
            true => ControlEvent::SchedulePaused { agent, schedule },
            false => ControlEvent::ScheduleResumed { agent, schedule },
        })
    }

    /// Sends a schedule's prompt now, besides its occurrences.
    pub(in super::super) fn run_schedule(
        &mut self,
        key: Key,
        message_id: MessageId,
        reply: &str,
    ) -> Result<(), ApiError> {
        let schedule = self.scheduled(&key.0, &key.1)?.clone();
        let by = self.asks.as_ref().map_or_else(|| "cli".to_owned(), ToString::to_string);
        let (broker, told, reply) =
            (self.reads.broker.clone(), self.broker.clone(), reply.to_owned());
        self.task(async move {
            let what = format!("cannot run schedule {} of {}", key.1, key.0);
            let answer = match run(&broker, &key, &schedule, message_id, by).await {
                Ok(()) => Reply::Done,
                Err(error) => Reply::Error(broker::failure(what, error)),
            };
            send_reply(&told, reply, &answer).await;
            Done::Nothing
        });
        Ok(())
    }

    fn scheduled(&self, agent: &AgentName, id: &ScheduleId) -> Result<&Schedule, ApiError> {
        let known = self.known(agent)?;
        let found = known.schedules().find(|(known, _)| known == id);
        found
            .filter(|_| known.scheduled.since(id).is_some())
            .map(|(_, schedule)| schedule)
            .ok_or_else(|| {
                let what = format!("no schedule {id} of {agent}");
                let cause = "the soul that runs has none with that id";
                let try_ = format!("`mozart schedule ls {agent}`");
                failure::error(failure::NOT_FOUND, what, cause, try_)
            })
    }
}

fn row(agent: &Agent, id: ScheduleId, schedule: &Schedule) -> ScheduleRow {
    let blocked = blocked(agent, &id).map(|(reason, detail)| match detail {
        Some(detail) => format!("{}: {detail}", reason.words()),
        None => reason.words().to_owned(),
    });
    ScheduleRow {
        agent: agent.name.clone(),
        cron: schedule.cron.clone(),
        tz: schedule.tz.clone(),
        prompt: schedule.prompt.chars().take(SHOWN).collect(),
        options: schedule.options,
        since: agent.scheduled.since(&id),
        paused: agent.scheduled.paused(&id),
        blocked,
        schedule: id,
    }
}

/// Stores a message of a schedule, and that somebody has asked for it.
async fn run(
    broker: &broker::Broker,
    (agent, id): &Key,
    schedule: &Schedule,
    message_id: MessageId,
    by: String,
) -> Result<(), BrokerError> {
    let now = broker.clock().await?;
    let envelope = trigger(agent, (id, schedule), message_id.clone(), None, now);
    if let SendOutcome::Conflict { .. } = broker.send(&envelope, STORE).await? {
        return Err(BrokerError::Other(format!("another message has the id {message_id}")));
    }
    for _ in 0..TRIES {
        let last = broker.last_occurrences(agent, id).await?;
        let seq = last.as_ref().map_or(0, |last| last.seq);
        let last = last.map(|last| last.value);
        // What the leader has decided, and has not stored yet, is its own to finish.
        if last.as_ref().is_some_and(|last| last.unconfirmed().is_some()) {
            let key = common::schedule::message_key(
                agent,
                last.as_ref().and_then(|last| last.last.clone()).unwrap_or(message_id.clone()),
            );
            if broker.standing_of(&key).await? == broker::Standing::Gone {
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        }
        let record = Occurrences {
            nominal: last.and_then(|last| last.nominal),
            from: None,
            count: 1,
            more: false,
            fate: Fate::Requested { message_id: message_id.clone() },
            last: Some(message_id.clone()),
            stored: true,
            at: now,
            term: None,
            author: by.clone(),
        };
        if broker.store_occurrences((agent, id), &record, seq).await?.is_some() {
            return Ok(());
        }
    }
    let cause =
        "its message is stored; the record of it is not, since others write there all the time";
    Err(BrokerError::Other(cause.to_owned()))
}
