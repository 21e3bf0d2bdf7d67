//! This node has what another one is to have.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker::{Broker, Subscription};
use bytes::Bytes;
use common::frame::carry::{CarryAnswer, NextPart};
use common::{AgentName, codec};
use runtime::sanctum::{measure, pack};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::{Answer, Shared, marker, notes};
use crate::files::apart;

/// Parts that are read before they are asked for.
const AHEAD: usize = 2;
/// A copy of which nobody has asked for a part for so long is over.
const IDLE: Duration = Duration::from_secs(90);
/// A marker that nobody has asked to remove is removed after this time.
const MARKED: Duration = Duration::from_secs(15);
/// How long the broker may take before parts can be asked for.
const READY: Duration = Duration::from_secs(5);

/// Puts a marker into a folder, or removes it.
pub(super) async fn mark(
    shared: Arc<Shared>,
    folder: PathBuf,
    nonce: u64,
    there: bool,
    answer: Answer,
) {
    if !there {
        unmark(&shared, nonce);
        return answer.tell(CarryAnswer::Yes).await;
    }
    let path = folder.join(marker(nonce));
    let (notes, mark) = (shared.notes.clone(), path.clone());
    let put = apart(move || -> Result<bool, String> {
        if !folder.is_dir() {
            return Ok(false);
        }
        notes.note_mark(nonce, &mark)?;
        let put = fs::File::create_new(&mark);
        put.map(|_| true).map_err(|error| format!("cannot write {}: {error}", mark.display()))
    });
    let put = put.await.and_then(|put| put);
    if put == Ok(true) {
        shared.marks().insert(nonce, path);
    }
    let put = match put {
        Ok(true) => CarryAnswer::Yes,
        Ok(false) => CarryAnswer::Kept(Vec::new()),
        Err(why) => CarryAnswer::No(why),
    };
    answer.tell(put).await;
    tokio::time::sleep(MARKED).await;
    unmark(&shared, nonce);
}

fn unmark(shared: &Shared, nonce: u64) {
    let mark = shared.marks().remove(&nonce);
    if let Some(mark) = mark {
        notes::remove(&mark);
    }
    shared.notes.forget_mark(nonce);
}

/// Lets another node ask for what is in folders. Those that do not exist are left out.
pub(super) async fn open(
    shared: Arc<Shared>,
    agent: AgentName,
    copy: u64,
    folders: Vec<String>,
    answer: Answer,
) {
    let Ok(_turn) = Arc::clone(&shared.giving).try_acquire_owned() else {
        let busy = format!("node {} copies others just now", shared.node);
        return answer.tell(CarryAnswer::Later(busy)).await;
    };
    let session = Uuid::now_v7().as_u64_pair().1;
    let opened = async {
        let (notes, of) = (shared.notes.clone(), agent.clone());
        let looked: (Vec<Option<PathBuf>>, u64) =
            apart(move || look(&notes, &of, copy, &folders)).await??;
        let broker = Broker::connect(&shared.connect).await.map_err(|error| error.to_string())?;
        let subject = broker.subjects().node_carry_parts(&shared.node, session);
        let asks = broker.subscribe(subject, None).await.map_err(|error| error.to_string())?;
        broker.flush(READY).await.map_err(|error| error.to_string())?;
        Ok::<_, String>((looked, broker, asks))
    };
    let ((real, bytes), broker, asks) = match opened.await {
        Ok(opened) => opened,
        Err(why) => return answer.tell(CarryAnswer::No(why)).await,
    };
    answer.tell(CarryAnswer::Opened { session, bytes }).await;
    tracing::info!("the SANCTUM of {agent} is being copied to another node");
    let (send, parts) = mpsc::channel(AHEAD);
    let reading = apart(move || pack(&real, |part| send.blocking_send(Bytes::from(part)).is_ok()));
    // It ends when nobody takes its parts any more.
    let ((), read) = tokio::join!(serve(&broker, asks, parts), reading);
    if let Err(error) = read {
        tracing::error!("cannot read the SANCTUM of {agent}: {error}");
    }
}

/// The real paths of folders that exist, and how many bytes are in them.
fn look(
    notes: &super::Notes,
    agent: &AgentName,
    copy: u64,
    folders: &[String],
) -> Result<(Vec<Option<PathBuf>>, u64), String> {
    let (mut real, mut bytes) = (Vec::new(), 0_u64);
    for folder in folders {
        match Path::new(folder).canonicalize() {
            Ok(path) if path.is_dir() => {
                bytes = bytes.saturating_add(measure(&path)?);
                real.push(Some(path));
            }
            Ok(_) => return Err(format!("{folder} is not a folder")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => real.push(None),
            Err(error) => return Err(format!("cannot read {folder}: {error}")),
        }
    }
    let paths: Vec<_> = folders.iter().map(PathBuf::from).collect();
    notes.note_give(agent, copy, &paths)?;
    Ok((real, bytes))
}

/// Answers with part after part, and with the last one as often as it is asked for.
async fn serve(broker: &Broker, mut asks: Subscription, mut parts: mpsc::Receiver<Bytes>) {
    let (mut number, mut last) = (None, Bytes::new());
    while let Ok(Some(ask)) = tokio::time::timeout(IDLE, asks.next()).await {
        let (Some(reply), Ok(NextPart { part })) = (ask.reply, codec::decode(&ask.payload)) else {
            continue;
        };
        let next = number.map_or(0, |number: u64| number + 1);
        if part == next {
            // After the last one there is nothing more to ask for.
            let Some(read) = parts.recv().await else { return };
            (number, last) = (Some(part), read);
        } else if Some(part) != number {
            continue;
        }
        if let Err(error) = broker.tell(reply, last.clone()).await {
            return tracing::warn!("cannot send a part of a SANCTUM: {error}");
        }
    }
}
