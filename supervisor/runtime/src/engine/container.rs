//! Containers of incarnations: created, started, signalled, found again, and settled when they have ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bollard::models::{ContainerState, ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder,
};
use common::files::Files;
use common::frame::{IncarnationExit, StartIncarnation};
use common::shim::{Exit, ShimConfig, ShimExit, WorkerUser};
use common::spec::AgentSpec;
use common::{AgentName, Timestamp};
use serde::{Deserialize, Serialize};

use super::mounts::{self, Forbidden};
use super::said::Listening;
use super::spec::{self, Parts};
use super::{Engine, Kind, files, labels, say, words};
use crate::files::{list, moved, starts_in_folder};
use crate::folder::{read, without_a_word, write_private};
use crate::secrets::secrets;

/// The pause before an engine is asked once more about a container that is just ending.
const SOON: std::time::Duration = std::time::Duration::from_millis(400);
/// How often a signal is tried that an engine does not deliver: it is followed by SIGKILL in any case, when its time is over.
const SIGNALS: u32 = 4;
/// The note that an incarnation is a container, which is needed while the engine is down.
const RECORD: &str = "container.json";

/// A container of an incarnation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The agent.
    pub agent: AgentName,
    /// The generation.
    pub generation: u64,
    /// The incarnation.
    pub incarnation: u64,
    /// When it was started.
    pub started_at: Timestamp,
    /// Of which engine.
    #[serde(default)]
    pub engine: String,
}

impl Container {
    /// Its end, as its shim has told it.
    pub fn ended(&self, words: ShimExit) -> IncarnationExit {
        let ShimExit { exit, finished, clean, at } = words;
        let (agent, incarnation) = (self.agent.clone(), self.incarnation);
        IncarnationExit { agent, incarnation, exit, clean, finished, at }
    }
}

/// A container as the engine lists it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The container.
    pub container: Container,
    /// How far it is.
    pub phase: Phase,
}

/// What has become of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Created and never started: its creator died in between, or is about to start it.
    Made,
    /// It runs.
    Runs,
    /// It has ended.
    Ended,
}

/// How the look at a container went that seemed to have ended.
#[derive(Debug)]
pub enum Ended {
    /// It has ended, as this says; the container can be removed once that is recorded.
    Yes(IncarnationExit),
    /// It runs.
    No,
    /// The engine does not tell: it is asked again.
    Unknown(String),
}

