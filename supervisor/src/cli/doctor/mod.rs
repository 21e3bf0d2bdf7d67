//! `mozart doctor`: looks at everything that Mozart stands on, and says what to try.

use std::path::Path;

use broker::Broker;
use clap::Args;
use common::api::{ApiError, Hello};
use serde::Serialize;

use super::client::Client;
use super::{output, table};
use crate::args::{Global, Output};
use crate::home::Home;
use crate::runtime::labels;

/// Less free space than this is a warning, in bytes.
const SPACE: u64 = 1 << 30;

/// `mozart doctor`.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// End what is left over
    #[arg(long)]
    fix: bool,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Health {
    Ok,
    Warn,
    Fail,
}

/// One check.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    health: Health,
    found: String,
    #[serde(rename = "try", skip_serializing_if = "String::is_empty")]
    try_: String,
}

fn check(check: &'static str, health: Health, found: impl Into<String>, try_: &str) -> Check {
    Check { check, health, found: found.into(), try_: try_.to_owned() }
}

/// Checks everything; exit code 1 when something fails.
///
/// # Errors
/// When stdout is closed.
pub(crate) async fn run(global: &Global, args: &DoctorArgs) -> Result<u8, ApiError> {
    let mut checks = vec![shim(), nats_server()];
    let home = Home::locate(global.home.as_deref());
    if let Ok(home) = &home {
        checks.push(space(&home.dir));
    }
    match Client::connect(global).await {
        Ok(client) => {
            checks.extend(broker(&client.broker).await);
            let hello = client.hello().await;
            checks.push(supervisors(hello.as_ref()));
            checks.push(nodes(hello.as_ref()));
        }
        Err(error) => {
            let found = format!("{}: {}", error.what, error.cause);
            checks.push(check("broker", Health::Fail, found, &error.try_));
        }
    }
    if let Ok(home) = &home {
        checks.push(leftovers(home, args.fix)?);
    }
    match global.output {
        Output::Json => output::json(&checks)?,
        Output::Table => {
            for one in &checks {
                output::line(render(one))?;
            }
        }
    }
    Ok(u8::from(checks.iter().any(|one| one.health == Health::Fail)))
}

fn render(one: &Check) -> String {
    let health = match one.health {
        Health::Ok => "ok",
        Health::Warn => "warn",
        Health::Fail => "FAIL",
    };
    let hint = if one.try_.is_empty() { String::new() } else { format!("; try: {}", one.try_) };
    format!("{health:<5} {:<12} {}{hint}", one.check, one.found)
}

fn shim() -> Check {
    match crate::binaries::shim() {
        Ok(path) => check("shim", Health::Ok, path.display().to_string(), ""),
        Err(error) => check("shim", Health::Fail, error.cause, &error.try_),
    }
}

fn nats_server() -> Check {
    match crate::binaries::nats_server() {
        Ok((path, (major, minor))) => {
            check("nats-server", Health::Ok, format!("{} ({major}.{minor})", path.display()), "")
        }
        // Only `up` needs one of its own.
        Err(error) => check("nats-server", Health::Warn, error.cause, &error.try_),
    }
}

fn space(dir: &Path) -> Check {
    let existing = dir.ancestors().find(|folder| folder.exists()).unwrap_or(dir);
    match rustix::fs::statvfs(existing) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} MiB free in {}", free >> 20, dir.display());
            let (health, try_) = match free {
                0..SPACE => {
                    (Health::Warn, "free some, or --dir DIR: a full disk takes no messages")
                }
                _ => (Health::Ok, ""),
            };
            check("disk", health, found, try_)
        }
        Err(error) => check("disk", Health::Warn, format!("{}: {error}", dir.display()), ""),
    }
}

