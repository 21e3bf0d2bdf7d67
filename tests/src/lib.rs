//! What the system tests share: a whole fleet per test, and the chaos campaign.

pub mod chaos;
pub mod harness;
