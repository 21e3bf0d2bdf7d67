//! What the system tests share: a whole fleet per test, the checker of journals, and the chaos campaign.

pub mod chaos;
pub mod checker;
pub mod harness;
