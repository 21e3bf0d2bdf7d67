//! The container runtime: docker or podman, through the API that both serve.
//!
//! The engine's containers are the record: each has labels that say which node it belongs to, and what is not labelled as ours is not
//! touched. A container is there only while its incarnation runs; how it ended is moved to the run folder.

mod address;
mod archive;
mod carry;
mod commit;
mod container;
mod events;
mod files;
mod image;
mod install;
mod labels;
mod mounts;
mod network;
mod said;
mod spec;
mod survey;
mod words;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use common::api::ApiError;
use common::shim::ShimLogins;
use common::{Namespace, NodeName};
use tokio::sync::{Mutex, Semaphore};

pub use address::candidates;
pub use carry::{Found, is_same_image};
pub use commit::{COMMITTED, Runs};
pub use container::{Container, Ended, Listed, Phase, noted};
pub use events::News;
pub use install::{check_static, volume_name};
pub use labels::Label;
pub use mounts::own_data;
pub use said::Listening;
pub use spec::BASE_IMAGE;
pub use survey::{About, Owned, ShimVolume};
pub use words::say;

use crate::Wanted;
use crate::folder::RunFolders;
use common::failure;

/// An answer of the engine takes no longer, unless it pulls: a slow one is one that is out of order. In seconds.
const ANSWER: u64 = 60;
/// The same, where the client counts only until the answer begins.
const WHOLE_ANSWER: Duration = Duration::from_secs(60);
/// Whether an engine is there at all is known sooner.
const HELLO: Duration = Duration::from_secs(5);
/// Containers that are created, started or looked at side by side: more only queue up within the engine.
const AT_ONCE: usize = 6;

/// Which engine it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl Kind {
    /// As nodes report it and error messages name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}

/// A place without an engine that can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// Where it answers: a socket's path or a URL.
    pub address: String,
    /// A human-readable message.
    pub why: String,
}

/// An engine that has answered.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The client of its API.
    pub docker: Docker,
    /// Which engine it is.
    pub kind: Kind,
    /// Where it was found.
    pub address: String,
    /// Its version, for people.
    pub version: String,
    /// Whether it runs as a common user: users have other numbers within its containers.
    pub rootless: bool,
    /// What its images must be for, in the words of images: `amd64`.
    pub architecture: String,
}

impl Connection {
    /// Finds an engine: the wanted one, or the first that answers. None if none answers and none was asked for by name.
    ///
    /// # Errors
    /// When the one that is wanted does not answer (exit 6).
    pub async fn find(wanted: Wanted) -> Result<Option<Self>, ApiError> {
        let name = match wanted {
            Wanted::Process => return Ok(None),
            Wanted::Auto => None,
            Wanted::Docker => Some(Kind::Docker),
            Wanted::Podman => Some(Kind::Podman),
        };
        let seen = match Self::look(name).await {
            Ok(found) => return Ok(Some(found)),
            Err(seen) => seen,
        };
        let seen: Vec<_> =
            seen.into_iter().map(|one| format!("{}: {}", one.address, one.why)).collect();
        let Some(name) = name else {
            tracing::debug!("no container engine: {}", seen.join(", "));
            return Ok(None);
        };
        let (name, cause) = (name.as_str(), seen.join(", "));
        let try_ = match wanted {
            Wanted::Podman => {
                "`podman system service --time=0`, or name its socket in CONTAINER_HOST"
            }
            Wanted::Auto | Wanted::Process | Wanted::Docker => {
                "start it, or name its socket in DOCKER_HOST, or --runtime process"
            }
        };
        Err(failure::error(failure::UNREACHABLE, format!("{name} does not answer"), cause, try_))
    }

    /// The first engine that answers; with a kind, the first of that.
    ///
    /// # Errors
    /// Why no engine answers at any of the addresses.
    pub async fn look(wanted: Option<Kind>) -> Result<Self, Vec<Unusable>> {
        let mut seen = Vec::new();
        for address in candidates(wanted) {
            let why = match Self::open(&address).await {
                Ok(found) if wanted.is_none_or(|kind| kind == found.kind) => return Ok(found),
                Ok(found) => format!("it is {}", found.kind.as_str()),
                Err(error) => error,
            };
            seen.push(Unusable { address, why });
        }
        Err(seen)
    }

