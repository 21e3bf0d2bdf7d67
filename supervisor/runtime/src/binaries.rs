//! Where the other binaries are: the shim, and nats-server.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use common::api::ApiError;
use rustix::io::Errno;
use tokio::process::Command;
use tokio::time::timeout;

use common::failure;

/// The oldest server that has all that the streams need: message time to live, atomic persistence per stream.
const OLDEST: (u32, u32) = (2, 12);
/// A program that says its version takes no longer.
const ANSWERS: Duration = Duration::from_secs(5);
/// A file that the system cannot execute.
const NOEXEC: i32 = Errno::NOEXEC.raw_os_error();

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
pub async fn nats_server() -> Result<(PathBuf, (u32, u32)), ApiError> {
    let try_ =
        "run `make setup`, or name one in MOZART_NATS_SERVER, or use --nats URL for a running one";
    let (major, minor) = OLDEST;
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
        let said = version(&path).await;
        match said.and_then(|text| numbers(&text)) {
            Ok(found) if found >= OLDEST => return Ok((path, found)),
            Ok((old, than)) => seen.push(format!(
                "{} is {old}.{than}, and {major}.{minor} or newer is needed",
                path.display()
            )),
            Err(error) => seen.push(format!("{}: {error}", path.display())),
        }
    }
    let cause = match seen.is_empty() {
        true => "none found on PATH or next to mozart".to_owned(),
        false => seen.join("; "),
    };
    let what = if is_given { "MOZART_NATS_SERVER cannot be used" } else { "no nats-server" };
    Err(failure::error(failure::UNREACHABLE, what, cause, try_))
}

/// What a program prints about its version, which is its last word.
///
/// # Errors
/// Why it prints nothing, in words that follow the program's name.
pub async fn version(path: &Path) -> Result<String, String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    let output = match timeout(ANSWERS, command.output()).await {
        Ok(output) => output.map_err(|error| does_not_start(path, &error))?,
        Err(_) => return Err(format!("does not report its version within {ANSWERS:?}")),
    };
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !text.is_empty() {
        return Ok(text);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    let complaint = complaint.lines().find(|line| !line.trim().is_empty());
    let complaint: String = complaint.unwrap_or_default().chars().take(200).collect();
    let mut why = format!("does not report its version ({})", output.status);
    if !complaint.is_empty() {
        why.push_str(&format!(": {complaint}"));
    }
    Err(why)
}

/// What the system's words for it mean: it says that a file is missing also where the file is there and its interpreter is not.
fn does_not_start(path: &Path, error: &io::Error) -> String {
    let is = |kind| error.kind() == kind;
    if is(ErrorKind::NotFound) && !path.exists() {
        return "does not exist".to_owned();
    }
    let why = if is(ErrorKind::NotFound) {
        "its interpreter or loader does not exist"
    } else if is(ErrorKind::PermissionDenied) {
        "it is not executable"
    } else if error.raw_os_error() == Some(NOEXEC) {
        "it is not a program for this machine"
    } else {
        return format!("cannot be run: {error}");
    };
    format!("cannot be run: {why} ({error})")
}

/// The first two numbers of a version, as in `nats-server: v2.15.1`.
fn numbers(text: &str) -> Result<(u32, u32), String> {
    let number = text.rsplit('v').next().unwrap_or("");
    let mut parts = number.split('.').map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(format!("reports {text:?} as its version")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[tokio::test]
    async fn a_program_that_does_not_tell_its_version_is_told_of_as_it_is() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let said = async |content: &[u8], mode| {
            let path = temp.path().join("program");
            // Another file each time: one that is written to cannot be run.
            let _gone = fs::remove_file(&path);
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("it is ours");
            version(&path).await.and_then(|text| numbers(&text))
        };
        assert_eq!(said(b"#!/bin/sh\necho nats-server: v2.15.1\n", 0o755).await, Ok((2, 15)));
        let cases: [(&[u8], u32, &str); 7] = [
            (b"#!/bin/sh\necho x\n", 0o755, "reports \"x\" as its version"),
            (b"#!/bin/sh\n", 0o755, "does not report its version (exit status: 0)"),
            (b"#!/bin/sh\necho no libc >&2\nexit 3\n", 0o755, "(exit status: 3): no libc"),
            (b"#!/bin/sh\nkill -SEGV $$\n", 0o755, "(signal: 11 (SIGSEGV)"),
            (b"#!/no/such/interpreter\n", 0o755, "its interpreter or loader does not exist"),
            (b"\x7fELF of another machine", 0o755, "it is not a program for this machine"),
            (b"#!/bin/sh\n", 0o644, "it is not executable"),
        ];
        for (content, mode, words) in cases {
            let error = said(content, mode).await.expect_err(words);
            assert!(error.contains(words), "{words:?} is missing: {error}");
        }
        let none = version(&temp.path().join("none")).await;
        assert_eq!(none.expect_err("it is not there"), "does not exist");
    }
}