impl Engine {
    /// Starts an incarnation, and listens to it; `progress` hears what takes long.
    ///
    /// # Errors
    /// A human-readable message. Nothing is left of it then.
    pub async fn start(
        &self,
        start: &StartIncarnation,
        archive: Option<(&Files, &Path)>,
        now: Timestamp,
        progress: impl Fn(String),
    ) -> Result<(Container, Listening), String> {
        let mut spec: AgentSpec =
            serde_json::from_str(&start.spec).map_err(|error| format!("its spec: {error}"))?;
        let options = self.options();
        let secrets = secrets(&spec, &options.node, options.env_file.as_deref())?;
        let creds_text = match &options.creds {
            Some(path) => Some(
                tokio::fs::read_to_string(path)
                    .await
                    .map_err(|error| format!("{}: {error}", path.display()))?,
            ),
            None => None,
        };
        // From here on it is the engine's time, however slow it is.
        progress(format!("waiting for {}", self.kind().as_str()));
        let reference = spec.image.clone().unwrap_or_else(|| options.base_image.clone());
        // Not within the bound: others need not wait for a pull.
        let image = self.image(&reference, &progress).await?;
        // Many that start at once wait for each other.
        let _permit = self.inner.at_once.acquire().await.map_err(|error| error.to_string())?;
        let mut shim = self.shim_volume().await?;
        let inside = match archive {
            Some((_, archive)) => inside(archive).await?,
            None => BTreeSet::new(),
        };
        let has = |path: &Path| inside.iter().any(|one| one.starts_with(path));
        let moved = moved(&spec, Path::new(mounts::CHECKOUT), has);
        // As late as possible: what is checked here is what the engine mounts.
        let engine = self.inner.connection.address.as_str();
        let rootless = self.inner.connection.rootless;
        let forbidden = Forbidden { engine, home: &options.home, rootless };
        // What is in the archive is not mounted once more from this host, which need not have it.
        let both = spec.skills.iter().zip(&moved.skills);
        let skills = both.filter(|(one, other)| one == other).map(|(one, _)| one.clone()).collect();
        let foreign = AgentSpec { skills, ..spec.clone() };
        let dev = options.dev && archive.is_none();
        let mounts = mounts::collect(&foreign, dev, &forbidden)?;
        let starts_there = archive.is_some() && starts_in_folder(&spec, has);
        let is_checkout = options.dev && !spec.source_path.is_empty();
        let folder = (starts_there || is_checkout).then(|| mounts::CHECKOUT.to_owned());
        // In their order: those of the archive are where it is mounted.
        let mut others = mounts.skills.into_iter();
        for (skill, to) in spec.skills.iter_mut().zip(&moved.skills) {
            *skill = match skill == to {
                true => others.next().unwrap_or_default(),
                false => to.clone(),
            };
        }
        spec.worker = moved.worker;
        if spec.worker.is_none() && !image.command.is_empty() {
            spec.worker = Some(image.command.clone());
        }
        let mut tries = 2;
        let (id, listening) = loop {
            tries -= 1;
            let mut all = mounts.mounts.clone();
            if let Some((files, archive)) = archive {
                all.push(files::mount(&self.files_volume(files, archive).await?, true));
            }
            let parts = Parts {
                kind: self.kind(),
                options,
                start,
                spec: &spec,
                image: &image,
                shim: &shim,
                mounts: all,
                folder: folder.clone(),
            };
            let name = spec::name(&start.agent, start.incarnation, &options.fleet);
            let id = self.create(&name, spec::body(parts)).await?;
            if archive.is_some() && !self.has_files(&id).await {
                // Somebody removed the volume, and the engine made an empty one in its place.
                self.remove(&id).await;
                self.forget_files_volumes().await;
                if tries == 0 {
                    let engine = self.kind().as_str();
                    return Err(format!("{engine} does not keep the volume with its files"));
                }
                continue;
            }
            let config = ShimConfig {
                url: self.inner.url.clone(),
                creds: None,
                creds_text: creds_text.clone(),
                ca: options.ca.clone(),
                login: options
                    .logins
                    .map(|logins| logins.of(&options.namespace, &start.agent, start.incarnation)),
                secrets: secrets.clone(),
                user: Some(WorkerUser { image: image.user.clone(), id: mounts.user }),
                writable: spec::writable(&image, &mounts.mounts),
                namespace: options.namespace.clone(),
                incarnation: start.incarnation,
                generation: start.generation,
                token: start.token.clone(),
                traces: options.traces,
                spec: spec.clone(),
                workdir: None,
                exit_file: None,
            };
            let run = tokio::time::timeout(super::WHOLE_ANSWER, self.run(&id, &config)).await;
            let run = run.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
            match run {
                Ok(listening) => break (id, listening),
                Err(error) => {
                    self.remove(&id).await;
                    // Somebody removed the volume, and the engine made an empty one in its place.
                    if tries == 0 || !error.contains(super::install::SHIM) {
                        return Err(format!(
                            "{} could not start it: {error}",
                            self.kind().as_str()
                        ));
                    }
                    self.forget_shim_volume().await;
                    shim = self.shim_volume().await?;
                }
            }
        };
        let container = Container {
            id,
            agent: start.agent.clone(),
            generation: start.generation,
            incarnation: start.incarnation,
            started_at: now,
            engine: self.kind().as_str().to_owned(),
        };
        self.note(&container);
        Ok((container, listening))
    }

    /// Creates the container. If one of ours with that name already exists, its creation was interrupted.
    async fn create(
        &self,
        name: &str,
        body: bollard::models::ContainerCreateBody,
    ) -> Result<String, String> {
        let engine = self.kind().as_str();
        for is_last in [false, true] {
            let options = CreateContainerOptionsBuilder::default().name(name).build();
            match self.docker().create_container(Some(options), body.clone()).await {
                Ok(made) => return Ok(made.id),
                Err(error) if words::is_clash(&error) && !is_last => {
                    let known =
                        self.docker().inspect_container(name, None::<InspectContainerOptions>);
                    let Ok(known) = known.await else { continue };
                    let labels = known.config.and_then(|config| config.labels).unwrap_or_default();
                    if !labels::are_ours(self.options(), &labels) {
                        return Err(format!(
                            "a container that is not mozart's has the name {name}; try: `{engine} rename {name} {name}-other`"
                        ));
                    }
                    self.remove(&known.id.unwrap_or_else(|| name.to_owned())).await;
                }
                Err(error) => return Err(format!("{engine} refuses it: {}", say(error))),
            }
        }
        Err(format!("{engine} refuses it: the name {name} is taken"))
    }

