//! A large fleet over three hosts: what it takes, and whether a chat in it takes longer than in a small one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::site::{HOSTS, Site};
use crate::cpu::Meter;
use crate::drive::{Load, drive, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report};
use crate::fleet::ECHO;
use crate::memory::kilobytes;
use crate::outcome::Result;
use crate::rig::Plan;

const FEW: usize = 10;
const MANY: usize = 1000;
/// How long the idle fleet is looked at.
const IDLE: Duration = Duration::from_secs(20);

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let many = plan.agents.unwrap_or(MANY);
    let site = Site::start(plan).await?;
    let few = site.client(site.apply(FEW, ECHO).await?).await?;
    let load = |agents| Load { agents, in_flight: 1, window: plan.window };
    warm_up(&few, FEW).await?;
    let (mut middle, mut tail) = (Vec::new(), Vec::new());
    for _ in 0..plan.pairs {
        let measured = drive(&few, load(FEW)).await?;
        middle.push(measured.micros(0.5));
        tail.push(measured.micros(0.99));
    }
    drop(few);
    let from = Instant::now();
    let names = site.apply(many, ECHO).await?;
    let name = format!("{many} agents over {HOSTS} hosts: applied to all running");
    report.add(Figure::alone(0, &name, from.elapsed().as_secs_f64(), "s"))?;
    let placed = site.placed(0).await?;
    for (host, agents) in placed.iter().enumerate() {
        let count = f64::from(u32::try_from(agents.len())?);
        report.add(Figure::alone(0, &format!("  on host {host}"), count, "agents"))?;
    }
    let ours = site.client(names).await?;
    warm_up(&ours, many).await?;
    let (mut p50, mut p99) = (Pairs::default(), Pairs::default());
    for (middle, tail) in middle.into_iter().zip(tail) {
        let measured = drive(&ours, load(many)).await?;
        p50.push(measured.micros(0.5), middle);
        p99.push(measured.micros(0.99), tail);
    }
    let name = format!("one chat, {many} agents: {FEW} agents");
    report.add(p50.figure(0, &format!("{name}, p50"), "us", Goal::None))?;
    report.add(p99.figure(0, &format!("{name}, p99"), "us", Goal::None))?;
    drop(ours);
    for (role, (count, memory)) in roles(&site)? {
        let name = format!("{role}: proportional memory of {count} processes, of each");
        report.add(Figure::alone(0, &name, memory / f64::from(count) / 1024.0, "MiB"))?;
    }
    let meter = Meter::new(site.folder())?;
    let from = (Instant::now(), meter.micros());
    tokio::time::sleep(IDLE).await;
    let busy = (meter.micros() - from.1) / 1e6 / from.0.elapsed().as_secs_f64();
    let name = format!("{many} idle agents over {HOSTS} hosts, all processes");
    report.add(Figure::alone(0, &name, busy * 100.0, "% of a core"))
}

/// By role: how many processes, and what memory they have, in KiB; what several share counts in parts.
fn roles(site: &Site) -> Result<BTreeMap<&'static str, (u32, f64)>> {
    let mut roles = BTreeMap::new();
    for pid in (0..HOSTS).flat_map(|host| site.net().processes(host)) {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let (Some(role), Some(memory)) =
            (role(&process), kilobytes(&process.join("smaps_rollup"), "Pss:"))
        else {
            continue;
        };
        let (count, sum) = roles.entry(role).or_insert((0, 0.0));
        *count += 1;
        *sum += memory;
    }
    Ok(roles)
}

fn role(process: &Path) -> Option<&'static str> {
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let program = std::str::from_utf8(words.next()?).ok()?.rsplit('/').next()?.to_owned();
    let is_alone = words.next().is_none();
    Some(match program.as_str() {
        "nats-server" => "nats-server",
        "mozart-shim" if is_alone => "shim",
        "mozart-shim" => "echo worker",
        _ => "supervisor and node",
    })
}
