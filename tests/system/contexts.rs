//! Contexts of the `nats` command line: they name the server and the login, if they are named themselves.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use system_tests::harness::{Fleet, Output, flaky};

use crate::roles::{apply, free_port, server_at};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.";

/// Where `nats` has its files, as the tests' commands are told.
struct Config {
    folder: PathBuf,
}

impl Config {
    fn of(fleet: &Fleet) -> Self {
        Self::in_(&fleet.home().with_file_name("config"))
    }

    fn in_(folder: &Path) -> Self {
        let folder = folder.to_owned();
        fs::create_dir_all(folder.join("nats/context")).expect("made");
        Self { folder }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.join("nats/context").join(format!("{name}.json"));
        fs::write(path, text).expect("written");
    }

    /// Runs a command somewhere where nothing runs.
    async fn run(&self, fleet: &Fleet, args: &[&str], env: &[(&str, &str)]) -> Output {
        let elsewhere = self.folder.join("nothing");
        let mut all: Vec<(&str, &OsStr)> = vec![
            ("XDG_CONFIG_HOME", self.folder.as_os_str()),
            ("MOZART_DIR", elsewhere.as_os_str()),
        ];
        all.extend(env.iter().map(|(name, value)| (*name, OsStr::new(*value))));
        fleet.cli_with(args, &all).await
    }
}

/// The server of a fleet, with its login and without.
fn server(fleet: &Fleet) -> (String, String, String) {
    let note = fleet.note().expect("`mozart up` runs");
    let url = note["url"].as_str().expect("a URL").strip_prefix("nats://").expect("plain");
    let (login, host) = url.rsplit_once('@').expect("it has credentials");
    let (user, password) = login.split_once(':').expect("a password");
    (format!("nats://{host}"), user.to_owned(), password.to_owned())
}

#[tokio::test]
async fn a_context_names_the_server_and_who_connects() {
    let fleet = Fleet::with(&[("b", ECHO)]).await;
    let config = Config::of(&fleet);
    let (url, user, password) = server(&fleet);
    let file = fleet.home().join("ana.creds").to_string_lossy().into_owned();
    let _ana = fleet.cli(["user", "add", "ana", "--scope", "read", "--file", &file]).await.ok();
    let context = |more: serde_json::Value| {
        let mut context = json!({ "description": "d", "url": &url, "nsc": "", "nkey": "" });
        for (name, value) in more.as_object().expect("an object") {
            context[name] = value.clone();
        }
        context.to_string()
    };
    config.write("whole", &context(json!({ "user": user, "password": password })));
    config.write("ana", &context(json!({ "creds": file })));
    config.write("key", &context(json!({ "nkey": "x" })));
    config.write("ca", &context(json!({ "creds": file, "ca": "/nothing/ca.pem" })));
    config.write("plain", &context(json!({})));

    let works = async |args: &[&str], env: &[(&str, &str)]| {
        let output = config.run(&fleet, args, env).await.ok();
        assert!(output.stdout.contains('b'), "{output}");
    };
    works(&["--context", "whole", "ps"], &[]).await;
    works(&["ps", "--context", "ana"], &[]).await;
    works(&["ps"], &[("NATS_CONTEXT", "ana")]).await;
    works(&["ps", "--context", "whole"], &[("NATS_CONTEXT", "ana"), ("NATS_URL", "")]).await;
    // What is given beside it counts.
    works(&["ps", "--context", "key", "--creds", &file], &[]).await;
    works(&["ps", "--context", "plain"], &[("NATS_CREDS", &file)]).await;
    let denied = config.run(&fleet, &["stop", "b", "--context", "ana"], &[]).await.exit(7);
    denied.says("user ana has scope read");
    let denied = config.run(&fleet, &["ps", "--context", "plain"], &[]).await;
    assert_eq!(denied.code, 7, "{denied}");
    let denied = config.run(&fleet, &["ps", "--context", "key"], &[]).await.exit(2);
    denied.says("it logs in with nkey, which is not supported; try: a context with creds");
    let ca = config.run(&fleet, &["ps", "--context", "ca"], &[]).await;
    ca.says("cannot read the CA certificates in /nothing/ca.pem");

    // The one that was selected for `nats` changes nothing.
    fs::write(config.folder.join("nats/context.txt"), "whole").expect("written");
    let nothing = config.run(&fleet, &["ps"], &[]).await.exit(6);
    nothing.says("no NATS server is given");
    let env = [("XDG_CONFIG_HOME", config.folder.as_os_str())];
    let _own = fleet.cli_with(["ps"], &env).await.ok();
}

#[tokio::test]
async fn a_context_that_cannot_be_used_is_refused_with_the_reason() {
    let fleet = Fleet::new(&[("a", ECHO)]);
    let config = Config::of(&fleet);
    let refused = async |args: &[&str], env: &[(&str, &str)], code: i32, words: &str| {
        config.run(&fleet, args, env).await.exit(code).says(words);
    };
    let ps = ["ps", "--context", "x"];
    refused(&ps, &[], 3, "context/x.json does not exist; try: `nats context add NAME").await;
    config.write("other", "{}");
    refused(&ps, &[], 3, "context/x.json does not exist; try: one of other").await;
    for (text, words) in [
        ("", "x.json: it is not JSON"),
        ("{\"url\":", "x.json: it is not JSON"),
        ("{}", "x.json: it names no server (`url`)"),
        (r#"{"url":"nats://h","nsc":"nsc://o/a/u"}"#, "it logs in with nsc"),
        (r#"{"url":"nats://h","cert":"c.pem"}"#, "it has cert, which is not supported"),
    ] {
        config.write("x", text);
        refused(&ps, &[], 2, words).await;
        refused(&["ps"], &[("NATS_CONTEXT", "x")], 2, words).await;
    }
    let both = "a server is given as well: --nats or NATS_URL; try: one of --context";
    refused(&["ps", "--context", "x", "--nats", "nats://h"], &[], 2, both).await;
    refused(&ps, &[("NATS_URL", "nats://h")], 2, both).await;
    refused(&["ps", "--context", "../x"], &[], 2, "it is no name").await;
    let json = config.run(&fleet, &["ps", "--context", "x", "-o", "json"], &[]).await.exit(2);
    json.says(r#"{"error":{"#);
    // What needs no server takes no context.
    let _valid = config.run(&fleet, &["validate", "a.soul"], &[("NATS_CONTEXT", "x")]).await.ok();
    // Nor does an empty one.
    refused(&["ps"], &[("NATS_CONTEXT", "")], 6, "no NATS server is given").await;
}

#[tokio::test]
async fn roles_take_a_context_with_a_token() {
    let port = free_port();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = Config::in_(folder.path());
    let token = "t:1@,/%";
    let url = format!("nats://127.0.0.1:{port}");
    config.write("own", &json!({ "url": url, "token": token }).to_string());
    let fleet = Fleet::new(&[("a", &flaky(""))]).env("NATS_CONTEXT", "own");
    let fleet = fleet.env("XDG_CONFIG_HOME", &config.folder.to_string_lossy());
    let _server = server_at(&fleet, port, &format!("authorization {{ token: {token:?} }}"));
    let _supervisor = fleet.spawn_cli(["supervisor", "--id", "s"]);
    let _node = fleet.spawn_cli(["node", "--name", "n", "--runtime", "process"]);
    apply(&fleet).await;
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(fleet.ask("a", "say hello").await, "hello");
}
