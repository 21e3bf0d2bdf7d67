//! Goal 19: what it costs the chats that finished messages move to the history meanwhile.

use std::time::Duration;

use rustix::process::Signal;

use crate::drive::{Load, Side as _, drive, text, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report};
use crate::fleet::{ECHO, Fleet};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::signal;
use crate::rig::{Plan, Rig};
use crate::server::Sync;

const AGENTS: usize = 20;
const IN_FLIGHT: usize = 64;

/// With the one, everything that is finished moves; with the other, nothing does for as long as this takes.
const HOT: [&str; 2] = ["1s", "24h"];

/// The leader needs so long for its first round.
const ROUND: Duration = Duration::from_millis(1500);

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let (fleet, ours) = rig.ours(AGENTS, ECHO).await?;
    warm_up(&ours, AGENTS).await?;
    // Several rounds and the pauses between them.
    let window = plan.window * 3;
    let load = Load { agents: AGENTS, in_flight: IN_FLIGHT, window };
    // Something to move from the beginning on.
    drive(&ours, load).await?;
    let (mut pairs, mut moved) = (Pairs::default(), 0);
    for _ in 0..plan.pairs {
        let mut rates = Vec::new();
        for hot in HOT {
            // With the first round of the new leader.
            let before = archived(&ours).await?;
            lead(&fleet, &ours, hot).await?;
            let led = archived(&ours).await?;
            rates.push(drive(&ours, load).await?.rate);
            let after = archived(&ours).await?;
            if hot == HOT[0] {
                moved += after - before;
            } else if after > led {
                return fail("messages moved that were to stay");
            }
        }
        let [with, without] = rates[..] else { return fail("two rates") };
        pairs.push(with, without);
    }
    if moved == 0 {
        return fail("nothing moved");
    }
    let name = format!("{AGENTS} agents, {IN_FLIGHT} in flight, lazy, while archiving: without");
    report.add(pairs.figure(19, &name, "chats/s", Goal::AtLeast(0.95)))?;
    let seconds = (window + ROUND).as_secs_f64() * f64::from(plan.pairs);
    let rate = f64::from(u32::try_from(moved)?) / seconds;
    report.add(Figure::alone(19, "  messages that moved meanwhile", rate, "/s"))
}

/// Another leader takes over, and archives what is older than this.
pub(crate) async fn lead(fleet: &Fleet, ours: &Ours, hot: &str) -> Result<()> {
    signal(fleet.pid()?, Signal::KILL);
    // The journal may grow as it likes: how fast it is brought back to its bound is another matter.
    fleet.up_with(&["--hot", hot, "--hot-messages", "10000000"]).await?;
    ours.chat(0, &text(0)).await?;
    tokio::time::sleep(ROUND).await;
    Ok(())
}

/// How many messages have moved.
pub(crate) async fn archived(ours: &Ours) -> Result<u64> {
    let streams = ours.broker.stream_usage().await?;
    let history = streams.iter().find(|stream| stream.name == "HISTORY");
    Ok(history.map_or(0, |history| history.records))
}
