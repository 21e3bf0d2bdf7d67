//! What every part of Mozart agrees on: ids, souls, subjects, records, the worker protocol and the codec.
//!
//! Nothing here reads a clock, opens a socket or knows NATS.

pub mod api;
pub mod capacity;
pub mod cluster;
pub mod codec;
pub mod control;
pub mod event;
pub mod failure;
pub mod figures;
pub mod files;
pub mod frame;
pub mod id;
pub mod later;
pub mod log;
pub mod message;
pub mod question;
pub mod quote;
pub mod schedule;
#[cfg(feature = "schema")]
mod schema;
pub mod security;
pub mod shim;
pub mod snapshot;
#[cfg(feature = "soul")]
pub mod soul;
pub mod spec;
pub mod step;
pub mod storage;
pub mod subject;
pub mod tally;
pub mod time;
pub mod tokens;
pub mod trace;
pub mod users;
pub mod words;
pub mod worker;

pub use capacity::{Capacity, Load};
pub use id::{
    AgentName, ConversationId, ConversationTag, MessageId, Namespace, NodeName, RequestTag,
    ScheduleId, SenderName,
};
pub use time::Timestamp;
pub use trace::TraceParent;
