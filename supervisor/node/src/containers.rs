//! The incarnations of this node that are containers: started outside the loop, and followed by the engine's events.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use common::files::Files;
use common::frame::{IncarnationExit, StartIncarnation};
use common::shim::ShimExit;
use tokio_util::sync::CancellationToken;

use super::files::Prepared;
use super::running::{Key, Running, Seen, Starting};
use super::{GRACE, Node};
use runtime::engine::{Container, Ended, Engine, Listed, Listening, News, Phase};

/// What the node knows of a container that is on a list. The list may be older than that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    Not,
    Starting,
    Running,
    /// Its end was told.
    Over,
    /// It was to be removed, since the last list.
    Discarded,
}

/// What follows from a container's being on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Todo {
    Nothing,
    Adopt,
    Settle,
    Discard,
}

fn judge(known: Known, phase: Phase) -> Todo {
    match (known, phase) {
        // Made is what the list still says of one that has been started since.
        (Known::Starting | Known::Discarded, _)
        | (Known::Running, Phase::Made | Phase::Runs)
        | (Known::Over, Phase::Runs) => Todo::Nothing,
        (Known::Not, Phase::Runs) => Todo::Adopt,
        (Known::Not | Known::Running, Phase::Ended) => Todo::Settle,
        (Known::Not | Known::Over, Phase::Made) | (Known::Over, Phase::Ended) => Todo::Discard,
    }
}

/// The pause before an engine that is away is asked again.
const AGAIN: Duration = Duration::from_millis(500);

impl Node {
    /// Starts a container outside the loop, since the engine may take any time.
    pub(super) fn start_container(
        &mut self,
        engine: Engine,
        start: StartIncarnation,
        prepared: Option<Prepared>,
    ) {
        let key = (start.agent.clone(), start.incarnation);
        let cancel = CancellationToken::new();
        let (generation, since) = (start.generation, SystemTime::now().into());
        let starting = Starting { cancel: cancel.clone(), generation, since };
        self.starting.insert(key.clone(), starting);
        let preparing = Arc::clone(&self.preparing);
        self.watches.spawn(async move {
            let progress = |doing: String| {
                tracing::info!("{}-{}: {doing}", key.0, key.1);
                if let Ok(mut preparing) = preparing.lock() {
                    preparing.insert(key.clone(), doing);
                }
            };
            let archive = prepared.as_ref().map(|one| (&one.files, one.archive.path.as_path()));
            let started = match cancel
                .run_until_cancelled(start_patiently(&engine, &start, archive, progress))
                .await
            {
                Some(started) => started,
                None => {
                    engine.give_up(&start).await;
                    Err("stopped while it was being started".to_owned())
                }
            };
            Seen::Started(key, started)
        });
    }

    pub(super) async fn started(
        &mut self,
        key: Key,
        started: Result<(Container, Listening), String>,
    ) {
        let cancelled = self.starting.remove(&key).is_some_and(|start| start.cancel.is_cancelled());
        if let Ok(mut preparing) = self.preparing.lock() {
            preparing.remove(&key);
        }
        match started {
            Ok((container, listening)) => {
                let short = container.id.get(..12).unwrap_or(&container.id);
                tracing::info!("{}-{} started as container {short}", key.0, key.1);
                let has_ended = self.ended_early.remove(&container.id);
                let mut one = Running::container(container.clone());
                let place = one.place.clone();
                if cancelled {
                    // Told again should that fail.
                    one.kill_at = Some(Instant::now() + GRACE);
                }
                self.runs(key, one);
                self.hear(container.clone(), async { Some(listening) });
                if has_ended {
                    self.settle(container);
                } else if cancelled {
                    // It has no message yet.
                    self.kill(&place);
                }
            }
            Err(reason) => self.not_started(key, reason).await,
        }
    }

    pub(super) async fn news(&mut self, news: News) {
        match news {
            News::Listed(all) => {
                if !std::mem::replace(&mut self.engine_is_up, true) {
                    tracing::info!("the container engine answers again");
                    self.report_status().await;
                }
                self.compare(all);
            }
            News::Ended(id) => {
                let mut known = self.running.values().filter_map(Running::as_container);
                match known.find(|container| container.id == id).cloned() {
                    Some(container) => self.settle(container),
                    None if !self.starting.is_empty() => {
                        self.ended_early.insert(id);
                    }
                    None => {}
                }
            }
            News::Down(error) => {
                tracing::warn!("the container engine does not answer: {error}");
                self.engine_is_up = false;
                self.report_status().await;
            }
        }
    }

    /// Takes over what runs, settles what has ended, removes what was left half made.
    pub(super) fn compare(&mut self, all: Vec<Listed>) {
        let there: BTreeSet<_> = all.iter().map(|one| one.container.id.clone()).collect();
        // One that is not there any more has been told, or was never heard of.
        self.ended_early.retain(|id| there.contains(id));
        let missing: Vec<_> = self
            .running
            .values()
            .filter_map(Running::as_container)
            .filter(|known| !there.contains(&known.id))
            .cloned()
            .collect();
        for container in missing {
            self.settle(container);
        }
        // What is on a later list still was not removed, whatever the engine said.
        let discarded = std::mem::take(&mut self.discarded);
        for Listed { container, phase } in all {
            let key = (container.agent.clone(), container.incarnation);
            let known = if self.starting.contains_key(&key) {
                Known::Starting
            } else if self.discarding.contains(&container.id) || discarded.contains(&container.id) {
                Known::Discarded
            } else if self.running.contains_key(&key) {
                Known::Running
            } else if self.exits.get(&key.0).is_some_and(|exit| exit.incarnation == key.1) {
                Known::Over
            } else {
                Known::Not
            };
            match judge(known, phase) {
                Todo::Nothing => {}
                Todo::Adopt => {
                    tracing::info!("{}-{} adopted as a container", key.0, key.1);
                    self.listen(container.clone());
                    let mut one = Running::container(container);
                    let place = one.place.clone();
                    if self.draining {
                        one.kill_at = Some(Instant::now() + crate::DRAIN + GRACE);
                    }
                    self.running.insert(key, one);
                    if self.draining {
                        self.terminate(&place);
                    }
                }
                Todo::Settle => {
                    self.running
                        .entry(key)
                        .or_insert_with(|| Running::container(container.clone()));
                    self.settle(container);
                }
                Todo::Discard => self.discard(container.id),
            }
        }
    }

