//! Schedules: what a soul says about them, what has become of their occurrences, and which are due.
//!
//! An occurrence is a schedule and a nominal time. Its message has an id made of the agent, the schedule's content and that time: so it can exist
//! once, whoever stores it, however often. What has become of it is a record of SCHEDULES ([`Occurrences`]), and the last record of a schedule says
//! up to where everything is decided.

#[cfg(feature = "soul")]
mod plan;
#[cfg(feature = "soul")]
mod times;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[cfg(feature = "soul")]
pub use self::plan::{Facts, GRACE, Plan, Step, plan};
#[cfg(feature = "soul")]
pub(crate) use self::times::parser;
#[cfg(feature = "soul")]
pub use self::times::{SHOWN, Times};
use crate::id::{BASE32, SCHEDULE};
use crate::message::{Envelope, Kind, MessageKey};
use crate::spec::{Schedule, millis};
use crate::{AgentName, ConversationId, MessageId, ScheduleId, SenderName, Timestamp};

/// `SCHEDULE … OPTIONS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ScheduleOptions {
    /// `jitter`: each occurrence is sent up to so much later than its time; by how much follows from its message id.
    #[serde(default, with = "millis", skip_serializing_if = "Duration::is_zero")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub jitter: Duration,
    /// `overlap`.
    #[serde(default)]
    pub overlap: Overlap,
    /// `on-miss`.
    #[serde(default)]
    pub on_miss: OnMiss,
    /// `within`: what was missed for longer is skipped.
    #[serde(default = "within", with = "millis")]
    #[cfg_attr(feature = "schema", schema(value_type = u64))]
    pub within: Duration,
}

/// A day: nobody wants yesterday's report twice, and everybody wants the one that a night without power has missed.
const fn within() -> Duration {
    Duration::from_secs(24 * 3600)
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        Self {
            jitter: Duration::ZERO,
            overlap: Overlap::default(),
            on_miss: OnMiss::default(),
            within: within(),
        }
    }
}

impl ScheduleOptions {
    /// Whether they are what they are where the soul says nothing.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of an occurrence while the message of an earlier one is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Overlap {
    /// It is skipped.
    #[default]
    Skip,
    /// It waits its turn.
    Queue,
}

/// What becomes of occurrences that nobody was there to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnMiss {
    /// They are skipped.
    Skip,
    /// The last of them is sent, for all of them.
    #[default]
    Once,
    /// Each of them is sent.
    All,
}

/// A record of SCHEDULES: what has become of one occurrence, or of several in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Occurrences {
    /// The nominal time of the last of them: up to here everything is decided. A record of what a person asked for repeats that of the record
    /// before; none, where nothing was decided before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nominal: Option<Timestamp>,
    /// The nominal time of the first of them, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// How many there are.
    pub count: u64,
    /// Whether there are more than were counted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub more: bool,
    /// What has become of them.
    #[serde(flatten)]
    pub fate: Fate,
    /// The message that was last stored for this schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<MessageId>,
    /// Whether that message is known to be in the journal. A leader may end between this record and the message: whoever leads next stores it.
    #[serde(default)]
    pub stored: bool,
    /// When it was decided, by the broker's clock.
    pub at: Timestamp,
    /// The term of the leader that decided it; none of what a person asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub term: Option<u64>,
    /// Who wrote it.
    pub author: String,
}

/// What has become of occurrences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", tag = "fate")]
pub enum Fate {
    /// One was sent; the others, if there are any, were missed and are merged into it.
    #[cfg_attr(feature = "schema", schema(rename_all = "camelCase"))]
    Ran {
        /// Its message.
        message_id: MessageId,
    },
    /// None was sent.
    Skipped {
        /// Why.
        reason: SkipReason,
        /// More about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A person asked for one more.
    #[cfg_attr(feature = "schema", schema(rename_all = "camelCase"))]
    Requested {
        /// Its message.
        message_id: MessageId,
    },
    /// Written by a newer version.
    #[serde(other)]
    Unknown,
}

/// Why an occurrence was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum SkipReason {
    /// Nobody led at its time, and `on-miss` or `within` says that it is not made up for.
    Missed,
    /// The message of an earlier one was not finished.
    Overlap,
    /// The agent was stopped.
    Stopped,
    /// The agent was quarantined.
    Quarantined,
    /// The schedule was paused.
    Paused,
    /// The fleet was restored from a backup: it may have run before.
    Restored,
    /// Written by a newer version.
    Other,
}

