//! What runs on a node, and what its tasks tell it.

use std::time::Instant;

use common::frame::StartIncarnation;
use common::shim::{Exit, ShimExit};
use common::spec::AgentSpec;
use common::{AgentName, Timestamp};
use rustix::process::Signal;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::files::Prepared;
use runtime::engine::{Container, Ended, Listening};
use runtime::process::Shim;
use runtime::processes::{self, ended};

/// An incarnation.
pub(super) type Key = (AgentName, u64);

/// An incarnation whose shim, a process, has ended, and its status as far as the system tells it.
pub(super) type EndedShim = (Key, Option<Exit>);

/// The results of tasks outside the loop.
pub(super) enum Seen {
    /// A shim that is a process ended.
    ShimEnded(EndedShim),
    /// What these incarnations left behind is gone.
    Swept(Vec<EndedShim>),
    /// The files of a start are ready, or cannot be had.
    Prepared(Box<StartIncarnation>, Result<Prepared, String>),
    /// A container was started, or not.
    Started(Key, Result<(Container, Listening), String>),
    /// A container's shim wrote its exit record.
    Said(Container, ShimExit),
    /// A container that seemed to have ended was looked at.
    Settled(Container, Ended),
    /// The container with this id is removed, unless the engine refused: then the next list brings it up again.
    Discarded(String, bool),
    /// Nothing to tell.
    Done,
}

/// An incarnation whose files or container are on their way.
pub(super) struct Starting {
    /// Cancelled, it is not to be.
    pub(super) cancel: CancellationToken,
    pub(super) generation: u64,
    pub(super) since: Timestamp,
}

/// Where an incarnation runs.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Process(Shim),
    Container(Container),
}

/// An incarnation that runs.
pub(super) struct Running {
    pub(super) generation: u64,
    pub(super) started_at: Timestamp,
    pub(super) place: Place,
    /// When it is killed, once it was told to stop.
    pub(super) kill_at: Option<Instant>,
    /// It has ended, and how is being looked at: the process id may be another's soon.
    pub(super) gone: bool,
}

impl Running {
    pub(super) fn process(shim: Shim) -> Self {
        Self {
            generation: shim.generation,
            started_at: shim.started_at,
            place: Place::Process(shim),
            kill_at: None,
            gone: false,
        }
    }

    pub(super) fn container(container: Container) -> Self {
        Self {
            generation: container.generation,
            started_at: container.started_at,
            place: Place::Container(container),
            kill_at: None,
            gone: false,
        }
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.place {
            Place::Process(shim) => shim.pid,
            Place::Container(_) => 0,
        }
    }

    /// Whether it may be signalled: of a process that has ended, the id may be another's by now; a container's never is.
    pub(super) fn hears(&self) -> bool {
        match self.place {
            Place::Process(_) => !self.gone,
            Place::Container(_) => true,
        }
    }

    pub(super) fn as_container(&self) -> Option<&Container> {
        match &self.place {
            Place::Process(_) => None,
            Place::Container(container) => Some(container),
        }
    }
}

/// Whether a soul names an image. One that cannot be parsed is refused by whatever starts it.
pub(super) fn wants_container(start: &StartIncarnation) -> bool {
    let spec: Result<AgentSpec, _> = serde_json::from_str(&start.spec);
    spec.is_ok_and(|spec| spec.image.is_some())
}

impl Node {
    /// Watches a shim that is a process.
    pub(super) fn watch(&mut self, key: Key, pid: u32) {
        self.watches.spawn(async move {
            let status = ended(pid).await.unwrap_or_else(|error| {
                tracing::error!("cannot watch {}-{}: {error}", key.0, key.1);
                None
            });
            Seen::ShimEnded((key, status))
        });
    }

    /// Asks an incarnation to drain and end.
    pub(super) fn terminate(&mut self, place: &Place) {
        self.signal(place, Signal::TERM, "SIGTERM");
    }

    /// Ends one. What it started is swept once its end is seen.
    pub(super) fn kill(&mut self, place: &Place) {
        self.signal(place, Signal::KILL, "SIGKILL");
    }

    fn signal(&mut self, place: &Place, signal: Signal, name: &'static str) {
        match (place, self.engine.clone()) {
            (Place::Process(shim), _) => processes::kill(shim.pid, signal),
            (Place::Container(container), Some(engine)) => {
                let id = container.id.clone();
                self.watches.spawn(async move {
                    engine.signal(&id, name).await;
                    Seen::Done
                });
            }
            // Containers are known only where an engine is.
            (Place::Container(_), None) => {}
        }
    }
}
