//! What the system tests share: a whole fleet per test, and the checker of journals.

pub mod checker;
pub mod harness;
