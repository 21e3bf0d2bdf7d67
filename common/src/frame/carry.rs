//! How the SANCTUM of an agent goes from one node to another: the leader asks the node that is to have it, which asks the node that has it.
//!
//! Each question can be repeated without harm.

use serde::{Deserialize, Serialize};

use super::Frame;
use crate::{AgentName, NodeName};

/// To a node, on `node.<node>.carry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CarryAsk {
    /// From a supervisor: could the node take these folders? Nothing is changed.
    Check(Take),
    /// From the leader: copy these folders here. Repeated until the answer is an end; a copy that nobody asks about is given up.
    Take {
        /// The leader's term.
        term: u64,
        /// What.
        take: Take,
    },
    /// From a supervisor: how far is it?
    Progress {
        /// The agent.
        agent: AgentName,
        /// Which copy.
        copy: u64,
    },
    /// From another node: put a file of this name into a folder, or remove it. Whoever finds it there has the same folder.
    Mark {
        /// The agent.
        agent: AgentName,
        /// The folder.
        folder: String,
        /// What makes the name unique.
        nonce: u64,
        /// Put it there, or remove it.
        there: bool,
    },
    /// From another node: begin to send folders of an agent that does not run.
    Open {
        /// The agent.
        agent: AgentName,
        /// Which copy.
        copy: u64,
        /// The node that asks.
        to: NodeName,
        /// The folders.
        folders: Vec<String>,
    },
    /// From the leader: the agent is started from the copy now. Rename what it was made from.
    PutAside {
        /// The leader's term.
        term: u64,
        /// The agent.
        agent: AgentName,
        /// Which copy.
        copy: u64,
        /// The folders.
        folders: Vec<String>,
        /// What is added to their names.
        suffix: String,
    },
}

/// Folders that a node is to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// The agent.
    pub agent: AgentName,
    /// Which copy.
    pub copy: u64,
    /// The node that has them.
    pub from: NodeName,
    /// The folders.
    pub folders: Vec<TakeFolder>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeFolder {
    /// Its path.
    pub path: String,
    /// Whether it is needed only where there is none.
    pub read_only: bool,
}

/// The answer to a [`CarryAsk`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CarryAnswer {
    /// It can be done, or is.
    Yes,
    /// It goes on.
    Working {
        /// Bytes that were copied.
        done: u64,
        /// Of so many.
        of: u64,
    },
    /// All of it is here.
    Taken {
        /// The folders that were copied; the others are the same on both nodes, or were not needed.
        copied: Vec<String>,
    },
    /// A folder can be read from here on, under this number.
    Opened {
        /// The number.
        session: u64,
        /// How many bytes there are.
        bytes: u64,
    },
    /// Where the folders are now.
    Kept(Vec<String>),
    /// It cannot be done.
    No(String),
    /// It cannot be done yet.
    Later(String),
}

/// To a node, on `node.<node>.carry.<session>`: the next part of the copy, or the same once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextPart {
    /// Its number, from 0.
    pub part: u64,
}

/// A part of a copy: what is in it, followed by the content of the files, as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// More of it.
    Items(Vec<Item>),
    /// It ends.
    End {
        /// The SHA-256 of all parts before.
        sha256: [u8; 32],
        /// How many parts there were.
        parts: u64,
    },
    /// It cannot be read.
    Failed(String),
}

/// What is in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// What follows belongs to another folder, by its position in [`CarryAsk::Open`].
    Root(u32),
    /// An entry.
    Entry {
        /// Its path within the folder; empty is the folder itself.
        path: Vec<u8>,
        /// What it is.
        kind: ItemKind,
        /// Its permissions.
        mode: u32,
        /// The user that it belongs to.
        user: u32,
        /// The group.
        group: u32,
        /// When it was modified: seconds since 1970, and nanoseconds.
        modified: (i64, u32),
    },
    /// Content of the file that was the last entry. What lies between two pieces are zeros.
    Data {
        /// Where in the file.
        at: u64,
        /// How many of the bytes that follow the part.
        bytes: u32,
    },
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemKind {
    /// A folder.
    Folder,
    /// A file, with its size in bytes.
    File(u64),
    /// A link, with what it says.
    Link(Vec<u8>),
}

impl Frame for CarryAsk {
    type Before = Self;
}

impl Frame for CarryAnswer {
    type Before = Self;
}

impl Frame for NextPart {
    type Before = Self;
}

impl Frame for Part {
    type Before = Self;
}

/// A part and the bytes that follow it, as one message.
#[must_use]
pub fn join(part: &[u8], bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), part, bytes].concat()
}

/// What [`join`] made; none of anything else.
#[must_use]
pub fn split(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = message.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length).try_into().ok()?)
}
