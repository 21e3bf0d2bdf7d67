//! The checkout's compose.yaml: a broker, two supervisors and a node in containers, and agents in containers of their own.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::time::Duration;

use broker::AuthKey;
use system_tests::harness::{Output, run, within};
use tempfile::TempDir;
use tokio::process::Command;

/// What the leader's death takes at most to be noticed, and the other's election: several times what it does.
const TAKES_OVER: Duration = Duration::from_secs(60);

/// A project of compose: all of it goes with this.
struct Project {
    /// The project, its network, its namespace.
    name: String,
    /// `docker-compose`, or `docker compose`.
    compose: Vec<&'static str>,
    /// The souls, and a folder for an agent.
    folder: TempDir,
    key: AuthKey,
}

/// The command line of compose; none where something is missing, which is said; in CI, that is a failure.
#[expect(clippy::print_stderr, reason = "a test that did not run says so")]
pub(crate) async fn compose() -> Option<Vec<&'static str>> {
    let known = [vec!["docker", "compose"], vec!["docker-compose"]];
    let mut missing = "docker does not answer";
    if answers(&["docker", "info"]).await {
        missing = "neither `docker compose` nor `docker-compose` is there";
        for words in known {
            if answers(&[&words[..], &["version"]].concat()).await {
                return Some(words);
            }
        }
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    eprintln!("SKIPPED, since it needs compose: {missing}");
    None
}

async fn answers(words: &[&str]) -> bool {
    let mut command = Command::new("timeout");
    command.arg("20").args(words);
    run(command).await.code == 0
}

pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// The images, from the static programs that `make test` builds.
pub(crate) async fn make_images() {
    let shim = std::env::var_os("MOZART_TEST_SHIM").map(PathBuf::from);
    let programs = shim.as_deref().and_then(Path::parent);
    let programs = programs.expect("a static shim in MOZART_TEST_SHIM, as `make test` has it");
    let mut images = Command::new(checkout().join("scripts/images.sh"));
    images.arg("test").arg(programs).env("ENGINE", "docker");
    let _made = run(images).await.ok();
}

impl Project {
    fn new(compose: Vec<&'static str>) -> Self {
        let folder = tempfile::Builder::new().prefix("mozart-test-").tempdir().expect("a folder");
        let name = folder.path().file_name().and_then(OsStr::to_str).expect("UTF-8");
        let name = name.to_lowercase();
        let project = Self { name, compose, folder, key: AuthKey::random() };
        fs::create_dir_all(project.path("souls")).expect("made");
        fs::create_dir_all(project.path("notes")).expect("made");
        let notes = project.path("notes");
        // The worker is nobody here.
        fs::set_permissions(&notes, Permissions::from_mode(0o777)).expect("ours");
        let soul =
            format!("MODEL test/echo\nSOUL You repeat.\nSANCTUM {}:/notes\n", notes.display());
        fs::write(project.path("souls/hello.soul"), soul).expect("written");
        // As docs/operating.md has it: a node in a container sees what is mounted into it.
        let notes = notes.display();
        let more = format!("services:\n  node:\n    volumes:\n      - {notes}:{notes}\n");
        fs::write(project.path("more.yaml"), more).expect("written");
        project
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().canonicalize().expect("there").join(name)
    }

    fn words<'a>(&'a self, args: &[&'a str]) -> Vec<String> {
        let files = [checkout().join("compose.yaml"), self.path("more.yaml")];
        let [first, more] = files.map(|file| file.to_string_lossy().into_owned());
        let mut words: Vec<String> = self.compose.iter().map(|&word| word.to_owned()).collect();
        words.extend(["-p".into(), self.name.clone(), "-f".into(), first, "-f".into(), more]);
        words.extend(args.iter().map(|&arg| arg.to_owned()));
        words
    }

    fn env(&self) -> Vec<(&'static str, String)> {
        let name = &self.name;
        let engine = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = engine.strip_prefix("unix://").unwrap_or("/var/run/docker.sock");
        vec![
            ("MOZART_ENGINE_SOCKET", socket.to_owned()),
            ("MOZART_BASE_IMAGE", String::new()),
            ("MOZART_NAMESPACE", name.clone()),
            ("MOZART_NETWORK", name.clone()),
            ("MOZART_NATS_LISTEN", "127.0.0.1:".to_owned()),
            ("MOZART_API_PUBLISH", "127.0.0.1:".to_owned()),
            ("MOZART_NATS_PASSWORD", format!("{name}0").replace('-', "")),
            ("MOZART_AUTH_SEED", self.key.seed().expect("whole")),
            ("MOZART_AUTH_ISSUER", self.key.issuer()),
            ("MOZART_AUTH_XKEY", self.key.xkey()),
            ("MOZART_AUTH_NOBODY", self.key.nobody()),
            ("MOZART_SOULS", self.path("souls").to_string_lossy().into_owned()),
            ("MOZART_IMAGE", "mozart:test".to_owned()),
            ("NATS_IMAGE", "mozart-nats:test".to_owned()),
            ("MOZART_NODE", "node-1".to_owned()),
            ("MOZART_RUNTIME", "docker".to_owned()),
        ]
    }

    async fn compose(&self, args: &[&str]) -> Output {
        let mut command = Command::new("timeout");
        command.arg("85").args(self.words(args)).envs(self.env());
        run(command).await
    }

