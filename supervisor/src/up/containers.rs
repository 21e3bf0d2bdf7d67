//! The containers that a killed `up` has left and that an orderly shutdown did not end: known from the notes in their
//! run folders.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::api::ApiError;
use common::frame::IncarnationExit;
use common::shim::Exit;

use common::failure;
use runtime::Wanted;
use runtime::engine::{Connection, Container, noted};
use runtime::folder::{RunFolders, without_a_word};
use runtime::home::Home;
use runtime::lock;

const WHAT: &str = "containers are left over";

/// A container that was noted and has not ended, as far as is known.
#[derive(Debug)]
pub(super) struct Left {
    container: Container,
    folders: RunFolders,
}

/// Those of nodes that do not run: a separate `mozart node` in this folder manages its own.
pub(super) fn left(home: &Home) -> Vec<Left> {
    let mut left = Vec::new();
    for node in nodes(home) {
        let open = of_node(&node);
        // Looked at only where there is something: to take the lock could be in the way of a node that starts.
        if !open.is_empty()
            && let Ok(Some(_unattended)) = lock::take(&node)
        {
            left.extend(open);
        }
    }
    left
}

/// The folders of the nodes that served here, of whichever fleet.
pub(super) fn nodes(home: &Home) -> impl Iterator<Item = PathBuf> + use<> {
    let inside = |folder| fs::read_dir(folder).into_iter().flatten().flatten();
    let nodes = inside(home.run()).flat_map(move |fleet| inside(fleet.path()));
    nodes.map(|node| node.path())
}

/// Those of one node, whether it runs or not.
pub(super) fn of_node(node: &Path) -> Vec<Left> {
    let folders = RunFolders { root: node.to_owned() };
    let containers = folders.list().into_iter().filter_map(|(agent, incarnation)| {
        let container = noted(&folders.of(&agent, incarnation))?;
        Some(Left { container, folders: folders.clone() })
    });
    containers.filter(|one| one.last_words().is_none()).collect()
}

/// Removes those that have not ended since, through the engine that `up` used.
///
/// # Errors
/// When the engine does not.
pub(super) async fn remove(mut left: Vec<Left>, wanted: Wanted) -> Result<(), ApiError> {
    left.retain(|one| one.last_words().is_none());
    if left.is_empty() {
        return Ok(());
    }
    // Noted by an earlier `up`, if this one ran processes only.
    let wanted = if wanted == Wanted::Process { Wanted::Auto } else { wanted };
    let try_ = "start the engine, then `mozart down` once more";
    let silent = |cause: &str| {
        let names: Vec<_> = left.iter().map(Left::name).collect();
        let cause = format!("{}: {cause}", names.join(", "));
        Err(failure::error(failure::UNREACHABLE, WHAT, cause, try_))
    };
    let engine = match Connection::find(wanted).await {
        Ok(Some(engine)) => engine,
        Ok(None) => return silent("no engine answers"),
        Err(error) => return silent(&format!("{}: {}", error.what, error.cause)),
    };
    let mut failed = Vec::new();
    for one in &left {
        let Container { id, agent, incarnation, .. } = &one.container;
        match engine.remove(id).await {
            Ok(()) => {
                // One that was ended in order is gone, and may be forgotten, too.
                if one.folders.of(agent, *incarnation).is_dir() {
                    let reason = Some("ended by `mozart down`".to_owned());
                    let exit = Some(Exit { reason, ..Exit::default() });
                    let now = SystemTime::now().into();
                    one.folders.record(&without_a_word(agent.clone(), *incarnation, exit, now));
                }
            }
            Err(error) => failed.push(format!("{}: {error}", one.name())),
        }
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failure::error(failure::FAILED, WHAT, failed.join(", "), try_)),
    }
}

impl Left {
    fn last_words(&self) -> Option<IncarnationExit> {
        self.folders.last_words(&self.container.agent, self.container.incarnation)
    }

    /// The folder of its node.
    pub(super) fn node(&self) -> &Path {
        &self.folders.root
    }

    fn name(&self) -> String {
        format!("{}-{}", self.container.agent, self.container.incarnation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{AgentName, Timestamp};
    use runtime::folder::write_private;

    #[test]
    fn what_was_noted_and_has_not_ended_is_left() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        assert!(left(&home).is_empty());
        let folders = RunFolders { root: home.run().join("default/n") };
        let agent = AgentName::new("a").expect("valid");
        for incarnation in 1..=3 {
            let run = folders.create(&agent, incarnation).expect("made");
            let container = Container {
                id: incarnation.to_string(),
                agent: agent.clone(),
                generation: 1,
                incarnation,
                started_at: Timestamp::default(),
                engine: "docker".to_owned(),
            };
            // The third one is a process.
            if incarnation < 3 {
                write_private(&run.join("container.json"), &container).expect("written");
            }
        }
        folders.record(&without_a_word(agent, 1, None, Timestamp::default()));
        let names: Vec<_> = left(&home).iter().map(Left::name).collect();
        assert_eq!(names, ["a-2"]);
        // Its node runs.
        let _lock = folders.lock(&"n".parse().expect("valid")).expect("free");
        assert!(left(&home).is_empty());
    }
}
