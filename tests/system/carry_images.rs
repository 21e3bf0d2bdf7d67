//! What agents in containers take along: their image, without anything of ours and without secrets.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use system_tests::harness::Fleet;
use uuid::Uuid;

const SECRET: &str = "the-value-of-the-secret";

/// Docker and a static shim. None where one is missing, which is said; in CI, that is a failure.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
fn shim() -> Option<PathBuf> {
    let shim = env::var_os("MOZART_TEST_SHIM").map(PathBuf::from).unwrap_or_default();
    let missing = if !shim.is_file() {
        "no static shim is named in MOZART_TEST_SHIM"
    } else if docker(&["version"]).is_none() {
        "no docker answers"
    } else {
        return Some(shim);
    };
    assert!(env::var("CI").as_deref() != Ok("true"), "{missing}");
    eprintln!("SKIPPED, since it needs containers: {missing}");
    None
}

/// What docker says; none if it fails.
fn docker(args: &[&str]) -> Option<String> {
    let output = Command::new("docker").args(args).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// An agent's name and an image's that nobody else has; the containers and the image are removed in the end.
struct Ours {
    agent: String,
    image: String,
}

impl Ours {
    fn new() -> Self {
        let id = Uuid::now_v7().simple().to_string();
        Self { agent: format!("c{id}"), image: format!("mozart-test-carry-{id}:1") }
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let filter = format!("label=dev.mozart.agent={}", self.agent);
        let left = docker(&["ps", "-aq", "--filter", &filter]).unwrap_or_default();
        for container in left.split_whitespace() {
            let _removed = docker(&["rm", "-f", container]);
        }
        let committed = format!("mozart-commit/{}:1-1", self.agent);
        for image in [&self.image, &committed] {
            let _removed = docker(&["rmi", image]);
        }
    }
}

async fn up(fleet: &Fleet, shim: &Path, souls: bool) {
    let mut args: Vec<&OsStr> = vec![OsStr::new("up")];
    if souls {
        args.extend([fleet.souls().as_os_str(), OsStr::new("--wait")]);
    }
    args.extend(["-d", "--runtime", "docker"].map(OsStr::new));
    let env = [("TOKEN", OsStr::new(SECRET)), ("MOZART_SHIM", shim.as_os_str())];
    let _up = fleet.cli_with(args, &env).await.ok();
}

#[tokio::test]
async fn a_committed_image_travels_with_its_agent_and_holds_nothing_of_ours() {
    let Some(shim) = shim() else { return };
    let (from, to, ours) = (Fleet::new(&[]), Fleet::new(&[]), Ours::new());
    let (agent, image) = (ours.agent.as_str(), ours.image.as_str());
    from.soul(agent, "MODEL test/model\nSOUL You repeat.\nSECRET TOKEN\n");
    up(&from, &shim, true).await;
    up(&to, &shim, false).await;
    assert_eq!(from.ask(agent, "hello").await, "hello");

    let committed = from.cli(["commit", agent]).await.ok().stdout;
    assert_eq!(committed.trim(), format!("mozart-commit/{agent}:1-1"));
    let _unknown = to.cli(["commit", agent]).await.exit(3);
    let committed = from.json(["commit", agent, "--image", image]).await;
    assert_eq!((&committed["image"], &committed["incarnation"]), (&image.into(), &1.into()));
    let config = docker(&["image", "inspect", image, "--format", "{{json .}}"]).expect("there");
    let config: Value = serde_json::from_str(&config).expect("JSON");
    for key in ["Entrypoint", "Cmd", "Labels"] {
        assert_eq!(config["Config"][key], Value::Null, "{config}");
    }
    assert!(!config.to_string().contains("dev.mozart"), "{config}");
    assert!(!config.to_string().contains(SECRET), "{config}");

    let _replaced = from.cli(["replace", agent, "--image", image, "--wait"]).await.ok();
    let _stopped = from.cli(["stop", agent]).await.ok();
    let open = from.send(agent, "still open").await;
    let file = from.souls().join("agent.tar");
    let args = ["export", agent].into_iter().map(OsStr::new);
    let _exported = from.cli(args.chain([file.as_os_str()])).await.ok().says(image);
    // It has ended by now, since it was exported.
    let _no_container = from.cli(["commit", agent]).await.exit(4).says("does not run");
    let archive = fs::read(&file).expect("it is there");
    for hidden in [SECRET, "dev.mozart"] {
        let found = archive.windows(hidden.len()).any(|window| window == hidden.as_bytes());
        assert!(!found, "{hidden} is in the archive");
    }

    // On another host the image is not there, nor can it be pulled.
    docker(&["rmi", image]).expect("it is ours");
    let args = [OsStr::new("import"), file.as_os_str()];
    let docker_only = [("MOZART_RUNTIME", OsStr::new("docker"))];
    let _imported = to.cli_with(args, &docker_only).await.ok();
    assert!(docker(&["image", "inspect", image]).is_some());
    let row = to.wait_status(&open, "completed").await.row;
    assert_eq!((row.response.as_deref(), row.attempts), (Some("still open"), 1));

    let _down = from.cli(["down"]).await.ok();
    let _down = to.cli(["down"]).await.ok();
}

#[tokio::test]
async fn a_process_has_nothing_to_commit() {
    let fleet = Fleet::new(&[("echo", "MODEL test/model\nSOUL You repeat.\n")]);
    let args = [OsStr::new("up"), fleet.souls().as_os_str()];
    let more = ["-d", "--wait", "--runtime", "process"].map(OsStr::new);
    let _up = fleet.cli(args.into_iter().chain(more)).await.ok();
    let _process = fleet.cli(["commit", "echo"]).await.exit(4).says("runs as a process");
    let _digest = fleet.cli(["commit", "echo", "--image", "a@sha256:0"]).await.exit(2);
}
