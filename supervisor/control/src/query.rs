//! Queries of clients. Any supervisor answers: changes are appended to the log, and answered once they are folded.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker::TransientMessage;
use bytes::Bytes;
use common::api::{ApiError, Applied, Earlier, Query, Reply, SoulSource};
use common::control::ControlEvent;
use common::frame::ShimCommand;
use common::message::MessageKey;
use common::security::Refusal;
use common::soul;
use common::spec::AgentSpec;
use common::users::Scope;
use common::{AgentName, SenderName};
use supervisor_core::Agent;

use super::files::Apply;
use super::looks::Wanted;
use super::{Refused, Supervisor, view};
use common::failure;

/// A client that waits for its changes to be folded.
#[derive(Debug, Clone)]
pub(super) struct Waiting {
    reply: String,
    /// The agents, as they were before.
    agents: Arc<[Before]>,
    /// How many records of the request are not folded yet. They are stored in any order: the answer comes after all of them.
    left: Arc<AtomicUsize>,
}

impl Waiting {
    /// For a request of so many records.
    pub(super) fn of(reply: &str, agents: Vec<Before>, records: usize) -> Self {
        let left = Arc::new(AtomicUsize::new(records));
        Self { reply: reply.to_owned(), agents: agents.into(), left }
    }

    /// One of its records is folded; whether that was the last one.
    fn is_over(&self) -> bool {
        self.left.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// For a change of no agent.
    pub(super) fn alone(reply: &str) -> Self {
        Self::of(reply, Vec::new(), 1)
    }
}

/// An agent before a change.
#[derive(Debug, Clone)]
pub(super) struct Before {
    agent: AgentName,
    pub(super) generation: u64,
    pub(super) incarnation: u64,
}

/// What a user needs to be allowed to ask for something.
fn scope(query: &Query) -> Scope {
    match query {
        Query::Ps { .. }
        | Query::Inspect { .. }
        | Query::Nodes { .. }
        | Query::Rebalance
        | Query::Carried { .. }
        | Query::Schedules { .. }
        | Query::Questions { .. }
        | Query::Hello => Scope::Read,
        Query::Cancelled { .. } | Query::Answer(_) => Scope::Send,
        Query::Apply { .. }
        | Query::Start { .. }
        | Query::Stop { .. }
        | Query::Restart { .. }
        | Query::Replace { .. }
        | Query::Rollback { .. }
        | Query::Remove { .. }
        | Query::Move { .. }
        | Query::PauseSchedule { .. }
        | Query::RunSchedule { .. }
        | Query::Drain { .. }
        | Query::Undrain { .. }
        | Query::RemoveNode { .. } => Scope::Operate,
    }
}

/// The refusal of what is beyond a user's scope.
fn beyond(query: &Query, (has, name): (Scope, SenderName)) -> Option<(SenderName, ApiError)> {
    let needs = scope(query);
    if has >= needs {
        return None;
    }
    let cause = format!("user {name} has scope {has}, and it needs {needs}");
    let try_ = "ask whoever administers the fleet for a user with that scope";
    Some((name, failure::error(failure::DENIED, "the request is not allowed", cause, try_)))
}

impl Supervisor {
    pub(super) async fn query(&mut self, message: TransientMessage) {
        let Some(reply) = message.reply else { return };
        let user = self.broker.subjects().parse_query(&message.subject);
        match serde_json::from_slice(&message.payload) {
            Ok(query) => match user.and_then(|user| beyond(&query, user)) {
                Some((name, refused)) => {
                    self.refusals.note(Refused::to_user(
                        Refusal::Change,
                        name,
                        refused.cause.clone(),
                    ));
                    self.reply(&reply, &Reply::Error(refused)).await;
                }
                None => {
                    self.asks =
                        self.broker.subjects().parse_query(&message.subject).map(|user| user.1);
                    self.handle(query, reply).await;
                    self.asks = None;
                }
            },
            Err(error) => {
                let try_ = "use the same version of mozart everywhere";
                let error =
                    failure::error(failure::USAGE, "the request does not parse", error, try_);
                self.reply(&reply, &Reply::Error(error)).await;
            }
        }
    }

