//! What the agents of a test run in. A test that is written for both is handed one.

use super::engine::Engine;
use super::fleet::Fleet;
use super::soul;

/// What agents run in.
#[derive(Debug, Clone)]
pub enum Runtime {
    /// Processes of this machine.
    Process,
    /// Containers of docker, or of podman in its place, with the soul's folder as the worker's.
    Docker(Engine),
}

impl Runtime {
    /// Containers; none where they cannot be had, as [`Engine::find`] says.
    ///
    /// # Panics
    /// When they cannot be had in CI.
    pub async fn docker() -> Option<Self> {
        Engine::find().await.map(Self::Docker)
    }

    /// A fleet of which every agent is running.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn fleet(&self, souls: &[(&str, &str)]) -> Fleet {
        let mut fleet = Fleet::laid_out(self.clone(), souls);
        fleet.all_up().await;
        fleet
    }

    /// The soul of `tests/workers/seed.py`: a worker that speaks the seed's protocol and writes down what it reads. In a container it
    /// needs a folder of the host's to do so, which makes stop-first the default.
    #[must_use]
    pub fn seed(&self, more: &str) -> String {
        match self {
            Self::Process => soul::seed("seen", more),
            Self::Docker(_) => soul::seed("/seen", &format!("SANCTUM seen:/seen\n{more}")),
        }
    }

    /// What `mozart up` is told.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Process => vec![("MOZART_RUNTIME", "process".to_owned())],
            Self::Docker(engine) => engine.env(),
        }
    }
}
