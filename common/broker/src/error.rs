//! Errors of the broker, worded so that a person can act on them.

use std::path::PathBuf;
use std::time::Duration;

use common::storage::Fault;

fn full(why: &str) -> String {
    if is_gone(why) {
        why.to_owned()
    } else {
        format!("the broker's storage has no room for new messages: {why}")
    }
}

/// How the cause begins where the disk itself is full. Unlike other bounds, it cannot be raised.
pub(crate) const DISK: &str = "the broker's disk";

/// Whether it is not for want of room that nothing can be stored.
pub(crate) fn is_gone(why: &str) -> bool {
    why == Fault::Removed.to_string()
}

/// An error of the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// No connection within the time given.
    #[error("cannot reach NATS at {url}: {cause}")]
    Unreachable {
        /// The server's address, without credentials.
        url: String,
        /// The client's error message.
        cause: String,
    },
    /// The given address is not valid.
    #[error("{url:?} is not a NATS address: {cause}")]
    BadAddress {
        /// What was given, without credentials.
        url: String,
        /// The client's error message.
        cause: String,
    },
    /// The credentials were refused, or a permission is missing.
    #[error("NATS at {url} refused the connection: {cause}")]
    Denied {
        /// The server's address, without credentials.
        url: String,
        /// The server's error message.
        cause: String,
    },
    /// The certificates that are to vouch for the servers cannot be used.
    #[error("the CA certificate cannot be used: {0}")]
    BadCertificate(String),
    /// Too few servers of a cluster reach each other.
    #[error("{}", no_majority(.cluster, .reached))]
    NoMajority {
        /// The cluster.
        cluster: String,
        /// The servers that the one in use reaches, itself included, as far as it tells.
        reached: Vec<String>,
    },
    /// Older than 2.12.
    #[error("nats-server {found} is too old, 2.12 or newer is needed")]
    TooOld {
        /// The server's version.
        found: String,
    },
    /// JetStream is off.
    #[error("JetStream is not enabled on this nats-server")]
    NoJetStream,
    /// The streams of the namespace do not exist yet.
    #[error("namespace {0} has no streams yet: no supervisor has run there")]
    NoStreams(String),
    /// The login has no right to do this: why.
    #[error("{0}")]
    Forbidden(String),
    /// The credentials file cannot be used.
    #[error("the credentials file {} cannot be used: {cause}", .file.display())]
    BadCredentials {
        /// The file.
        file: PathBuf,
        /// Why.
        cause: String,
    },
    /// A supervisor refused to look something up, and would again.
    #[error("a supervisor refused: {0}")]
    Refused(String),
    /// The namespace is being restored from a backup, or that was interrupted.
    #[error("namespace {0} is being restored from a backup, or a restore was interrupted")]
    Restoring(String),
    /// The namespace that a backup was to be restored to is in use.
    #[error("namespace {namespace} is not empty: {what}")]
    NotEmpty {
        /// The namespace.
        namespace: String,
        /// What there is.
        what: String,
    },
    /// Disk or stream is full, or the broker's data was removed.
    #[error("{}", full(.0))]
    Full(String),
    /// The streams were made by a newer version.
    #[error("the streams of this namespace have format {found}, this build knows up to {known}")]
    TooNew {
        /// The streams' format.
        found: u32,
        /// The newest that this build knows.
        known: u32,
    },
    /// The streams were made by a version before the first release, whose records are not carried over.
    #[error(
        "the streams of this namespace have format {found}, this build knows format {known}: \
         use another namespace, or remove them"
    )]
    Outdated {
        /// The streams' format.
        found: u32,
        /// The one that this build knows.
        known: u32,
    },
    /// A stream came back different from what was asked for.
    #[error("stream {stream}: the server did not accept {field}")]
    NotTaken {
        /// The stream.
        stream: String,
        /// The setting.
        field: &'static str,
    },
    /// The record does not fit `max_payload`.
    #[error("record of {size} bytes, at most {max} fit")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// No answer in time. It may have happened nevertheless: repeat with the same id.
    #[error("no answer from the broker within {:?}", rounded(*.0))]
    Timeout(Duration),
    /// A record that cannot be parsed.
    #[error("record {subject} #{seq} does not parse: {cause}")]
    Malformed {
        /// Its subject.
        subject: String,
        /// Its sequence.
        seq: u64,
        /// The parser's error message.
        cause: String,
    },
    /// A cursor that belongs to another list.
    #[error("the cursor is from another list")]
    OtherList,
    /// Any other error of the broker.
    #[error("the broker said: {0}")]
    Other(String),
}

/// What was left of a deadline is no round number.
fn rounded(duration: Duration) -> Duration {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match millis {
        0..1_000 => Duration::from_millis(millis),
        _ => Duration::from_millis(millis.saturating_add(50) / 100 * 100),
    }
}

fn no_majority(cluster: &str, reached: &[String]) -> String {
    let reached = match reached {
        [] => "alone".to_owned(),
        reached => format!("{} of its servers: {}", reached.len(), reached.join(", ")),
    };
    format!(
        "cluster {cluster} does not answer for its streams; the server in use reaches {reached}; more than half of the servers are needed"
    )
}

impl BrokerError {
    /// An error without a kind of its own.
    pub(crate) fn other(cause: impl std::fmt::Display) -> Self {
        Self::Other(cause.to_string())
    }

    /// Whether repeating the call may help by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Unreachable { .. })
    }

    /// Whether a write that failed like this can ever succeed as it is: with time, with room, with another server. The others
    /// are the record's own fault, or the build's: repeating them only costs.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Timeout(_)
            | Self::NoMajority { .. }
            | Self::Unreachable { .. }
            | Self::Denied { .. }
            | Self::NoJetStream
            | Self::NoStreams(_)
            | Self::Restoring(_)
            | Self::Full(_)
            | Self::Other(_) => true,
            Self::BadAddress { .. }
            | Self::Refused(_)
            | Self::Forbidden(_)
            | Self::BadCertificate(_)
            | Self::BadCredentials { .. }
            | Self::TooOld { .. }
            | Self::TooNew { .. }
            | Self::Outdated { .. }
            | Self::NotEmpty { .. }
            | Self::NotTaken { .. }
            | Self::TooLarge { .. }
            | Self::OtherList
            | Self::Malformed { .. } => false,
        }
    }
}

/// The result of a broker call.
pub type Result<T> = std::result::Result<T, BrokerError>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_a_round_number() {
        for (nanos, said) in
            [(4_999_993_600, "5s"), (250_000_700, "250ms"), (1_500_000_000, "1.5s")]
        {
            let error = BrokerError::Timeout(Duration::from_nanos(nanos)).to_string();
            assert_eq!(error, format!("no answer from the broker within {said}"));
        }
    }
}
