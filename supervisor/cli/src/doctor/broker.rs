//! The broker, the control log, the supervisors and the nodes.

use std::time::{Duration, Instant};

use broker::{Broker, BrokerError, Scaled};
use common::api::{ApiError, Hello};
use common::storage::{Disk, Level};

use super::{Check, Health, check};
use crate::table;

/// A record is stored within this time, or something is wrong.
const STORED: Duration = Duration::from_secs(5);
/// How long the process on the broker's machine may take to tell of its disk.
pub(super) const TOLD: Duration = Duration::from_millis(500);
pub(super) const REMOVED: &str =
    "`mozart down`; put the data back from a backup, if there is one; `mozart up`";
const STORE: &str = "check the server's log, and whether its disk is full or read-only";

pub(super) async fn checks(broker: &Broker) -> Vec<Check> {
    let subjects = broker.subjects();
    let version = broker.server_version();
    let found = format!(
        "nats-server {version}, namespace {}, {} journal streams",
        subjects.namespace(),
        subjects.shards()
    );
    let mut checks = vec![check("broker", Health::Ok, found, "")];
    // What the server has in memory, it also reads, and what it writes to removed files, it takes.
    let disk = broker.disk(TOLD).await;
    if let Some(fault) = disk.and_then(|disk| disk.fault) {
        let found = |what| format!("{fault}: {what}");
        let log = found("records that are not read yet are lost");
        checks.push(check("log", Health::Fail, log, REMOVED));
        let store = found("what is stored now is lost when it ends");
        checks.push(check("store", Health::Fail, store, REMOVED));
        return checks;
    }
    let began = Instant::now();
    match broker.control_last_seq().await {
        Ok(records) => {
            let found = format!(
                "{}, read in {}",
                table::count(records, "record", "records"),
                table::short(began.elapsed())
            );
            checks.push(check("log", Health::Ok, found, ""));
        }
        Err(error) => {
            checks.push(check("log", Health::Fail, error.to_string(), "check the server's log"))
        }
    }
    checks.push(match broker.probe(STORED).await {
        Ok(took) => {
            let found = format!("a record was stored in {}", table::short(took));
            match disk.filter(|disk| disk.level() == Level::Full) {
                Some(disk) => {
                    let (percent, free) = (disk.percent(), table::bytes(disk.free));
                    let found = format!(
                        "{found}, but the broker's disk is {percent} % full, {free} free: the next one may not be"
                    );
                    check("store", Health::Warn, found, "free some space on that disk")
                }
                None => check("store", Health::Ok, found, ""),
            }
        }
        Err(error) => for_want_of_room(check("store", Health::Fail, error.to_string(), STORE), disk),
    });
    checks
}

/// How many streams have all their replicas. A replica is a moment behind whenever something is stored: that is none that is missing.
async fn looked_at(broker: &Broker) -> Result<Scaled, BrokerError> {
    const WITHIN: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(300);
    let until = Instant::now() + WITHIN;
    let mut best = broker.scaled(Duration::from_secs(1)).await?;
    while best.ready < best.of && Instant::now() < until {
        tokio::time::sleep(PAUSE).await;
        let scaled = broker.scaled(Duration::from_secs(1)).await?;
        if scaled.ready > best.ready {
            best = scaled;
        }
    }
    Ok(best)
}

/// Whether the streams of a cluster have all their replicas: one more server may be lost only then.
pub(super) async fn cluster(broker: &Broker) -> Option<Check> {
    if !broker.is_clustered() {
        return None;
    }
    let servers = broker.addresses().len().max(1);
    let servers = table::count(servers as u64, "server", "servers");
    let checked = match looked_at(broker).await {
        Ok(scaled) if broker.replicas() > 1 && scaled.ready == scaled.of => {
            let found = format!("{servers}; all streams have {} replicas", broker.replicas());
            check("cluster", Health::Ok, found, "")
        }
        Ok(scaled) => {
            let found = format!(
                "{servers}; {} of {} streams have all their replicas: the loss of another server may stop the rest",
                scaled.ready, scaled.of
            );
            let try_ =
                "start the missing hosts: `mozart up -d` there; `mozart join-token` for a new one";
            check("cluster", Health::Warn, found, try_)
        }
        Err(error) => check("cluster", Health::Fail, error.to_string(), "start the missing hosts"),
    };
    Some(checked)
}