    async fn handle(&mut self, query: Query, reply: String) {
        if let Some(error) = self.cannot_change(&query) {
            self.reply(&reply, &Reply::Error(error)).await;
            return;
        }
        let result = match query {
            Query::Apply { souls, force } => self.apply(&souls, force, reply.clone()),
            Query::Start { agent } => {
                self.change(agent, &reply, |agent| ControlEvent::AgentStarted { agent })
            }
            Query::Stop { agent } => {
                self.change(agent, &reply, |agent| ControlEvent::AgentStopped { agent })
            }
            Query::Restart { agent } => {
                self.change(agent, &reply, |agent| ControlEvent::AgentRestarted { agent })
            }
            Query::Replace { agent, image: None } => {
                self.change(agent, &reply, |agent| ControlEvent::AgentReplaced { agent })
            }
            Query::Replace { agent, image: Some(image) } => {
                self.replace_image(agent, &image, &reply)
            }
            Query::Rollback { agent, to } => self.roll_back(agent, to, &reply),
            Query::Remove { agent } => {
                self.change(agent, &reply, |agent| ControlEvent::AgentRemoved { agent })
            }
            Query::Ps { agent, brief, after, limit, in_trouble } => {
                let wanted = match (agent, limit) {
                    (Some(agent), _) => Wanted::One(agent),
                    (None, Some(limit)) => Wanted::Page { after, limit, in_trouble },
                    (None, None) => Wanted::All,
                };
                match brief {
                    true => self.show_briefly(&wanted, &reply).await,
                    false => self.look(reply.clone(), wanted),
                }
            }
            Query::Inspect { agent } => self.look(reply.clone(), Wanted::Detail(agent)),
            Query::Cancelled { agent, sender, message_id } => {
                if let Some(begun) = self.state.agent(&agent).and_then(|known| known.begun) {
                    let (sender, message_id) = (sender.clone(), message_id.clone());
                    let cancel = ShimCommand::Cancel { sender, message_id };
                    self.tell_shim(&agent, begun, &cancel).await;
                }
                self.close_questions(MessageKey { agent, sender, message_id });
                self.reply(&reply, &Reply::Done).await;
                Ok(())
            }
            Query::Nodes { node } => self.nodes(node.as_ref(), &reply).await,
            Query::Move { agent, to } => self.move_agent(agent, to, &reply).await,
            Query::Carried { agent } => self.show_carry(&agent, &reply),
            Query::Schedules { agent, after, limit } => {
                self.show_schedules(agent.as_ref(), after.as_ref(), limit, &reply).await
            }
            Query::Questions { agent, after, limit } => {
                self.show_questions(agent, after, limit, &reply)
            }
            Query::Answer(to) => self.answer_question(to, &reply),
            Query::PauseSchedule { agent, schedule, paused } => {
                self.pause_schedule((agent, schedule), paused, &reply)
            }
            Query::RunSchedule { agent, schedule, message_id } => {
                self.run_schedule((agent, schedule), message_id, &reply)
            }
            Query::Drain { node, parallel } => self.drain(node, parallel, &reply),
            Query::Undrain { node } => self.undrain(node, &reply),
            Query::RemoveNode { node, force } => self.remove_node(node, force, &reply),
            Query::Rebalance => self.rebalance(&reply).await,
            Query::Hello => {
                let hello = view::hello(&self.id, self.holder.clone(), &self.state);
                self.reply(&reply, &Reply::Hello(hello)).await;
                Ok(())
            }
        };
        if let Err(error) = result {
            self.reply(&reply, &Reply::Error(error)).await;
        }
    }

    /// Why it takes no changes: one that cannot read all of the log does not know what it would change, and whether anybody acts on it.
    fn cannot_change(&self, query: &Query) -> Option<ApiError> {
        let changes = scope(query) > Scope::Send;
        let unreadable = self.state.unreadable().filter(|_| changes)?;
        let what = "the supervisor takes no changes";
        let cause = format!(
            "it cannot read the control log: record {}: {}",
            unreadable.seq, unreadable.why
        );
        Some(failure::error(failure::UNREACHABLE, what, cause, "`mozart doctor`"))
    }

