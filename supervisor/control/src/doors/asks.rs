//! The questions of shims.

use std::collections::HashMap;

use broker::{Asker, Attempt as _, MayAsk, Subscription, TransientMessage};
use common::AgentName;
use common::api::ApiError;
use common::security::Refusal;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::live::Rank;
use super::refusals::{Refusals, Refused};
use super::{Doors, GROUP, INBOXES};

/// Questions that are answered at once, at most; the others wait in the client, and are asked again.
const AT_ONCE: usize = 512;
/// Those of one agent: what is beyond is not answered. A shim looks up at most 64 messages at once, of each two things.
const OF_AGENT: usize = 160;

type Answering = BoxFuture<'static, AgentName>;

pub(super) struct Asks {
    doors: Doors,
    asked: Subscription,
    answering: FuturesUnordered<Answering>,
    of_agents: HashMap<AgentName, usize>,
    refusals: Refusals,
}

impl Asks {
    pub(super) async fn open(doors: Doors) -> Result<Self, ApiError> {
        let subject = doors.broker.subjects().shim_asks();
        let asked = doors.broker.subscribe(subject, Some(GROUP)).await;
        let asked = asked.attempt("cannot listen to the questions of agents")?;
        let refusals = Refusals::new(doors.broker.clone(), doors.id.clone(), doors.metrics.clone());
        let of_agents = HashMap::new();
        Ok(Self { doors, asked, answering: FuturesUnordered::new(), of_agents, refusals })
    }

    pub(super) async fn answer(mut self) -> Result<(), ApiError> {
        loop {
            let has_room = self.answering.len() < AT_ONCE;
            tokio::select! {
                message = self.asked.next(), if has_room => match message {
                    Some(message) => self.take(message),
                    None => return Ok(()),
                },
                Some(agent) = self.answering.next(), if !self.answering.is_empty() => {
                    self.answered(&agent);
                }
                () = self.refusals.record() => {}
            }
        }
    }

    fn answered(&mut self, agent: &AgentName) {
        if let Some(count) = self.of_agents.get_mut(agent) {
            *count -= 1;
            if *count == 0 {
                self.of_agents.remove(agent);
            }
        }
    }

    fn take(&mut self, message: TransientMessage) {
        let TransientMessage { subject, payload, reply, .. } = message;
        let Some((agent, incarnation)) = self.doors.broker.subjects().parse_shim_ask(&subject)
        else {
            return;
        };
        let Some(reply) = reply else { return };
        let count = self.of_agents.entry(agent.clone()).or_default();
        if *count >= OF_AGENT {
            return;
        }
        let asker = Asker { agent: agent.clone(), incarnation };
        let is_inbox = INBOXES.iter().any(|inbox| reply.starts_with(inbox));
        let question = match MayAsk::parse(asker, &payload) {
            _ if !is_inbox => Err(format!("an answer to {reply}")),
            // One that is not known yet was allocated a moment ago.
            Ok(question) if self.doors.live.rank(&agent, incarnation) == Rank::Over => {
                question.though_over()
            }
            parsed => parsed,
        };
        *count += 1;
        let broker = self.doors.broker.clone();
        let of = agent.clone();
        match question {
            Ok(question) => self.answering.push(Box::pin(async move {
                if let Err(error) = broker.answer_shim(&question, reply).await {
                    tracing::debug!("cannot answer a question of {of}: {error}");
                }
                of
            })),
            Err(detail) => {
                let why = detail.clone();
                let kind = Refusal::Question;
                self.refusals.note(Refused::to_agent(kind, agent, incarnation, detail));
                self.answering.push(Box::pin(async move {
                    if is_inbox && let Err(error) = broker.refuse_shim(why, reply).await {
                        tracing::debug!("cannot answer {of}: {error}");
                    }
                    of
                }));
            }
        }
    }
}
