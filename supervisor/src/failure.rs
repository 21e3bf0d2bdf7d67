//! Errors as people meet them: what did not work, why, what to try, and the exit code.

use std::fmt::Display;

use broker::BrokerError;
use common::api::ApiError;

/// The operation failed.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage, or an invalid soul.
pub(crate) const USAGE: u8 = 2;
/// No such agent, message or dead letter.
pub(crate) const NOT_FOUND: u8 = 3;
/// Something else is there already.
pub(crate) const CONFLICT: u8 = 4;
/// No answer in time.
pub(crate) const TIMEOUT: u8 = 5;
/// NATS, the supervisor or the engine cannot be reached.
pub(crate) const UNREACHABLE: u8 = 6;
/// Refused for want of rights.
pub(crate) const DENIED: u8 = 7;
/// Refused by a limit.
pub(crate) const LIMIT: u8 = 9;
/// Interrupted by the user.
pub(crate) const INTERRUPTED: u8 = 130;

/// An error from its parts; leave `try_` empty where nothing helps.
pub(crate) fn error(
    code: u8,
    what: impl Into<String>,
    cause: impl Display,
    try_: impl Into<String>,
) -> ApiError {
    ApiError { code, what: what.into(), cause: cause.to_string(), try_: try_.into() }
}

/// A file that cannot be used: for want of rights, of space, or for another reason.
pub(crate) fn file(
    what: impl Into<String>,
    cause: &std::io::Error,
    try_: impl Into<String>,
) -> ApiError {
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

/// The broker's error, said to a person: `what` names what was attempted.
pub(crate) fn broker(what: impl Into<String>, cause: BrokerError) -> ApiError {
    let (code, try_) = match &cause {
        BrokerError::Unreachable { .. } => (
            UNREACHABLE,
            "`mozart up` on this machine, or --nats URL for another one; `mozart doctor` checks",
        ),
        BrokerError::Denied { .. } => (DENIED, "check the user in --nats, or --creds"),
        BrokerError::TooOld { .. } => {
            (UNREACHABLE, "use nats-server 2.12 or newer; `mozart up` brings its own")
        }
        BrokerError::NoJetStream => (UNREACHABLE, "start nats-server with `-js`"),
        BrokerError::NoStreams(_) => {
            (UNREACHABLE, "`mozart up`, or check --namespace (MOZART_NAMESPACE)")
        }
        BrokerError::Full(_) => {
            (UNREACHABLE, "free disk space or raise the server's JetStream limits")
        }
        BrokerError::TooNew { .. } => (UNREACHABLE, "use the newer mozart that made them"),
        BrokerError::NotTaken { .. } => (UNREACHABLE, "use nats-server 2.12 or newer"),
        BrokerError::TooLarge { .. } => (LIMIT, "send less, or a reference to the data"),
        BrokerError::Timeout(_) => {
            (TIMEOUT, "run it again: the same id makes that harmless; `mozart doctor` checks NATS")
        }
        BrokerError::Malformed { .. } => (FAILED, "use the mozart version that wrote the record"),
        BrokerError::Other(_) => (FAILED, "`mozart doctor`"),
    };
    error(code, what, cause, try_)
}

/// Names what was attempted when a broker call fails.
pub(crate) trait Attempt<T> {
    /// Turns the broker's error into one for people.
    fn attempt(self, what: impl Into<String>) -> Result<T, ApiError>;
}

impl<T> Attempt<T> for Result<T, BrokerError> {
    fn attempt(self, what: impl Into<String>) -> Result<T, ApiError> {
        self.map_err(|cause| broker(what, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_fails_for_want_of_rights_or_space_or_otherwise() {
        let code = |kind| file("x", &std::io::Error::from(kind), "").code;
        assert_eq!(code(std::io::ErrorKind::ReadOnlyFilesystem), 7);
        assert_eq!(code(std::io::ErrorKind::StorageFull), 9);
        assert_eq!(code(std::io::ErrorKind::NotADirectory), 1);
    }

    #[test]
    fn exit_codes_follow_what_can_be_done_about_it() {
        let code = |cause| broker("x", cause).code;
        let text = String::new;
        assert_eq!(code(BrokerError::Unreachable { url: text(), cause: text() }), 6);
        assert_eq!(code(BrokerError::Denied { url: text(), cause: text() }), 7);
        assert_eq!(code(BrokerError::TooOld { found: text() }), 6);
        assert_eq!(code(BrokerError::NoJetStream), 6);
        assert_eq!(code(BrokerError::NoStreams(text())), 6);
        assert_eq!(code(BrokerError::Full(text())), 6);
        assert_eq!(code(BrokerError::TooLarge { size: 2, max: 1 }), 9);
        assert_eq!(code(BrokerError::Timeout(Duration::ZERO)), 5);
    }
}
