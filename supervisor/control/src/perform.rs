//! Performs the actions of the fold. Every action may be performed twice.

use std::time::Duration;

use common::codec;
use common::control::ControlEvent;
use common::frame::{NodeCommand, NodeCommandBody, ShimCommand, StartIncarnation};
use common::{AgentName, NodeName};
use supervisor_core::{Action, allocate_beside};

use super::{Done, Supervisor, doors};

/// How many incarnations' logs are kept for an agent: one that restarts over and over must not push out the logs of others.
const LOGS_KEPT: u64 = 8;

/// How long a shim that is over may settle its books. It has no consumer any more.
const DISMISSED: Duration = Duration::from_secs(5);

impl Supervisor {
    pub(super) async fn perform_pending(&mut self) {
        while let Some(action) = self.acting().and_then(|leading| leading.pending.pop_front()) {
            self.perform(action).await;
        }
    }

    pub(super) async fn perform(&mut self, action: Action) {
        tracing::debug!("{action:?}");
        match action {
            Action::Allocate { agent } => {
                let Some(leading) = &mut self.leading else { return };
                leading.given.remove(&agent);
                let event = allocate_beside(&self.state, &agent, &leading.given);
                if let Some(event) = event {
                    if let ControlEvent::IncarnationAllocated { node, .. } = &event {
                        leading.given.insert(agent, node.clone());
                    }
                    self.decide(event);
                }
            }
            Action::Ask { node } => {
                let subject = self.broker.subjects().node_command(&node);
                self.tell_nodes(subject, None, NodeCommandBody::List).await;
            }
            Action::Refuse { node, instance } => {
                tracing::error!(
                    "a second node {node} is refused: a cloned machine, or a copied data folder; give it another name"
                );
                let subject = self.broker.subjects().node_command(&node);
                self.tell_nodes(subject, Some(instance), NodeCommandBody::Refused).await;
            }
            Action::Dismiss { agent, incarnation } => {
                tracing::info!(
                    "dismissing the shim of {agent}-{incarnation}: its incarnation has ended"
                );
                let command = ShimCommand::Drain { within: DISMISSED };
                self.tell_shim(&agent, incarnation, &command).await;
            }
            Action::Start { node, instance, agent, generation, incarnation, warm } => {
                if !warm {
                    self.prepare(&agent, incarnation);
                }
                self.start((&node, instance), agent, generation, incarnation).await;
            }
            Action::Stop { node, agent, incarnation, within } => {
                let (of, body) =
                    (agent.clone(), NodeCommandBody::Stop { agent, incarnation, within });
                let Some(instance) = self.state.node(&node).map(|node| node.instance) else {
                    return;
                };
                self.tell_node((&node, instance), &of, incarnation, body).await;
            }
            // What it takes over is asked of the state when its turn comes.
            Action::Admit { agent, incarnation, .. } => self.admit(agent, incarnation),
            Action::SetTimer { agent, timer, incarnation, at } => {
                let after = at.since(self.now());
                if let Some(leading) = &mut self.leading {
                    leading.timers.set((agent, timer, incarnation), after);
                }
            }
            Action::CancelTimer { agent, timer, incarnation } => {
                if let Some(leading) = &mut self.leading {
                    leading.timers.cancel(&(agent, timer, incarnation));
                }
            }
        }
    }

    async fn start(
        &mut self,
        node: (&NodeName, u64),
        agent: AgentName,
        generation: u64,
        incarnation: u64,
    ) {
        let spec = self.state.agent(&agent).and_then(|known| known.spec_of(generation));
        // A later record took the generation away: whatever it decided comes as an action of its own.
        let Some(spec) = spec else { return };
        let spec = match serde_json::to_string(spec) {
            Ok(spec) => spec,
            Err(error) => return tracing::error!("cannot encode the spec of {agent}: {error}"),
        };
        let token = self.token(&agent, incarnation);
        let of = agent.clone();
        self.forget_logs(&agent, incarnation);
        let start = StartIncarnation { agent, generation, incarnation, token, spec };
        self.tell_node(node, &of, incarnation, NodeCommandBody::Start(Box::new(start))).await;
    }

    /// Removes the log of the incarnation that is too long ago, as another one starts.
    fn forget_logs(&mut self, agent: &AgentName, incarnation: u64) {
        let Some(old) = incarnation.checked_sub(LOGS_KEPT).filter(|old| *old > 0) else { return };
        let (broker, agent) = (self.broker.clone(), agent.clone());
        self.task(async move {
            if let Err(error) = broker.keep_logs(&agent, old, 0).await {
                tracing::debug!("cannot remove the log of {agent}-{old}, which is kept until it expires: {error}");
            }
            Done::Nothing
        });
    }

    /// The token of an incarnation's command subject: every leader can compute it, and others cannot guess it.
    pub(super) fn token(&self, agent: &AgentName, incarnation: u64) -> String {
        doors::token(self.secret, agent, incarnation)
    }

    /// Commands a process of a node, about an incarnation.
    async fn tell_node(
        &mut self,
        (node, instance): (&NodeName, u64),
        agent: &AgentName,
        incarnation: u64,
        body: NodeCommandBody,
    ) {
        let subject = self.broker.subjects().node_command(node);
        if let Some(number) = self.tell_nodes(subject, Some(instance), body).await
            && let Some(leading) = &mut self.leading
        {
            leading.observer.told(agent, incarnation, number);
        }
    }

    /// Commands one node or all; the result is the number of the command.
    pub(super) async fn tell_nodes(
        &mut self,
        subject: String,
        instance: Option<u64>,
        body: NodeCommandBody,
    ) -> Option<u64> {
        let leading = self.acting()?;
        let (term, number) = (leading.term()?, leading.next_number());
        match codec::encode(&NodeCommand { term, instance, number, body }) {
            Ok(frame) => {
                if let Err(error) = self.broker.tell(subject, frame.into()).await {
                    tracing::warn!("cannot send a command to the nodes: {error}");
                }
            }
            Err(error) => tracing::error!("cannot send a command to the nodes: {error}"),
        }
        Some(number)
    }

    /// Tells the shim of an incarnation something.
    pub(super) async fn tell_shim(
        &mut self,
        agent: &AgentName,
        incarnation: u64,
        command: &ShimCommand,
    ) {
        let subject = self.broker.subjects().shim_command(agent, &self.token(agent, incarnation));
        match codec::encode(command) {
            Ok(frame) => {
                if let Err(error) = self.broker.tell(subject, frame.into()).await {
                    tracing::warn!("cannot send a command to {agent}-{incarnation}: {error}");
                }
            }
            Err(error) => {
                tracing::error!("cannot send a command to {agent}-{incarnation}: {error}")
            }
        }
    }
}