    /// Every engine that answers here: an agent may run in any of them.
    pub async fn every() -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for address in candidates(None) {
            match Self::open(&address).await {
                Ok(found) => all.push(found),
                Err(error) => tracing::debug!("no engine at {address}: {error}"),
            }
        }
        all
    }

    async fn open(address: &str) -> Result<Self, String> {
        let docker = match address.split_once("://") {
            Some(("unix", path)) => Docker::connect_with_unix(path, ANSWER, API_DEFAULT_VERSION),
            _ => Docker::connect_with_http(address, ANSWER, API_DEFAULT_VERSION),
        };
        let hello = async {
            let docker = docker?.negotiate_version().await?;
            let version = docker.version().await?;
            let info = docker.info().await?;
            Ok::<_, bollard::errors::Error>((docker, version, info))
        };
        let (docker, version, info) = match tokio::time::timeout(HELLO, hello).await {
            Ok(answer) => answer.map_err(say)?,
            Err(_) => return Err(format!("no answer within {HELLO:?}")),
        };
        let components = version.components.unwrap_or_default();
        let is_podman = components.iter().any(|part| part.name.starts_with("Podman"));
        Ok(Self {
            docker,
            kind: if is_podman { Kind::Podman } else { Kind::Docker },
            address: address.to_owned(),
            version: version.version.unwrap_or_default(),
            architecture: version.arch.unwrap_or_default(),
            rootless: info.security_options.iter().flatten().any(|one| one.contains("rootless")),
        })
    }
}

/// How a node uses an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The node.
    pub node: NodeName,
    /// The fleet's namespace.
    pub namespace: Namespace,
    /// Tells fleets apart that are called the same and share an engine: the same for all nodes of one fleet.
    pub fleet: String,
    /// The id of the data folder.
    pub folder: String,
    /// The run folders.
    pub folders: RunFolders,
    /// The static shim that is mounted into every container.
    pub shim: PathBuf,
    /// The broker's address with credentials, as the node reaches it.
    pub url: String,
    /// A NATS credentials file.
    pub creds: Option<PathBuf>,
    /// The certificates, in PEM, that vouch for the broker's servers.
    pub ca: Option<String>,
    /// How shims log in; none: with the node's credentials.
    pub logins: Option<ShimLogins>,
    /// The traces that are recorded; none where none is exported.
    pub traces: Option<common::trace::Share>,
    /// The network of the containers; none is the engine's own bridge.
    pub network: Option<String>,
    /// What agents without IMAGE run in.
    pub base_image: String,
    /// Whether the souls' folders are mounted, for work on what is not in an image yet.
    pub dev: bool,
    /// Where the values of SECRETs are looked up first.
    pub env_file: Option<PathBuf>,
    /// Nothing of it may be mounted: it holds credentials.
    pub home: PathBuf,
}

/// The container runtime of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    options: EngineOptions,
    /// The broker's address as containers reach it.
    url: String,
    /// The name of the volume with the shim, once it is there.
    shim: Mutex<Option<String>>,
    /// The names of the volumes with files that are there.
    files: Mutex<BTreeSet<String>>,
    at_once: Semaphore,
}

impl Engine {
    /// Prepares the use of an engine.
    ///
    /// # Errors
    /// When the shim cannot run in a container, or the network does not exist.
    pub async fn new(connection: Connection, options: EngineOptions) -> Result<Self, ApiError> {
        const WHAT: &str = "cannot run containers";
        install::check_static(&options.shim)?;
        let url = network::url_for_containers(&connection, &options).await;
        let url =
            url.map_err(|(cause, try_)| failure::error(failure::UNREACHABLE, WHAT, cause, try_))?;
        let (shim, files) = (Mutex::new(None), Mutex::new(BTreeSet::new()));
        let at_once = Semaphore::new(AT_ONCE);
        Ok(Self { inner: Arc::new(Inner { connection, options, url, shim, files, at_once }) })
    }

    /// Which engine it is.
    pub fn kind(&self) -> Kind {
        self.inner.connection.kind
    }

    fn docker(&self) -> &Docker {
        &self.inner.connection.docker
    }

    /// Whether it answers just now.
    ///
    /// # Errors
    /// Why not.
    pub async fn ping(&self) -> Result<(), String> {
        match tokio::time::timeout(HELLO, self.docker().ping()).await {
            Ok(answer) => answer.map(drop).map_err(say),
            Err(_) => Err(format!("no answer within {HELLO:?}")),
        }
    }

    fn options(&self) -> &EngineOptions {
        &self.inner.options
    }
}

/// The address at which the host is reached from containers of the engine's own bridge, for a broker that this machine runs;
/// none where containers share the host's network, or where that cannot be known beforehand.
pub async fn host_address(connection: &Connection, network: Option<&str>) -> Option<String> {
    network::host_address(connection, network).await
}