async fn broker(broker: &Broker) -> Vec<Check> {
    let subjects = broker.subjects();
    let version = broker.server_version();
    let found = format!(
        "nats-server {version}, namespace {}, {} journal streams",
        subjects.namespace(),
        subjects.shards()
    );
    let mut checks = vec![check("broker", Health::Ok, found, "")];
    let began = std::time::Instant::now();
    match broker.control_last_seq().await {
        Ok(records) => {
            let found = format!("{records} records, read in {}", table::short(began.elapsed()));
            checks.push(check("log", Health::Ok, found, ""));
        }
        Err(error) => {
            checks.push(check("log", Health::Fail, error.to_string(), "the server's log"))
        }
    }
    checks
}

fn supervisors(hello: Result<&Hello, &ApiError>) -> Check {
    match hello {
        Ok(Hello { supervisor, leader: Some(leader), version, term, .. }) => {
            let found = format!("{supervisor} {version} answers, {leader} leads, term {term}");
            check("supervisor", Health::Ok, found, "")
        }
        Ok(Hello { supervisor, leader: None, .. }) => {
            let found = format!("{supervisor} answers, nobody leads yet");
            check("supervisor", Health::Warn, found, "wait 10 s, and look again")
        }
        Err(error) => check("supervisor", Health::Fail, error.cause.clone(), &error.try_),
    }
}

fn nodes(hello: Result<&Hello, &ApiError>) -> Check {
    match hello {
        Ok(hello) if hello.nodes.is_empty() => check(
            "nodes",
            Health::Fail,
            "none is there: nothing can start",
            "`mozart node --name N`",
        ),
        Ok(hello) => check("nodes", Health::Ok, hello.nodes.join(", "), ""),
        Err(_) => check("nodes", Health::Warn, "no supervisor tells", ""),
    }
}

/// Processes of incarnations that no node watches: while `up` is dead they serve on; without their shim they serve nobody.
fn leftovers(home: &Home, fix: bool) -> Result<Check, ApiError> {
    let found = labels::find(&home.run());
    let orphans: Vec<_> = found
        .iter()
        .filter(|one| !one.is_shim && !found.iter().any(|shim| shim.is_shim && shim.run == one.run))
        .collect();
    if orphans.is_empty() {
        let unattended = !found.is_empty() && home.lock()?.is_some();
        let count = found.iter().filter(|one| one.is_shim).count();
        return Ok(match unattended {
            true => check(
                "leftovers",
                Health::Warn,
                format!("{count} agents run, and no `mozart up` of this folder watches them"),
                "`mozart up` takes them over, `mozart down` ends them",
            ),
            false => check("leftovers", Health::Ok, "none", ""),
        });
    }
    let names: Vec<_> = orphans.iter().map(|one| format!("{} ({})", one.pid, one.label)).collect();
    let names = names.join(", ");
    if fix {
        for one in &orphans {
            labels::sweep(&one.run);
        }
        return Ok(check("leftovers", Health::Ok, format!("ended {names}"), ""));
    }
    Ok(check(
        "leftovers",
        Health::Warn,
        format!("workers without a shim: {names}"),
        "`mozart doctor --fix`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_what_to_try() {
        let one = check("nodes", Health::Fail, "none is there", "`mozart node`");
        assert_eq!(render(&one), "FAIL  nodes        none is there; try: `mozart node`");
        assert_eq!(render(&check("shim", Health::Ok, "/x", "")), "ok    shim         /x");
    }

    #[test]
    fn a_supervisor_that_does_not_answer_fails() {
        let error =
            crate::failure::error(6, "no supervisor answers", "no responders", "`mozart up`");
        assert_eq!(supervisors(Err(&error)).health, Health::Fail);
        let hello = Hello {
            supervisor: "s".into(),
            version: "1".into(),
            leader: Some("s".into()),
            term: 3,
            nodes: Vec::new(),
        };
        assert_eq!(supervisors(Ok(&hello)).health, Health::Ok);
        assert_eq!(nodes(Ok(&hello)).health, Health::Fail);
    }
}