    /// Inspects a container that seems to have ended, outside the loop.
    fn settle(&mut self, container: Container) {
        let key = (container.agent.clone(), container.incarnation);
        let (Some(engine), Some(one)) = (self.engine.clone(), self.running.get_mut(&key)) else {
            return;
        };
        if std::mem::replace(&mut one.gone, true) {
            return;
        }
        self.watches.spawn(async move {
            let ended = engine.settle(&container, SystemTime::now().into()).await;
            Seen::Settled(container, ended)
        });
    }

    /// Listens to a container that runs already.
    pub(super) fn listen(&mut self, container: Container) {
        let Some(engine) = self.engine.clone() else { return };
        let id = container.id.clone();
        self.hear(container, async move { engine.listen(&id).await });
    }

    /// Waits for a shim's exit record, outside the loop.
    fn hear(
        &mut self,
        container: Container,
        listening: impl Future<Output = Option<Listening>> + Send + 'static,
    ) {
        self.watches.spawn(async move {
            match listening.await {
                Some(listening) => match listening.last_words().await {
                    Some(words) => Seen::Said(container, words),
                    None => Seen::Done,
                },
                None => Seen::Done,
            }
        });
    }

    /// An exit record means the end, before the engine reports it. Without one, the engine decides.
    pub(super) async fn said(&mut self, container: Container, words: ShimExit) {
        if self.is_running(&container) {
            self.over(container.id.clone(), container.ended(words)).await;
        }
    }

    pub(super) async fn settled(&mut self, container: Container, ended: Ended) {
        if !self.is_running(&container) {
            // Its last words were heard meanwhile.
            return;
        }
        match ended {
            Ended::Yes(exit) => self.over(container.id, exit).await,
            Ended::No | Ended::Unknown(_) => {
                let key = (container.agent, container.incarnation);
                if let Ended::Unknown(error) = ended {
                    tracing::warn!("cannot read the exit of {}-{} yet: {error}", key.0, key.1);
                }
                // The next list brings it up again.
                if let Some(one) = self.running.get_mut(&key) {
                    one.gone = false;
                }
            }
        }
    }

    /// Whether it counts as running: its end was not told yet.
    fn is_running(&self, container: &Container) -> bool {
        let one = self.running.get(&(container.agent.clone(), container.incarnation));
        one.and_then(Running::as_container).is_some_and(|known| known.id == container.id)
    }

    async fn over(&mut self, id: String, exit: IncarnationExit) {
        self.folders.record(&exit);
        self.finished(exit).await;
        // Not before: its last words are told at once, and are in no moment nowhere.
        self.discard(id);
    }

    /// Removes what has ended and is there still: an engine that was itself going down says that it removes, and does not.
    pub(super) async fn clear_up(&self) {
        let Some(engine) = &self.engine else { return };
        match engine.list().await {
            Ok(all) => {
                for one in all.iter().filter(|one| one.phase != Phase::Runs) {
                    engine.remove(&one.container.id).await;
                }
            }
            Err(error) => tracing::warn!("stopped containers may be left behind: {error}"),
        }
    }

    fn discard(&mut self, id: String) {
        let Some(engine) = self.engine.clone() else { return };
        if self.discarding.insert(id.clone()) {
            self.watches.spawn(async move {
                let gone = engine.discard(&id).await;
                Seen::Discarded(id, gone)
            });
        }
    }
}

/// Starts an incarnation. An engine that is away is waited for, since that is no fault of the agent's; as long as that is said, the
/// time to say ready has not begun.
async fn start_patiently(
    engine: &Engine,
    start: &StartIncarnation,
    archive: Option<(&Files, &Path)>,
    progress: impl Fn(String),
) -> Result<(Container, Listening), String> {
    loop {
        let started = engine.start(start, archive, SystemTime::now().into(), &progress).await;
        if started.is_ok() || engine.ping().await.is_ok() {
            return started;
        }
        progress(format!("waiting for {}, which does not answer", engine.kind().as_str()));
        while engine.ping().await.is_err() {
            tokio::time::sleep(AGAIN).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_older_than_what_is_known_does_no_harm() {
        let known = [Known::Not, Known::Starting, Known::Running, Known::Over, Known::Discarded];
        for (phase, expected) in [
            (
                Phase::Made,
                [Todo::Discard, Todo::Nothing, Todo::Nothing, Todo::Discard, Todo::Nothing],
            ),
            (
                Phase::Runs,
                [Todo::Adopt, Todo::Nothing, Todo::Nothing, Todo::Nothing, Todo::Nothing],
            ),
            (
                Phase::Ended,
                [Todo::Settle, Todo::Nothing, Todo::Settle, Todo::Discard, Todo::Nothing],
            ),
        ] {
            assert_eq!(known.map(|known| judge(known, phase)), expected, "{phase:?}");
        }
    }
}