    fn note(&self, container: &Container) {
        let folders = &self.options().folders;
        let noted = folders.create(&container.agent, container.incarnation).and_then(|run| {
            write_private(&run.join(RECORD), container).map_err(|error| error.to_string())
        });
        if let Err(error) = noted {
            // The labels say the same, as long as the engine answers.
            tracing::warn!(
                "cannot write the container note of {}-{}: {error}",
                container.agent,
                container.incarnation
            );
        }
    }

    /// What was noted of an incarnation, if it is a container.
    pub fn noted(&self, agent: &AgentName, incarnation: u64) -> Option<Container> {
        noted(&self.options().folders.of(agent, incarnation))
    }

    /// Removes a container by force, with all that is only its own; it is fine if it is already gone. Whether it is gone now.
    pub async fn remove(&self, id: &str) -> bool {
        match self.inner.connection.remove(id).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!("cannot remove container {id}: {error}");
                false
            }
        }
    }

    /// Removes a container that is no longer needed, as soon as the engine has time. Whether it is gone now.
    pub async fn discard(&self, id: &str) -> bool {
        // Only closed at the end of everything.
        let _permit = self.inner.at_once.acquire().await;
        self.remove(id).await
    }

    /// Removes whatever is left of a start that was given up.
    pub async fn give_up(&self, start: &StartIncarnation) {
        let name = spec::name(&start.agent, start.incarnation, &self.options().fleet);
        let known = self.docker().inspect_container(&name, None::<InspectContainerOptions>).await;
        let Ok(known) = known else { return };
        let labels = known.config.and_then(|config| config.labels).unwrap_or_default();
        if labels::are_ours(self.options(), &labels) {
            self.remove(&known.id.unwrap_or(name)).await;
        }
    }

    /// All containers of this node.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list(&self) -> Result<Vec<Listed>, String> {
        let filter = labels::filter(self.options());
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let all = self.docker().list_containers(Some(options)).await.map_err(say)?;
        let fleet = &self.options().fleet;
        Ok(all.into_iter().filter_map(|one| listed(one, fleet, self.kind())).collect())
    }

    /// Signals a container's shim, also one that is paused; it is fine if it is already gone.
    pub async fn signal(&self, id: &str, signal: &str) {
        let kill = || {
            let options = KillContainerOptionsBuilder::default().signal(signal).build();
            self.docker().kill_container(id, Some(options))
        };
        for _ in 0..SIGNALS {
            let Err(error) = kill().await else { return };
            let (status, why) = (words::status(&error), say(error));
            if why.contains("paused") {
                if self.docker().unpause_container(id).await.is_ok() {
                    tracing::warn!("container {id} was paused: unpaused it to stop it");
                }
            } else if matches!(status, Some(404 | 409)) || why.contains("not running") {
                return;
            } else {
                tracing::warn!("cannot send {signal} to container {id}: {why}");
                tokio::time::sleep(SOON).await;
            }
        }
    }

    /// Looks at a container that seems to have ended: how it did.
    pub async fn settle(&self, container: &Container, now: Timestamp) -> Ended {
        let Ok(_permit) = self.inner.at_once.acquire().await else {
            return Ended::Unknown("the node is stopping".to_owned());
        };
        let Container { id, agent, incarnation, .. } = container;
        let without = |status| without_a_word(agent.clone(), *incarnation, Some(status), now);
        let inspect = || self.docker().inspect_container(id, None::<InspectContainerOptions>);
        let mut inspected = inspect().await;
        if inspected.is_err() {
            // Podman's word for one that is just ending is not one of the API's.
            tokio::time::sleep(SOON).await;
            inspected = inspect().await;
        }
        let state = match inspected {
            Ok(found) => found.state.unwrap_or_default(),
            Err(error) if words::status(&error) == Some(404) => {
                let reason = format!("{} no longer has its container", self.kind().as_str());
                return Ended::Yes(without(Exit { reason: Some(reason), ..Exit::default() }));
            }
            Err(error) => return Ended::Unknown(say(error)),
        };
        if state.running == Some(true) {
            return Ended::No;
        }
        let words = tokio::time::timeout(super::WHOLE_ANSWER, self.last_words(id)).await;
        let exit = match words
            .unwrap_or_else(|_| Err("the end of its log could not be read".to_owned()))
        {
            Ok(Some(mut words)) => {
                let is_killed = words.exit.signal == Some(9);
                words.exit.out_of_memory |= is_killed && state.oom_killed == Some(true);
                container.ended(words)
            }
            Ok(None) => {
                let mut ended = without(status(&state));
                // One that was killed has nothing to add.
                if ended.exit.signal.is_none()
                    && let (Some(line), Some(reason)) =
                        (self.last_line(id).await, &mut ended.exit.reason)
                {
                    *reason = format!("{reason}; its log ends with: {line}");
                }
                ended
            }
            Err(error) => return Ended::Unknown(error),
        };
        Ended::Yes(exit)
    }
}

