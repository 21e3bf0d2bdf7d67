//! What the system tests share: the checker of journals and the chaos campaign.

pub mod checker;
