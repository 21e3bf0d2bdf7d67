//! The pure core of the supervisor: what the fleet is, and what is to be done next.
//!
//! Every replica folds the control log with [`step`]; the same log gives the same [`State`] and the same [`Action`]s
//! everywhere, and only the leader performs them. Nothing here reads a clock, draws a random number, waits, knows NATS or
//! fails: time is a field of the record, maps are ordered, and a record that makes no sense changes nothing.
//!
//! [`Observer`] is the leader's eyes: it turns the reports of nodes and shims into records, and only into new ones.

mod action;
mod crash;
mod explain;
mod life;
mod observer;
mod placement;
mod replace;
mod resume;
mod rollback;
mod state;
mod step;
mod text;
mod world;

pub use action::Action;
pub use explain::explain;
pub use observer::{Observer, Outcome, ShimReady};
pub use placement::place;
pub use resume::resume;
pub use state::{
    Admission, Agent, Desired, Hold, Incarnation, Node, NodePhase, Phase, Predecessor, State,
    Tombstone,
};
pub use step::step;
