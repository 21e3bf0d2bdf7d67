//! `deploy/compose-cluster.yaml` and `deploy/cluster-files.sh`: three hosts, here three projects of compose, each with an address of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command as Blocking;
use std::time::Duration;

use futures_util::future::join_all;
use system_tests::harness::{Output, binary, nats_server, run, within};
use tempfile::TempDir;
use tokio::process::Command;

use crate::compose::{checkout, compose, docker, make_images};

const HOSTS: u8 = 3;

/// Runs `deploy/cluster-files.sh`.
async fn cluster_files(args: &[&str]) -> Output {
    let mut command = Command::new(checkout().join("deploy/cluster-files.sh"));
    command.args(args).env("MOZART", binary("mozart"));
    run(command).await
}

/// The value of a variable in an `.env`.
fn variable(folder: &Path, name: &str) -> String {
    let text = fs::read_to_string(folder.join(".env")).expect("written");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name} is not in {text}")).to_owned()
}

#[tokio::test]
async fn what_is_made_for_the_hosts_is_a_configuration_that_nats_server_takes() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let folder = temp.path().join("cluster");
    let name = folder.to_string_lossy().into_owned();
    let made = cluster_files(&[&name, "10.0.0.1", "10.0.0.2", "c.example.com"]).await.ok();
    assert!(made.stdout.contains("to host-3"), "{made}");
    let other = |args: &[&str]| {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        async move { cluster_files(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    other(&[&name, "10.0.0.1", "10.0.0.2", "10.0.0.3"]).await.exit(4).says("exists");
    let new = temp.path().join("other").to_string_lossy().into_owned();
    other(&[&new, "10.0.0.1", "10.0.0.2"]).await.exit(2).says("at least three addresses");
    other(&[&new, "a", "b", "a"]).await.exit(2).says("two hosts have the same address");
    other(&[&new, "a", "b", "c:4222"]).await.exit(2).says("c:4222 is neither");

    let checks = (1..=HOSTS).map(|number| {
        let host = folder.join(format!("host-{number}"));
        let conf = host.join("nats-cluster.conf");
        let deploy = checkout().join("deploy");
        let text = fs::read_to_string(deploy.join("nats-cluster.conf")).expect("it is there");
        fs::write(&conf, text.replace("/etc/nats", &host.to_string_lossy())).expect("written");
        fs::copy(deploy.join("accounts.conf"), host.join("accounts.conf")).expect("copied");
        let quoted = |name: &str| format!("\"{}\"", variable(&host, name));
        let mut check = Blocking::new(nats_server());
        check
            .args(["-t", "-c"])
            .arg(&conf)
            .env("NATS_NAME", variable(&host, "MOZART_NODE"))
            .env("NATS_HOST", quoted("MOZART_HOST"))
            .env("NATS_PASSWORD", quoted("MOZART_NATS_PASSWORD"))
            .env("NATS_ROUTES_PASSWORD", quoted("MOZART_ROUTES_PASSWORD"));
        for name in ["MOZART_AUTH_ISSUER", "MOZART_AUTH_XKEY", "MOZART_AUTH_NOBODY"] {
            check.env(name, variable(&host, name));
        }
        // Its certificate is its own, and signed by the CA.
        for purpose in ["sslserver", "sslclient"] {
            let mut verify = Blocking::new("openssl");
            verify.args(["verify", "-purpose", purpose, "-CAfile"]);
            verify.arg(host.join("ca.pem")).arg(host.join("server.pem"));
            assert!(verify.output().expect("it is there").status.success(), "{purpose}");
        }
        check.output().expect("it is there")
    });
    for checked in checks {
        let said = String::from_utf8_lossy(&checked.stderr);
        assert!(checked.status.success() && said.contains("is valid"), "{said}");
    }
    // The same key and the same passwords on all, and a key of its own for each.
    let all = |name: &str| {
        let hosts = (1..=HOSTS).map(|number| folder.join(format!("host-{number}")));
        let values = hosts.map(|host| match name.starts_with("MOZART") {
            true => variable(&host, name),
            false => fs::read_to_string(host.join(name)).expect("written"),
        });
        values.collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(
        [all("MOZART_AUTH_SEED"), all("MOZART_URL"), all("routes.conf"), all("ca.pem")],
        [1; 4]
    );
    assert_eq!([all("MOZART_HOST"), all("MOZART_NODE"), all("server-key.pem")], [3; 3]);
}

/// Three hosts on this one: all of it goes with this.
struct Cluster {
    name: String,
    compose: Vec<&'static str>,
    folder: TempDir,
    addresses: Vec<Ipv4Addr>,
}

impl Cluster {
    async fn new(compose: Vec<&'static str>) -> Self {
        let folder = tempfile::Builder::new().prefix("mozart-test-").tempdir().expect("a folder");
        let name = folder.path().file_name().and_then(|name| name.to_str()).expect("UTF-8");
        let name = name.to_lowercase();
        // Those of another test that runs at the same time are others.
        let [third, _] = (std::process::id() as u16).to_le_bytes();
        let addresses = (1..=HOSTS).map(|number| Ipv4Addr::new(10, 78, third, number)).collect();
        let cluster = Self { name, compose, folder, addresses };
        for address in &cluster.addresses {
            let mut add = Command::new("ip");
            add.args(["address", "add", &format!("{address}/32"), "dev", "lo"]);
            let _added = run(add).await.ok();
        }
        let files = cluster.folder.path().join("cluster").to_string_lossy().into_owned();
        let addresses = cluster.addresses.iter().map(Ipv4Addr::to_string);
        let args: Vec<String> = std::iter::once(files).chain(addresses).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let _made = cluster_files(&args).await.ok();
        cluster
    }

    fn host(&self, number: u8) -> PathBuf {
        self.folder.path().join(format!("cluster/host-{number}"))
    }

    /// The words of a command of compose on a host, and what is in its environment.
    fn words(&self, number: u8, args: &[&str]) -> (Vec<String>, Vec<(&'static str, String)>) {
        let mut words: Vec<String> = self.compose.iter().map(|&word| word.to_owned()).collect();
        words.extend(["-p".to_owned(), format!("{}-{number}", self.name)]);
        words.extend(args.iter().map(|&arg| arg.to_owned()));
        let engine = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = engine.strip_prefix("unix://").unwrap_or("/var/run/docker.sock");
        let env = vec![
            ("MOZART_IMAGE", "mozart:test".to_owned()),
            ("NATS_IMAGE", "mozart-nats:test".to_owned()),
            ("MOZART_BASE_IMAGE", String::new()),
            ("MOZART_NAMESPACE", self.name.clone()),
            // One for all: an engine lets no network reach what another one publishes.
            ("MOZART_NETWORK", self.name.clone()),
            ("MOZART_ENGINE_SOCKET", socket.to_owned()),
        ];
        (words, env)
    }

    async fn compose(&self, number: u8, args: &[&str]) -> Output {
        let (words, env) = self.words(number, args);
        let mut command = Command::new("timeout");
        command.arg("85").args(words).envs(env).current_dir(self.host(number));
        run(command).await
    }

    /// The command line on this host, beside the cluster.
    async fn mozart(&self, args: &[&str]) -> Output {
        let first = self.host(1);
        let mut command = Command::new(binary("mozart"));
        command
            .env("NATS_URL", variable(&first, "MOZART_URL"))
            .env("NATS_CA", first.join("ca.pem"))
            .env("MOZART_NAMESPACE", &self.name)
            .args(args);
        run(command).await
    }

    async fn agents(&self) -> Vec<String> {
        let label = format!("label=dev.mozart.namespace={}", self.name);
        let listed = docker(&["ps", "-aq", "--no-trunc", "--filter", &label]).await;
        listed.stdout.lines().map(str::to_owned).collect()
    }

    async fn asks(&self, text: &str) {
        within(Duration::from_secs(60), "the agent answers", async || {
            let output = self.mozart(&["send", "hello", text, "--wait", "--timeout", "20s"]).await;
            let said = output.stdout.trim() == text;
            if output.code == 0 && said { Ok(()) } else { Err(output.to_string()) }
        })
        .await;
    }

    async fn nodes(&self) -> Vec<(String, String)> {
        let output = self.mozart(&["node", "ls", "-o", "json"]).await;
        let rows = if output.code == 0 { output.json() } else { serde_json::Value::Null };
        let word =
            |row: &serde_json::Value, name: &str| row[name].as_str().unwrap_or("").to_owned();
        let rows = rows.as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| (word(row, "node"), word(row, "state"))).collect()
    }
}

impl Drop for Cluster {
    #[expect(clippy::print_stderr, reason = "the test runner shows it beside the panic")]
    fn drop(&mut self) {
        let compose = |number: u8, args: &[&str]| {
            let (words, env) = self.words(number, args);
            let mut command = Blocking::new("timeout");
            command.arg("90").args(words).envs(env).current_dir(self.host(number)).output()
        };
        if std::thread::panicking() {
            for number in 1..=HOSTS {
                if let Ok(logs) = compose(number, &["logs", "--tail=20"]) {
                    eprintln!("{}", String::from_utf8_lossy(&logs.stdout));
                }
            }
        }
        for number in 1..=HOSTS {
            let _gone = compose(number, &["kill"]);
        }
        let filter = format!("label=dev.mozart.namespace={}", self.name);
        let list = ["60", "docker", "ps", "-aq", "--filter", &filter];
        if let Ok(agents) = Blocking::new("timeout").args(list).output() {
            for id in String::from_utf8_lossy(&agents.stdout).lines() {
                let _gone =
                    Blocking::new("timeout").args(["60", "docker", "rm", "-f", id]).output();
            }
        }
        for number in 1..=HOSTS {
            let _gone = compose(number, &["down", "-v"]);
        }
        let _gone = Blocking::new("docker").args(["network", "rm", &self.name]).output();
        for address in &self.addresses {
            let address = format!("{address}/32");
            let _gone =
                Blocking::new("ip").args(["address", "del", &address, "dev", "lo"]).output();
        }
    }
}

#[tokio::test]
async fn three_hosts_under_compose_of_which_one_is_lost() {
    let Some(compose) = compose().await else { return };
    make_images().await;
    let cluster = Cluster::new(compose).await;
    // The network is one for all here: the first makes it.
    for number in 1..=HOSTS {
        let _valid = cluster.compose(number, &["config", "-q"]).await.ok();
    }
    let _up = cluster.compose(1, &["up", "-d"]).await.ok();
    for up in join_all((2..=HOSTS).map(|number| cluster.compose(number, &["up", "-d"]))).await {
        let _up = up.ok();
    }
    within(Duration::from_secs(60), "three nodes are up", async || {
        let nodes = cluster.nodes().await;
        let up = nodes.iter().filter(|(_, state)| state == "up").count();
        if up == usize::from(HOSTS) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    let soul = cluster.folder.path().join("hello.soul");
    fs::write(&soul, "MODEL test/echo\nSOUL You repeat.\n").expect("written");
    let _applied = cluster.mozart(&["apply", &soul.to_string_lossy(), "--wait"]).await.ok();
    cluster.asks("all are there").await;
    let doctor = cluster.mozart(&["doctor"]).await;
    assert!(doctor.stdout.contains("three replicas") || doctor.code == 0, "{doctor}");

    let row = cluster.mozart(&["ps", "hello", "-o", "json"]).await.ok().json();
    let node = row[0]["node"].as_str().expect("a node").to_owned();
    let number: u8 = node.trim_start_matches("host-").parse().expect("host-N");
    let before = cluster.agents().await;
    let _lost = cluster.compose(number, &["kill"]).await.ok();
    for id in &before {
        let _lost = docker(&["kill", id]).await;
    }
    cluster.asks("one is lost").await;
    let row = cluster.mozart(&["ps", "hello", "-o", "json"]).await.ok().json();
    assert_ne!(row[0]["node"], node.as_str(), "{row}");
}
