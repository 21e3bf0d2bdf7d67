//! What clients ask about nodes, and want of them.

use common::api::{ApiError, Applied, MoveRow, Reply};
use common::control::ControlEvent;
use common::failure;
use common::{AgentName, NodeName};
use supervisor_core::{Desired, NodePhase, Phase};

use super::query::Waiting;
use super::{Supervisor, view};

/// Agents that an error names, at most.
const NAMED: usize = 5;

impl Supervisor {
    pub(super) async fn nodes(
        &mut self,
        only: Option<&NodeName>,
        reply: &str,
    ) -> Result<(), ApiError> {
        let state = &self.state;
        let nodes = match only {
            Some(name) => vec![state.node(name).ok_or_else(|| unknown(name))?],
            None => state.nodes().collect(),
        };
        let rows = nodes.into_iter().map(|node| view::node(state, node, only.is_some()));
        let rows = Reply::Nodes(rows.collect());
        self.reply(reply, &rows).await;
        Ok(())
    }

    pub(super) fn drain(
        &mut self,
        node: NodeName,
        parallel: u32,
        reply: &str,
    ) -> Result<(), ApiError> {
        self.require(&node)?;
        self.append(
            ControlEvent::NodeDrained { node, parallel },
            None,
            Some(Waiting::alone(reply)),
        );
        Ok(())
    }

    pub(super) fn undrain(&mut self, node: NodeName, reply: &str) -> Result<(), ApiError> {
        self.require(&node)?;
        self.append(ControlEvent::NodeUndrained { node }, None, Some(Waiting::alone(reply)));
        Ok(())
    }

    pub(super) fn remove_node(
        &mut self,
        node: NodeName,
        force: bool,
        reply: &str,
    ) -> Result<(), ApiError> {
        self.require(&node)?;
        let known = self.state.node(&node).filter(|known| known.phase != NodePhase::Lost);
        if known.is_some() {
            let what = format!("cannot remove node {node}");
            let cause = "it still reports";
            let try_ = "stop it, and try again once `mozart node ls` shows it as lost";
            return Err(failure::error(failure::CONFLICT, what, cause, try_));
        }
        let pinned = view::pinned(&self.state, &node);
        if !pinned.is_empty() && !force {
            let what = format!("cannot remove node {node}");
            let cause = format!("the SANCTUM of {} is there", names(&pinned));
            let try_ = format!(
                "start the node again, or `mozart node rm {node} --force`: what is pinned to it then starts elsewhere, without its data"
            );
            return Err(failure::error(failure::CONFLICT, what, cause, try_));
        }
        self.append(ControlEvent::NodeRemoved { node }, None, Some(Waiting::alone(reply)));
        Ok(())
    }

    pub(super) async fn move_agent(
        &mut self,
        agent: AgentName,
        to: NodeName,
        reply: &str,
    ) -> Result<(), ApiError> {
        let known = self.known(&agent)?;
        self.require(&to)?;
        let refused = |cause: String, try_: String| {
            let what = format!("cannot move {agent} to {to}");
            Err(failure::error(failure::CONFLICT, what, cause, try_))
        };
        let pin = known.pinned_to().filter(|pin| **pin != to).cloned();
        if known.desired == Desired::Stopped && pin.is_none() {
            return refused("it is stopped".to_owned(), format!("`mozart start {agent}`"));
        }
        let current = known.current.as_ref().filter(|one| one.phase == Phase::Ready);
        if let Some(one) = current.filter(|one| known.is_settled() && one.node == to) {
            let before = self.before(agent.clone());
            let applied = Applied {
                agent,
                generation: before.generation,
                changed: false,
                created: false,
                previous_incarnation: one.number.saturating_sub(1),
            };
            self.reply(reply, &Reply::Agents(vec![applied])).await;
            return Ok(());
        }
        if let Some(pin) = pin {
            return self.move_sanctum(&agent, &pin, to, reply);
        }
        if let Some(why) = supervisor_core::cannot_run(&self.state, known, &to) {
            return refused(format!("{to} {why}"), format!("`mozart node show {to}`"));
        }
        self.change(agent, reply, |agent| ControlEvent::AgentMoved { agent, to })
    }

    pub(super) async fn rebalance(&mut self, reply: &str) -> Result<(), ApiError> {
        let shifts = supervisor_core::rebalance(&self.state).into_iter();
        let moves = shifts.map(|one| MoveRow { agent: one.agent, from: one.from, to: one.to });
        let moves = Reply::Moves(moves.collect());
        self.reply(reply, &moves).await;
        Ok(())
    }

    fn require(&self, node: &NodeName) -> Result<(), ApiError> {
        self.state.node(node).map(|_| ()).ok_or_else(|| unknown(node))
    }
}

fn names(agents: &[AgentName]) -> String {
    let named: Vec<_> = agents.iter().take(NAMED).map(ToString::to_string).collect();
    match agents.len().saturating_sub(NAMED) {
        0 => named.join(", "),
        more => format!(
            "{} and {}",
            named.join(", "),
            common::words::count(more as u64, "other", "others")
        ),
    }
}

fn unknown(node: &NodeName) -> ApiError {
    let what = format!("no node {:?}", node.as_str());
    let cause = "no node with that name has ever reported";
    failure::error(failure::NOT_FOUND, what, cause, "`mozart node ls` lists the nodes")
}
