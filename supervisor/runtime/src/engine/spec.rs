//! The container of a soul, as the engine is asked for it. Pure.
//!
//! Safe by default: only /tmp and the SANCTUM folders are writable, the worker is not root and cannot
//! become it, and it cannot take more of the machine than it may.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount};
use common::AgentName;
use common::frame::StartIncarnation;
use common::shim::CONTAINER;
use common::spec::{AgentSpec, Limits};

use super::image::Image;
use super::install::{self, SHIM};
use super::{EngineOptions, Kind, labels, network};

/// What agents without IMAGE run in, unless another one is named: made by the node itself, nearly empty.
pub const BASE_IMAGE: &str = concat!("mozart-base:", env!("CARGO_PKG_VERSION"));

/// Memory of a container, in bytes, where LIMIT says nothing: a leak must end the worker before it ends the host.
const MEMORY: u64 = 2 << 30;
/// Processes and threads of a container, where LIMIT says nothing: enough for any worker, few enough for a fork bomb.
const PIDS: u32 = 512;
/// `/tmp`, in memory, which counts as the container's.
const TMP: &str = "rw,nosuid,nodev,noexec,mode=1777,size=256m";
/// What an image declares as a volume is writable, too, and gone with the container: all that outlives it is a SANCTUM's.
const VOLUME: &str = "rw,nosuid,nodev,noexec,mode=1777,size=64m";
/// The shim's own log, and its exit record.
const LOG: [(&str, &str); 2] = [("max-size", "1m"), ("max-file", "2")];
/// After its drain time the shim still ends its worker and settles its books.
const GRACE: Duration = Duration::from_secs(10);

/// Everything that a container is made of.
pub(super) struct Parts<'a> {
    pub(super) kind: Kind,
    pub(super) options: &'a EngineOptions,
    pub(super) start: &'a StartIncarnation,
    pub(super) spec: &'a AgentSpec,
    pub(super) image: &'a Image,
    /// The volume with the shim.
    pub(super) shim: &'a str,
    /// SANCTUMs and SKILLs.
    pub(super) mounts: Vec<Mount>,
    /// The worker's folder, if it is not the image's own.
    pub(super) folder: Option<String>,
}

/// The container's name: one for each incarnation of each fleet, so that it is started only once.
pub(super) fn name(agent: &AgentName, incarnation: u64, fleet: &str) -> String {
    let fleet = fleet.get(..6).unwrap_or(fleet);
    format!("mozart-{agent}-{incarnation}-{fleet}")
}

/// The folders in memory that a worker may write to: `/tmp`, and what the image declares as volumes, where nothing is mounted.
pub(super) fn writable(image: &Image, mounts: &[Mount]) -> Vec<String> {
    let is_taken =
        |folder: &String| mounts.iter().any(|mount| mount.target.as_ref() == Some(folder));
    let tmp = "/tmp".to_owned();
    let all: BTreeSet<String> = image.volumes.iter().cloned().chain([tmp]).collect();
    all.into_iter().filter(|folder| !is_taken(folder)).collect()
}

/// What is asked of the engine.
pub(super) fn body(parts: Parts<'_>) -> ContainerCreateBody {
    let Parts { kind, options, start, spec, image, shim, mut mounts, folder } = parts;
    let options_of = |folder: &String| if folder == "/tmp" { TMP } else { VOLUME }.to_owned();
    let mut tmpfs: HashMap<String, String> = writable(image, &mounts)
        .into_iter()
        .map(|folder| (folder.clone(), options_of(&folder)))
        .collect();
    if kind == Kind::Podman {
        // It makes these writable where the root is not.
        for folder in ["/run", "/var/tmp"] {
            tmpfs.entry(folder.to_owned()).or_insert_with(|| "ro,size=4k".to_owned());
        }
    }
    mounts.push(install::mount(shim, true));
    let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let limits = limits(&spec.limits);
    let log = LOG.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let stop_timeout = spec.timeout.drain.saturating_add(GRACE).as_secs();
    ContainerCreateBody {
        image: Some(image.id.clone()),
        hostname: Some(start.agent.to_string()),
        entrypoint: list(&[SHIM]),
        cmd: list(&[CONTAINER]),
        // The shim's; the worker's is another one.
        user: Some("0:0".to_owned()),
        working_dir: folder,
        // Its configuration comes that way, once.
        open_stdin: Some(true),
        stdin_once: Some(true),
        attach_stdin: Some(true),
        tty: Some(false),
        labels: Some(labels::of(options, start)),
        // The image's own would run as root beside the shim, and what health means here is the shim's to say.
        healthcheck: Some(HealthConfig { test: list(&["NONE"]), ..HealthConfig::default() }),
        // The image's own might not suit the shim.
        stop_signal: Some("SIGTERM".to_owned()),
        stop_timeout: i64::try_from(stop_timeout).ok(),
        host_config: Some(HostConfig {
            readonly_rootfs: Some(true),
            tmpfs: Some(tmpfs),
            mounts: Some(mounts),
            cap_drop: list(&["ALL"]),
            // To become the worker's user and to signal it. The worker itself has none.
            cap_add: list(&["SETUID", "SETGID", "KILL"]),
            security_opt: list(&["no-new-privileges"]),
            privileged: Some(false),
            init: Some(false),
            network_mode: Some(network::name_of(kind, options.network.as_deref()).to_owned()),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from(log)),
            }),
            ..limits
        }),
        ..ContainerCreateBody::default()
    }
}

