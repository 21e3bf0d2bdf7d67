//! Processes that are left over, and how the last `up` ended.

use common::Timestamp;
use runtime::log;

use super::{Check, Health, check};
use crate::table;
use runtime::home::Home;
use runtime::{labels, lock};

/// How much of a log is read, in bytes.
const TAIL: u64 = 1 << 20;

/// With what error the last `up -d` ended, where none runs; none if it ended in order, or if its log does not tell.
pub(super) fn ended(home: &Home) -> Option<Check> {
    if lock::is_held(&home.dir) {
        return None;
    }
    let path = home.log();
    let log = log::tail(&path, TAIL).ok()?;
    let (what, cause, try_) = log::last_error(&log)?;
    let at = path.metadata().ok()?.modified().ok().map(Timestamp::from)?;
    let found = format!("the last `mozart up -d` ended at {at} with an error: {what}: {cause}");
    let found = found.trim_end_matches([':', ' ']);
    let log = format!("`cat {}`", path.display());
    // Which is what is running.
    let try_ = if try_.is_empty() || try_ == "`mozart doctor`" { &log } else { try_ };
    Some(check("up", Health::Warn, table::one_line(found, 500), try_))
}

/// Processes of incarnations that no node watches. While `up` is dead they keep working; without their shim they are useless.
pub(super) fn leftovers(home: &Home, fix: bool) -> Check {
    let found = labels::find(&home.run());
    let orphans: Vec<_> = found
        .iter()
        .filter(|one| !one.is_shim && !found.iter().any(|shim| shim.is_shim && shim.run == one.run))
        .collect();
    if orphans.is_empty() {
        let unattended = !found.is_empty() && !lock::is_held(&home.dir);
        let shims = found.iter().filter(|one| one.is_shim).count() as u64;
        let agents = table::count(shims, "agent", "agents");
        return match unattended {
            true => check(
                "leftovers",
                Health::Warn,
                format!("running without a `mozart up` of this folder: {agents}"),
                "`mozart up` takes them over, `mozart down` ends them",
            ),
            false => check("leftovers", Health::Ok, "none", ""),
        };
    }
    let names: Vec<_> = orphans.iter().map(|one| format!("{} ({})", one.pid, one.label)).collect();
    let names = names.join(", ");
    if fix {
        for one in &orphans {
            labels::sweep(&one.run);
        }
        return check("leftovers", Health::Ok, format!("ended {names}"), "");
    }
    let found = format!("workers without a shim: {names}");
    check("leftovers", Health::Warn, found, "`mozart doctor --fix`")
}