impl From<String> for SkipReason {
    fn from(text: String) -> Self {
        const KNOWN: [SkipReason; 6] = [
            SkipReason::Missed,
            SkipReason::Overlap,
            SkipReason::Stopped,
            SkipReason::Quarantined,
            SkipReason::Paused,
            SkipReason::Restored,
        ];
        KNOWN.into_iter().find(|known| <&str>::from(*known) == text).unwrap_or(Self::Other)
    }
}

impl From<SkipReason> for &'static str {
    fn from(reason: SkipReason) -> Self {
        match reason {
            SkipReason::Missed => "missed",
            SkipReason::Overlap => "overlap",
            SkipReason::Stopped => "stopped",
            SkipReason::Quarantined => "quarantined",
            SkipReason::Paused => "paused",
            SkipReason::Restored => "restored",
            SkipReason::Other => "other",
        }
    }
}

impl SkipReason {
    /// In words, without the detail.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Missed => "no supervisor led at its time",
            Self::Overlap => "the message of an earlier occurrence was not finished",
            Self::Stopped => "the agent was stopped",
            Self::Quarantined => "the agent was quarantined",
            Self::Paused => "the schedule was paused",
            Self::Restored => "the fleet was restored from a backup, and it may have run before",
            Self::Other => "for a reason that this version does not know",
        }
    }
}

impl Occurrences {
    /// The message that may not be in the journal yet.
    #[must_use]
    pub fn unconfirmed(&self) -> Option<&MessageId> {
        match &self.fate {
            Fate::Ran { message_id } if !self.stored => Some(message_id),
            Fate::Ran { .. } | Fate::Skipped { .. } | Fate::Requested { .. } | Fate::Unknown => {
                None
            }
        }
    }
}

/// What names a schedule of an agent: what it says and when, and not how it is sent. The same content is the same schedule, wherever it stands.
#[must_use]
pub fn schedule_id(agent: &AgentName, schedule: &Schedule) -> ScheduleId {
    const NAMESPACE: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_8000_8000_7363_6865_6475);
    let zone = schedule.tz.as_deref().unwrap_or("UTC");
    // A separator that no part of it holds.
    let content = [agent.as_str(), &schedule.cron, zone, &schedule.prompt].join("\0");
    let hash = Uuid::new_v5(&NAMESPACE, content.as_bytes()).as_u128();
    // From the highest bits down, which are the hash's alone.
    let digit = |n: u32| char::from(BASE32[(hash >> (123 - 5 * n)) as usize & 31]);
    let id: String = (0..ID_LENGTH).map(digit).collect();
    #[expect(clippy::expect_used, reason = "base32 is made of valid characters")]
    ScheduleId::new(id).expect("base32 is a valid id")
}

/// 45 bits, all above the version's: a fleet of a million schedules has two of one id with a chance of one in seventy, and those would have to be of one
/// agent to be mistaken for each other.
const ID_LENGTH: u32 = 9;

/// The id of an occurrence's message.
#[must_use]
pub fn occurrence_id(schedule: &ScheduleId, nominal: Timestamp) -> MessageId {
    // 2026-12-01T09:00:00.000Z
    let text = nominal.to_string();
    let digits = text.bytes().take(19).filter(u8::is_ascii_alphanumeric).map(char::from);
    let compact: String = digits.collect();
    #[expect(clippy::expect_used, reason = "made of valid characters")]
    MessageId::new(format!("{schedule}-{compact}Z")).expect("a valid id")
}

/// Who sends what schedules send.
#[must_use]
pub fn sender() -> SenderName {
    #[expect(clippy::expect_used, reason = "a literal that is a valid name")]
    SenderName::new(SCHEDULE).expect("a valid name")
}

/// What names a message of a schedule.
#[must_use]
pub fn message_key(agent: &AgentName, message_id: MessageId) -> MessageKey {
    MessageKey { agent: agent.clone(), sender: sender(), message_id }
}

