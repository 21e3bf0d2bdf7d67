//! Several hosts, each with a nats-server of one cluster, over networks that are cut.

use std::time::{Duration, Instant};

use serde_json::Value;
use system_tests::harness::{Fleet, Hosts, eventually, flaky, within};

/// How long a cluster may take to lose a host and answer again.
const FAILOVER: Duration = Duration::from_secs(40);

/// Starts a cluster on all hosts, and returns once its streams have all their replicas.
pub(crate) async fn start(hosts: &Hosts, count: usize) {
    let souls = hosts.host(0).souls().to_string_lossy().into_owned();
    let address = hosts.address(0);
    let first =
        ["up", &souls, "-d", "--wait", "--cluster", "c", "--listen", &address, "--name", "n0"];
    let mut printed = hosts.host(0).cli(first).await.ok().stdout;
    for host in 1..count {
        let string =
            printed.trim().strip_prefix("mozart up --join ").expect("a command").to_owned();
        let name = format!("n{host}");
        let joined = hosts.host(host).cli(["join", &string, "-d", "--name", &name]).await.ok();
        if host == 2 {
            let joined = joined.clone();
            joined.says("streams have three replicas");
        }
        printed = joined.stdout;
    }
}

async fn answer(fleet: &Fleet, agent: &str, text: &str) -> String {
    fleet.cli(["send", agent, text, "--wait", "--timeout", "60s"]).await.ok().stdout
}

fn row<'a>(rows: &'a Value, agent: &str) -> &'a Value {
    let rows = rows.as_array().expect("a list");
    rows.iter().find(|row| row["agent"] == agent).expect("it is there")
}

fn row_of<'a>(rows: &'a Value, node: &str) -> &'a Value {
    let rows = rows.as_array().expect("a list");
    rows.iter().find(|row| row["node"] == node).expect("it is there")
}

