//! What a soul says, after parsing: the agent's spec, part of the control log.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::AgentName;
use crate::files::Files;
pub use crate::schedule::{OnMiss, Overlap, ScheduleOptions};

/// An agent as declared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    /// The agent's name.
    pub name: AgentName,
    /// `MODEL`.
    pub model: String,
    /// `SOUL`.
    pub identity: String,
    /// `IF … THEN …`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub if_then: Vec<IfThen>,
    /// `SCHEDULE`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedule: Vec<Schedule>,
    /// `SKILL`, as absolute paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
    /// `SANCTUM`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sanctums: Vec<Sanctum>,
    /// The file it came from, absolute.
    #[serde(default)]
    pub source_path: String,
    /// The SHA-256 of the files beside the soul that WORKER and SKILL name, as `apply` found them: a changed file is a new generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The archive of the soul's folder, as `apply` packed it; none where nothing of the folder is used, and of what earlier versions applied:
    /// then the worker starts in the folder as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<Files>,
    /// `WORKER`: program and arguments; none is the built-in echo worker. Shell form is `["/bin/sh", "-c", text]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<Vec<String>>,
    /// `IMAGE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `ENV`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// `SECRET`: names only; the node reads the values from its own environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    /// `LIMIT`.
    #[serde(default)]
    pub limits: Limits,
    /// `CONCURRENCY`: conversations side by side, 1 to 1000.
    pub concurrency: u32,
    /// `ATTEMPTS`: how often a message is tried, 1 to 100.
    pub attempts: u32,
    /// `ATTEMPTS … backoff=`: the delays between them.
    #[serde(default, skip_serializing_if = "Retry::is_default")]
    pub retry: Retry,
    /// `TIMEOUT`.
    pub timeout: Timeouts,
    /// `RESTART`.
    pub restart: Restart,
    /// `REPLACE`; without it `start-first`, unless a sanctum is writable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replace: Option<Replace>,
    /// `KEEP`.
    #[serde(default, skip_serializing_if = "Keep::is_default")]
    pub keep: Keep,
    /// `MEMORY`: whether the worker may ask what was said in its conversations.
    #[serde(default = "remembers", skip_serializing_if = "is_true")]
    pub memory: bool,
    /// `LABEL`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `REQUIRE`: labels that the node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub require: BTreeMap<String, String>,
}

impl AgentSpec {
    /// A spec of nothing but the required: what a two-line soul parses to.
    #[must_use]
    pub fn new(name: AgentName, model: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            name,
            model: model.into(),
            identity: identity.into(),
            if_then: Vec::new(),
            schedule: Vec::new(),
            skills: Vec::new(),
            sanctums: Vec::new(),
            source_path: String::new(),
            content: None,
            files: None,
            worker: None,
            image: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            limits: Limits::default(),
            concurrency: 1,
            attempts: 3,
            retry: Retry::default(),
            timeout: Timeouts::default(),
            restart: Restart::default(),
            replace: None,
            keep: Keep::default(),
            memory: true,
            labels: BTreeMap::new(),
            require: BTreeMap::new(),
        }
    }

    /// How a new incarnation takes over.
    #[must_use]
    pub fn replace_mode(&self) -> Replace {
        let writable = self.sanctums.iter().any(|sanctum| !sanctum.read_only);
        self.replace.unwrap_or(if writable { Replace::StopFirst } else { Replace::StartFirst })
    }

    /// The first SANCTUM that its worker writes to and that no other host has: the agent stays where that is.
    #[must_use]
    pub fn pins(&self) -> Option<&Sanctum> {
        self.sanctums.iter().find(|sanctum| !sanctum.read_only && !sanctum.shared)
    }

    /// What the worker is told about itself.
    #[must_use]
    pub fn worker_init(&self) -> WorkerInit {
        WorkerInit {
            name: self.name.clone(),
            model: self.model.clone(),
            identity: self.identity.clone(),
            if_then: self.if_then.clone(),
            schedule: self.schedule.clone(),
            skills: self.skills.clone(),
            sanctums: self.sanctums.clone(),
        }
    }
}

