//! The runtimes of incarnations. `process`: a shim and its worker as processes of this machine. `docker`, `podman`: in a container.

pub mod binaries;
pub mod capacity;
pub mod engine;
pub mod files;
pub mod folder;
pub mod home;
mod identity;
pub mod labels;
pub mod lock;
pub mod log;
pub mod orphans;
pub mod process;
pub mod processes;
pub mod sanctum;
pub mod secrets;
pub mod tree;

use std::path::PathBuf;

use common::Capacity;
use serde::{Deserialize, Serialize};

use crate::engine::BASE_IMAGE;

/// What a node is told to run agents in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    /// Processes, and containers where an engine answers.
    Auto,
    /// Processes of this machine only.
    Process,
    /// All in containers, of docker.
    Docker,
    /// All in containers, of podman.
    Podman,
}

/// What a node runs agents in, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeOptions {
    /// Processes, containers, or both.
    pub runtime: Wanted,
    /// The network of the containers; none is the engine's own.
    pub network: Option<String>,
    /// What agents without IMAGE run in, where all run in containers.
    pub base_image: String,
    /// Whether the souls' folders are mounted, for work on what is not in an image yet.
    pub dev: bool,
    /// Where the values of SECRETs are looked up first, absolute.
    pub env_file: Option<PathBuf>,
    /// What the machine can take; the rest of it is found out.
    pub capacity: Capacity,
}

impl Default for RuntimeOptions {
    /// Whatever is there: also where nothing is started any more, and nothing is known of what was.
    fn default() -> Self {
        Self {
            runtime: Wanted::Auto,
            network: None,
            base_image: BASE_IMAGE.to_owned(),
            dev: false,
            env_file: None,
            capacity: Capacity::default(),
        }
    }
}

impl RuntimeOptions {
    /// The same, as words of a command line.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let runtime = match self.runtime {
            Wanted::Auto => "auto",
            Wanted::Process => "process",
            Wanted::Docker => "docker",
            Wanted::Podman => "podman",
        };
        let mut words = vec!["--runtime".to_owned(), runtime.to_owned()];
        words.extend(["--base-image".to_owned(), self.base_image.clone()]);
        if let Some(network) = &self.network {
            words.extend(["--network".to_owned(), network.clone()]);
        }
        if self.dev {
            words.push("--dev".to_owned());
        }
        if let Some(file) = &self.env_file {
            words.extend(["--env-file".to_owned(), file.to_string_lossy().into_owned()]);
        }
        if !self.capacity.is_unbounded() {
            words.extend(["--capacity".to_owned(), self.capacity.to_string()]);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_an_earlier_note_leaves_out_have_their_defaults() {
        let less: RuntimeOptions = serde_json::from_str(r#"{"runtime":"podman"}"#).expect("less");
        assert_eq!(less, RuntimeOptions { runtime: Wanted::Podman, ..RuntimeOptions::default() });
    }
}
