//! The broker's errors as people see them: what did not work, why, what to try, and the exit code.

use common::api::ApiError;
use common::failure::{CONFLICT, DENIED, FAILED, LIMIT, TIMEOUT, UNREACHABLE, USAGE, error};

use crate::BrokerError;

/// The broker's error as people see it: `what` names what was attempted.
pub fn failure(what: impl Into<String>, cause: BrokerError) -> ApiError {
    let (code, try_) = match &cause {
        BrokerError::Unreachable { .. } => (
            UNREACHABLE,
            "`mozart up` on this machine, or --nats URL for another one; `mozart doctor` checks",
        ),
        BrokerError::BadAddress { .. } => (USAGE, "--nats nats://HOST:4222"),
        BrokerError::NoMajority { .. } => {
            (UNREACHABLE, "start the hosts that are missing: `mozart up -d` there")
        }
        BrokerError::BadCertificate(_) => (USAGE, "--ca FILE with certificates in PEM"),
        BrokerError::Denied { .. } => (DENIED, "check the user in --nats, or --creds"),
        BrokerError::TooOld { .. } => {
            (UNREACHABLE, "use nats-server 2.12 or newer; `mozart up` brings its own")
        }
        BrokerError::NoJetStream => (UNREACHABLE, "start nats-server with `-js`"),
        BrokerError::NoStreams(_) => {
            (UNREACHABLE, "`mozart up`, or check --namespace (MOZART_NAMESPACE)")
        }
        BrokerError::Restoring(_) => {
            (CONFLICT, "wait until `mozart restore` has ended; if it was interrupted, run it again")
        }
        BrokerError::NotEmpty { .. } => {
            (CONFLICT, "another --namespace, or remove what is there: `mozart reset --all`")
        }
        BrokerError::Full(why) if crate::error::is_gone(why) => {
            (LIMIT, "`mozart down`; put the data back from a backup, if there is one; `mozart up`")
        }
        BrokerError::Full(why) if why.starts_with(crate::error::DISK) => (
            LIMIT,
            "`mozart usage --storage` shows what uses the space; free disk space, or keep less",
        ),
        BrokerError::Full(_) => (
            LIMIT,
            "`mozart usage --storage` shows what uses the space; free disk space, keep less, or raise the bound",
        ),
        BrokerError::TooNew { .. } => (UNREACHABLE, "use the newer mozart that made them"),
        BrokerError::Outdated { .. } => {
            (UNREACHABLE, "use another --namespace, or a new data folder (MOZART_DIR)")
        }
        BrokerError::NotTaken { .. } => (UNREACHABLE, "use nats-server 2.12 or newer"),
        BrokerError::TooLarge { .. } => (LIMIT, "send less, or a reference to the data"),
        BrokerError::Timeout(_) => (TIMEOUT, "run it again; `mozart doctor` checks NATS"),
        BrokerError::Malformed { .. } => (FAILED, "use the mozart version that wrote the record"),
        BrokerError::OtherList => (
            USAGE,
            "use the options that it was printed for, or omit --before to start with the newest",
        ),
        BrokerError::Forbidden(_) => {
            (DENIED, "ask whoever administers the fleet for a user that may; `mozart user add`")
        }
        BrokerError::BadCredentials { .. } => {
            (USAGE, "--creds FILE with a file that `mozart user add` wrote")
        }
        BrokerError::Refused(_) => (DENIED, "`mozart events --security` shows what was refused"),
        BrokerError::Other(_) => (FAILED, "`mozart doctor`"),
    };
    error(code, what, cause, try_)
}

/// Names what was attempted when a broker call fails.
pub trait Attempt<T> {
    /// Turns the broker's error into one for people.
    fn attempt(self, what: impl Into<String>) -> Result<T, ApiError>;
}

impl<T> Attempt<T> for Result<T, BrokerError> {
    fn attempt(self, what: impl Into<String>) -> Result<T, ApiError> {
        self.map_err(|cause| failure(what, cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn exit_codes_follow_what_can_be_done_about_it() {
        let code = |cause| failure("x", cause).code;
        let text = String::new;
        assert_eq!(code(BrokerError::Unreachable { url: text(), cause: text() }), 6);
        assert_eq!(code(BrokerError::BadAddress { url: text(), cause: text() }), 2);
        assert_eq!(code(BrokerError::Denied { url: text(), cause: text() }), 7);
        assert_eq!(code(BrokerError::TooOld { found: text() }), 6);
        assert_eq!(code(BrokerError::NoJetStream), 6);
        assert_eq!(code(BrokerError::NoStreams(text())), 6);
        assert_eq!(code(BrokerError::Restoring(text())), 4);
        assert_eq!(code(BrokerError::NotEmpty { namespace: text(), what: text() }), 4);
        assert_eq!(code(BrokerError::Full(text())), 9);
        let tried = |why: &str| failure("x", BrokerError::Full(why.to_owned())).try_;
        assert!(tried("the journal holds all").ends_with("or raise the bound"));
        assert!(tried("the broker's disk holds all").ends_with("or keep less"));
        let gone = failure("x", BrokerError::Full(common::storage::Fault::Removed.to_string()));
        assert!(
            gone.code == 9 && gone.cause.starts_with("the broker's data was removed"),
            "{gone:?}"
        );
        assert!(gone.try_.contains("from a backup"), "{gone:?}");
        assert_eq!(code(BrokerError::TooLarge { size: 2, max: 1 }), 9);
        assert_eq!(code(BrokerError::Timeout(Duration::ZERO)), 5);
        assert_eq!(code(BrokerError::OtherList), 2);
    }
}
