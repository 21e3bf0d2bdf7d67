//! The pure core of the supervisor: what the fleet is, and what is to be done next.
//!
//! Every replica folds the control log with [`step`]; the same log gives the same [`State`] and the same [`Action`]s
//! everywhere, and only the leader performs them. Nothing here reads a clock, draws a random number, waits, knows NATS or
//! fails: time is the log's, maps are ordered, and a record that makes no sense changes nothing.
//!
//! What a record means never changes. A rule of the fold has a version, an election says which one counts from there on, and
//! every build folds the current one and those before ([`OLDEST_RULES`] to [`RULES`]). What it cannot read makes a replica a
//! follower ([`State::unreadable`]).
//!
//! [`Observer`] is the leader's eyes: it turns the reports of nodes and shims into records, and only into new ones.

mod action;
mod carry;
mod crash;
mod drain;
mod explain;
mod host;
mod life;
mod moves;
mod observer;
mod placement;
mod rebalance;
mod recent;
mod replace;
mod restored;
mod resume;
mod reword;
mod rollback;
mod scheduled;
mod snapshot;
mod state;
mod step;
mod text;
mod world;

pub use action::Action;
pub use carry::{Carry, CarryEnd, Folder, cannot_carry, folders, others_in};
pub use drain::{Drain, drain};
pub use explain::explain;
pub use observer::{Ears, Observer, Outcome, ShimReady};
pub use placement::{
    Verdict, allocate, allocate_beside, cannot_run, failed, place, unusable, verdicts,
};
pub use rebalance::{Shift, rebalance};
pub use resume::resume;
pub use reword::reworded;
pub use scheduled::Scheduled;
pub use snapshot::{
    LOG_KEPT, OLDEST_SNAPSHOT_FORMAT, SNAPSHOT_EVERY, SNAPSHOT_FORMAT, SNAPSHOTS_KEPT, Snapshots,
    needless, old_before, restore, snapshot, trimmed_to,
};
pub use state::{
    Admission, Agent, Desired, Hold, Incarnation, Leader, Moving, Node, NodePhase, Phase,
    Predecessor, State, Tombstone, Unreadable, Wanted,
};
pub use step::{skip, step};

/// The rules that this build leads by.
///
/// 2: starts that fail are counted by node, and an incarnation that comes back with its node is taken up again.
/// 3: a record that the log stored twice counts once.
/// 4: LIMITs count against what a node can take, a SANCTUM pins its agent to its node, and another archive of files is another spec.
/// 5: an agent whose SANCTUM is on another node than the one that it is moved to takes it there.
/// 6: a start that a person asks for looks for a node anew, also while an earlier generation is about to run in the newest one's place.
/// 7: an agent has each of its schedules since some time, and schedules can be paused.
pub const RULES: u32 = 7;

/// The oldest rules that this build folds.
pub const OLDEST_RULES: u32 = 1;
