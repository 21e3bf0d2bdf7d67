//! Lists that are written to stdout one item at a time: a table for people, an array for programs.

use common::api::ApiError;
use serde::Serialize;

use super::output::Array;
use super::table::Rows;

/// A list of which a row has so many cells.
#[derive(Debug)]
pub(crate) enum List<const N: usize> {
    Table(Rows<N>),
    Json(Array),
}

impl<const N: usize> List<N> {
    pub(crate) fn new(is_json: bool, headers: [&'static str; N]) -> Self {
        if is_json { Self::Json(Array::new()) } else { Self::Table(Rows::new(headers)) }
    }

    /// The next item: itself, or as cells.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn item<T: Serialize>(
        &mut self,
        item: &T,
        cells: impl FnOnce(&T) -> [String; N],
    ) -> Result<(), ApiError> {
        match self {
            Self::Table(rows) => rows.row(cells(item)),
            Self::Json(array) => array.item(item),
        }
    }

    /// Ends it, with what the work on it came to.
    ///
    /// # Errors
    /// That of the work; when stdout cannot be written.
    pub(crate) fn end<T>(self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        match self {
            Self::Table(rows) => rows.end(result),
            Self::Json(array) => array.end(result),
        }
    }
}
