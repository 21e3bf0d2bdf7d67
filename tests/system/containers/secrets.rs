//! What a worker must not see, and what must not be seen of a worker.

use std::fs;
use std::path::Path;

use bollard::container::LogOutput;
use bollard::models::ContainerConfig;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use serde_json::{Value, json};
use system_tests::harness::{Fleet, Runtime};

use super::{ask, fails, probe, refusal};

const VALUE: &str = "sk-tell-nobody-0123456789";

/// The address that the shims were given, and the password in it.
fn broker(fleet: &Fleet) -> (String, u16, String) {
    let note = fleet.note().expect("`mozart up` runs");
    let url = note["url"].as_str().expect("an address").to_owned();
    let (user, place) = url.rsplit_once('@').expect("with credentials");
    let (host, port) = place.rsplit_once(':').expect("with a port");
    let password = user.rsplit_once(':').expect("with a password").1;
    (host.to_owned(), port.parse().expect("a port"), password.to_owned())
}

#[tokio::test]
async fn a_worker_does_not_get_at_the_credentials_of_its_shim() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("w", &probe(""))]).await;
    let (host, port, password) = broker(&fleet);

    assert_eq!(
        ask(&fleet, "w", "read('/proc/1/cmdline')").await,
        "/.mozart/mozart-shim\0container\0"
    );
    for expression in [
        "read('/proc/1/environ')",
        "read('/proc/1/mem')",
        "read('/proc/1/maps')",
        "read('/proc/1/auxv')",
        "os.listdir('/proc/1/fd')",
        "os.listdir('/proc/1/map_files')",
        "os.listdir('/proc/1/root/')",
        "os.listdir('/proc/1/cwd/')",
        "open('/proc/1/fd/0').read()",
        "trace(1)",
    ] {
        let refused = ask(&fleet, "w", expression).await;
        assert!(refusal(&refused).starts_with("PermissionError"), "{expression}: {refused}");
    }
    // Not as text, so that the question is not what is found.
    let bytes: Vec<String> = password.bytes().map(|byte| byte.to_string()).collect();
    let search = format!("holders(bytes([{}]).decode())", bytes.join(","));
    assert_eq!(ask(&fleet, "w", &search).await, Value::Array(Vec::new()));
    // Without them the broker is of no use, though it is within reach.
    let said = ask(&fleet, "w", &format!("hello('{host}', {port})")).await;
    assert!(said.to_string().contains("Authorization Violation"), "{said}");
    // The search is one that finds: the same, of what a worker may read.
    let found = ask(&fleet, "w", "holders('def holders(text)')").await;
    assert!(found.as_array().is_some_and(|found| found.contains(&json!("/agent/probe.py"))));
}

/// Asserts that some bytes are not in others.
#[track_caller]
fn absent(what: &str, bytes: &[u8]) {
    assert!(!bytes.is_empty(), "{what} is empty");
    assert_eq!(memchr::memmem::find(bytes, VALUE.as_bytes()), None, "{what} holds the secret");
}

async fn collected(parts: impl Stream<Item = Result<Bytes, bollard::errors::Error>>) -> Vec<u8> {
    let parts: Vec<Bytes> = parts.try_collect().await.expect("the engine answers");
    parts.concat()
}

/// Every file below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn a_secret_reaches_its_worker_and_nobody_else() {
    let Some(runtime) = Runtime::docker().await else { return };
    let soul = probe("SECRET API_KEY");
    let mut fleet = Fleet::laid_out(runtime, &[("w", &soul)]).env("API_KEY", VALUE);
    fleet.all_up().await;
    let engine = fleet.engine().clone();
    let container = fleet.container("w");

    // Backwards, nobody knows it again.
    let backwards: String = VALUE.chars().rev().collect();
    assert_eq!(ask(&fleet, "w", "os.environ['API_KEY'][::-1]").await, backwards);
    // It tells, it logs.
    let told = fleet.send("w", "os.environ['API_KEY']").await;
    let row = fleet.wait_status(&told, "completed").await.row;
    assert_eq!(row.response.as_deref(), Some("\"[SECRET API_KEY]\""));
    let logged = "print(os.environ['API_KEY'], 'logged', file=sys.stderr, flush=True)";
    let _null = ask(&fleet, "w", logged).await;
    let known = serde_json::to_vec(&engine.inspect(&container).await).expect("JSON");
    absent("what the engine tells of it", &known);
    absent("its files", &collected(engine.docker().export_container(&container)).await);
    let image = engine.commit(&container, ContainerConfig::default()).await;
    let known = engine.docker().inspect_image(&image.name).await.expect("an image");
    absent("what is committed from it", &serde_json::to_vec(&known).expect("JSON"));
    absent("its layers", &collected(engine.docker().export_image(&image.name)).await);
    drop(image);

    let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
    let log: Vec<LogOutput> =
        engine.docker().logs(&container, Some(options)).try_collect().await.expect("its log");
    let log: Vec<u8> = log.into_iter().flat_map(LogOutput::into_bytes).collect();
    absent("the container's own log", &[b" ".as_slice(), &log].concat());
    let crash = fleet
        .send("w", "print(os.environ['API_KEY'], file=sys.stderr, flush=True) or os._exit(9)")
        .await;
    let _dead = fleet.wait_status(&crash, "failed").await;
    let logs = fleet.cli(["logs", "w"]).await.ok();
    assert!(logs.stdout.contains("[SECRET API_KEY] logged"), "{logs}");
    absent("its log", logs.stdout.as_bytes());
    for command in [
        &["journal", "show", &told][..],
        &["journal", "show", &crash, "-o", "json"],
        &["dead", "show", &crash, "-o", "json"],
        &["inspect", "w"],
        &["inspect", "w", "-o", "json"],
        &["explain", "w"],
        &["explain", &crash],
        &["events", "-o", "json"],
        &["attach", &told, "-o", "json"],
    ] {
        let output = fleet.cli(command).await;
        absent(&output.command, output.stdout.as_bytes());
    }
    // All streams, all run folders, all logs: as they are on the disk.
    let mut placeholders = 0;
    for file in files(fleet.home()) {
        let bytes = [b" ".as_slice(), &fs::read(&file).unwrap_or_default()].concat();
        absent(&file.display().to_string(), &bytes);
        placeholders += usize::from(String::from_utf8_lossy(&bytes).contains("[SECRET API_KEY]"));
    }
    assert!(
        placeholders >= 2,
        "what stands in its place is on the disk as text, in journal and logs"
    );
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("good", &probe(""))]).await;
    let soul = fleet.soul("w", &probe("SECRET NOT_SET\nRESTART always backoff=20s"));
    let _applied = fleet.cli(["apply".as_ref(), soul.as_os_str()]).await.ok();
    let row = fails(&fleet, "w", "SECRET NOT_SET is not set in the environment").await;
    assert!(row["nextTry"].is_string(), "{row}");
}
