//! Snapshots of the fold: a start continues from one, and the leader takes one every few thousand records. What to write, to
//! trust and to remove is decided in `supervisor_core`.

use broker::{Broker, BrokerError, Loaded, Moment};
use bytes::Bytes;
use common::Timestamp;
use common::api::ApiError;
use common::snapshot::{Logged, SnapshotHead};
use supervisor_core::{State, needless, old_before, restore, snapshot, trimmed_to};

use super::{Done, Supervisor};

/// What a start continues from.
pub(super) struct Start {
    pub(super) state: State,
    /// The record that the state ends with.
    pub(super) last: Logged,
}

/// Where a start continues: after the newest snapshot that can be trusted, else at the log's first record.
///
/// # Errors
/// When the log does not begin with that, and no snapshot covers what is missing.
pub(super) fn start(what: &str, who: &str, loaded: Loaded<State>) -> Result<Start, ApiError> {
    for (seq, doubt) in &loaded.doubted {
        tracing::error!("supervisor {who} skips snapshot {seq} of the control log: {doubt}");
    }
    if !loaded.is_whole() {
        return Err(trimmed(what, loaded.extent.first));
    }
    let Some((head, state)) = loaded.found else {
        return Ok(Start { state: State::default(), last: Logged::default() });
    };
    tracing::info!("supervisor {who} continues from snapshot {} of the control log", head.seq);
    Ok(Start { state, last: head.last })
}

/// A log that does not begin with its first record: folding it would treat everything that it does not mention as unwanted.
fn trimmed(what: &str, first: u64) -> ApiError {
    let cause = format!(
        "the control log begins with record {first}: earlier records are gone, and no snapshot covers them"
    );
    let try_ = "restore the streams CONTROL and SNAPSHOTS from a backup (docs/operating.md)";
    common::failure::error(common::failure::CONFLICT, what, cause, try_)
}

impl Supervisor {
    /// Takes a snapshot, if this is the leader and one is due. The state is copied here, and written while the loop goes on. A leader
    /// that no longer leads does no harm: what it writes follows from the log alone.
    pub(super) fn take_snapshot(&mut self) {
        let seq = self.state.seq();
        if !self.snapshots.is_due(seq) || self.acting().is_none() {
            return;
        }
        let began = Moment::now();
        let Some((head, json)) = snapshot(&self.state, &self.last) else { return };
        let copied = Moment::now().since(began);
        self.snapshots.begun();
        // Neither clock alone decides what is old: the log's never goes back, also if a server's was once wrong.
        let broker = self.reads.broker.clone();
        let now = self.now().min(broker.now());
        self.task(async move {
            let bytes = json.len();
            tracing::info!(
                "taking snapshot {seq} of the control log: {bytes} bytes, copied in {copied:?}"
            );
            let written = write(&broker, head, json.into(), now).await;
            let failed = |error| tracing::warn!("cannot write snapshot {seq}: {error}");
            Done::Snapshot { seq, written: written.map_err(failed).is_ok() }
        });
    }

    pub(super) fn snapshot_taken(&mut self, seq: u64, written: bool) {
        if written {
            self.snapshots.written(seq);
        } else {
            self.snapshots.failed(seq);
        }
    }
}

/// Writes a snapshot, reads it back, and only then removes what it makes needless.
async fn write(
    broker: &Broker,
    head: SnapshotHead,
    json: Bytes,
    now: Timestamp,
) -> Result<(), BrokerError> {
    broker.write_snapshot(&head, json).await?;
    tracing::info!("snapshot {} of the control log is written", head.seq);
    // It is there, whatever becomes of the rest: that is done again with the next one.
    if let Err(error) = tidy(broker, now).await {
        tracing::warn!("cannot remove what snapshots make obsolete: {error}");
    }
    Ok(())
}

async fn tidy(broker: &Broker, now: Timestamp) -> Result<(), BrokerError> {
    let (extent, judged) = broker.judge_snapshots(restore).await?;
    for seq in needless(&judged) {
        broker.drop_snapshot(seq).await?;
        let doubt = judged.iter().find(|(other, _)| *other == seq).and_then(|(_, it)| it.as_ref());
        if let Some(doubt) = doubt {
            tracing::warn!("removed snapshot {seq} of the control log: {doubt}");
        }
    }
    let young = broker.control_since(old_before(now)).await?;
    if let Some(first) = trimmed_to(&judged, extent.first, young) {
        let removed = broker.trim_control(first).await?;
        tracing::info!(
            "the control log begins with record {first}: {removed} older records were removed"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests;
