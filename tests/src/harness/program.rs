//! Programs of `tests/clients`: the stock clients of the protocols that the API speaks, as they are in their package index.

use std::env;
use std::path::PathBuf;

use tokio::process::Command;

use super::cli::Child;

/// Starts programs of `tests/clients`.
#[derive(Debug, Clone)]
pub struct Programs {
    packages: PathBuf,
    folder: PathBuf,
}

impl Programs {
    /// What they need. None where it is not installed, which is said; in CI, that is a failure.
    ///
    /// # Panics
    /// When it is missing and `CI` is `true`.
    #[must_use]
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    pub fn find() -> Option<Self> {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let packages = root.join("../.tools/clients");
        if packages.join("nats").is_dir() {
            return Some(Self { packages, folder: root.join("clients") });
        }
        let missing = format!("{} is missing; try: scripts/setup.sh clients", packages.display());
        assert!(env::var("CI").as_deref() != Ok("true"), "{missing}");
        eprintln!("SKIPPED, since it needs the stock clients: {missing}");
        None
    }

    /// Starts one beside the test.
    #[must_use]
    pub fn start(&self, program: &str, args: &[&str]) -> Child {
        let mut command = Command::new("python3");
        command.arg(self.folder.join(program)).args(args);
        for name in ["NATS_URL", "NATS_CREDS", "NATS_CONTEXT", "HTTP_PROXY", "http_proxy"] {
            command.env_remove(name);
        }
        command.env("PYTHONPATH", &self.packages).env("PYTHONDONTWRITEBYTECODE", "1");
        Child::start(command)
    }
}
