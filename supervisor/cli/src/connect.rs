//! Where the broker is: the given one, else the one that `mozart up` started here.

use std::io::ErrorKind;
use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use broker::ConnectOptions;
use common::api::ApiError;
use common::{Namespace, NodeName};

use crate::args::Global;
use common::failure;
use runtime::home::Home;
use runtime::log;

/// How to reach the broker; `name` is shown in the server's lists.
///
/// # Errors
/// When no server is named and nothing was started here (exit 6), or the credentials are those of a node (exit 7).
pub fn options(
    global: &Global,
    name: impl Into<String>,
    timeout: Duration,
) -> Result<ConnectOptions, ApiError> {
    let options = any(global, name, timeout)?;
    let Some(node) = options.node() else { return Ok(options) };
    let what = "these credentials are for nothing but a node";
    let cause = format!("{} is of node {node}", shown(&options));
    let try_ = format!("`mozart node --name {node}`, or the credentials of a user");
    Err(failure::error(failure::DENIED, what, cause, try_))
}

/// How a node reaches the broker.
///
/// # Errors
/// As [`options`], or when the credentials are those of another node.
pub fn options_of_node(
    global: &Global,
    node: &NodeName,
    timeout: Duration,
) -> Result<ConnectOptions, ApiError> {
    let options = any(global, format!("node {node}"), timeout)?;
    match options.node().filter(|other| other != node) {
        None => Ok(options),
        Some(other) => {
            let what = format!("these credentials are not of node {node}");
            let cause = format!("{} is of node {other}", shown(&options));
            let try_ = format!("--name {other}, or `mozart user add {node} --scope node`");
            Err(failure::error(failure::DENIED, what, cause, try_))
        }
    }
}

/// The credentials file.
fn shown(options: &ConnectOptions) -> String {
    options.creds.as_ref().map(|file| file.display().to_string()).unwrap_or_default()
}

fn any(
    global: &Global,
    name: impl Into<String>,
    timeout: Duration,
) -> Result<ConnectOptions, ApiError> {
    let given = global.url().map(str::to_owned);
    let (url, noted, ca) = match given {
        Some(url) => (url, None, global.ca()?),
        None => {
            let home = Home::locate(global.home.as_deref())?;
            let Some(running) = home.read_running()? else {
                let cause = format!("{} does not exist", home.running_file().display());
                if let Some(pid) = home.holder() {
                    let what = "cannot tell how to reach the broker";
                    let cause = format!(
                        "{cause}: `mozart up` is running (process {pid}), and has not written it yet, or it was removed"
                    );
                    let try_ = "run it again in a few seconds; `mozart down` stops what is running";
                    return Err(failure::error(failure::UNREACHABLE, what, cause, try_));
                }
                let what = "no NATS server is given, and `mozart up` is not running here";
                return Err(failure::error(failure::UNREACHABLE, what, cause, "`mozart up`"));
            };
            (running.url, Some(running.namespace), running.ca)
        }
    };
    Ok(ConnectOptions {
        url,
        creds: global.readable_creds()?,
        ca,
        name: name.into(),
        namespace: global.namespace.clone().or(noted).unwrap_or_else(default_namespace),
        timeout,
        shim: None,
    })
}

/// Says why the server that `mozart up` started in this folder cannot be reached: it does not start, or stands still.
pub fn explain_own(global: &Global, error: ApiError, url: &str) -> ApiError {
    let home = Home::locate(global.home.as_deref());
    let (None, Ok(home)) = (global.url(), home) else { return error };
    if error.code != failure::UNREACHABLE || home.holder().is_none() {
        return explain(error, url);
    }
    let running = home.read_running().ok().flatten();
    if let Some(pid) = running.and_then(|running| running.nats_pid).filter(|pid| stands_still(*pid))
    {
        let cause = format!("nats-server, process {pid}, is stopped by a signal");
        return failure::error(error.code, error.what, cause, format!("`kill -CONT {pid}`"));
    }
    const TAIL: u64 = 64 << 10;
    let path = home.nats().join("nats.log");
    let log = log::tail(&path, TAIL).unwrap_or_default();
    let Some(said) = log::fatal(&log) else { return explain(error, url) };
    let cause = format!("nats-server does not start: {said}");
    let try_ = match said.contains("address already in use") {
        true => "`ss -ltnp` shows what uses the address; once it is free, `mozart up` starts nats-server by itself".to_owned(),
        false => format!("`cat {}`", path.display()),
    };
    failure::error(error.code, error.what, cause, try_)
}