pub(super) fn supervisors(hello: Result<&Hello, &ApiError>) -> Check {
    match hello {
        Ok(Hello { supervisor, unreadable: Some(why), .. }) => {
            let found =
                format!("{supervisor} cannot read the control log, so it never leads: {why}");
            let try_ = match why.contains("are missing") {
                true => {
                    "`mozart down`; restore all of the broker's data from one backup; `mozart up`"
                }
                false => "run the newest mozart everywhere",
            };
            check("supervisor", Health::Fail, found, try_)
        }
        Ok(Hello { supervisor, holder: Some(holder), leader, .. })
            if leader.as_ref() != Some(holder) =>
        {
            let found = format!(
                "{supervisor} answers, but no supervisor leads: {holder} holds the lease, and its election is not on record"
            );
            check(
                "supervisor",
                Health::Fail,
                found,
                "check again in 10 s; then see the supervisors' logs",
            )
        }
        Ok(Hello { supervisor, holder: Some(holder), version, term, .. }) => {
            let found = format!("{supervisor} {version} answers, {holder} leads, term {term}");
            check("supervisor", Health::Ok, found, "")
        }
        Ok(Hello { supervisor, holder: None, .. }) => {
            let found = format!("{supervisor} answers, but no supervisor leads");
            check(
                "supervisor",
                Health::Fail,
                found,
                "check again in 10 s; then see the supervisors' logs",
            )
        }
        Err(error) => check("supervisor", Health::Fail, error.cause.clone(), &error.try_),
    }
}

/// A check with the broker's disk as its cause, where it fails and the disk has no room.
pub(super) fn for_want_of_room(failed: Check, disk: Option<Disk>) -> Check {
    match disk.and_then(|disk| disk.shortage()) {
        Some(short) if failed.health == Health::Fail => {
            let found = format!("{}: {short}", failed.found);
            check(failed.check, failed.health, found, "free space on the broker's disk")
        }
        Some(_) | None => failed,
    }
}

pub(super) fn nodes(hello: Result<&Hello, &ApiError>) -> Check {
    match hello {
        Ok(hello) if hello.nodes.is_empty() => {
            check("nodes", Health::Fail, "none: no agent can start", "`mozart node --name N`")
        }
        Ok(hello) if !hello.lost.is_empty() => {
            let found = format!("{}; lost: {}", hello.nodes.join(", "), hello.lost.join(", "));
            let try_ =
                "start the node again; `mozart node rm NODE` for one that does not come back";
            check("nodes", Health::Warn, found, try_)
        }
        Ok(hello) => check("nodes", Health::Ok, hello.nodes.join(", "), ""),
        Err(_) => check("nodes", Health::Warn, "unknown: no supervisor answers", ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::failure;

    #[test]
    fn a_supervisor_that_does_not_answer_fails() {
        let error = failure::error(6, "no supervisor answers", "no responders", "`mozart up`");
        assert_eq!(supervisors(Err(&error)).health, Health::Fail);
        let hello = Hello {
            holder: Some("s".into()),
            unreadable: None,
            supervisor: "s".into(),
            version: "1".into(),
            leader: Some("s".into()),
            term: 3,
            nodes: Vec::new(),
            draining: Vec::new(),
            lost: Vec::new(),
        };
        assert_eq!(supervisors(Ok(&hello)).health, Health::Ok);
        assert_eq!(nodes(Ok(&hello)).health, Health::Fail);
        let away = Hello { nodes: vec!["h2".into()], lost: vec!["h1".into()], ..hello.clone() };
        let checked = nodes(Ok(&away));
        assert_eq!((checked.health, &*checked.found), (Health::Warn, "h2; lost: h1"));
        // Whoever was elected last: nobody leads.
        let leaderless = Hello { holder: None, ..hello.clone() };
        let failed = supervisors(Ok(&leaderless));
        assert_eq!(failed.health, Health::Fail);
        let disk = Disk { total: 1 << 30, free: 9 << 20, fault: None };
        let found = for_want_of_room(failed, Some(disk)).found;
        assert!(found.ends_with("9 MiB are free on the broker's disk, and 16 MiB are needed"));
        // The lease alone is no leadership: the election of whoever has it may not get into the log.
        let unelected = Hello { holder: Some("t".into()), ..hello.clone() };
        assert_eq!(supervisors(Ok(&unelected)).health, Health::Fail);
        let blind = Hello { unreadable: Some("record 7".into()), ..hello };
        assert_eq!(supervisors(Ok(&blind)).health, Health::Fail);
    }
}
