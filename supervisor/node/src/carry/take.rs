//! This node is to have what another one has.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::Broker;
use bytes::Bytes;
use common::codec;
use common::frame::carry::{CarryAnswer, CarryAsk, NextPart, Take, TakeFolder};
use common::words;
use runtime::sanctum::{Place, Unpack, free, look};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::notes::{TakeNote, Taken};
use super::{ABANDONED, Shared, marker};
use crate::files::apart;

/// How long the other node may take to answer.
const ANSWER: Duration = Duration::from_secs(10);
/// How long it may take to begin: it looks at every file first.
const BEGIN: Duration = Duration::from_secs(300);
/// How long it is asked again for the same, where it does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before it is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// Parts that have arrived and are not written yet.
const BEHIND: usize = 2;

/// A copy to this node.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) take: Take,
    pub(super) tell: watch::Sender<CarryAnswer>,
    pub(super) asks: watch::Receiver<Instant>,
    pub(super) cancel: CancellationToken,
    /// Held by whatever writes here: that may go on for a moment when the copy is given up.
    pub(super) writing: Arc<Mutex<()>>,
}

/// Whether folders could be copied here, as far as that can be told before.
pub(super) async fn check(shared: &Shared, take: &Take) -> CarryAnswer {
    let checked = async {
        let mut asks = None;
        for folder in &take.folders {
            let path = PathBuf::from(&folder.path);
            let place = apart(move || look(&path)).await??;
            if let (Place::Taken(why), false) = (place, folder.read_only)
                && !is_unused(shared, take, folder).await?
            {
                let broker = match asks.take() {
                    Some(broker) => broker,
                    None => connect(shared).await?,
                };
                let is_same = is_same(shared, &broker, take, folder).await?;
                asks = Some(broker);
                if !is_same {
                    return Err(taken(shared, folder, &why));
                }
            }
        }
        Ok::<_, String>(())
    };
    match checked.await {
        Ok(()) => CarryAnswer::Yes,
        Err(why) => CarryAnswer::No(why),
    }
}

fn taken(shared: &Shared, folder: &TakeFolder, why: &str) -> String {
    format!("{} on {} {why}; try: move it away", folder.path, shared.node)
}

/// Whether what is at a place is an earlier copy from which the agent was never started.
async fn is_unused(shared: &Shared, take: &Take, folder: &TakeFolder) -> Result<bool, String> {
    let (notes, agent, path) = (shared.notes.clone(), take.agent.clone(), folder.path.clone());
    apart(move || notes.is_unused(&agent, Path::new(&path))).await
}

async fn connect(shared: &Shared) -> Result<Broker, String> {
    Broker::connect(&shared.connect).await.map_err(|error| error.to_string())
}

/// Whether a folder is the same on both nodes: a marker that the other one puts there is seen here.
async fn is_same(
    shared: &Shared,
    broker: &Broker,
    take: &Take,
    folder: &TakeFolder,
) -> Result<bool, String> {
    let nonce = Uuid::now_v7().as_u64_pair().1;
    let mark = |there| CarryAsk::Mark {
        agent: take.agent.clone(),
        folder: folder.path.clone(),
        nonce,
        there,
    };
    let put = ask(broker, take, &mark(true), ANSWER).await?;
    if let CarryAnswer::No(why) = &put {
        return Err(format!(
            "cannot tell whether {} and {} have the same {}: {why}",
            take.from, shared.node, folder.path
        ));
    }
    if let CarryAnswer::Kept(_) = put {
        // The other node has no such folder.
        return Ok(false);
    }
    if put != CarryAnswer::Yes {
        return Err(unexpected(&put));
    }
    let path = Path::new(&folder.path).join(marker(nonce));
    let found = apart(move || is_there(&path)).await?;
    // It is removed without this, too, only later.
    let _removed = ask(broker, take, &mark(false), ANSWER).await;
    Ok(found)
}

/// Whether a file is there, as the file system that it is on knows it: a network's may have to be asked again.
fn is_there(path: &Path) -> bool {
    let folder = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let listed = folder.into_iter().flatten().flatten();
    path.exists() || listed.into_iter().any(|entry| entry.path() == *path)
}