/// What the worker is told about itself, in its first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerInit {
    /// The agent's name.
    pub name: AgentName,
    /// The model.
    pub model: String,
    /// The identity.
    pub identity: String,
    /// The rules.
    pub if_then: Vec<IfThen>,
    /// The schedules.
    pub schedule: Vec<Schedule>,
    /// The skills.
    pub skills: Vec<String>,
    /// The folders.
    pub sanctums: Vec<Sanctum>,
}

/// `IF condition THEN reaction`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct IfThen {
    /// When.
    pub condition: String,
    /// What.
    pub reaction: String,
}

/// `SCHEDULE "cron" [TZ zone] [OPTIONS …] prompt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Schedule {
    /// The cron expression.
    pub cron: String,
    /// The IANA time zone; UTC without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// What to send.
    pub prompt: String,
    /// How it is sent, and what becomes of what could not be.
    #[serde(default, skip_serializing_if = "ScheduleOptions::is_default")]
    pub options: ScheduleOptions,
}

/// `SANCTUM host:path[:ro] [shared]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Sanctum {
    /// The folder on the host, absolute.
    pub host: String,
    /// Where the worker sees it.
    pub path: String,
    /// Whether it must not write there.
    #[serde(default)]
    pub read_only: bool,
    /// Whether every host has the same folder: it pins the agent to none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// `LIMIT`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Bytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milli_cpus: Option<u64>,
    /// Processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
}

/// `TIMEOUT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// How long a turn may go without progress.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub turn: Duration,
    /// How long a stopping worker may finish its turns.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub drain: Duration,
    /// How long a new incarnation may take to say `ready`.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub ready: Duration,
}

fn remembers() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(600),
            drain: Duration::from_secs(30),
            ready: Duration::from_secs(60),
        }
    }
}

/// `KEEP`: how long what an agent leaves is kept, if not as long as the fleet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Keep {
    /// Its finished messages, counted from when they left the journal; zero: they leave it for nowhere.
    #[serde(default, with = "maybe_millis", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub history: Option<Duration>,
    /// The events of its turns.
    #[serde(default, with = "maybe_millis", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub events: Option<Duration>,
    /// What its workers wrote to stderr.
    #[serde(default, with = "maybe_millis", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub logs: Option<Duration>,
    /// The results of the steps of its turns, counted from when each was stored; none: until the message leaves the journal.
    #[serde(default, with = "maybe_millis", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<u64>))]
    pub steps: Option<Duration>,
}

impl Keep {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// When a worker that exited is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Whatever its exit code.
    #[default]
    Always,
    /// Unless it exited with 0.
    OnFailure,
    /// Never.
    Never,
}

/// `RESTART`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Restart {
    /// When.
    pub policy: RestartPolicy,
    /// More restarts than this within `period` quarantine the agent; 0 means no limit.
    pub max: u32,
    /// The period.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub period: Duration,
    /// The first delay.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub backoff_first: Duration,
    /// The longest delay.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub backoff_max: Duration,
}

impl Default for Restart {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::Always,
            max: 10,
            period: Duration::from_secs(600),
            backoff_first: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
        }
    }
}

/// The delays between attempts by one incarnation, doubled each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// The first one.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub first: Duration,
    /// The longest one.
    #[serde(with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub max: Duration,
}

impl Retry {
    /// Whether it is what it is where the soul says nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), max: Duration::from_secs(30) }
    }
}

/// How a new incarnation takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Replace {
    /// The new one is ready before the old one stops.
    StartFirst,
    /// The old one is gone before the new one starts.
    StopFirst,
}

/// Durations that may be missing, as [`millis`].
mod maybe_millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::millis;

    #[derive(Serialize, Deserialize)]
    struct Millis(#[serde(with = "millis")] Duration);

    #[expect(clippy::ref_option, reason = "the form that serde calls")]
    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        duration.map(Millis).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<Millis>::deserialize(from)?.map(|Millis(duration)| duration))
    }
}

/// Durations as whole milliseconds.
pub mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Milliseconds.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Milliseconds.
    ///
    /// # Errors
    /// When it is not a whole number.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