    fn apply(&mut self, souls: &[SoulSource], force: bool, reply: String) -> Result<(), ApiError> {
        let parse = |source: &SoulSource| {
            let parsed = soul::parse(source.name.clone(), Path::new(&source.path), &source.text);
            let spec = parsed.map_err(|errors| {
                let try_ = format!("`mozart validate {}`", source.path);
                failure::error(failure::USAGE, "invalid soul", errors.plain(), try_)
            })?;
            Ok(AgentSpec { content: source.content.clone(), files: source.files.clone(), ..spec })
        };
        let specs = souls.iter().map(parse).collect::<Result<Vec<_>, ApiError>>()?;
        if specs.is_empty() {
            return Err(failure::error(failure::USAGE, "no souls", "the request holds none", ""));
        }
        self.once_stored(Apply { specs, force, asked: None, by: self.asks.clone(), reply });
        Ok(())
    }

    pub(super) fn append_applied(&mut self, apply: Apply) {
        let Apply { specs, force, asked, by, reply } = apply;
        let asks = std::mem::replace(&mut self.asks, by);
        let agents: Vec<_> = specs.iter().map(|spec| self.before(spec.name.clone())).collect();
        let waiting = Waiting::of(&reply, agents, specs.len());
        for spec in specs {
            let (spec, asked) = (Box::new(spec), asked.clone());
            let applied = ControlEvent::AgentApplied { spec, force, asked };
            self.append(applied, None, Some(waiting.clone()));
        }
        self.asks = asks;
    }

    fn generation(&self, agent: &AgentName) -> u64 {
        self.state.agent(agent).map_or(0, |known| known.generation)
    }

    pub(super) fn before(&self, agent: AgentName) -> Before {
        let generation = self.generation(&agent);
        let known = self.state.agent(&agent);
        let current = known.map(|known| {
            known.current.as_ref().map_or(known.incarnation, |current| current.number)
        });
        Before { agent, generation, incarnation: current.unwrap_or(0) }
    }

    /// A new generation with another image; without a change of it, a new incarnation as by plain `replace`.
    fn replace_image(
        &mut self,
        agent: AgentName,
        image: &str,
        reply: &str,
    ) -> Result<(), ApiError> {
        let known = self.known(&agent)?;
        let image = soul::image(image).map_err(|cause| {
            failure::error(
                failure::USAGE,
                "invalid image",
                cause,
                "use the form of IMAGE in a soul",
            )
        })?;
        if known.spec.image.as_ref() == Some(&image) {
            return self.change(agent, reply, |agent| ControlEvent::AgentReplaced { agent });
        }
        let asked = Some(format!("image {image}"));
        let spec = Box::new(AgentSpec { image: Some(image), ..known.spec.clone() });
        let event = ControlEvent::AgentApplied { spec, force: false, asked };
        self.change(agent, reply, |_| event)
    }

    /// A new generation with the spec of an earlier one: numbers only go up.
    fn roll_back(
        &mut self,
        agent: AgentName,
        to: Option<Box<Earlier>>,
        reply: &str,
    ) -> Result<(), ApiError> {
        let known = self.known(&agent)?;
        if let Some(why) =
            known.given_up.as_ref().filter(|_| to.is_none() && known.is_rolled_back())
        {
            let (target, newest) = (known.target, known.generation);
            let what = format!("generation {target} of {agent} is already in use");
            let why = supervisor_core::reworded(why);
            let given_up = format!("generation {newest} was given up: ");
            let cause = format!("{given_up}{}", why.strip_prefix(&given_up).unwrap_or(&why));
            let try_ = format!(
                "correct the soul and `mozart apply` it; `mozart rollout undo {agent} --to-generation N` goes further back"
            );
            return Err(failure::error(failure::CONFLICT, what, cause, try_));
        }
        let to = to.map(|to| (to.generation, to.spec));
        let good = || known.last_good().map(|(generation, spec)| (generation, spec.clone()));
        let Some((generation, spec)) = to.or_else(good) else {
            let what = format!("{agent} has nothing to go back to");
            let cause = "no earlier generation of it was ready";
            let try_ =
                format!("`mozart apply` the soul that it should have, `mozart explain {agent}`");
            return Err(failure::error(failure::CONFLICT, what, cause, try_));
        };
        let asked = Some(format!("rollback to generation {generation}"));
        // Whatever is sent as the spec of an agent is not made one of another.
        let specs = vec![AgentSpec { name: agent, ..spec }];
        self.once_stored(Apply {
            specs,
            force: true,
            asked,
            by: self.asks.clone(),
            reply: reply.to_owned(),
        });
        Ok(())
    }

