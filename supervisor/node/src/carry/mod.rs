//! The SANCTUMs of agents that are moved: this node takes them from another one, or gives them to one.
//!
//! The node that takes them drives the copy: it asks the other one for part after part, over a connection of its own, so that a large copy
//! holds up neither what the node reports nor the broker, which stores none of it. A part is asked for when the one before is written: no
//! more than a few are in memory. The leader asks again and again how far it is; a copy that nobody asks about is given up.

mod give;
mod notes;
mod take;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker::{Broker, ConnectOptions, TransientMessage};
use common::frame::carry::{CarryAnswer, CarryAsk, Take};
use common::{AgentName, codec};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Node;
use notes::Notes;

/// Copies from this node, and to it, at once: others wait.
const AT_ONCE: usize = 4;
/// How long the answer to a question waits for the end of a copy.
const NEWS_WITHIN: Duration = Duration::from_secs(1);
/// A copy about which nobody has asked for so long is given up.
const ABANDONED: Duration = Duration::from_secs(30);

/// What this node does about SANCTUMs.
#[derive(Debug)]
pub(super) struct Carries {
    shared: Arc<Shared>,
    /// The last copy of each agent to this node.
    takes: BTreeMap<AgentName, Taking>,
    /// The copies, and the answers that take a moment.
    pub(super) tasks: JoinSet<()>,
}

/// What its tasks need.
#[derive(Debug)]
struct Shared {
    connect: ConnectOptions,
    node: common::NodeName,
    notes: Notes,
    taking: Semaphore,
    giving: Arc<Semaphore>,
    /// Markers that are in folders of this node.
    marks: Mutex<BTreeMap<u64, PathBuf>>,
}

/// A copy to this node.
#[derive(Debug)]
struct Taking {
    copy: u64,
    status: watch::Receiver<CarryAnswer>,
    asked: watch::Sender<Instant>,
    /// Cancelled, it is given up.
    cancel: CancellationToken,
    /// Held as long as its task runs.
    alone: Arc<tokio::sync::Mutex<()>>,
}

