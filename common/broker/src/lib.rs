//! The one crate that speaks NATS. See ARCHITECTURE.md for the streams and `common::subject` for their subjects.

mod connection;
mod consumer;
mod control;
mod dead;
mod error;
mod events;
mod journal;
mod lease;
mod logs;
mod streams;

pub use connection::{Broker, ConnectOptions, Link, Subscription, TransientMessage};
pub use consumer::{ConsumerState, Delivery, Inbox, InboxItem};
pub use control::{Appended, ControlFollower, ControlItem};
pub use error::BrokerError;
pub use events::{EventBatch, EventFollower, EventMark};
pub use journal::{FinalOutcome, JournalItem, JournalScan, OpenScan, SendOutcome, Stored};
pub use lease::{Lease, LeaseState};
pub use logs::{LogFollower, LogLine};
pub use streams::StreamOptions;
