//! Goal 9: what a shim costs.

use std::fs;
use std::path::Path;

use crate::drive::{Load, drive, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report, median};
use crate::fleet::{ECHO, Fleet};
use crate::outcome::{Result, fail};
use crate::process;
use crate::rig::{Plan, Rig};
use crate::server::Sync;

/// Conmon, which does for podman what the shim does here and less: private KiB beside an idle container, measured with 20.
pub(crate) const CONMON: f64 = 336.0;
const AGENTS: usize = 20;

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let (fleet, ours) = rig.ours(AGENTS, ECHO).await?;
    let mut pairs = Pairs::default();
    for private in private(&fleet)? {
        pairs.push(private, CONMON);
    }
    let name = format!("shim's private memory, {AGENTS} idle: conmon, as measured once");
    report.add(pairs.figure(9, &name, "KiB", Goal::AtMost(1.5)))?;
    warm_up(&ours, AGENTS).await?;
    drive(&ours, Load { agents: AGENTS, in_flight: 64, window: plan.window }).await?;
    let loaded = median(private(&fleet)?);
    report.add(Figure::alone(9, "the same after load", loaded, "KiB"))?;
    #[expect(clippy::cast_precision_loss, reason = "files are far below 2^52 bytes")]
    let size = fs::metadata(process::shim()?)?.len() as f64 / f64::from(1 << 20);
    report.add(Figure::alone(9, "shim's binary", size, "MiB").wanting(Goal::AtMost(5.0)))
}

/// The private memory of each shim of a fleet, in KiB.
fn private(fleet: &Fleet) -> Result<Vec<f64>> {
    let shim = fs::canonicalize(process::shim()?)?;
    let mark = format!("MOZART_INCARNATION={}/", fleet.namespace);
    let is_shim = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let alone = fs::read(process.join("cmdline")).unwrap_or_default();
        // The echo worker is the same binary, with an argument.
        let arguments =
            alone.split(|byte| *byte == 0).filter(|argument| !argument.is_empty()).count();
        fs::read_link(process.join("exe")).is_ok_and(|exe| exe == shim)
            && arguments == 1
            && environment.split(|byte| *byte == 0).any(|line| line.starts_with(mark.as_bytes()))
    };
    let found: Vec<f64> = fs::read_dir("/proc")?
        .flatten()
        .map(|entry| entry.path())
        .filter(|process| is_shim(process))
        .filter_map(|process| kilobytes(&process.join("smaps_rollup"), "Private_"))
        .collect();
    match found.len() {
        AGENTS => Ok(found),
        other => fail(format!("{other} shims instead of {AGENTS}")),
    }
}

/// The sum of the lines of a file of /proc that begin so, in KiB.
pub(crate) fn kilobytes(file: &Path, begin: &str) -> Option<f64> {
    let text = process::read(file)?;
    let lines = text.lines().filter(|line| line.starts_with(begin));
    lines.map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum()
}
