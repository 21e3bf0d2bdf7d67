//! The files that agents run with: on the broker before the log names them, and as long as a generation needs them.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Attempt as _, Broker};
use common::SenderName;
use common::api::ApiError;
use common::failure;
use common::files::Sha256;
use common::spec::AgentSpec;
use common::words::count;
use supervisor_core::State;

use super::{Done, Supervisor};

/// Files that no generation needs are kept for so long: a rollback to one that the log still has finds them.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// They are looked for this often, in ticks of a second,
const COLLECT_EVERY: u64 = 3600;
/// or so many times within the time for which they are kept.
const TIMES: u64 = 10;

/// Specs that are to be recorded.
#[derive(Debug)]
pub(super) struct Apply {
    pub(super) specs: Vec<AgentSpec>,
    pub(super) force: bool,
    pub(super) asked: Option<String>,
    /// The user who wants it; none where that is nobody's login.
    pub(super) by: Option<SenderName>,
    /// Where the client waits.
    pub(super) reply: String,
}

impl Supervisor {
    /// Records specs once their files are known to be on the broker. What names no files is recorded at once.
    pub(super) fn once_stored(&mut self, apply: Apply) {
        if apply.specs.iter().all(|spec| spec.files.is_none()) {
            return self.append_applied(apply);
        }
        let broker = self.reads.broker.clone();
        self.task(async move {
            let stored = all_stored(&broker, &apply).await;
            Done::Stored(Box::new(apply), stored)
        });
    }
}

impl Supervisor {
    /// Removes files that no generation needs, every now and then. What was just applied is not in the log yet: it is young.
    pub(super) fn collect_files_sometimes(&mut self) {
        let kept = self.retention.files.unwrap_or(KEPT);
        let every = (kept.as_secs() / TIMES).clamp(1, COLLECT_EVERY);
        let keeping = self.leading.as_mut().and_then(|leading| leading.keeping.as_mut());
        let Some(keeping) =
            keeping.filter(|one| !one.collecting && one.ticks.is_multiple_of(every))
        else {
            return;
        };
        keeping.collecting = true;
        let (needed, broker) = (needed(&self.state), self.reads.broker.clone());
        self.task(async move {
            match broker.collect_files(&needed, kept).await {
                Ok(0) => {}
                Ok(removed) => {
                    let removed = count(removed, "archive of files", "archives of files");
                    tracing::info!("removed {removed} that no generation needs");
                }
                Err(error) => tracing::warn!("cannot remove files that nothing needs: {error}"),
            }
            Done::Collected
        });
    }

    pub(super) fn collected(&mut self) {
        if let Some(keeping) = self.leading.as_mut().and_then(|leading| leading.keeping.as_mut()) {
            keeping.collecting = false;
        }
    }
}

async fn all_stored(broker: &Broker, apply: &Apply) -> Result<(), ApiError> {
    let mut known = BTreeSet::new();
    for spec in &apply.specs {
        let Some(files) = spec.files.as_ref().filter(|files| !known.contains(files)) else {
            continue;
        };
        let what = format!("{} is not changed", spec.name);
        if !broker.has_files(files).await.attempt(&what)? {
            let cause = format!("its files (sha256 {}) are not on the broker", files.sha256);
            let try_ = match &apply.asked {
                Some(_) => format!(
                    "`mozart apply` a soul with the files that it should have; `mozart rollout history {}`",
                    spec.name
                ),
                None => "`mozart apply` it again".to_owned(),
            };
            return Err(failure::error(failure::NOT_FOUND, what, cause, try_));
        }
        known.insert(files);
    }
    Ok(())
}

/// The archives that some generation needs: what runs, what may be started, and what a rollback leads to.
pub(super) fn needed(state: &State) -> BTreeSet<Sha256> {
    let specs = state.agents().flat_map(|agent| agent.specs());
    specs.filter_map(|spec| spec.files.as_ref()).map(|files| files.sha256.clone()).collect()
}
