//! The other programs, and whether all have the same version.

use std::path::{Path, PathBuf};

use common::api::{ApiError, Hello};

use super::{Check, Health, check};
use runtime::binaries;
use runtime::engine::check_static;

/// The programs that were found.
pub(super) struct Programs {
    shim: Result<Program, ApiError>,
    nats_server: Result<Program, ApiError>,
}

struct Program {
    path: PathBuf,
    /// What it says, or why it does not.
    version: Result<String, String>,
}

impl Programs {
    pub(super) async fn find() -> Self {
        let shim = match binaries::shim() {
            Ok(path) => Ok(Program { version: version(&path).await, path }),
            Err(error) => Err(error),
        };
        let nats_server = match binaries::nats_server().await {
            Ok((path, _)) => Ok(Program { version: version(&path).await, path }),
            Err(error) => Err(error),
        };
        Self { shim, nats_server }
    }

    pub(super) fn shim_path(&self) -> Option<&Path> {
        self.shim.as_ref().ok().map(|shim| shim.path.as_path())
    }

    /// Containers need a static one.
    pub(super) fn shim(&self, is_for_containers: bool) -> Check {
        let Program { path, version } = match &self.shim {
            Ok(shim) => shim,
            Err(error) => return check("shim", Health::Fail, error.cause.clone(), &error.try_),
        };
        let path_text = path.display();
        match (version, check_static(path)) {
            (Err(error), _) => {
                let try_ = "`make build`, or name another one in MOZART_SHIM";
                check("shim", Health::Fail, format!("{path_text}: {error}"), try_)
            }
            (Ok(version), Ok(())) => {
                check("shim", Health::Ok, format!("{path_text} ({version}, static)"), "")
            }
            (Ok(version), Err(error)) if is_for_containers => {
                let found =
                    format!("{path_text} ({version}), not usable in containers: {}", error.cause);
                check("shim", Health::Warn, found, &error.try_)
            }
            (Ok(version), Err(_)) => {
                check("shim", Health::Ok, format!("{path_text} ({version}, not static)"), "")
            }
        }
    }

    pub(super) fn nats_server(&self) -> Check {
        match &self.nats_server {
            Ok(Program { path, version: Ok(version) }) => {
                check("nats-server", Health::Ok, format!("{} ({version})", path.display()), "")
            }
            Ok(Program { path, version: Err(error) }) => {
                check("nats-server", Health::Warn, format!("{}: {error}", path.display()), "")
            }
            // Only `up` needs one of its own.
            Err(error) => check("nats-server", Health::Warn, error.cause.clone(), &error.try_),
        }
    }

    /// `server` is the version of the nats-server that `up` runs; none where it is another's.
    pub(super) fn versions(&self, hello: Option<&Hello>, server: Option<&str>) -> Check {
        let said = |program: &Result<Program, ApiError>| {
            program.as_ref().ok().and_then(|program| program.version.clone().ok())
        };
        let own = env!("CARGO_PKG_VERSION");
        let shim = said(&self.shim);
        let mut ours = vec![("mozart", own)];
        ours.extend(hello.map(|hello| ("supervisor", hello.version.as_str())));
        ours.extend(shim.as_deref().map(|version| ("mozart-shim", version)));
        let installed = said(&self.nats_server);
        compare(&ours, server.zip(installed.as_deref()))
    }
}

/// What is ours is of one version, and the nats-server that runs is the one that is installed.
fn compare(ours: &[(&str, &str)], nats: Option<(&str, &str)>) -> Check {
    let mut found: Vec<_> =
        ours.iter().map(|(name, version)| format!("{name} {version}")).collect();
    let differ = ours.windows(2).any(|two| two[0].1 != two[1].1);
    let is_old = nats.is_some_and(|(running, installed)| running != installed);
    found.extend(nats.map(|(running, installed)| match is_old {
        true => format!("nats-server {running} is running, {installed} is installed"),
        false => format!("nats-server {running}"),
    }));
    let (health, try_) = match (differ, is_old) {
        (true, _) => {
            (Health::Warn, "install one version of mozart, and start the supervisors with it")
        }
        (false, true) => (Health::Warn, "`mozart down`, then `mozart up`"),
        (false, false) => (Health::Ok, ""),
    };
    check("versions", health, found.join(", "), try_)
}

/// The last word of what a program says about its version.
async fn version(path: &Path) -> Result<String, String> {
    let text = binaries::version(path).await?;
    let word = text.split_whitespace().last().unwrap_or_default();
    Ok(word.trim_start_matches('v').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_everywhere_is_fine() {
        let same = [("mozart", "1"), ("supervisor", "1")];
        let fine = compare(&same, Some(("2.15.1", "2.15.1")));
        assert_eq!((fine.health, fine.try_.as_str()), (Health::Ok, ""));
        assert_eq!(fine.found, "mozart 1, supervisor 1, nats-server 2.15.1");
        assert_eq!(compare(&same[..1], None).health, Health::Ok);
    }

    #[test]
    fn another_version_is_a_warning() {
        let other = compare(&[("mozart", "2"), ("supervisor", "1"), ("mozart-shim", "2")], None);
        assert_eq!(other.health, Health::Warn);
        assert!(other.found.contains("supervisor 1"), "{}", other.found);
        let old = compare(&[("mozart", "2")], Some(("2.12.0", "2.15.1")));
        assert_eq!(
            (old.health, old.try_.as_str()),
            (Health::Warn, "`mozart down`, then `mozart up`")
        );
        assert!(old.found.contains("nats-server 2.12.0 is running, 2.15.1 is installed"));
    }
}