fn unexpected(answer: &CarryAnswer) -> String {
    format!(
        "the other node answered something else: {answer:?}; try: the same mozart version on both"
    )
}

/// Asks the node that has the folders.
async fn ask(
    broker: &Broker,
    take: &Take,
    ask: &CarryAsk,
    within: Duration,
) -> Result<CarryAnswer, String> {
    let subject = broker.subjects().node_carry(&take.from);
    let frame = Bytes::from(codec::encode(ask).map_err(|error| error.to_string())?);
    let answer = broker.ask(subject, frame, within).await;
    let answer = answer.map_err(|error| format!("node {} does not answer: {error}", take.from))?;
    codec::decode(&answer).map_err(|error| error.to_string())
}

impl Task {
    pub(super) async fn run(self) {
        let Take { agent, from, copy, .. } = &self.take;
        let copied = tokio::select! {
            copied = self.copy() => copied,
            () = self.cancel.cancelled() => Err("another move was requested".to_owned()),
            () = self.abandoned() => Err("no supervisor asked about it any more".to_owned()),
        };
        let end = match copied {
            Ok(copied) => {
                tracing::info!("the SANCTUM of {agent} is here, from {from} (copy {copy})");
                CarryAnswer::Taken { copied }
            }
            Err(why) => {
                tracing::warn!("the SANCTUM of {agent} was not copied from {from}: {why}");
                let (notes, of) = (self.shared.notes.clone(), agent.clone());
                let _written = self.writing.lock().await;
                if let Err(error) = apart(move || notes.give_up(&of)).await {
                    tracing::warn!("what was copied was not removed: {error}");
                }
                CarryAnswer::No(why)
            }
        };
        self.tell.send_replace(end);
    }

    async fn abandoned(&self) {
        let mut asks = self.asks.clone();
        loop {
            let last = *asks.borrow_and_update();
            let asked = tokio::time::timeout_at((last + ABANDONED).into(), asks.changed()).await;
            match asked {
                Ok(Ok(())) => {}
                // Whoever could ask is gone with this copy.
                Ok(Err(_)) => std::future::pending().await,
                Err(_) => return,
            }
        }
    }

    /// Copies what is missing; the folders that count.
    async fn copy(&self) -> Result<Vec<String>, String> {
        let _turn = self.shared.taking.acquire().await.map_err(|error| error.to_string())?;
        let (notes, agent, copy) =
            (self.shared.notes.clone(), self.take.agent.clone(), self.take.copy);
        let earlier = apart({
            let (notes, agent) = (notes.clone(), agent.clone());
            move || notes.taken(&agent, copy)
        });
        if let Some(earlier) = earlier.await?? {
            return apart(move || earlier.place()).await?;
        }
        let broker = connect(&self.shared).await?;
        let mut folders = Vec::new();
        for (number, folder) in self.take.folders.iter().enumerate() {
            let path = PathBuf::from(&folder.path);
            let looked = path.clone();
            match apart(move || look(&looked)).await?? {
                Place::Free => {}
                Place::Empty | Place::Taken(_) if folder.read_only => continue,
                Place::Empty if is_same(&self.shared, &broker, &self.take, folder).await? => {
                    continue;
                }
                Place::Empty => {}
                Place::Taken(_) if is_same(&self.shared, &broker, &self.take, folder).await? => {
                    continue;
                }
                Place::Taken(why) => return Err(taken(&self.shared, folder, &why)),
            }
            let draft = path.with_file_name(format!(".carrying-{agent}-{copy}-{number}"));
            folders.push(Taken { path, draft, identity: None, counts: !folder.read_only });
        }
        if folders.is_empty() {
            return Ok(Vec::new());
        }
        let mut note = TakeNote { copy, folders };
        let prepared = (notes.clone(), agent.clone(), note.clone());
        apart(move || {
            let (notes, agent, note) = prepared;
            notes.note_take(&agent, &note)?;
            for one in &note.folders {
                let above = one.path.parent().unwrap_or(&one.path);
                let made = std::fs::create_dir_all(above);
                made.map_err(|error| format!("cannot create {}: {error}", above.display()))?;
            }
            Ok::<_, String>(())
        })
        .await??;
        let begun = self.fetch(&broker, &note).await?;
        let writing = Arc::clone(&self.writing).lock_owned().await;
        let complete = apart(move || {
            let _writing = writing;
            let begun = note.folders.into_iter().zip(begun).filter(|(_, begun)| *begun);
            note.folders = begun.map(|(one, _)| one).collect();
            for one in &mut note.folders {
                one.identity = runtime::sanctum::Identity::of(&one.draft);
            }
            notes.note_take(&agent, &note)?;
            note.place()
        });
        complete.await?
    }