    pub(super) fn change(
        &mut self,
        agent: AgentName,
        reply: &str,
        event: impl FnOnce(AgentName) -> ControlEvent,
    ) -> Result<(), ApiError> {
        self.known(&agent)?;
        let agents = vec![self.before(agent.clone())];
        let waiting = Waiting::of(reply, agents, 1);
        self.append(event(agent), None, Some(waiting));
        Ok(())
    }

    pub(super) fn known(&self, agent: &AgentName) -> Result<&Agent, ApiError> {
        let known = self.state.agent(agent).filter(|known| !known.removing);
        known.ok_or_else(|| {
            match self.state.agent(agent).is_some() || self.state.tombstone(agent).is_some() {
                true => removed(agent),
                false => unknown(agent),
            }
        })
    }

    /// Answers the clients whose changes are folded by now.
    pub(super) async fn answer_waiting(&mut self) {
        let folded = self.state.seq();
        if !self.waiting.iter().any(|(seq, _)| *seq <= folded) {
            return;
        }
        let (ready, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(seq, _)| *seq <= folded);
        self.waiting = rest;
        for (_, waiting) in ready.into_iter().filter(|(_, waiting)| waiting.is_over()) {
            let applied = waiting.agents.iter().map(|before| {
                let generation = self.generation(&before.agent);
                Applied {
                    agent: before.agent.clone(),
                    generation,
                    changed: generation != before.generation,
                    created: before.generation == 0,
                    previous_incarnation: before.incarnation,
                }
            });
            let applied: Vec<_> = applied.collect();
            let reply = if applied.is_empty() { Reply::Done } else { Reply::Agents(applied) };
            self.reply(&waiting.reply, &reply).await;
        }
    }

    pub(super) async fn refuse(&mut self, waiting: Waiting, error: ApiError) {
        self.reply(&waiting.reply, &Reply::Error(error)).await;
    }

    pub(super) async fn reply(&mut self, to: &str, reply: &Reply) {
        send_reply(&self.broker, to.to_owned(), reply).await;
    }
}

pub(super) fn unknown(agent: &AgentName) -> ApiError {
    let what = format!("no agent {:?}", agent.as_str());
    let try_ = "`mozart ps -a` lists the agents";
    failure::error(failure::NOT_FOUND, what, "no soul with that name was applied", try_)
}

fn removed(agent: &AgentName) -> ApiError {
    let what = format!("no agent {:?}", agent.as_str());
    let try_ = "`mozart apply SOUL` brings it back";
    failure::error(failure::NOT_FOUND, what, "it was removed", try_)
}

pub(super) async fn send_reply(broker: &broker::Broker, to: String, reply: &Reply) {
    match serde_json::to_vec(reply) {
        Ok(bytes) if bytes.len() > broker.max_record() => {
            let cause = format!("{} bytes, at most {} fit", bytes.len(), broker.max_record());
            let try_ = "ask for one agent: `mozart inspect AGENT`, or use a client of the supervisor's version, which asks for pages";
            let error = failure::error(failure::LIMIT, "the answer is too large", cause, try_);
            Box::pin(send_reply(broker, to, &Reply::Error(error))).await;
        }
        Ok(bytes) => {
            if let Err(error) = broker.tell(to, Bytes::from(bytes)).await {
                tracing::warn!("cannot answer a client: {error}");
            }
        }
        Err(error) => tracing::error!("cannot answer a client: {error}"),
    }
}
