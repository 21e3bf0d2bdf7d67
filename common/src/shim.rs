//! How a shim is configured, and what it reports when it ends.

use serde::{Deserialize, Serialize};

use crate::subject::Subjects;
use crate::{AgentName, Namespace, Timestamp};

/// How a process ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// Its exit code.
    #[serde(default)]
    pub code: Option<i32>,
    /// The signal that killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel killed it for its memory.
    #[serde(default)]
    pub out_of_memory: bool,
    /// More, in words: `not ready within 60s`, `turn timed out`.
    #[serde(default)]
    pub reason: Option<String>,
}

impl Exit {
    /// The reason of an end that was asked for: its shim was told to go down.
    pub const STOPPED: &str = "stopped";

    /// [`Exit::describe`] of an end of which nothing is known: it is part of the fold's state, and stays.
    pub const GONE: &str = "gone";

    /// The same for people.
    pub const NOT_FOUND: &str = "was not running any more when its node started";

    /// The reason of an end whose shim left no exit status.
    pub const UNREPORTED: &str = "its shim ended without reporting an exit status";

    /// Whether its shim was told to go down.
    #[must_use]
    pub fn was_asked_for(&self) -> bool {
        self.reason.as_deref() == Some(Self::STOPPED)
    }

    /// [`Exit::describe`] for people.
    #[must_use]
    pub fn words(&self) -> String {
        let said = self.describe();
        if said == Self::GONE { Self::NOT_FOUND.to_owned() } else { said }
    }

    /// Whether it is a failure: neither asked for nor the end of a worker that succeeded.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        !self.was_asked_for() && (self.code != Some(0) || self.reason.is_some())
    }

    /// As people write it: `exit code 1`, `signal 9 (SIGKILL)`, with the reason in front where there is one. A signal is also
    /// shown as the exit code 128 + n that a shell would report.
    #[must_use]
    pub fn describe(&self) -> String {
        let how = match (self.code, self.signal) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => {
                format!("exit code {} (signal {signal})", signal.saturating_add(128))
            }
            (None, None) => Self::GONE.to_owned(),
        };
        let how = if self.out_of_memory { format!("{how}, out of memory") } else { how };
        let is_bare = self.code.is_none() && self.signal.is_none() && !self.out_of_memory;
        match &self.reason {
            Some(reason) if is_bare => reason.clone(),
            Some(reason) => format!("{reason} ({how})"),
            None => how,
        }
    }
}

/// What a shim leaves when it ends, for the node, in JSON: in the exit file of its run folder, or, in a container, as the last
/// line of its stdout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimExit {
    /// How the worker ended.
    pub exit: Exit,
    /// Turns that were finished.
    pub finished: u64,
    /// Whether every open turn's attempt is on record.
    pub clean: bool,
    /// When the worker ended.
    pub at: Timestamp,
}

/// What a shim is told at its start, in JSON: in a file that only its user can read, removed once read, whose path is in
/// [`CONFIG_ENV`]; or, in a container, on its stdin, so that it is nowhere on a disk and in nothing that an engine shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimConfig {
    /// The broker's address, with credentials.
    pub url: String,
    /// A credentials file.
    #[serde(default)]
    pub creds: Option<String>,
    /// The text of one, where the shim cannot see the node's files.
    #[serde(default)]
    pub creds_text: Option<String>,
    /// The certificates, in PEM, of those who vouch for the broker's servers; then it is reached over TLS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// A login with the rights of this incarnation; none where the shim has those of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<ShimLogin>,
    /// Values for the worker's environment that must not be seen anywhere else.
    #[serde(default)]
    pub secrets: std::collections::BTreeMap<String, String>,
    /// Whom the worker runs as; the shim's own user when it is none.
    #[serde(default)]
    pub user: Option<WorkerUser>,
    /// Folders in memory that the worker may write to, in a container: engines give them the mode of a folder that the image has there.
    #[serde(default)]
    pub writable: Vec<String>,
    /// The fleet.
    pub namespace: crate::Namespace,
    /// The incarnation.
    pub incarnation: u64,
    /// The generation.
    pub generation: u64,
    /// The token of its command subject.
    pub token: String,
    /// The traces that are recorded; none where none is exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traces: Option<crate::trace::Share>,
    /// The agent.
    pub spec: crate::spec::AgentSpec,
    /// The worker's working directory; the shim's own when it is none.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Where to leave a [`ShimExit`]; stdout when it is none.
    #[serde(default)]
    pub exit_file: Option<String>,
}

/// What a shim needs to connect with its own rights only, and may not look up with them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimLogin {
    /// The user. The password is the token.
    pub user: String,
    /// How many streams the journal has.
    pub shards: u32,
    /// How many replicas the streams have.
    pub replicas: usize,
}

/// How the shims of a node log in with rights of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShimLogins {
    /// See [`ShimLogin::shards`].
    pub shards: u32,
    /// See [`ShimLogin::replicas`].
    pub replicas: usize,
}

impl ShimLogins {
    /// The login of an incarnation.
    #[must_use]
    pub fn of(self, namespace: &Namespace, agent: &AgentName, incarnation: u64) -> ShimLogin {
        let Self { shards, replicas } = self;
        let user = Subjects::new(namespace.clone(), shards).shim_user(agent, incarnation);
        ShimLogin { user, shards, replicas }
    }
}

/// Whom a worker in a container runs as: never root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerUser {
    /// As the image says: a name or a number, with `:group` or without. Not used if it is root.
    #[serde(default)]
    pub image: Option<String>,
    /// The user and group, where the image says nothing.
    pub id: u32,
}

/// The word that starts a shim in a container: its configuration comes on stdin.
pub const CONTAINER: &str = "container";

/// The key of the line with which a shim in a container leaves its [`ShimExit`] on stdout.
pub const EXIT_KEY: &str = "mozartShimExit";

/// The environment variable with the path of the [`ShimConfig`].
pub const CONFIG_ENV: &str = "MOZART_SHIM_CONFIG";

/// The environment variable that labels every process of an incarnation: `<namespace>/<node>/<agent>/<generation>/<incarnation>`.
pub const LABEL_ENV: &str = "MOZART_INCARNATION";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_described_in_words() {
        let exit = |code, signal, out_of_memory, reason: Option<&str>| Exit {
            code,
            signal,
            out_of_memory,
            reason: reason.map(Into::into),
        };
        for (exit, words) in [
            (exit(Some(1), None, false, None), "exit code 1"),
            (exit(None, Some(9), false, None), "exit code 137 (signal 9)"),
            (exit(None, Some(9), true, None), "exit code 137 (signal 9), out of memory"),
            (exit(Some(0), None, false, Some("stopped")), "stopped (exit code 0)"),
            (exit(None, None, false, Some("not ready within 60s")), "not ready within 60s"),
            (exit(None, None, false, None), "gone"),
            (exit(None, Some(i32::MAX), false, None), "exit code 2147483647 (signal 2147483647)"),
        ] {
            assert_eq!(exit.describe(), words);
        }
        assert_eq!(
            exit(None, None, false, None).words(),
            "was not running any more when its node started"
        );
        assert!(!exit(Some(0), None, false, Some("stopped")).is_failure());
        assert!(!exit(Some(0), None, false, None).is_failure());
        assert!(exit(Some(0), None, false, Some("the worker closed its stdout")).is_failure());
    }
}
