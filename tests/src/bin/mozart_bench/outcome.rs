//! Errors: any of them ends the run, and a text is all that a reader needs.

/// What any step returns.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// An error that is a sentence.
pub(crate) fn fail<T>(what: impl Into<String>) -> Result<T> {
    Err(what.into().into())
}