    /// Copies the folders to their drafts; which of them there are.
    async fn fetch(&self, broker: &Broker, note: &TakeNote) -> Result<Vec<bool>, String> {
        let (session, of) = self.open(broker, note).await?;
        let drafts: Vec<_> = note.folders.iter().map(|one| one.draft.clone()).collect();
        let (send, mut parts) = mpsc::channel::<Bytes>(BEHIND);
        let tell = self.tell.clone();
        tell.send_replace(CarryAnswer::Working { done: 0, of });
        let alone = Arc::clone(&self.writing).lock_owned().await;
        let writing = apart(move || {
            let _alone = alone;
            let mut unpack = Unpack::into(drafts);
            while let Some(part) = parts.blocking_recv() {
                if let Some(begun) = unpack.take(&part)? {
                    return Ok(begun);
                }
                tell.send_replace(CarryAnswer::Working { done: unpack.bytes(), of });
            }
            Err("the copy was interrupted".to_owned())
        });
        let subject = broker.subjects().node_carry_parts(&self.take.from, session);
        let reading = async {
            let mut part = 0;
            loop {
                let read = self.part(broker, &subject, part).await?;
                // Whoever writes them says why there is no need for more.
                if send.send(read).await.is_err() {
                    return Ok::<(), String>(());
                }
                part += 1;
            }
        };
        let mut writing = std::pin::pin!(writing);
        tokio::select! {
            written = &mut writing => written?,
            read = reading => {
                read?;
                writing.await?
            }
        }
    }

    async fn open(&self, broker: &Broker, note: &TakeNote) -> Result<(u64, u64), String> {
        let folders = note.folders.iter().map(|one| one.path.to_string_lossy().into_owned());
        let asked = CarryAsk::Open {
            agent: self.take.agent.clone(),
            copy: self.take.copy,
            to: self.shared.node.clone(),
            folders: folders.collect(),
        };
        let (session, of) = loop {
            let answer = ask(broker, &self.take, &asked, BEGIN).await?;
            if let CarryAnswer::Opened { session, bytes } = answer {
                break (session, bytes);
            }
            if let CarryAnswer::No(why) = answer {
                return Err(why);
            }
            if !matches!(answer, CarryAnswer::Later(_)) {
                return Err(unexpected(&answer));
            }
            tokio::time::sleep(AGAIN).await;
        };
        let path = note.folders.first().map(|one| one.path.clone()).unwrap_or_default();
        if let Some(free) = apart(move || free(&path)).await?.filter(|free| *free < of) {
            let (of, free) = (words::bytes(of), words::bytes(free));
            let node = &self.shared.node;
            return Err(format!("no room on {node}: the copy takes {of}, and {free} are free"));
        }
        Ok((session, of))
    }

    /// One part; asked for again if the question or the answer was lost.
    async fn part(&self, broker: &Broker, subject: &str, part: u64) -> Result<Bytes, String> {
        let frame = Bytes::from(codec::encode(&NextPart { part }).map_err(|e| e.to_string())?);
        let until = Instant::now() + PATIENCE;
        loop {
            match broker.ask(subject.to_owned(), frame.clone(), ANSWER).await {
                Ok(read) => return Ok(read),
                Err(error) if Instant::now() >= until => {
                    return Err(format!("node {} does not answer: {error}", self.take.from));
                }
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}
