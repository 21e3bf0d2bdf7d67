//! Goal 6: one agent asks another, both questions journaled, beside a single chat.

use crate::drive::{Load, Side, drive, warm_up};
use crate::figure::{Goal, Pairs, Report};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::worker;

/// Chats whose answer is the next agent's.
struct Asking<'a>(&'a Ours);

impl Side for Asking<'_> {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        let callee = &self.0.agents[agent + 1];
        let answer = self.0.ask(agent, &format!("{}{callee} {text}", worker::ASK)).await?;
        if answer.response.as_deref() == Some(text) {
            return Ok(());
        }
        fail(format!("the callee's answer was {:?}", answer.response))
    }
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let (_fleet, ours) = rig.ours(2, &worker::soul(None, "")?).await?;
    let asking = Asking(&ours);
    let load = Load { agents: 1, in_flight: 1, window: plan.window };
    warm_up(&ours, 2).await?;
    warm_up(&asking, 1).await?;
    let mut pairs = Pairs::default();
    for _ in 0..plan.pairs {
        let (two, one) = (drive(&asking, load).await?, drive(&ours, load).await?);
        pairs.push(two.micros(0.5), one.micros(0.5));
    }
    report.add(pairs.figure(6, "agent asks agent, p50: a single chat", "us", Goal::AtMost(2.3)))
}
