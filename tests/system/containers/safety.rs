//! Safe unless the soul says otherwise.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value, json};
use system_tests::harness::{Fleet, Runtime};

use super::{ask, probe, refusal};

/// The lines of `/proc/<pid>/status`.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    text.lines().filter_map(line).collect()
}

async fn host_config(fleet: &Fleet, agent: &str) -> Value {
    let known = fleet.engine().inspect(&fleet.container(agent)).await;
    serde_json::to_value(known.host_config).expect("JSON")
}

#[tokio::test]
async fn a_container_is_shut_unless_its_soul_opens_it() {
    let Some(runtime) = Runtime::docker().await else { return };
    let bounded = probe("SANCTUM seen:/seen\nLIMIT memory=128m cpus=0.5 pids=32");
    let fleet = runtime.fleet(&[("bounded", &bounded), ("plain", &probe(""))]).await;
    let engine = fleet.engine();

    for agent in ["bounded", "plain"] {
        let host = host_config(&fleet, agent).await;
        let expected = json!({
            "ReadonlyRootfs": true, "Privileged": false, "CapDrop": ["ALL"],
            "CapAdd": ["SETUID", "SETGID", "KILL"], "SecurityOpt": ["no-new-privileges"],
            "NetworkMode": engine.network(), "PidMode": "", "IpcMode": "private", "UTSMode": "",
            "UsernsMode": "", "PublishAllPorts": false,
        });
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(host[name], *value, "{agent}: {name}");
        }
        for empty in ["Binds", "Devices", "DeviceRequests", "PortBindings", "VolumesFrom", "Links"]
        {
            let is_empty = match &host[empty] {
                Value::Null => true,
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
            };
            assert!(is_empty, "{agent}: {empty} is {}", host[empty]);
        }
    }
    let limits = async |agent: &str| {
        let host = host_config(&fleet, agent).await;
        ["Memory", "MemorySwap", "NanoCpus", "PidsLimit"].map(|name| host[name].as_i64())
    };
    let mib = |count: i64| Some(count << 20);
    assert_eq!(limits("bounded").await, [mib(128), mib(128), Some(500_000_000), Some(32)]);
    assert_eq!(limits("plain").await, [mib(2048), mib(2048), Some(0), Some(512)]);

    let mounts = async |agent: &str| {
        let known = engine.inspect(&fleet.container(agent)).await;
        let mounts = known.mounts.expect("it has some").into_iter();
        let mut mounts: Vec<_> =
            mounts.map(|mount| (mount.destination.unwrap_or_default(), mount.rw)).collect();
        mounts.sort();
        mounts
    };
    let (shim, folder) = (("/.mozart".to_owned(), Some(false)), ("/agent".to_owned(), Some(false)));
    assert_eq!(mounts("plain").await, [shim.clone(), folder.clone()]);
    let sanctum = ("/seen".to_owned(), Some(true));
    assert_eq!(mounts("bounded").await, [shim, folder, sanctum]);

    // As the kernel sees it.
    for agent in ["bounded", "plain"] {
        let worker = status(fleet.worker(agent));
        assert_eq!(worker["Uid"], "65532 65532 65532 65532");
        assert_eq!(worker["Gid"], "65532 65532 65532 65532");
        assert_eq!(worker["Groups"], "");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(worker[set], "0000000000000000", "{agent}: {set}");
        }
        assert_eq!(worker["NoNewPrivs"], "1");
        // To become the worker's user, and to end it.
        assert_eq!(status(fleet.shim(agent))["CapEff"], "00000000000000e0");
    }
}

#[tokio::test]
async fn a_worker_writes_only_where_its_soul_lets_it() {
    let Some(runtime) = Runtime::docker().await else { return };
    let soul = probe("SANCTUM seen:/seen\nSANCTUM seen:/shown:ro");
    let fleet = runtime.fleet(&[("w", &soul)]).await;
    let writable = ask(&fleet, "w", "writable()").await;
    // /dev/shm and /dev/mqueue are memory, of this container alone, and gone with it.
    let expected = json!({
        "folders": ["/dev/mqueue", "/dev/shm", "/seen", "/tmp"], "files": [],
    });
    assert_eq!(writable, expected);
    // It is a folder of the host.
    let _written = ask(&fleet, "w", "open('/seen/note', 'w').write('here')").await;
    assert_eq!(fs::read_to_string(fleet.souls().join("seen/note")).ok().as_deref(), Some("here"));
    assert_eq!(ask(&fleet, "w", "read('/shown/note')").await, "here");
    let refused = ask(&fleet, "w", "open('/shown/note', 'w')").await;
    assert!(refusal(&refused).contains("Read-only"), "{refused}");
}

#[tokio::test]
async fn a_worker_gets_no_further_than_its_bounds() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("w", &probe("LIMIT pids=32"))]).await;
    for expression in
        ["become(0)", "become(1)", "os.chroot('/tmp')", "os.kill(1, 9)", "os.setgroups([0])"]
    {
        let refused = ask(&fleet, "w", expression).await;
        assert!(refusal(&refused).starts_with("PermissionError"), "{expression}: {refused}");
    }
    let started = ask(&fleet, "w", "processes()").await;
    assert!(started.as_u64().is_some_and(|count| (8..32).contains(&count)), "{started}");
    // It lives on.
    assert_eq!(ask(&fleet, "w", "1 + 1").await, 2);
    assert_eq!(fleet.row("w").await["incarnation"], 1);
}

#[tokio::test]
async fn the_engine_is_not_within_reach_of_a_worker() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("w", &probe(""))]).await;
    let sockets = ask(&fleet, "w", "sockets()").await;
    assert_eq!(sockets, json!([]));
    // Nor are the processes of others, or the host's devices.
    let seen = ask(&fleet, "w", "[name for name in os.listdir('/proc') if name.isdigit()]").await;
    assert_eq!(seen.as_array().map(Vec::len), Some(2), "the shim and the worker: {seen}");
    let devices = ask(
        &fleet,
        "w",
        "[path for _, files in walk() for path in files if stat.S_ISBLK(os.lstat(path).st_mode)]",
    )
    .await;
    assert_eq!(devices, json!([]));
}
