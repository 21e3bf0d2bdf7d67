//! `mozart doctor`: checks everything that Mozart depends on, and says what to try.

mod broker;
mod clock;
mod containers;
mod disk;
mod durability;
mod engine;
mod monitor;
mod only;
mod processes;
mod programs;
mod questions;
mod storage;

use clap::Args;
use common::api::ApiError;
use common::users::Scope;
use serde::Serialize;

use self::engine::Found;
use self::only::Only;
use self::programs::Programs;
use super::client::Client;
use super::output;
use crate::args::{Global, Output};
use runtime::Wanted;
use runtime::home::Home;

/// `mozart doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Remove leftovers: workers without a shim, containers of nodes that are gone
    #[arg(long)]
    fix: bool,
    /// The monitoring address (`http`) of your own NATS server, to check how it syncs its writes
    #[arg(long, env = "MOZART_NATS_MONITOR", value_name = "URL", value_delimiter = ',')]
    monitor: Vec<String>,
    /// Run only this check, as health checks do; repeat for more
    #[arg(long, value_enum, value_name = "CHECK", conflicts_with = "fix")]
    only: Vec<Only>,
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
    let checks = if args.only.is_empty() {
        everything(global, args).await?
    } else {
        only::checks(global, &args.only).await
    };
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

async fn everything(global: &Global, args: &DoctorArgs) -> Result<Vec<Check>, ApiError> {
    let home = Home::locate(global.home.as_deref()).ok();
    let programs = Programs::find().await;
    let noted = home.as_ref().and_then(|home| home.read_running().ok()?);
    let runtime = noted.as_ref().and_then(|noted| noted.runtime.clone());
    let wanted = runtime.map_or(Wanted::Auto, |runtime| runtime.runtime);
    let engine = Found::look(wanted).await;
    let is_for_containers = engine.is_there() && wanted != Wanted::Process;
    let mut checks = vec![programs.shim(is_for_containers), programs.nats_server()];
    checks.push(engine.check());
    checks.extend(home.as_ref().map(|home| disk::space(&home.dir)));
    checks.extend(engine.disk());
    checks.extend(home.as_ref().filter(|_| global.url().is_none()).and_then(disk::lost));
    match Client::connect(global).await {
        // It would take what it may not ask for something that does not answer.
        Ok(client) if client.broker.user().is_some_and(|user| user.scope < Scope::Admin) => {
            let found = "not checked: that needs a user with scope admin";
            checks.push(check("broker", Health::Warn, found, "run it on a host of the fleet"));
        }
        Ok(client) => {
            let broker = &client.broker;
            checks.extend(broker::checks(broker).await);
            checks.extend(broker::cluster(broker).await);
            let ours = durability::ours(global, home.as_ref());
            checks.extend(durability::checks(broker, ours.as_deref(), &args.monitor).await);
            let server = noted.as_ref().and_then(|noted| noted.nats_pid);
            checks.extend(storage::checks(broker, server.filter(|_| ours.is_some())).await);
            checks.extend(home.as_ref().filter(|_| ours.is_some()).and_then(|home| {
                let pid = noted.as_ref().and_then(|noted| noted.nats_pid);
                disk::data(home).or_else(|| disk::blocks(home, pid?))
            }));
            checks.push(clock::broker(broker).await);
            checks.extend(engine.clock());
            let hello = client.hello().await;
            let supervisor = broker::supervisors(hello.as_ref());
            checks.push(match supervisor.health {
                Health::Fail => {
                    broker::for_want_of_room(supervisor, broker.disk(broker::TOLD).await)
                }
                Health::Ok | Health::Warn => supervisor,
            });
            checks.push(broker::nodes(hello.as_ref()));
            if hello.is_ok() {
                checks.extend(questions::open(&client).await);
            }
            let server = ours.is_some().then(|| broker.server_version());
            checks.push(programs.versions(hello.as_ref().ok(), server.as_deref()));
            if let Some(home) = &home {
                checks.push(processes::leftovers(home, args.fix));
            }
            if let Some(engine) = engine.connection() {
                let is_supervised = hello.is_ok();
                let fleet =
                    containers::Fleet { client: &client, is_supervised, home: home.as_ref() };
                let shim = programs.shim_path();
                checks.extend(containers::leftovers(fleet, engine, shim, args.fix).await);
            }
        }
        Err(error) => {
            let found = format!("{}: {}", error.what, error.cause);
            let is_own = global.url().is_none();
            let idle = home.as_ref().filter(|home| is_own && home.holder().is_none());
            let missing = idle.and_then(disk::missing);
            let try_ = missing.as_ref().map_or(&error.try_, |missing| &missing.try_);
            checks.push(check("broker", Health::Fail, found, try_));
            checks.extend(missing);
            checks.extend(home.as_ref().filter(|_| is_own).and_then(processes::ended));
            checks.extend(engine.clock());
            checks.push(programs.versions(None, None));
            if let Some(home) = &home {
                checks.push(processes::leftovers(home, args.fix));
            }
            if engine.is_there() {
                let found = "not checked: only the broker knows which belong to this fleet";
                checks.push(check("containers", Health::Warn, found, ""));
            }
        }
    }
    Ok(checks)
}

fn render(one: &Check) -> String {
    let health = match one.health {
        Health::Ok => "ok",
        Health::Warn => "warn",
        Health::Fail => "FAIL",
    };
    let hint = if one.try_.is_empty() { String::new() } else { format!("; try: {}", one.try_) };
    let line = format!("{health:<5} {:<12} {}{hint}", one.check, one.found);
    common::words::in_line(&line).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_what_to_try() {
        let one = check("nodes", Health::Fail, "none is there", "`mozart node`");
        assert_eq!(render(&one), "FAIL  nodes        none is there; try: `mozart node`");
        assert_eq!(render(&check("shim", Health::Ok, "/x\ny", "")), r"ok    shim         /x\ny");
    }
}
