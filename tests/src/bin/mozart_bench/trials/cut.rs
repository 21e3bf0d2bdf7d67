//! The link between the broker and a host with agents is cut for a long time. Messages are sent meanwhile. No agent may be restarted, and
//! each message is to be answered once.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use broker::AuthKey;
use checker::Accepted;
use common::ConversationId;
use common::message::MessageKey;
use serde_json::Value;
use system_tests::harness::Net;

use super::site::enter;
use crate::figure::{Figure, Goal, Report, note};
use crate::fleet::{ECHO, Fleet};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::replace::{self, Outcome};
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::waiters::Waiter;

const AGENTS: usize = 100;
/// To each agent, when the link is cut.
const AT_ONCE: usize = 10;
/// Between two messages to each agent while it is cut.
const EVERY: Duration = Duration::from_secs(60);

/// The hosts: the broker, the agents, and this program.
const BROKER: usize = 0;
const FLEET: usize = 1;
const CLIENT: usize = 2;

/// Back to where this program came from. After everything that it started has ended.
struct Return(File);

impl Drop for Return {
    fn drop(&mut self) {
        drop(enter(&self.0));
    }
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    if !rustix::process::getuid().is_root() {
        return fail("only root can make network namespaces");
    }
    let _return = Return(File::open("/proc/thread-self/ns/net")?);
    let net = Net::new(3);
    let go = |host| enter(&File::open(Path::new("/run/netns").join(net.host(host)))?);
    // What is started runs where this thread is.
    go(BROKER)?;
    let mut rig = Rig::with(plan, Sync::Always, Some(AuthKey::random())).await?;
    rig.server.url = rig.server.url.replace("127.0.0.1", &net.address(BROKER));
    go(FLEET)?;
    let fleet = Fleet::start(&rig, "ours", AGENTS, ECHO).await?;
    go(CLIENT)?;
    let ours = Ours::connect(&fleet).await?;
    let before = incarnations(&fleet).await?;
    let mut talk = Talk { ours: &ours, accepted: Vec::new(), waiters: Vec::new() };
    for _ in 0..AT_ONCE / 2 {
        talk.round().await?;
    }
    // Some of these are being answered.
    net.isolate(FLEET);
    net.cut(CLIENT, FLEET);
    let from = Instant::now();
    for _ in 0..AT_ONCE / 2 {
        talk.round().await?;
    }
    while from.elapsed() < plan.cut {
        let left = plan.cut.saturating_sub(from.elapsed());
        tokio::time::sleep(EVERY.min(left)).await;
        talk.round().await?;
        note(&format!("  cut for {:.0} s", from.elapsed().as_secs_f64()));
    }
    net.heal();
    let from = Instant::now();
    let Talk { accepted, waiters, .. } = talk;
    for waiter in waiters {
        waiter.answer().await?;
    }
    let healed = from.elapsed().as_secs_f64();
    let after = incarnations(&fleet).await?;
    let killed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    let Outcome { completed, faults, .. } = replace::outcome(&ours, vec![accepted]).await?;
    let what = format!("{AGENTS} agents cut off from NATS for {:?}", plan.cut);
    let number =
        |count: usize| Ok::<_, std::num::TryFromIntError>(f64::from(u32::try_from(count)?));
    let none = Goal::AtMost(0.0);
    let add = |name: &str, value, unit| Figure::alone(0, &format!("{what}: {name}"), value, unit);
    report.add(add("restarted", number(killed)?, "agents").wanting(none))?;
    let name = format!("lost, doubled or out of order of {completed}");
    report.add(add(&name, number(faults)?, "messages").wanting(none))?;
    report.add(add("healed to the last answer", healed, "s"))
}

/// What was sent.
struct Talk<'a> {
    ours: &'a Ours,
    accepted: Vec<Accepted>,
    waiters: Vec<Waiter>,
}

impl Talk<'_> {
    /// Sends a message to each agent.
    async fn round(&mut self) -> Result<()> {
        for agent in 0..AGENTS {
            let mut envelope = self.ours.envelope(agent, "a message")?;
            envelope.conversation_id = ConversationId::new(format!("c{agent}"))?;
            self.waiters.push(self.ours.send(&envelope).await?);
            self.accepted.push(Accepted {
                key: MessageKey {
                    agent: envelope.agent,
                    sender: envelope.sender,
                    message_id: envelope.message_id,
                },
                conversation_id: envelope.conversation_id,
                text: envelope.message.clone(),
                answer: envelope.message,
            });
        }
        Ok(())
    }
}

/// The incarnation of each agent.
async fn incarnations(fleet: &Fleet) -> Result<Vec<(String, Value)>> {
    let mut command = fleet.command();
    command.args(["-o", "json", "ps"]);
    let rows: Value = serde_json::from_str(&fleet.run(&mut command).await?)?;
    let rows = rows.as_array().cloned().unwrap_or_default();
    let row = |row: Value| {
        let name = row["agent"].as_str().unwrap_or_default().to_owned();
        (name, row["incarnation"].clone())
    };
    let rows: Vec<_> = rows.into_iter().map(row).collect();
    if rows.len() == AGENTS && rows.iter().all(|(_, incarnation)| incarnation.is_u64()) {
        return Ok(rows);
    }
    fail(format!("not {AGENTS} agents that run: {rows:?}"))
}
