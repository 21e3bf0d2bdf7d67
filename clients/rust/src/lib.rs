//! A client of a fleet: what the command line and the HTTP API have in common. It reads what the broker stores, and asks the supervisors
//! for the rest. It knows no terminal and no HTTP, and prints nothing.

pub mod agents;
pub mod answer;
pub mod answers;
pub mod cancel;
pub mod changes;
mod client;
pub mod dead;
pub mod describe;
pub mod ends;
pub mod explain;
pub mod feed;
pub mod journal;
pub mod links;
mod questions;
mod reasons;
pub mod reference;
pub mod rollout;
mod schedules;
pub mod send;
pub mod stream;
pub mod tokens;
pub mod watch;

pub use client::{Client, Pages, now, removed, unexpected};
pub use questions::Questions;
pub use schedules::{Schedules, ShownSchedule};