    async fn mozart(&self, args: &[&str]) -> Output {
        self.compose(&[&["exec", "-T", "node", "mozart"], args].concat()).await
    }

    async fn ask(&self, text: &str) -> String {
        let args = ["send", "hello", text, "--wait", "--timeout", "60s"];
        self.mozart(&args).await.ok().stdout.trim().to_owned()
    }

    /// The supervisor that leads, as the one that answers says.
    async fn leader(&self) -> Result<String, String> {
        let output = self.mozart(&["doctor", "--only", "supervisor"]).await;
        let said = output.stdout.rsplit_once(" leads").map(|(before, _)| before);
        let name = said.and_then(|before| before.rsplit(' ').next());
        name.map(str::to_owned).ok_or_else(|| output.to_string())
    }

    async fn service(&self, name: &str) -> String {
        let id = self.compose(&["ps", "-q", name]).await.ok().stdout.trim().to_owned();
        assert_eq!(id.len(), 64, "the container of {name}");
        id
    }

    async fn agents(&self) -> Vec<String> {
        let label = format!("label=dev.mozart.namespace={}", self.name);
        lines(docker(&["ps", "-aq", "--no-trunc", "--filter", &label]).await)
    }

    /// What the engine has of the project.
    async fn left(&self) -> BTreeSet<String> {
        let label = format!("label=com.docker.compose.project={}", self.name);
        let network = format!("name={}", self.name);
        let mut left: BTreeSet<String> = self.agents().await.into_iter().collect();
        for list in [
            ["ps", "-aq", "--filter", &label].as_slice(),
            &["volume", "ls", "-q", "--filter", &label],
            &["network", "ls", "-q", "--filter", &network],
        ] {
            left.extend(lines(docker(list).await));
        }
        left
    }
}

pub(crate) async fn docker(args: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.args(["60", "docker"]).args(args);
    run(command).await.ok()
}

fn lines(output: Output) -> Vec<String> {
    output.stdout.lines().map(str::to_owned).collect()
}

impl Drop for Project {
    #[expect(clippy::print_stderr, reason = "the test runner shows it beside the panic")]
    fn drop(&mut self) {
        let compose = |seconds: &str, args: &[&str]| {
            let mut command = Blocking::new("timeout");
            command.arg(seconds).args(self.words(args)).envs(self.env());
            command.output()
        };
        if std::thread::panicking()
            && let Ok(logs) = compose("30", &["logs", "--tail=30"])
        {
            eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
        }
        // The node's agents go before their network; should it not have let them go, they are removed.
        let _stopped = compose("60", &["stop", "node"]);
        let filter = format!("label=dev.mozart.namespace={}", self.name);
        let list = ["60", "docker", "ps", "-aq", "--filter", &filter];
        if let Ok(agents) = Blocking::new("timeout").args(list).output() {
            for id in String::from_utf8_lossy(&agents.stdout).lines() {
                let _gone =
                    Blocking::new("timeout").args(["60", "docker", "rm", "-f", id]).output();
            }
        }
        let _gone = compose("90", &["down", "-v"]);
    }
}

#[tokio::test]
async fn two_supervisors_under_compose_of_which_the_leading_one_is_killed() {
    let Some(compose) = compose().await else { return };
    make_images().await;
    let project = Project::new(compose);
    let _up = project.compose(&["up", "-d"]).await.ok();
    let up = "the agent is running";
    within(Duration::from_secs(60), up, async || {
        let output = project.mozart(&["wait", "hello", "--timeout", "20s"]).await;
        if output.code == 0 { Ok(()) } else { Err(output.to_string()) }
    })
    .await;
    let agents = project.agents().await;
    let [agent] = &agents[..] else { panic!("one container of an agent: {agents:?}") };
    let seen =
        docker(&["inspect", "-f", "{{json .HostConfig}} {{json .Mounts}}", agent]).await.stdout;
    assert!(seen.contains(&format!("\"NetworkMode\":\"{}\"", project.name)), "{seen}");
    assert!(seen.contains(&format!("\"Source\":{:?}", project.path("notes"))), "{seen}");
    assert!(!seen.contains("docker.sock"), "{seen}");
    assert_eq!(project.ask("two lead").await, "two lead");

    let leads = within(TAKES_OVER, "somebody leads", async || project.leader().await).await;
    let other = match leads.as_str() {
        "supervisor-1" => "supervisor-2",
        "supervisor-2" => "supervisor-1",
        _ => panic!("{leads} leads"),
    };
    let other_before = project.service(other).await;
    let _killed = docker(&["kill", &project.service(&leads).await]).await;
    assert_eq!(project.ask("nobody leads").await, "nobody leads");
    within(TAKES_OVER, "the other one leads", async || match project.leader().await {
        Ok(now) if now == other => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert_eq!(project.ask("one leads").await, "one leads");
    assert_eq!(project.agents().await, agents, "the agent was not touched");
    assert_eq!(project.service(other).await, other_before);
    // It does what a leader does.
    let _told = project.mozart(&["restart", "hello"]).await.ok();
    within(TAKES_OVER, "another container of the agent", async || {
        let now = project.agents().await;
        if now.is_empty() || now == agents { Err(format!("{now:?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(project.ask("again").await, "again");

    let _down = project.compose(&["down", "-v"]).await.ok();
    assert_eq!(project.left().await, BTreeSet::new());
}
