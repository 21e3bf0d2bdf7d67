//! Processes that are left over.

use common::api::ApiError;

use super::{Check, Health, check};
use runtime::home::Home;
use runtime::labels;

/// Processes of incarnations that no node watches: while `up` is dead they serve on; without their shim they serve nobody.
pub(super) fn leftovers(home: &Home, fix: bool) -> Result<Check, ApiError> {
    let found = labels::find(&home.run());
    let orphans: Vec<_> = found
        .iter()
        .filter(|one| !one.is_shim && !found.iter().any(|shim| shim.is_shim && shim.run == one.run))
        .collect();
    if orphans.is_empty() {
        let unattended = !found.is_empty() && home.lock()?.is_some();
        let count = found.iter().filter(|one| one.is_shim).count();
        return Ok(match unattended {
            true => check(
                "leftovers",
                Health::Warn,
                format!("{count} agents run, and no `mozart up` of this folder watches them"),
                "`mozart up` takes them over, `mozart down` ends them",
            ),
            false => check("leftovers", Health::Ok, "none", ""),
        });
    }
    let names: Vec<_> = orphans.iter().map(|one| format!("{} ({})", one.pid, one.label)).collect();
    let names = names.join(", ");
    if fix {
        for one in &orphans {
            labels::sweep(&one.run);
        }
        return Ok(check("leftovers", Health::Ok, format!("ended {names}"), ""));
    }
    Ok(check(
        "leftovers",
        Health::Warn,
        format!("workers without a shim: {names}"),
        "`mozart doctor --fix`",
    ))
}