/// Whether a process was stopped by a signal, and not continued.
fn stands_still(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // After the name, which may contain anything.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}

/// Says why the server that `mozart up` started here cannot be reached, where this host can tell: it listens where containers reach it, and
/// that address comes and goes with their network.
pub(crate) fn explain(error: ApiError, url: &str) -> ApiError {
    let host = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let Ok(address) = host.parse::<IpAddr>() else { return error };
    let bound = UdpSocket::bind((address, 0));
    let is_gone = bound.is_err_and(|error| error.kind() == ErrorKind::AddrNotAvailable);
    if error.code != failure::UNREACHABLE || !is_gone {
        return error;
    }
    let cause = format!(
        "nats-server listens on {address}, and this host has that address no longer: the containers' network was removed, or its engine does not run"
    );
    let try_ = "start the engine, or create the network with the same subnet again; else `mozart down` and `mozart up`";
    failure::error(error.code, error.what, cause, try_)
}

/// The fleet that is meant when none is named.
pub fn default_namespace() -> Namespace {
    #[expect(clippy::expect_used, reason = "a literal that the tests check")]
    Namespace::new("default").expect("`default` is a valid namespace")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;
    use common::Timestamp;
    use runtime::home::Running;

    fn global(home: &std::path::Path) -> Global {
        Global {
            nats: None,
            context: None,
            creds: None,
            ca: None,
            namespace: None,
            home: Some(home.to_owned()),
            output: Output::Table,
            verbose: 0,
        }
    }

    #[test]
    fn without_a_server_the_note_of_up_is_read() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let global = global(temp.path());
        let error = options(&global, "t", Duration::ZERO).expect_err("nothing runs");
        assert_eq!((error.code, error.try_.as_str()), (6, "`mozart up`"));

        let running = Running {
            url: "nats://noted".to_owned(),
            ca: None,
            namespace: Namespace::new("noted").expect("valid"),
            pid: 1,
            nats_pid: None,
            runtime: None,
            api: None,
            version: String::new(),
            started_at: Timestamp::default(),
            ready: true,
        };
        let home = Home::locate(Some(temp.path())).expect("given");
        home.write_running(&running).expect("written");
        let found = options(&global, "t", Duration::ZERO).expect("noted");
        assert_eq!((found.url.as_str(), found.namespace.as_str()), ("nats://noted", "noted"));
    }

    #[test]
    fn an_address_that_this_host_has_no_longer_is_the_cause() {
        let error = || failure::error(failure::UNREACHABLE, "what", "cause", "try");
        // Reserved for documentation: no host has it (RFC 5737).
        let gone = explain(error(), "nats://mozart:secret@192.0.2.1:4222");
        assert!(gone.cause.contains("listens on 192.0.2.1,"), "{}", gone.cause);
        for there in ["nats://mozart:secret@127.0.0.1:4222", "nats://localhost:4222", "127.0.0.1"] {
            assert_eq!(explain(error(), there), error(), "{there}");
        }
        let other = failure::error(failure::DENIED, "what", "cause", "try");
        assert_eq!(explain(other.clone(), "nats://192.0.2.1:4222"), other);
    }

    #[test]
    fn what_is_given_wins() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut global = global(temp.path());
        global.nats = Some("nats://given".to_owned());
        let found = options(&global, "t", Duration::ZERO).expect("given");
        assert_eq!((found.url.as_str(), found.namespace.as_str()), ("nats://given", "default"));
    }
}
