//! The baseline that needs no broker: children on stdio and a SQLite journal, all in one process.
//!
//! Three transactions a chat, as a journal without loss needs them: pending before the child sees it, acknowledged at its
//! first word, completed with the answer. It survives its own crash, and gives no answer to one of its machine, nor to two hosts.

use std::cell::RefCell;
use std::path::Path;
use std::time::SystemTime;

use rusqlite::{Connection, params};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::drive::Side;
use crate::outcome::{Result, fail};
use crate::process;
use crate::roles::Echo;

/// When SQLite syncs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Synchronous {
    /// At checkpoints: a power cut may take what was said to be stored.
    Normal,
    /// At every commit.
    Full,
}

/// Children and their journal.
#[derive(Debug)]
pub(crate) struct Baseline {
    journal: RefCell<Connection>,
    children: Vec<Mutex<Echo>>,
}

impl Baseline {
    /// Starts children, with the journal in a folder.
    pub(crate) async fn start(folder: &Path, mode: Synchronous, children: usize) -> Result<Self> {
        let journal = Connection::open(folder.join("journal.sqlite"))?;
        let synchronous = match mode {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        };
        journal.pragma_update(None, "journal_mode", "WAL")?;
        journal.pragma_update(None, "synchronous", synchronous)?;
        journal.execute_batch(
            "CREATE TABLE messages (
                id TEXT PRIMARY KEY, agent INTEGER NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL,
                response TEXT, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL
            ) WITHOUT ROWID",
        )?;
        let shim = process::shim()?;
        let mut all = Vec::new();
        for _ in 0..children {
            all.push(Mutex::new(Echo::start(&shim, folder).await?));
        }
        Ok(Self { journal: RefCell::new(journal), children: all })
    }

    fn write(&self, sql: &str, values: impl rusqlite::Params) -> Result<()> {
        let journal = self.journal.borrow();
        let mut statement = journal.prepare_cached(sql)?;
        match statement.execute(values)? {
            1 => Ok(()),
            rows => fail(format!("{rows} rows changed by {sql}")),
        }
    }
}

fn now() -> Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis())?)
}

impl Side for Baseline {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        let id = Uuid::now_v7().to_string();
        let (number, at) = (i64::try_from(agent)?, now()?);
        self.write(
            "INSERT INTO messages VALUES (?1, ?2, 'pending', ?3, NULL, ?4, ?4)",
            params![id, number, text, at],
        )?;
        let mut child = self.children[agent].lock().await;
        child.ask(&id, text).await?;
        let answer = child.first().await?;
        self.write(
            "UPDATE messages SET status = 'acknowledged', updated_at = ?2 WHERE id = ?1",
            params![id, now()?],
        )?;
        child.last().await?;
        // The child may have its next one meanwhile.
        drop(child);
        self.write(
            "UPDATE messages SET status = 'completed', response = ?2, updated_at = ?3 WHERE id = ?1",
            params![id, answer, now()?],
        )
    }
}
