//! No loss, no double: a minute of chaos, the same one every time.

use std::time::Duration;

use system_tests::chaos::{self, Options};
use system_tests::harness::Runtime;

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
