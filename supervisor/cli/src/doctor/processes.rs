//! Processes that are left over.

use super::{Check, Health, check};
use crate::table;
use runtime::home::Home;
use runtime::{labels, lock};

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
