//! Programs of `tests/clients` in Python, which use the clients that people already have.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::cli::Child;

/// The stock clients: `scripts/setup.sh clients`.
#[derive(Debug, Clone)]
pub struct StockClients {
    packages: PathBuf,
}

impl StockClients {
    /// The clients. None where they are missing, which is said; in CI, that is a failure.
    ///
    /// # Panics
    /// When they are missing and `CI` is `true`.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    pub fn find() -> Option<Self> {
        let packages = root().join(".tools/clients");
        if packages.join("requirements.txt").is_file() {
            return Some(Self { packages });
        }
        let missing = "the stock clients are not installed; try: scripts/setup.sh clients";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("SKIPPED: {missing}");
        None
    }

    /// Starts a program with these arguments.
    #[must_use]
    pub fn start(&self, program: &str, args: &[&str]) -> Child {
        let mut command = python(program, args);
        command.env("PYTHONPATH", &self.packages);
        Child::start(command)
    }

    /// Starts a program that needs our own client, and what that needs for NATS.
    ///
    /// # Panics
    /// When this is in a folder whose name has a colon.
    #[must_use]
    pub fn start_with_own(&self, program: &str, args: &[&str]) -> Child {
        let mut command = python(program, args);
        let path = std::env::join_paths([own_client(), self.packages.clone()]);
        command.env("PYTHONPATH", path.expect("a path"));
        Child::start(command)
    }
}

/// Starts a program of `tests/clients` that needs nothing but our own client.
#[must_use]
pub fn start_own_client(program: &str, args: &[&str]) -> Child {
    let mut command = python(program, args);
    command.env("PYTHONPATH", own_client());
    Child::start(command)
}

fn own_client() -> PathBuf {
    root().join("clients/python/src")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn python(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg("-u").arg(root().join("tests/clients").join(program)).args(args);
    // What this machine goes through to reach others is none of a local test's business.
    let proxies =
        ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
    for name in proxies.into_iter().chain(["NATS_URL", "NATS_CREDS", "NATS_CONTEXT"]) {
        command.env_remove(name);
    }
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}
