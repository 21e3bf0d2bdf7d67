//! The container engine of this machine, as the tests see it.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::wait::DEADLINE;

/// What the workers of tests run in: `make test-image`.
pub const IMAGE: &str = "mozart-test-python:latest";
/// Where docker listens.
const DEFAULT_SOCKET: &str = "unix:///var/run/docker.sock";
/// The label that tells fleets apart.
pub(crate) const FLEET: &str = "dev.mozart.fleet";

/// An engine that has all that containers of tests need.
#[derive(Debug, Clone)]
pub struct Engine {
    docker: Docker,
    shim: PathBuf,
    /// Whether it is podman, behind the same API: `make test-podman` lets `DOCKER_HOST` name its socket.
    podman: bool,
}

impl Engine {
    /// The engine. None where something is missing, which is said; in CI, that is a failure.
    ///
    /// # Panics
    /// When something is missing and `CI` is `true`.
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    pub async fn find() -> Option<Self> {
        match Self::ready().await {
            Ok(engine) => Some(engine),
            Err(missing) if env::var("CI").as_deref() == Ok("true") => panic!("{missing}"),
            Err(missing) => {
                eprintln!("SKIPPED, since it needs containers: {missing}");
                None
            }
        }
    }

    /// The engine, or what is missing.
    ///
    /// # Errors
    /// In words for people.
    pub async fn ready() -> Result<Self, String> {
        let shim = env::var_os("MOZART_TEST_SHIM").map(PathBuf::from).unwrap_or_default();
        if !shim.is_file() {
            return Err("no static shim is named in MOZART_TEST_SHIM; try: make test".to_owned());
        }
        let docker = connect().await?;
        if !rustix::process::getuid().is_root() {
            return Err("only root sees and signals the processes of containers".to_owned());
        }
        let image = docker.inspect_image(IMAGE).await;
        image.map_err(|error| format!("image {IMAGE}: {error}; try: make test-image"))?;
        let version = docker.version().await.map_err(|error| error.to_string())?;
        let podman =
            version.components.iter().flatten().any(|part| part.name.starts_with("Podman"));
        Ok(Self { docker, shim, podman })
    }

    /// What `mozart up` is told to use it.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![
            ("MOZART_BASE_IMAGE", IMAGE.to_owned()),
            ("MOZART_SHIM", self.shim.to_string_lossy().into_owned()),
        ];
        if self.podman {
            env.push(("MOZART_RUNTIME", "podman".to_owned()));
            env.push(("CONTAINER_HOST", host()));
        } else {
            env.push(("MOZART_RUNTIME", "docker".to_owned()));
            env.push(("MOZART_NETWORK", self.network()));
        }
        env
    }

    /// Whether it is podman.
    #[must_use]
    pub fn is_podman(&self) -> bool {
        self.podman
    }

    /// Its API.
    #[must_use]
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The shim that runs in every container.
    #[must_use]
    pub fn shim(&self) -> &Path {
        &self.shim
    }

    /// Its socket; none of one that is elsewhere.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        Path::new(host().strip_prefix("unix://")?).canonicalize().ok()
    }

    /// The network of the containers: docker's own, unless `MOZART_TEST_NETWORK` names another one.
    #[must_use]
    pub fn network(&self) -> String {
        env::var("MOZART_TEST_NETWORK").unwrap_or_else(|_| "bridge".to_owned())
    }

    /// All that the engine knows about a container.
    ///
    /// # Panics
    /// When it does not know it.
    pub async fn inspect(&self, container: &str) -> ContainerInspectResponse {
        let known = self.docker.inspect_container(container, None::<InspectContainerOptions>).await;
        known.unwrap_or_else(|error| panic!("{container}: {error}"))
    }

    /// When a container ended, in milliseconds since 1970: the engine's own record of it.
    ///
    /// # Panics
    /// When it has not ended.
    pub async fn ended_at(&self, container: &str) -> u64 {
        let filters =
            [("container", vec![container]), ("event", vec!["die", "died"])].into_iter().collect();
        let options = EventsOptionsBuilder::default().since("0").filters(&filters).build();
        let mut events = self.docker.events(Some(options));
        let event = timeout(DEADLINE, events.next()).await;
        let event = event.unwrap_or_else(|_| panic!("{container} has not ended"));
        let event = event.expect("the engine goes on").expect("an event");
        let nanos = event.time_nano.expect("an event has its time");
        u64::try_from(nanos / 1_000_000).expect("after 1970")
    }

    /// Removes a container, however it is.
    pub async fn remove(&self, container: &str) {
        remove(&self.docker, container).await;
    }
}

fn host() -> String {
    env::var("DOCKER_HOST").unwrap_or_else(|_| DEFAULT_SOCKET.to_owned())
}

/// Connects to the engine that tests use.
pub(crate) async fn connect() -> Result<Docker, String> {
    let answer = async {
        let docker = Docker::connect_with_defaults()?.negotiate_version().await?;
        let _pong = docker.ping().await?;
        Ok(docker)
    };
    match timeout(Duration::from_secs(10), answer).await {
        Ok(Ok(docker)) => Ok(docker),
        Ok::<Result<_, bollard::errors::Error>, _>(Err(error)) => {
            Err(format!("no container engine answers: {error}"))
        }
        Err(_) => Err("the container engine does not answer within 10 s".to_owned()),
    }
}

/// The containers of all fleets, in whatever state.
pub(super) async fn of_all_fleets(docker: &Docker) -> Vec<ContainerSummary> {
    let filters = [("label", vec![FLEET])].into_iter().collect();
    let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
    // An engine that does not answer fails the test that asks anything else of it.
    docker.list_containers(Some(options)).await.unwrap_or_default()
}

pub(crate) async fn remove(docker: &Docker, container: &str) {
    let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
    // Gone already, or about to be: what is left is seen by whoever lists them.
    let _gone = docker.remove_container(container, Some(options)).await;
}

/// Does something to its end while something is dropped: the test's own runtime may be just about to go as well.
pub(crate) fn apart(work: impl Future<Output = ()> + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(work);
        });
    });
}
