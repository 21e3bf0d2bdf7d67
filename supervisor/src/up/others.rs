//! Leftovers of another fleet that was served from this data folder: the broker's data was removed, or it is another broker.
//! No node manages them any more, and their shims would wait for that broker forever.

use std::fs;
use std::path::PathBuf;

use common::words::count;
use runtime::home::{FLEET, Home};
use runtime::{Wanted, labels, lock};

use super::containers;

/// How many fleets are remembered.
const KNOWN: usize = 8;

/// Remembers the fleet, and says so if it is another one than before: then nothing of that one is there any more.
pub(super) fn remember(home: &Home, fleet: &str, is_copy: bool) {
    let mut known = home.fleets();
    let last = known.first().cloned();
    if last.as_deref() == Some(fleet) {
        return;
    }
    let is_back = known.iter().any(|one| one == fleet);
    if let Some(last) = last.filter(|_| !is_copy) {
        match is_back {
            true => tracing::warn!(
                "this is again fleet {fleet}, which this folder served before; of fleet {last}, which it served last, the broker has no data"
            ),
            false => tracing::warn!(
                "the broker has no data of fleet {last}, for which this folder was used: this is fleet {fleet}, without its agents and messages; if the data was removed, `mozart down` and restore it from a backup"
            ),
        }
    }
    known.retain(|one| one != fleet);
    known.insert(0, fleet.to_owned());
    known.truncate(KNOWN);
    if let Err(error) = home.put(FLEET, format!("{}\n", known.join("\n")).as_bytes()) {
        tracing::debug!("cannot remember the fleet: {error}");
    }
}

/// Ends what other fleets than this one left running, unless a node of theirs serves it.
pub(super) async fn end(home: &Home, fleet: &str, wanted: Wanted) {
    let is_other = |node: &PathBuf| node.parent().is_some_and(|of| !of.ends_with(fleet));
    for node in containers::nodes(home).filter(is_other) {
        let Ok(Some(_unattended)) = lock::take(&node) else { continue };
        let ended = labels::sweep(&node);
        if ended > 0 {
            let ended = count(ended as u64, "process", "processes");
            tracing::warn!("ended {ended} of another fleet, which ran in {}", node.display());
        }
        let left = containers::of_node(&node);
        if !left.is_empty()
            && let Err(error) = containers::remove(left, wanted).await
        {
            tracing::warn!("containers of another fleet are left over: {}", error.cause);
            continue;
        }
        if let Err(error) = fs::remove_dir_all(&node) {
            tracing::warn!("cannot remove {}: {error}", node.display());
        }
        // Once the last of its nodes is gone.
        let _kept = node.parent().map(fs::remove_dir);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_fleets_are_remembered_the_newest_first() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        for fleet in ["a", "b", "a"] {
            remember(&home, fleet, false);
        }
        assert_eq!(home.fleets(), ["a", "b"]);
        (0..20).for_each(|n| remember(&home, &n.to_string(), false));
        assert_eq!((home.fleets().len(), home.fleets()[0].as_str()), (KNOWN, "19"));
    }
}