/// What is in an archive.
async fn inside(archive: &Path) -> Result<BTreeSet<PathBuf>, String> {
    let path = archive.to_owned();
    let listed = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(&path);
        list(file.map_err(|error| format!("{}: {error}", path.display()))?)
    });
    let listed = listed.await.map_err(|error| error.to_string())??;
    Ok(listed.into_keys().collect())
}

/// What a node noted in a run folder, if that is a container's.
pub fn noted(run: &Path) -> Option<Container> {
    read(&run.join(RECORD))
}

/// How a container ended whose shim wrote no exit record. A process killed by a signal has the exit code that a shell would report.
fn status(state: &ContainerState) -> Exit {
    let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
    let signal = code.map(|code| code - 128).filter(|signal| (1..=64).contains(signal));
    Exit {
        code: code.filter(|_| signal.is_none()),
        signal,
        out_of_memory: state.oom_killed == Some(true),
        reason: state.error.clone().filter(|error| !error.is_empty()),
    }
}

/// A container from an image that was committed from one of ours has its labels, too, but not its name: it is not ours.
fn listed(summary: ContainerSummary, fleet: &str, kind: Kind) -> Option<Listed> {
    let label = labels::read(&summary.labels?)?;
    let name = spec::name(&label.agent, label.incarnation, fleet);
    if !summary.names?.iter().any(|one| one.trim_start_matches('/') == name) {
        return None;
    }
    let created = u64::try_from(summary.created.unwrap_or_default()).unwrap_or_default();
    let phase = match summary.state {
        Some(ContainerSummaryStateEnum::CREATED) => Phase::Made,
        Some(
            ContainerSummaryStateEnum::EXITED
            | ContainerSummaryStateEnum::DEAD
            | ContainerSummaryStateEnum::REMOVING,
        ) => Phase::Ended,
        Some(
            ContainerSummaryStateEnum::RUNNING
            | ContainerSummaryStateEnum::PAUSED
            | ContainerSummaryStateEnum::RESTARTING
            | ContainerSummaryStateEnum::STOPPING
            | ContainerSummaryStateEnum::EMPTY,
        )
        | None => Phase::Runs,
    };
    let container = Container {
        id: summary.id?,
        agent: label.agent,
        generation: label.generation,
        incarnation: label.incarnation,
        started_at: Timestamp::from_millis(created * 1000),
        engine: kind.as_str().to_owned(),
    };
    Some(Listed { container, phase })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_beyond_128_is_a_signal() {
        let state = |code, oom| ContainerState {
            exit_code: Some(code),
            oom_killed: Some(oom),
            ..ContainerState::default()
        };
        assert_eq!(status(&state(137, true)).describe(), "exit code 137 (signal 9), out of memory");
        assert_eq!(status(&state(3, false)).describe(), "exit code 3");
        assert_eq!(status(&state(255, false)).describe(), "exit code 255");
    }
}
