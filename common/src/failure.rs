//! Errors as people see them: what did not work, why, what to try, and the exit code.

use std::fmt::Display;

use crate::api::ApiError;

/// The operation failed.
pub const FAILED: u8 = 1;
/// Wrong usage, or an invalid soul.
pub const USAGE: u8 = 2;
/// No such agent, message or dead letter.
pub const NOT_FOUND: u8 = 3;
/// Something else already exists.
pub const CONFLICT: u8 = 4;
/// No answer in time.
pub const TIMEOUT: u8 = 5;
/// NATS, the supervisor or the engine cannot be reached.
pub const UNREACHABLE: u8 = 6;
/// Refused for lack of permissions.
pub const DENIED: u8 = 7;
/// The verdict of `chaos` is bad.
pub const VERDICT: u8 = 8;
/// Refused by a limit.
pub const LIMIT: u8 = 9;
/// Interrupted by the user.
pub const INTERRUPTED: u8 = 130;

/// An error from its parts; leave `try_` empty if nothing helps.
pub fn error(
    code: u8,
    what: impl Into<String>,
    cause: impl Display,
    try_: impl Into<String>,
) -> ApiError {
    ApiError { code, what: what.into(), cause: cause.to_string(), try_: try_.into() }
}

/// A file that cannot be used: for lack of permissions, of space, or for another reason.
pub fn file(what: impl Into<String>, cause: &std::io::Error, try_: impl Into<String>) -> ApiError {
    use std::io::ErrorKind;
    let denied = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem];
    let full = [ErrorKind::StorageFull, ErrorKind::QuotaExceeded];
    let code = match cause.kind() {
        kind if denied.contains(&kind) => DENIED,
        kind if full.contains(&kind) => LIMIT,
        _ => FAILED,
    };
    error(code, what, cause, try_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_fails_for_want_of_rights_or_space_or_otherwise() {
        let code = |kind| file("x", &std::io::Error::from(kind), "").code;
        assert_eq!(code(std::io::ErrorKind::ReadOnlyFilesystem), 7);
        assert_eq!(code(std::io::ErrorKind::StorageFull), 9);
        assert_eq!(code(std::io::ErrorKind::NotADirectory), 1);
    }
}
