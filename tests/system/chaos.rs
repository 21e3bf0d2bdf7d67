//! No loss, no double: a minute of chaos, the same one every time.

use std::time::Duration;

use system_tests::chaos::{self, Options};
use system_tests::harness::{Hosts, Runtime, binary};

/// Longer than the lease, and than the silence after which a node is given up: `mozart up` and nats-server are frozen once, or a
/// supervisor, a node and a server of three.
const FREEZE: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn chaos_loses_nothing_and_doubles_nothing() {
    campaign(Runtime::Process, false, 20, 60.0).await;
}

/// Supervisors and nodes in processes of their own, with clocks of their own, over three servers of which one is killed, one frozen and
/// one wiped.
#[tokio::test(flavor = "multi_thread")]
async fn chaos_on_three_servers_loses_nothing_and_doubles_nothing() {
    campaign(Runtime::Process, true, 8, 25.0).await;
}

/// Fewer agents: a container takes a quarter of a second to start.
#[tokio::test(flavor = "multi_thread")]
async fn chaos_with_containers_loses_nothing_and_doubles_nothing() {
    if let Some(runtime) = Runtime::docker().await {
        campaign(runtime, false, 8, 25.0).await;
    }
}

/// The same, with each server and its roles on a host of its own, whose links and power are cut.
#[tokio::test]
async fn chaos_over_three_hosts_loses_nothing_and_doubles_nothing() {
    // Whether it can run here at all.
    let Some(hosts) = Hosts::new(1, &[]) else { return };
    drop(hosts);
    let mut campaign = tokio::process::Command::new(binary("mozart-chaos"));
    campaign.args(["--hosts", "--seconds", "60", "--seed", "1", "--agents", "6", "--rate", "10"]);
    campaign.args(["--freeze", "15", "--hot", "5", "--garbage"]);
    let ended = campaign.kill_on_drop(true).output().await.expect("it is built");
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    println!("{told}");
}

#[expect(clippy::print_stdout, reason = "the test runner shows it where it is asked to")]
async fn campaign(runtime: Runtime, cluster: bool, agents: usize, rate: f64) {
    let folder = tempfile::Builder::new().prefix("mozart-test-chaos-").tempdir();
    let folder = folder.expect("a folder");
    let options = Options {
        copies: matches!(runtime, Runtime::Process) && !cluster,
        runtime,
        cluster,
        length: Duration::from_secs(60),
        seed: 1,
        agents,
        rate,
        freezes: vec![FREEZE],
        garbage: true,
        // So that the archiver is at work, too.
        hot: Some(Duration::from_secs(5)),
        // Each process has another one where they are processes of their own.
        hosts: None,
        clocks: cluster,
        curious: false,
        folder: folder.path().to_owned(),
    };
    let mut told = Vec::new();
    let well = chaos::run(&options, &mut told).await;
    let told = String::from_utf8_lossy(&told);
    match well {
        Ok(true) => println!("{told}"),
        Ok(false) | Err(_) => {
            let kept = folder.keep();
            panic!("{told}\n{well:?}; everything is kept in {}", kept.display());
        }
    }
}