fn limits(limits: &Limits) -> HostConfig {
    let memory = i64::try_from(limits.memory.unwrap_or(MEMORY)).unwrap_or(i64::MAX);
    let cpus = limits.milli_cpus.map(|milli| milli.saturating_mul(1_000_000));
    HostConfig {
        memory: Some(memory),
        // The same: none of it is swap.
        memory_swap: Some(memory),
        nano_cpus: cpus.map(|nano| i64::try_from(nano).unwrap_or(i64::MAX)),
        pids_limit: Some(i64::from(limits.pids.unwrap_or(PIDS))),
        ..HostConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::RunFolders;
    use common::{AgentName, Namespace, NodeName};

    fn made(
        spec: &AgentSpec,
        image: &Image,
        mounts: Vec<Mount>,
    ) -> (ContainerCreateBody, HostConfig) {
        let options = EngineOptions {
            node: NodeName::new("n1").expect("valid"),
            namespace: Namespace::new("default").expect("valid"),
            fleet: "0123456789ab".into(),
            folder: "f".into(),
            folders: RunFolders { root: "/h/run".into() },
            shim: "/shim".into(),
            url: "nats://u:geheim@h".into(),
            creds: None,
            ca: None,
            logins: None,
            traces: None,
            network: None,
            base_image: BASE_IMAGE.into(),
            dev: false,
            env_file: None,
            home: "/h".into(),
        };
        let start = StartIncarnation {
            agent: spec.name.clone(),
            generation: 3,
            incarnation: 7,
            token: "the-token".into(),
            spec: String::new(),
        };
        let body = body(Parts {
            kind: Kind::Docker,
            options: &options,
            start: &start,
            spec,
            image,
            shim: "mozart-shim-1",
            mounts,
            folder: None,
        });
        assert_eq!(name(&start.agent, start.incarnation, &options.fleet), "mozart-a-7-012345");
        let host = body.host_config.clone().expect("it has one");
        (body, host)
    }

    fn image() -> Image {
        Image { id: "sha256:1".into(), user: None, command: Vec::new(), volumes: Vec::new() }
    }

    fn spec() -> AgentSpec {
        AgentSpec::new(AgentName::new("a").expect("valid"), "m", "i")
    }

    #[test]
    fn a_container_is_shut_unless_its_soul_opens_it() {
        let (body, host) = made(&spec(), &image(), Vec::new());
        assert_eq!(host.readonly_rootfs, Some(true));
        let health = body.healthcheck.and_then(|check| check.test);
        assert_eq!(health, Some(vec!["NONE".to_owned()]), "nothing of the image runs as root");
        assert_eq!(host.cap_drop, Some(vec!["ALL".to_owned()]));
        assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
        assert_eq!((host.memory, host.memory_swap), (Some(2 << 30), Some(2 << 30)));
        assert_eq!((host.pids_limit, host.nano_cpus), (Some(512), None));
        let mounts = host.mounts.expect("the shim's");
        assert_eq!(mounts.iter().map(|mount| mount.read_only).collect::<Vec<_>>(), [Some(true)]);
        let labels = body.labels.expect("it has some");
        assert_eq!(labels["dev.mozart.generation"], "3");
        assert_eq!(labels["dev.mozart.incarnation"], "7");
    }

    #[test]
    fn nothing_that_an_engine_shows_holds_a_secret() {
        let mut spec = spec();
        spec.secrets = vec!["KEY".into()];
        spec.env.insert("SETTING".into(), "value".into());
        let (body, _) = made(&spec, &image(), Vec::new());
        let shown = serde_json::to_string(&body).expect("JSON");
        for hidden in ["geheim", "the-token", "KEY"] {
            assert!(!shown.contains(hidden), "{hidden}: {shown}");
        }
        assert_eq!(body.env, None);
    }

    #[test]
    fn limits_are_the_engines_and_have_no_swap() {
        let mut spec = spec();
        spec.limits = Limits { memory: Some(64 << 20), milli_cpus: Some(1500), pids: Some(9) };
        let (_, host) = made(&spec, &image(), Vec::new());
        assert_eq!((host.memory, host.memory_swap), (Some(64 << 20), Some(64 << 20)));
        assert_eq!((host.nano_cpus, host.pids_limit), (Some(1_500_000_000), Some(9)));
    }

    #[test]
    fn an_images_volumes_do_not_outlive_the_container() {
        let image = Image { volumes: vec!["/data".into(), "/cache".into()], ..image() };
        let sanctum = Mount { target: Some("/data".into()), ..Mount::default() };
        let (_, host) = made(&spec(), &image, vec![sanctum]);
        let mut tmpfs: Vec<_> = host.tmpfs.expect("some").into_keys().collect();
        tmpfs.sort();
        assert_eq!(tmpfs, ["/cache", "/tmp"]);
    }
}
