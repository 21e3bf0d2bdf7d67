//! The container engine: whether there is one, and whether it works.

use std::path::Path;
use std::time::Duration;

use super::clock::Reading;
use super::{Check, Health, check, disk};
use crate::client::now;
use runtime::Wanted;
use runtime::engine::{About, Connection, Kind, Unusable};

const NAME: &str = "engine";
/// A working engine answers sooner.
const ANSWER: Duration = Duration::from_secs(15);
/// The oldest ones whose API has all that is needed.
const OLDEST_DOCKER: (u32, u32) = (20, 10);
const OLDEST_PODMAN: (u32, u32) = (4, 0);

/// What was found of an engine.
pub(super) enum Found {
    /// One that answers, and what it reports about itself.
    There { connection: Connection, about: Result<About, String>, asked: Asked },
    /// None that does, at these places; and whether `up` runs all agents in one.
    Not { seen: Vec<Unusable>, is_needed: bool },
}

/// When it was asked, and when it had answered.
pub(super) struct Asked {
    before: common::Timestamp,
    after: common::Timestamp,
}

impl Found {
    /// The one that `up` was told to use, else the one that nodes of this machine would find.
    pub(super) async fn look(wanted: Wanted) -> Self {
        let kind = match wanted {
            Wanted::Auto | Wanted::Process => None,
            Wanted::Docker => Some(Kind::Docker),
            Wanted::Podman => Some(Kind::Podman),
        };
        let connection = match Connection::look(kind).await {
            Ok(connection) => connection,
            Err(seen) => return Self::Not { seen, is_needed: kind.is_some() },
        };
        let before = now();
        let about = answer(connection.about()).await;
        Self::There { connection, about, asked: Asked { before, after: now() } }
    }

    pub(super) fn is_there(&self) -> bool {
        self.connection().is_some()
    }

    pub(super) fn connection(&self) -> Option<&Connection> {
        match self {
            Self::There { connection, .. } => Some(connection),
            Self::Not { .. } => None,
        }
    }

    pub(super) fn check(&self) -> Check {
        match self {
            Self::There { connection, about, .. } => {
                let Connection { kind, version, address, .. } = connection;
                let found = format!("{} {version} at {address}", kind.as_str());
                match about {
                    Ok(_) => judge(*kind, version, found),
                    Err(error) => {
                        let found = format!("{found} does not work: {error}");
                        check(NAME, Health::Warn, found, "restart it, and read its log")
                    }
                }
            }
            Self::Not { seen, is_needed } => missing(seen, *is_needed, is_there),
        }
    }

    /// The room where it keeps its images, if that is on this machine.
    pub(super) fn disk(&self) -> Option<Check> {
        match self {
            Self::There { connection, about: Ok(About { root: Some(root), .. }), .. }
                if connection.address.starts_with("unix://") =>
            {
                disk::of_engine(root)
            }
            Self::There { .. } | Self::Not { .. } => None,
        }
    }

    pub(super) fn clock(&self) -> Option<Check> {
        match self {
            Self::There { connection, about: Ok(About { time: Some(theirs), .. }), asked } => {
                let Asked { before, after } = *asked;
                let reading = Reading { before, theirs: *theirs, after };
                Some(reading.check(&format!("{}'s", connection.kind.as_str())))
            }
            Self::There { .. } | Self::Not { .. } => None,
        }
    }
}

/// What an engine says, if it says it in time.
pub(super) async fn answer<T>(asked: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    answer_within(ANSWER, asked).await
}

/// The same, of what may take its time.
pub(super) async fn answer_within<T>(
    within: Duration,
    asked: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    match tokio::time::timeout(within, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

fn judge(kind: Kind, version: &str, found: String) -> Check {
    let (major, minor) = match kind {
        Kind::Docker => OLDEST_DOCKER,
        Kind::Podman => OLDEST_PODMAN,
    };
    // One that does not tell is believed to be new.
    if numbers(version).is_some_and(|version| version < (major, minor)) {
        let found = format!("{found} is older than {major}.{minor}");
        let try_ = format!("{} {major}.{minor} or newer", kind.as_str());
        return check(NAME, Health::Warn, found, &try_);
    }
    check(NAME, Health::Ok, found, "")
}

/// The first two numbers of a version.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(|char: char| !char.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// Whether there is something at an address that could answer: one that is no socket of this machine was named on purpose.
fn is_there(address: &str) -> bool {
    address.strip_prefix("unix://").is_none_or(|path| Path::new(path).exists())
}

/// None that is silent is worse than none at all.
fn missing(seen: &[Unusable], is_needed: bool, is_there: impl Fn(&str) -> bool) -> Check {
    let silent: Vec<_> = seen.iter().filter(|one| is_there(&one.address)).collect();
    if silent.is_empty() {
        let (health, found) = match is_needed {
            true => (Health::Warn, "none, but `up` was told to run agents in one"),
            false => (Health::Ok, "none: agents with IMAGE cannot run here"),
        };
        return check(NAME, health, found, "");
    }
    let is_denied = silent.iter().any(|one| one.why.contains("ermission denied"));
    let try_ = match is_denied {
        true => "add this user to the group of its socket, or run as a user who may access it",
        false => "start it, or name another one in DOCKER_HOST or CONTAINER_HOST",
    };
    let silent: Vec<_> =
        silent.iter().map(|one| format!("{} does not answer: {}", one.address, one.why)).collect();
    check(NAME, Health::Warn, silent.join(", "), try_)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_engine_is_a_warning() {
        for (kind, version, health) in [
            (Kind::Docker, "20.10.24+dfsg1", Health::Ok),
            (Kind::Docker, "19.03.15", Health::Warn),
            (Kind::Docker, "28.2.2", Health::Ok),
            (Kind::Podman, "4.3.1", Health::Ok),
            (Kind::Podman, "3.4.4", Health::Warn),
            (Kind::Podman, "dev", Health::Ok),
        ] {
            assert_eq!(judge(kind, version, String::new()).health, health, "{version}");
        }
    }

    #[test]
    fn a_silent_engine_is_told_from_none() {
        let seen = [("unix:///a", "Permission denied (os error 13)"), ("unix:///b", "not found")];
        let seen = seen.map(|(address, why)| Unusable { address: address.into(), why: why.into() });
        let none = missing(&seen, false, |_| false);
        assert_eq!((none.health, none.try_.as_str()), (Health::Ok, ""));
        assert_eq!(missing(&seen, true, |_| false).health, Health::Warn);
        let silent = missing(&seen, false, |address| address == "unix:///a");
        assert_eq!(silent.health, Health::Warn);
        assert!(silent.found.starts_with("unix:///a does not answer: Permission"));
        assert!(!silent.found.contains("unix:///b") && silent.try_.contains("group"));
        assert!(
            missing(&seen, false, |address| address == "unix:///b").try_.starts_with("start it")
        );
    }

    #[test]
    fn only_a_socket_that_exists_is_there() {
        assert!(is_there("tcp://h:1") && is_there("unix:///"));
        assert!(!is_there("unix:///nowhere/x.sock"));
    }
}
