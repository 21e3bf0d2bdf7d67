//! Where the other binaries are: the shim, and nats-server.

use std::path::{Path, PathBuf};
use std::process::Command;

use common::api::ApiError;

use common::failure;

/// The oldest server that has all that the streams need: message time to live, atomic persistence per stream.
const OLDEST: (u32, u32) = (2, 12);
/// The shim's binary: next to this one.
///
/// # Errors
/// When it does not exist.
pub fn shim() -> Result<PathBuf, ApiError> {
    let missing = |cause: String| {
        let try_ = "install mozart-shim next to mozart, or name it in MOZART_SHIM";
        failure::error(failure::FAILED, "no mozart-shim", cause, try_)
    };
    if let Some(given) = std::env::var_os("MOZART_SHIM") {
        let given = PathBuf::from(given);
        return match given.is_file() {
            true => Ok(given),
            false => Err(missing(format!("MOZART_SHIM={} is not a file", given.display()))),
        };
    }
    let own = std::env::current_exe().map_err(|error| missing(error.to_string()))?;
    let beside = own.with_file_name("mozart-shim");
    match beside.is_file() {
        true => Ok(beside),
        false => Err(missing(format!("{} does not exist", beside.display()))),
    }
}

/// The nats-server to start, and its version: `MOZART_NATS_SERVER`, a new enough one on `PATH`, or the one that `make setup` installed.
///
/// # Errors
/// When there is none, or none that is new enough (exit 6).
pub fn nats_server() -> Result<(PathBuf, (u32, u32)), ApiError> {
    let try_ =
        "run `make setup`, or name one in MOZART_NATS_SERVER, or use --nats URL for a running one";
    let mut seen = Vec::new();
    let given = std::env::var_os("MOZART_NATS_SERVER").map(PathBuf::from);
    let is_given = given.is_some();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("nats-server"));
    let own = std::env::current_exe().unwrap_or_default();
    let beside = own
        .ancestors()
        .skip(1)
        .take(4)
        .flat_map(|folder| [folder.join("nats-server"), folder.join(".tools/nats-server")]);
    let candidates: Vec<PathBuf> = match given {
        Some(given) => vec![given],
        None => on_path.chain(beside).filter(|path| path.is_file()).collect(),
    };
    for path in candidates {
        match version(&path) {
            Ok(found) if found >= OLDEST => return Ok((path, found)),
            Ok((major, minor)) => seen.push(format!("{} is {major}.{minor}", path.display())),
            Err(error) => seen.push(format!("{}: {error}", path.display())),
        }
    }
    let (major, minor) = OLDEST;
    let cause = match seen.is_empty() {
        true => "none found on PATH or next to mozart".to_owned(),
        false => format!("{major}.{minor} or newer is needed; {}", seen.join(", ")),
    };
    let what = if is_given { "MOZART_NATS_SERVER cannot be used" } else { "no nats-server" };
    Err(failure::error(failure::UNREACHABLE, what, cause, try_))
}

/// What a nats-server says about its version.
fn version(path: &Path) -> Result<(u32, u32), String> {
    let output = Command::new(path).arg("--version").output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.rsplit('v').next().unwrap_or("").trim();
    let mut parts = number.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(format!("reports {:?} as its version", text.trim())),
    }
}