impl Carries {
    pub(super) fn new(options: &super::NodeOptions) -> Self {
        let folder = options.home.join("carry").join(options.name.as_str());
        Self {
            shared: Arc::new(Shared {
                connect: options.connect.clone(),
                node: options.name.clone(),
                notes: Notes::new(folder),
                taking: Semaphore::new(AT_ONCE),
                giving: Arc::new(Semaphore::new(AT_ONCE)),
                marks: Mutex::default(),
            }),
            takes: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Removes what an earlier process of this node left incomplete.
    pub(super) async fn clear_up(&self) {
        let notes = self.shared.notes.clone();
        if super::files::apart(move || notes.clear_up()).await.is_err() {
            tracing::warn!("what is left of earlier copies was not removed");
        }
    }

    /// An agent starts here: what was copied here is its own from now on.
    pub(super) fn used(&mut self, agent: &AgentName) {
        self.takes.remove(agent);
        self.shared.notes.forget_take(agent);
    }

    /// Begins a copy, or goes on with it.
    fn take(&mut self, take: Take) -> watch::Receiver<CarryAnswer> {
        let now = Instant::now();
        let known = self.takes.get(&take.agent).filter(|known| known.copy == take.copy);
        if let Some(known) = known {
            known.asked.send_replace(now);
            return known.status.clone();
        }
        let before = self.takes.remove(&take.agent);
        if let Some(before) = &before {
            before.cancel.cancel();
        }
        let (tell, status) = watch::channel(CarryAnswer::Working { done: 0, of: 0 });
        let (asked, asks) = watch::channel(now);
        let cancel = CancellationToken::new();
        let alone = before.map(|before| before.alone).unwrap_or_default();
        let (agent, copy) = (take.agent.clone(), take.copy);
        let task = take::Task {
            shared: Arc::clone(&self.shared),
            take,
            tell,
            asks,
            cancel: cancel.clone(),
            writing: Arc::default(),
        };
        let lock = Arc::clone(&alone);
        self.tasks.spawn(async move {
            let _alone = lock.lock().await;
            task.run().await;
        });
        let taking = Taking { copy, status: status.clone(), asked, cancel, alone };
        self.takes.insert(agent, taking);
        status
    }
}

/// Where an answer goes.
struct Answer {
    broker: Broker,
    reply: String,
}

impl Answer {
    async fn tell(self, answer: CarryAnswer) {
        let sent = match codec::encode(&answer) {
            Ok(frame) => self.broker.tell(self.reply, frame.into()).await,
            Err(error) => return tracing::error!("cannot answer: {error}"),
        };
        if let Err(error) = sent {
            tracing::warn!("cannot answer: {error}");
        }
    }
}

impl Node {
    /// Answers what another node or a supervisor asks.
    pub(super) fn carry_asked(&mut self, message: &TransientMessage) {
        let Some(reply) = message.reply.clone() else { return };
        let ask: CarryAsk = match codec::decode(&message.payload) {
            Ok(ask) => ask,
            Err(error) => return tracing::warn!("cannot read what is asked of a SANCTUM: {error}"),
        };
        let shared = Arc::clone(&self.carries.shared);
        let to = Answer { broker: self.broker.clone(), reply };
        if let Some(why) = self.refuses(&ask) {
            self.carries.tasks.spawn(async move { to.tell(CarryAnswer::No(why)).await });
            return;
        }
        match ask {
            // Of a leader that was deposed: it hears nothing, and asks no more.
            CarryAsk::Take { term, .. } | CarryAsk::PutAside { term, .. } if term < self.term => {}
            CarryAsk::Take { term, take } => {
                self.term = term;
                let mut status = self.carries.take(take);
                self.carries.tasks.spawn(async move {
                    let is_over =
                        |status: &CarryAnswer| !matches!(status, CarryAnswer::Working { .. });
                    let waited = tokio::time::timeout(NEWS_WITHIN, status.wait_for(is_over)).await;
                    drop(waited);
                    let answer = status.borrow().clone();
                    to.tell(answer).await;
                });
            }
            CarryAsk::Progress { agent, copy } => {
                let known = self.carries.takes.get(&agent).filter(|known| known.copy == copy);
                let answer = known.map_or_else(
                    || CarryAnswer::No("it is not being copied here".to_owned()),
                    |known| known.status.borrow().clone(),
                );
                self.carries.tasks.spawn(async move { to.tell(answer).await });
            }
            CarryAsk::Check(take) => {
                self.carries
                    .tasks
                    .spawn(async move { to.tell(take::check(&shared, &take).await).await });
            }
            CarryAsk::Mark { folder, nonce, there, .. } => {
                self.carries.tasks.spawn(give::mark(shared, folder.into(), nonce, there, to));
            }
            CarryAsk::Open { agent, copy, to: _, folders } => {
                self.carries.tasks.spawn(give::open(shared, agent, copy, folders, to));
            }
            CarryAsk::PutAside { term, agent, copy, folders, suffix } => {
                self.term = term;
                self.carries.tasks.spawn(async move {
                    let notes = shared.notes.clone();
                    let aside = move || notes.put_aside(&agent, copy, &folders, &suffix);
                    let answer = match super::files::apart(aside).await {
                        Ok(kept) => CarryAnswer::Kept(kept),
                        Err(error) => CarryAnswer::Later(error),
                    };
                    to.tell(answer).await;
                });
            }
        }
    }

    /// Why nothing can be done here with the folders of an agent; none if something can.
    fn refuses(&self, ask: &CarryAsk) -> Option<String> {
        let name = &self.options.name;
        let agent = match ask {
            CarryAsk::Progress { .. } | CarryAsk::Mark { .. } | CarryAsk::Check(_) => return None,
            CarryAsk::Take { take, .. } => &take.agent,
            CarryAsk::Open { agent, .. } | CarryAsk::PutAside { agent, .. } => agent,
        };
        if self.draining && !matches!(ask, CarryAsk::PutAside { .. }) {
            return Some(format!("node {name} is shutting down"));
        }
        let mut keys = self.running.keys().chain(self.starting.keys());
        keys.any(|(running, _)| running == agent).then(|| format!("{agent} still runs on {name}"))
    }
}

/// The markers are removed by whoever put them there, or with this node.
impl Shared {
    fn marks(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, PathBuf>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of a marker.
fn marker(nonce: u64) -> String {
    format!(".mozart-mark-{nonce:016x}")
}
