//! Tallies of the whole process, for places where no caller could keep one.

use std::sync::{Mutex, PoisonError};

use common::tally::{Others, Tally};

use crate::clock::Moment;

/// A [`Tally`] by the boot clock. What it counted is said with the next one: nobody looks for what is due.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<Tally>);

impl Quiet {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Tally::new()))
    }

    /// As [`Tally::count`].
    pub(crate) fn count(&self) -> Option<Others> {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tally.count(Moment::now().since_boot_ms())
    }
}
