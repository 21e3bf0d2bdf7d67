//! Pages of lists: how much is shown, from where, and how to continue.

use std::fmt::Display;
use std::str::FromStr;

use broker::Cursor;
use clap::Args;

use super::output;

/// What fits a screen.
const SCREEN: usize = 50;
/// What programs get unless they ask for another number.
const PROGRAMS: usize = 1000;

/// A cursor of a list, as people pass it on.
pub(crate) trait Place:
    FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>> + Clone + Send + Sync + 'static
{
}

impl Place for Cursor {}
/// A sequence of the one stream that is listed.
impl Place for u64 {}

/// Which page of a list that ends with the newest.
#[derive(Debug, Args)]
pub(crate) struct PageArgs<P: Place> {
    /// Show at most N items [default: 50; with -o json: 1000]
    #[arg(long, value_name = "N", value_parser = limit)]
    limit: Option<usize>,
    /// Only items before a cursor that an earlier list printed
    #[arg(long, value_name = "CURSOR", value_parser = P::from_str)]
    pub(crate) before: Option<P>,
}

impl<P: Place> PageArgs<P> {
    /// How many are shown.
    pub(crate) fn limit(&self, json: bool) -> usize {
        self.limit.unwrap_or_else(|| usual(json))
    }
}

/// How many are shown by default.
pub(crate) fn usual(json: bool) -> usize {
    if json { PROGRAMS } else { SCREEN }
}

/// How many: at least one.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or("expected a number of at least 1".to_owned())
}

/// Says how to see the page before this one.
pub(crate) fn older(place: impl Display) {
    output::note(format!("for older ones, add --before {place}"));
}

/// Says how many records were left out.
pub(crate) fn unreadable(count: usize) {
    if count > 0 {
        let records = if count == 1 { "record" } else { "records" };
        output::note(format!("warning: {count} {records} cannot be read"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_get_a_screen_and_programs_more_unless_they_say_how_many() {
        let page = |limit| PageArgs { limit, before: None::<u64> };
        assert_eq!((page(None).limit(false), page(None).limit(true)), (50, 1000));
        assert_eq!((page(Some(7)).limit(false), page(Some(7)).limit(true)), (7, 7));
        assert_eq!(limit("1"), Ok(1));
        for bad in ["0", "-1", "x", ""] {
            assert!(limit(bad).is_err(), "{bad:?}");
        }
    }
}
