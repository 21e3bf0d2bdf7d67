//! The manifest of an archive, and the lines of its journal.

use common::message::{DeadLetter, Envelope, Final};
use common::{AgentName, MessageId, SenderName, Timestamp};
use serde::{Deserialize, Serialize};

/// The format that this build writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;

/// `manifest.json`, the archive's first file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Manifest {
    pub(super) format: u32,
    pub(super) agent: AgentName,
    /// When it was exported.
    pub(super) at: Timestamp,
    /// The version of mozart that made it.
    pub(super) mozart: String,
    /// Whether the agent may have run meanwhile.
    #[serde(default)]
    pub(super) live: bool,
    /// None if the soul names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) image: Option<Image>,
    #[serde(default)]
    pub(super) sanctums: Vec<Folder>,
    #[serde(default)]
    pub(super) skills: Vec<Folder>,
    /// What the node's environment must have there. Names: values are never in an archive.
    #[serde(default)]
    pub(super) secrets: Vec<String>,
    pub(super) counts: Counts,
}

/// The agent's image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Image {
    /// As the soul names it.
    pub(super) reference: String,
    /// As the engine knew it; none if no engine there had it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    /// Under which a registry has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digest: Option<String>,
    /// Whether it is in `image.tar`.
    pub(super) included: bool,
}

/// A file or folder of the host that is in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Folder {
    /// Where it is in the archive.
    pub(super) archive: String,
    /// Where it was on the host.
    pub(super) host: String,
    /// Where the agent sees it; none for a skill.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) path: Option<String>,
    /// Whether the agent only reads it.
    #[serde(default)]
    pub(super) read_only: bool,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Counts {
    pub(super) messages: u64,
    /// Those of them that had no final state.
    pub(super) open: u64,
    pub(super) dead_letters: u64,
    /// Files of SANCTUMs and SKILLs.
    pub(super) files: u64,
    /// Their bytes.
    pub(super) bytes: u64,
}

/// A line of `journal.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Line {
    /// A message.
    Request {
        /// When the broker stored it.
        at: Timestamp,
        record: Box<Envelope>,
    },
    /// How one ended.
    Final {
        /// When the broker stored it.
        at: Timestamp,
        sender: SenderName,
        message_id: MessageId,
        record: Box<Final>,
    },
    /// A message that was given up.
    DeadLetter { record: Box<DeadLetter> },
}
