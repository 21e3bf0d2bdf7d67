//! Whether what the broker has accepted survives a power cut: whether it syncs every write before it says that it is stored.
//! NATS does not tell clients: only its configuration or its monitoring address does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::Broker;

use super::monitor::{self, Varz};
use super::{Check, Health, check};
use crate::args::Global;
use crate::connect;
use runtime::home::Home;

const NAME: &str = "durability";
/// As nats-server's own default.
const DEFAULT: &str = "2m";

/// When a server syncs its writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sync {
    /// Before it acknowledges them.
    Always,
    /// So often.
    Every(String),
}

/// The configuration of the server that is in use, if `up` has started it.
pub(super) fn ours(global: &Global, home: Option<&Home>) -> Option<PathBuf> {
    let home = home?;
    let noted = home.read_running().ok()??;
    let in_use = connect::options(global, "", Duration::ZERO).ok()?.url;
    (noted.nats_pid.is_some() && noted.url == in_use).then(|| home.nats().join("nats.conf"))
}

/// One line for each server that can be asked.
pub(super) async fn checks(
    broker: &Broker,
    ours: Option<&Path>,
    monitors: &[String],
) -> Vec<Check> {
    let replicas = broker.replicas();
    if let Some(conf) = ours {
        let shown = conf.display();
        return vec![match std::fs::read_to_string(conf) {
            Ok(text) => {
                let try_ = "`mozart down`, then `mozart up` without --sync";
                judge(&shown.to_string(), &of_conf(&text), replicas, try_)
            }
            Err(error) => check(NAME, Health::Warn, format!("{shown}: {error}"), ""),
        }];
    }
    let mut checks = Vec::new();
    for url in monitors.iter().filter(|url| !url.is_empty()) {
        checks.push(match monitor::varz(url).await {
            Ok(varz) => of_server(url, &varz, &broker.server_id(), replicas),
            Err(error) => {
                let try_ = "use --monitor with the address of `http` in the server's configuration";
                check(NAME, Health::Warn, format!("{url}: {error}"), try_)
            }
        });
    }
    if checks.is_empty() {
        let found = "unknown: NATS does not tell clients whether it syncs before it acknowledges";
        let try_ = "use --monitor http://HOST:8222 (MOZART_NATS_MONITOR) to ask it";
        checks.push(check(NAME, Health::Warn, found, try_));
    }
    checks
}

fn of_server(url: &str, varz: &Varz, connected: &str, replicas: usize) -> Check {
    let name = &varz.server_name;
    let Some(sync) = varz.sync() else {
        return check(NAME, Health::Warn, format!("{name} at {url} has no JetStream"), "");
    };
    // In a cluster, each is asked for itself.
    if replicas == 1 && varz.server_id != connected {
        let found = format!("{url} belongs to {name}, which is not the server in use");
        return check(
            NAME,
            Health::Warn,
            found,
            "use --monitor with the address of the one in use",
        );
    }
    let try_ = "`sync_interval: always` in `jetstream` of its configuration";
    judge(&format!("{name} at {url}"), &sync, replicas, try_)
}

fn judge(who: &str, sync: &Sync, replicas: usize, try_: &str) -> Check {
    match (sync, replicas) {
        (Sync::Always, _) => {
            check(NAME, Health::Ok, format!("synced before it is acknowledged ({who})"), "")
        }
        (Sync::Every(every), 0..=1) => {
            let found =
                format!("synced only every {every}: a power cut loses accepted messages ({who})");
            check(NAME, Health::Fail, found, try_)
        }
        (Sync::Every(every), replicas) => {
            let found = format!(
                "synced only every {every}: a power cut of all {replicas} replicas loses accepted messages ({who})"
            );
            check(NAME, Health::Warn, found, try_)
        }
    }
}

/// Reads the configuration that `up` writes.
fn of_conf(text: &str) -> Sync {
    let mut lines = text.lines().map(str::trim);
    let value = lines.find_map(|line| {
        let rest = line.strip_prefix("sync_interval")?;
        Some(rest.trim_matches([' ', ':', '=', '"', '\t']))
    });
    match value {
        Some("always") => Sync::Always,
        Some(every) => Sync::Every(every.to_owned()),
        None => Sync::Every(DEFAULT.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn varz(json: serde_json::Value) -> Varz {
        serde_json::from_value(json).expect("as the server says it")
    }

    #[test]
    fn the_configuration_says_when_it_is_synced() {
        let conf =
            |line: &str| of_conf(&format!("jetstream {{\n  store_dir: \"/x\"\n  {line}\n}}\n"));
        assert_eq!(conf("sync_interval: always"), Sync::Always);
        assert_eq!(conf("sync_interval = \"always\""), Sync::Always);
        assert_eq!(conf("sync_interval: 2m"), Sync::Every("2m".into()));
        assert_eq!(conf("# sync_interval: always"), Sync::Every("2m".into()));
    }

    #[test]
    fn what_is_synced_late_fails_on_one_replica_and_warns_on_more() {
        let every = Sync::Every("2m".into());
        assert_eq!(judge("x", &Sync::Always, 1, "t").health, Health::Ok);
        assert_eq!(judge("x", &every, 1, "t").health, Health::Fail);
        assert_eq!(judge("x", &every, 3, "t").health, Health::Warn);
        assert!(judge("x", &every, 1, "t").found.contains("only every 2m: a power cut"));
    }

    #[test]
    fn a_monitor_is_believed_of_its_own_server() {
        let lazy = varz(serde_json::json!({
            "server_id": "A", "server_name": "n1",
            "jetstream": { "config": { "sync_interval": 120_000_000_000_u64 } },
        }));
        assert_eq!(lazy.sync(), Some(Sync::Every("2m".into())));
        assert_eq!(of_server("u", &lazy, "A", 1).health, Health::Fail);
        assert_eq!(of_server("u", &lazy, "B", 1).health, Health::Warn);
        assert!(of_server("u", &lazy, "B", 1).found.contains("not the server in use"));
        assert!(of_server("u", &lazy, "B", 3).found.contains("all 3 replicas"));
        let always = varz(serde_json::json!({
            "server_id": "A", "server_name": "n1",
            "jetstream": { "config": { "sync_interval": 120_000_000_000_u64, "sync_always": true } },
        }));
        assert_eq!(of_server("u", &always, "A", 1).health, Health::Ok);
        let without = varz(serde_json::json!({ "server_id": "A", "jetstream": {} }));
        assert!(of_server("u", &without, "A", 1).found.contains("no JetStream"));
    }
}
