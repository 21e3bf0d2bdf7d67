//! `mozart export` and `mozart import`: an agent with its data, its history and its image as one file.
//!
//! The archive is a plain tar: `manifest.json`, `agent.soul`, `sanctums/<n>/…`, `skills/<n>/<name>…`, `image.tar`, `journal.jsonl`.
//! The soul's paths lead into it. An archive is not trusted: `check` looks at all of it before anything is done.

mod alike;
mod check;
mod export;
mod image;
mod import;
mod journal;
mod manifest;
mod names;
mod pack;
mod restore;
pub(crate) mod slice;
mod soul;
mod unpack;

pub(crate) use export::{ExportArgs, export};
pub(crate) use import::{ImportArgs, import};

use std::time::{Duration, Instant};

use super::progress::bar as progress;

/// The archive's files.
const MANIFEST: &str = "manifest.json";
const SOUL: &str = "agent.soul";
const IMAGE: &str = "image.tar";
const JOURNAL: &str = "journal.jsonl";
/// What is in the soul's folder, as the broker has it.
const FILES: &str = "files.tar";
const SANCTUMS: &str = "sanctums";
const SKILLS: &str = "skills";

/// Read and written at once, in bytes.
const CHUNK: usize = 256 << 10;

/// Lets the command be interrupted during work that only reads and writes files.
#[derive(Debug)]
struct Breath(Instant);

impl Breath {
    fn new() -> Self {
        Self(Instant::now())
    }

    async fn take(&mut self) {
        const EVERY: Duration = Duration::from_millis(20);
        if self.0.elapsed() >= EVERY {
            tokio::task::yield_now().await;
            self.0 = Instant::now();
        }
    }
}
