//! What workers tell of themselves: when they begin, and which chats they are given.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UnixDatagram;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::figure::note;
use crate::outcome::{Result, fail};
use crate::worker::socket;

/// Nothing that is waited for takes longer.
const LONGEST: Duration = Duration::from_secs(60);

/// More is not told between two readings.
const QUEUE: usize = 100_000;

/// The listening end. It hears at once, so that no worker waits for it.
#[derive(Debug)]
pub(crate) struct Beacon {
    told: mpsc::Receiver<Told>,
    pids: Arc<Mutex<HashMap<String, u32>>>,
    _ear: JoinSet<()>,
}

/// What was told, and when it was heard.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) at: Instant,
    pub(crate) what: What,
    pub(crate) agent: String,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The first act of a process's main.
    Main { pid: u32 },
    /// It was given this chat.
    Chat { id: String },
}

impl Beacon {
    /// Listens in a folder.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let socket = UnixDatagram::bind(socket(folder))?;
        let (out, told) = mpsc::channel(QUEUE);
        let pids = Arc::new(Mutex::new(HashMap::new()));
        let known = Arc::clone(&pids);
        let mut ear = JoinSet::new();
        ear.spawn(async move {
            loop {
                let told = match hear(&socket).await {
                    Ok(told) => told,
                    Err(error) => return note(&format!("the beacon: {error}")),
                };
                if let What::Main { pid } = told.what {
                    let mut pids = known.lock().unwrap_or_else(PoisonError::into_inner);
                    pids.insert(told.agent.clone(), pid);
                }
                if out.send(told).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { told, pids, _ear: ear })
    }

    /// The process that an agent's worker was last.
    pub(crate) fn pid(&self, agent: &str) -> Result<u32> {
        match self.pids.lock().unwrap_or_else(PoisonError::into_inner).get(agent) {
            Some(pid) => Ok(*pid),
            None => fail(format!("the worker of {agent} never began")),
        }
    }

    /// The next word, within a while.
    pub(crate) async fn next(&mut self) -> Result<Told> {
        match tokio::time::timeout(LONGEST, self.told.recv()).await {
            Ok(Some(told)) => Ok(told),
            Ok(None) => fail("the beacon is deaf"),
            Err(_) => fail(format!("no word of a worker within {LONGEST:?}")),
        }
    }

    /// When the next process began, whose, and its id.
    pub(crate) async fn main(&mut self) -> Result<(Instant, String, u32)> {
        loop {
            if let Told { at, what: What::Main { pid }, agent } = self.next().await? {
                return Ok((at, agent, pid));
            }
        }
    }

    /// When a chat was given to a worker.
    pub(crate) async fn chat(&mut self) -> Result<Instant> {
        loop {
            if let Told { at, what: What::Chat { .. }, .. } = self.next().await? {
                return Ok(at);
            }
        }
    }

    /// All that was told and not read.
    pub(crate) fn drain(&mut self) -> Vec<Told> {
        std::iter::from_fn(|| self.told.try_recv().ok()).collect()
    }
}

async fn hear(socket: &UnixDatagram) -> Result<Told> {
    let mut bytes = [0; 256];
    let count = socket.recv(&mut bytes).await?;
    let at = Instant::now();
    let text = str::from_utf8(&bytes[..count])?;
    let mut words = text.split(' ');
    let (what, value, agent) = (words.next(), words.next(), words.next());
    let what = match (what, value) {
        (Some("main"), Some(pid)) => What::Main { pid: pid.parse()? },
        (Some("chat"), Some(id)) => What::Chat { id: id.to_owned() },
        _ => return fail(format!("a worker said {text:?}")),
    };
    Ok(Told { at, what, agent: agent.unwrap_or_default().to_owned() })
}
