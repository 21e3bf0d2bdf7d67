//! What the fold asked for, done. Every action may be done twice.

use common::codec;
use common::shim::{NodeCommand, NodeCommandBody, ShimCommand, StartIncarnation};
use common::{AgentName, NodeName};
use supervisor_core::{Action, Predecessor};
use uuid::Uuid;

use super::Supervisor;

impl Supervisor {
    pub(super) async fn perform_pending(&mut self) {
        while let Some(action) = self.acting().and_then(|leading| leading.pending.pop_front()) {
            self.perform(action).await;
        }
    }

    pub(super) async fn perform(&mut self, action: Action) {
        tracing::debug!("{action:?}");
        match action {
            Action::Start { node, agent, generation, incarnation, warm } => {
                if !warm {
                    self.prepare(&agent, incarnation);
                }
                self.start(&node, agent, generation, incarnation).await;
            }
            Action::Stop { node, agent, incarnation, within } => {
                let body = NodeCommandBody::Stop { agent, incarnation, within };
                self.tell_node(&node, body).await;
            }
            Action::Admit { agent, incarnation, floor, previous, previous_clean, earlier } => {
                let clean = previous_clean;
                let previous = previous.map(|incarnation| Predecessor { incarnation, clean });
                let over = earlier.into_iter().chain(previous).collect();
                self.admit(agent, incarnation, floor, over);
            }
            Action::SetTimer { agent, timer, incarnation, at } => {
                let now = self.now();
                if let Some(leading) = &mut self.leading {
                    leading.timers.set((agent, timer, incarnation), at, now);
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
        node: &NodeName,
        agent: AgentName,
        generation: u64,
        incarnation: u64,
    ) {
        let spec = self.state.agent(&agent).and_then(|known| known.spec_of(generation));
        // A later record took the generation away: whatever it decided comes as an action of its own.
        let Some(spec) = spec else { return };
        let spec = match serde_json::to_string(spec) {
            Ok(spec) => spec,
            Err(error) => return tracing::error!("the spec of {agent}: {error}"),
        };
        let token = self.token(&agent, incarnation);
        let start = StartIncarnation { agent, generation, incarnation, token, spec };
        self.tell_node(node, NodeCommandBody::Start(Box::new(start))).await;
    }

    /// The token of an incarnation's command subject: every leader knows it, and nobody else can guess it.
    pub(super) fn token(&self, agent: &AgentName, incarnation: u64) -> String {
        let name = format!("{agent}/{incarnation}");
        Uuid::new_v5(&self.secret, name.as_bytes()).simple().to_string()
    }

    async fn tell_node(&mut self, node: &NodeName, body: NodeCommandBody) {
        let subject = self.broker.subjects().node_command(node);
        self.tell_nodes(subject, body).await;
    }

    pub(super) async fn tell_nodes(&mut self, subject: String, body: NodeCommandBody) {
        let Some(term) = self.acting().map(|leading| leading.term) else { return };
        match codec::encode(&NodeCommand { term, body }) {
            Ok(frame) => {
                if let Err(error) = self.broker.tell(subject, frame.into()).await {
                    tracing::warn!("commanding nodes: {error}");
                }
            }
            Err(error) => tracing::error!("commanding nodes: {error}"),
        }
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
                    tracing::warn!("commanding {agent}-{incarnation}: {error}");
                }
            }
            Err(error) => tracing::error!("commanding {agent}-{incarnation}: {error}"),
        }
    }
}