#[tokio::test]
async fn three_commands_make_a_cluster_that_outlives_any_of_its_hosts() {
    let Some(hosts) = Hosts::new(3, &[("a", &flaky("")), ("b", &flaky(""))]) else { return };
    start(&hosts, 3).await;
    for host in 0..3 {
        assert_eq!(answer(hosts.host(host), "a", "before").await, "before\n");
    }
    let nodes = hosts.host(2).json(["node", "ls"]).await;
    let up = nodes.as_array().expect("a list").iter().filter(|node| node["state"] == "up").count();
    assert_eq!(up, 3, "{nodes}");

    // The host that all began on, with everything on it.
    hosts.kill(0);
    let began = Instant::now();
    for agent in ["a", "b"] {
        within(FAILOVER, "the other hosts run its agents", async || {
            let sent =
                hosts.host(1).cli(["send", agent, "after", "--wait", "--timeout", "40s"]).await;
            if sent.code == 0 { Ok(()) } else { Err(sent.to_string()) }
        })
        .await;
    }
    assert!(began.elapsed() < FAILOVER, "{:?}", began.elapsed());
    let rows = hosts.host(2).json(["ps"]).await;
    for agent in ["a", "b"] {
        assert_ne!(row(&rows, agent)["node"], "n0", "{rows}");
    }

    // It comes back with what it has, and nothing of it is asked for again.
    let _up = hosts.host(0).cli(["up", "-d"]).await.ok();
    assert_eq!(answer(hosts.host(0), "a", "again").await, "again\n");
    eventually("its node is up, and runs nothing", async || {
        let nodes = hosts.host(1).json(["node", "ls"]).await;
        let first = nodes.as_array().and_then(|nodes| nodes.first().cloned()).unwrap_or_default();
        if first["state"] == "up" && first["incarnations"].as_array().is_none_or(Vec::is_empty) {
            Ok(())
        } else {
            Err(nodes.to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn a_join_token_admits_one_host() {
    let Some(hosts) = Hosts::new(3, &[]) else { return };
    let address = hosts.address(0);
    let first = ["up", "-d", "--cluster", "c", "--listen", &address, "--name", "n0"];
    let printed = hosts.host(0).cli(first).await.ok().stdout;
    let string = printed.trim().strip_prefix("mozart up --join ").expect("a command");
    let join = |host: usize, string: &str| {
        let name = format!("n{host}");
        let args =
            ["join".to_owned(), string.to_owned(), "-d".to_owned(), "--name".to_owned(), name];
        hosts.host(host).cli(args)
    };
    let damaged = &string[..string.len() - 5];
    join(1, damaged).await.exit(2).says("it is damaged: copy all of it");
    join(1, string).await.ok().says("2 servers of 3");
    join(2, string).await.exit(7).says("the join token was used by another host");
    // What runs again needs none, and a repeated command does no harm.
    let _again = join(1, string).await.ok();
    let _down = hosts.host(1).cli(["down"]).await.ok();
    let _up = hosts.host(1).cli(["up", "-d"]).await.ok();
    let token = hosts.host(1).cli(["join-token"]).await.ok().stdout;
    let _third = join(2, token.trim()).await.ok();

    // A folder has one address and one cluster.
    let elsewhere = ["up", "-d", "--cluster", "c", "--listen", "10.77.0.9"];
    hosts
        .host(0)
        .cli(elsewhere)
        .await
        .exit(4)
        .says("the other members know this host as 10.77.0.1:4222");
    hosts
        .host(0)
        .cli(["up", "-d", "--cluster", "d"])
        .await
        .exit(4)
        .says("it is a member of c, not of d");
}

#[tokio::test]
async fn a_cluster_of_one_host_is_restarted_alone() {
    let Some(hosts) = Hosts::new(1, &[("a", &flaky(""))]) else { return };
    start(&hosts, 1).await;
    assert_eq!(answer(hosts.host(0), "a", "one").await, "one\n");
    let _down = hosts.host(0).cli(["down"]).await.ok();
    assert_eq!(hosts.processes(0), [0_u32; 0], "all of it has ended");
    let _up = hosts.host(0).cli(["up", "-d", "--wait"]).await.ok();
    assert_eq!(answer(hosts.host(0), "a", "two").await, "two\n");
    hosts.kill(0);
    let _up = hosts.host(0).cli(["up", "-d", "--wait"]).await.ok();
    assert_eq!(answer(hosts.host(0), "a", "three").await, "three\n");
}

#[tokio::test]
async fn the_fleet_of_a_single_host_does_not_become_a_cluster_by_itself() {
    let Some(hosts) = Hosts::new(1, &[("a", &flaky(""))]) else { return };
    let _up = hosts.host(0).cli(["up", "-d"]).await.ok();
    let cluster = ["up", "-d", "--cluster", "c", "--listen", "10.77.0.1"];
    hosts.host(0).cli(cluster).await.exit(4).says("it runs on this host alone");
    let _down = hosts.host(0).cli(["down"]).await.ok();
    hosts.host(0).cli(cluster).await.exit(4).says("holds the fleet of a single host");
    hosts.host(0).cli(["up", "-d", "--listen", "10.77.0.1"]).await.exit(2).says("--cluster NAME");
}

#[tokio::test]
async fn a_copy_of_a_members_folder_is_no_member() {
    let Some(hosts) = Hosts::new(2, &[("a", &flaky(""))]) else { return };
    start(&hosts, 1).await;
    let _down = hosts.host(0).cli(["down"]).await.ok();
    let copied = std::process::Command::new("cp")
        .args(["-a".as_ref(), hosts.host(0).home().as_os_str(), hosts.host(1).home().as_os_str()])
        .status();
    assert!(copied.expect("cp is there").success());
    hosts.host(1).cli(["up", "-d"]).await.exit(4).says("it is a copy of that of n0-");
}

#[tokio::test]
async fn a_host_that_starts_before_the_others_waits_for_them() {
    let Some(hosts) = Hosts::new(3, &[("a", &flaky(""))]) else { return };
    start(&hosts, 3).await;
    (0..3).for_each(|host| hosts.kill(host));
    // One of three decides nothing.
    let first = hosts.host(0).cli(["up", "-d"]).await.exit(5);
    first.says("goes on waiting for the other hosts");
    let sent = hosts.host(0).cli(["send", "a", "x", "--nats", "", "--timeout", "5s"]).await;
    assert_ne!(sent.code, 0, "{sent}");
    let _second = hosts.host(1).cli(["up", "-d"]).await.ok();
    within(FAILOVER, "two of three answer", async || {
        let sent = hosts.host(0).cli(["send", "a", "again", "--wait", "--timeout", "30s"]).await;
        if sent.code == 0 { Ok(()) } else { Err(sent.to_string()) }
    })
    .await;
    within(FAILOVER, "doctor names what is missing", async || {
        let doctor = hosts.host(1).cli(["doctor"]).await;
        let named = ["streams have all their replicas", "lost: n2"];
        let all = named.iter().all(|words| doctor.stdout.contains(words));
        if all { Ok(()) } else { Err(doctor.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_host_that_is_lost_is_removed_and_another_takes_its_place() {
    let Some(hosts) = Hosts::new(4, &[("a", &flaky(""))]) else { return };
    start(&hosts, 3).await;
    let rm = ["node", "rm", "n2"];
    hosts.host(0).cli(rm).await.exit(4).says("it still reports");
    hosts.kill(2);
    within(FAILOVER, "its node is lost", async || {
        let nodes = hosts.host(0).cli(["node", "ls", "-o", "json"]).await;
        let lost = nodes.code == 0 && row_of(&nodes.json(), "n2")["state"] == "lost";
        if lost { Ok(()) } else { Err(nodes.to_string()) }
    })
    .await;
    let removed = hosts.host(0).cli(rm).await.ok();
    removed.says("from the cluster: 2 servers are left, and the next host that joins");
    // The streams may elect leaders just now.
    within(FAILOVER, "it is known no more", async || {
        let again = hosts.host(1).cli(rm).await;
        if again.code == 3 { Ok(()) } else { Err(again.to_string()) }
    })
    .await;

    let token = hosts.host(1).cli(["join-token"]).await.ok().stdout;
    let joined = hosts.host(3).cli(["join", token.trim(), "-d", "--name", "n3"]).await.ok();
    joined.says("streams have three replicas");
    within(FAILOVER, "all streams are complete again", async || {
        let doctor = hosts.host(1).cli(["doctor"]).await;
        if doctor.stdout.contains("all streams have 3 replicas") {
            Ok(())
        } else {
            Err(doctor.to_string())
        }
    })
    .await;
    assert_eq!(answer(hosts.host(3), "a", "three again").await, "three again\n");

    // What it has on its disk is of no use any more.
    let up = hosts.host(2).cli(["up", "-d"]).await.exit(4);
    up.says("was removed with `mozart node rm`");
    assert_eq!(hosts.processes(2), [0_u32; 0], "nothing of it was started");
}

#[tokio::test]
async fn the_fleet_of_a_single_host_becomes_a_cluster_by_way_of_a_backup() {
    let Some(hosts) = Hosts::new(4, &[("a", &flaky(""))]) else { return };
    let single = hosts.host(3);
    let souls = hosts.host(0).souls().to_string_lossy().into_owned();
    let _up = single.cli(["up", &souls, "-d", "--wait"]).await.ok();
    for text in ["one", "two", "three"] {
        assert_eq!(answer(single, "a", text).await, format!("{text}\n"));
    }
    let _stopping = single.cli(["stop", "a"]).await.ok();
    let _stopped = single.cli(["wait", "a", "--for", "stopped"]).await.ok();
    let open = single.cli(["send", "a", "open"]).await.ok().stdout;
    let backup = single.souls().join("fleet.backup").to_string_lossy().into_owned();
    let _taken = single.cli(["backup", &backup]).await.ok();
    let _down = single.cli(["down"]).await.ok();

    let address = hosts.address(0);
    let first = ["up", "-d", "--cluster", "c", "--listen", &address, "--name", "n0"];
    let mut printed = hosts.host(0).cli(first).await.ok().stdout;
    let _down = hosts.host(0).cli(["down"]).await.ok();
    let _reset = hosts.host(0).cli(["reset", "--all", "--yes"]).await.ok();
    let _restored = hosts.host(0).cli(["restore", &backup]).await.ok();
    let _up = hosts.host(0).cli(["up", "-d"]).await.ok();
    for host in 1..3 {
        let token = hosts.host(0).cli(["join-token"]).await.ok().stdout;
        let name = format!("n{host}");
        let joined = hosts.host(host).cli(["join", token.trim(), "-d", "--name", &name]).await.ok();
        printed = joined.stderr;
    }
    assert!(printed.contains("streams have three replicas"), "{printed}");
    let _started = hosts.host(2).cli(["start", "a"]).await.ok();
    let journal = hosts.host(1).json(["journal", "ls"]).await;
    let rows = journal.as_array().expect("a list");
    assert_eq!(rows.len(), 4, "{journal}");
    let attached = hosts.host(1).cli(["attach", open.trim()]).await.ok();
    assert!(attached.stdout.contains("open"), "{attached}");
    hosts.kill(0);
    within(FAILOVER, "the others have it all", async || {
        let sent = hosts.host(1).cli(["send", "a", "after", "--wait", "--timeout", "40s"]).await;
        if sent.code == 0 { Ok(()) } else { Err(sent.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn of_two_hosts_that_are_lost_one_is_enough_to_go_on() {
    let Some(hosts) = Hosts::new(3, &[("a", &flaky("")), ("b", &flaky("")), ("c", &flaky(""))])
    else {
        return;
    };
    start(&hosts, 3).await;
    for agent in ["a", "b", "c"] {
        assert_eq!(answer(hosts.host(0), agent, "before").await, "before\n");
    }
    let before = hosts.host(0).json(["ps"]).await;
    hosts.kill(1);
    hosts.kill(2);
    // The streams are given up by their leader, and shims and supervisors wait for another one.
    tokio::time::sleep(Duration::from_secs(15)).await;
    let _up = hosts.host(1).cli(["up", "-d"]).await.ok();
    for agent in ["a", "b", "c"] {
        within(FAILOVER, "two of three hosts run everything", async || {
            let sent = hosts.host(0).cli(["send", agent, "x", "--wait", "--timeout", "30s"]).await;
            if sent.code == 0 { Ok(()) } else { Err(sent.to_string()) }
        })
        .await;
    }
    // What is in memory was lost with most of its servers, and is there again.
    within(FAILOVER, "answers are streamed", async || {
        let chat = hosts.host(1).cli(["chat", "a", "streamed"]).await;
        if chat.code == 0 { Ok(()) } else { Err(chat.to_string()) }
    })
    .await;
    within(FAILOVER, "nothing has failed", async || {
        let doctor = hosts.host(0).cli(["doctor"]).await;
        if doctor.stdout.contains("FAIL") { Err(doctor.to_string()) } else { Ok(()) }
    })
    .await;
    let after = hosts.host(0).json(["ps"]).await;
    let stayed = before.as_array().expect("a list").iter().filter(|one| one["node"] == "n0");
    for one in stayed {
        let agent = one["agent"].as_str().expect("a name");
        let now = row(&after, agent);
        assert_eq!(now["incarnation"], one["incarnation"], "it ran all the time: {after}");
    }
}
