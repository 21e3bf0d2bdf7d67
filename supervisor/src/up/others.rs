//! Leftovers of another fleet that was served from this data folder: the broker's data was removed, or it is another broker.
//! No node manages them any more, and their shims would wait for that broker forever.

use std::fs;
use std::path::PathBuf;

use common::words::count;
use runtime::home::Home;
use runtime::{Wanted, labels, lock};

use super::containers;

/// Where the id of the fleet is kept that this folder is used for.
pub(super) const FLEET: &str = "fleet";

/// Remembers the fleet, and says so if it is another one than before: then nothing of that one is there any more.
pub(super) fn remember(home: &Home, fleet: &str, is_copy: bool) {
    let known = fs::read_to_string(home.dir.join(FLEET)).unwrap_or_default();
    let known = known.trim();
    if known == fleet {
        return;
    }
    if !known.is_empty() && !is_copy {
        tracing::warn!(
            "the broker has no data of fleet {known}, for which this folder was used: this is fleet {fleet}, without its agents and messages; if the data was removed, `mozart down` and restore it from a backup"
        );
    }
    if let Err(error) = home.put(FLEET, format!("{fleet}\n").as_bytes()) {
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