/// A schedule's message. All of one schedule are one conversation: their turns run one at a time, and the worker can look at earlier ones.
/// `nominal`: of an occurrence; none of what a person asked for.
#[must_use]
pub fn trigger(
    agent: &AgentName,
    (id, schedule): (&ScheduleId, &Schedule),
    message_id: MessageId,
    nominal: Option<Timestamp>,
    now: Timestamp,
) -> Envelope {
    #[expect(clippy::expect_used, reason = "an id of a schedule and a colon are valid characters")]
    let conversation_id =
        ConversationId::new(format!("{SCHEDULE}:{id}")).expect("a valid conversation");
    Envelope {
        message_id,
        agent: agent.clone(),
        sender: sender(),
        kind: Kind::Trigger,
        conversation_id,
        message: schedule.prompt.clone(),
        created_at: now,
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: None,
        traceparent: None,
        scheduled_for: nominal,
        deliver_at: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, tz: Option<&str>, prompt: &str) -> Schedule {
        Schedule {
            cron: cron.into(),
            tz: tz.map(Into::into),
            prompt: prompt.into(),
            options: ScheduleOptions::default(),
        }
    }

    #[test]
    fn an_id_is_of_the_agent_and_the_content_and_the_same_for_ever() {
        let of = |agent: &str, schedule: &Schedule| {
            schedule_id(&AgentName::new(agent).expect("valid"), schedule).to_string()
        };
        let daily = schedule("0 9 * * *", None, "report");
        let mut others = vec![of("a", &daily)];
        assert_eq!(of("a", &schedule("0 9 * * *", Some("UTC"), "report")), others[0]);
        let mut queued = daily.clone();
        queued.options.overlap = Overlap::Queue;
        assert_eq!(of("a", &queued), others[0], "how it is sent does not make it another one");
        others.push(of("b", &daily));
        others.push(of("a", &schedule("0 8 * * *", None, "report")));
        others.push(of("a", &schedule("0 9 * * *", Some("Europe/Berlin"), "report")));
        others.push(of("a", &schedule("0 9 * * *", None, "reports")));
        let distinct: std::collections::BTreeSet<_> = others.iter().collect();
        assert_eq!(distinct.len(), others.len());
        assert_eq!(others[0], "wsq3w72ja");
    }

    #[test]
    fn an_occurrences_message_names_its_time() {
        let id = ScheduleId::new("abc").expect("valid");
        let nominal = Timestamp::from_millis(1_700_000_040_000);
        assert_eq!(occurrence_id(&id, nominal).as_str(), "abc-20231114T221400Z");
    }

    #[test]
    fn a_record_is_json_that_later_versions_can_add_to() {
        let record = Occurrences {
            nominal: Some(Timestamp::from_millis(60_000)),
            from: None,
            count: 1,
            more: false,
            fate: Fate::Skipped { reason: SkipReason::Overlap, detail: Some("x".into()) },
            last: MessageId::new("m").ok(),
            stored: true,
            at: Timestamp::from_millis(60_500),
            term: Some(3),
            author: "s".into(),
        };
        let json = serde_json::to_string(&record).expect("plain");
        assert_eq!(
            json,
            r#"{"nominal":"1970-01-01T00:01:00.000Z","count":1,"fate":"skipped","reason":"overlap","detail":"x","last":"m","stored":true,"at":"1970-01-01T00:01:00.500Z","term":3,"author":"s"}"#
        );
        assert_eq!(serde_json::from_str::<Occurrences>(&json).expect("ours"), record);
        let newer = json.replace("overlap", "eclipse").replace("\"count\"", "\"new\":1,\"count\"");
        let read = serde_json::from_str::<Occurrences>(&newer).expect("readable");
        assert!(matches!(read.fate, Fate::Skipped { reason: SkipReason::Other, .. }));
        let newer = json.replace("skipped", "postponed");
        let read = serde_json::from_str::<Occurrences>(&newer).expect("readable");
        assert_eq!((read.fate, read.nominal), (Fate::Unknown, record.nominal));
    }
}
