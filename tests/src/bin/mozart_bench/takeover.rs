//! Goal 12: the supervisor is killed while a thousand messages are open.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use rustix::process::Signal;

use crate::beacon::{Beacon, What};
use crate::drive::{Load, Side, drive, text, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report};
use crate::ours::Ours;
use crate::outcome::Result;
use crate::process::signal;
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::worker;

const AGENTS: usize = 20;
const MESSAGES: usize = 1000;
/// As a soul has it that says nothing.
const ATTEMPTS: usize = 3;

/// Chats that take their time, so that there is a time when all are open.
struct Slow<'a>(&'a Ours);

impl Side for Slow<'_> {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        self.0.ask(agent, &slow(text)).await.map(drop)
    }
}

fn slow(text: &str) -> String {
    format!("{}{}", worker::SLOW, &text[worker::SLOW.len()..])
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let folder = rig.folder.path().join("workers");
    let mut beacon = Beacon::new(&folder)?;
    let (fleet, ours) = rig.ours(AGENTS, &worker::soul(Some(&folder), "")?).await?;
    let side = Slow(&ours);
    warm_up(&side, AGENTS).await?;
    let (mut pairs, mut lost, mut often, mut messages) = (Pairs::default(), 0, 0, 0);
    for _ in 0..plan.pairs {
        let load = Load { agents: AGENTS, in_flight: 64, window: plan.window };
        let rate = drive(&side, load).await?.rate;
        beacon.drain();
        let sends = (0..MESSAGES).map(|number| {
            let (ours, text) = (&ours, slow(&text(number as u64)));
            async move {
                let envelope = ours.envelope(number % AGENTS, &text)?;
                ours.send(&envelope).await
            }
        });
        let waiters = try_join_all(sends).await?;
        signal(fleet.pid()?, Signal::KILL);
        let killed = Instant::now();
        let open = waiters.iter().filter(|waiter| waiter.is_open()).count();
        fleet.up().await?;
        let answers = join_all(waiters.into_iter().map(|waiter| waiter.answer())).await;
        let took = killed.elapsed();
        lost += answers.iter().filter(|answer| answer.is_err()).count();
        often += more_often(&mut beacon);
        messages += MESSAGES;
        let due = Duration::from_secs_f64(f64::from(u32::try_from(open)?) / rate);
        pairs.push(took.as_secs_f64(), due.as_secs_f64());
    }
    let name = format!("supervisor killed, up to {MESSAGES} messages open, all final: own pace");
    report.add(pairs.figure(12, &name, "s", Goal::AtMost(2.0)))?;
    let none = Goal::AtMost(0.0);
    let name = format!("of {messages} messages lost");
    report.add(Figure::alone(12, &name, f64::from(u32::try_from(lost)?), "").wanting(none))?;
    let name = format!("of {messages} messages run more often than {ATTEMPTS} times");
    report.add(Figure::alone(12, &name, f64::from(u32::try_from(often)?), "").wanting(none))
}

/// How many chats were given to workers more often than allowed, by the workers' own word.
fn more_often(beacon: &mut Beacon) -> usize {
    let mut runs = HashMap::<String, usize>::new();
    for told in beacon.drain() {
        if let What::Chat { id } = told.what {
            *runs.entry(id).or_default() += 1;
        }
    }
    runs.values().filter(|runs| **runs > ATTEMPTS).count()
}
