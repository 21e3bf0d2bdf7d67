//! What changes at the engine while a fleet runs.

use bollard::models::{ContainerConfig, Ipam, IpamConfig, NetworkCreateRequest};
use bollard::query_parameters::TagImageOptionsBuilder;
use system_tests::harness::{Engine, Fleet, Runtime, binary, eventually};

use super::{ask, nothing_left, probe};

const VERSION: &str = "__import__('os').environ['VERSION']";

/// A tag names an image when a container is made: what runs goes on with the one that it has.
#[tokio::test]
async fn another_image_under_the_same_tag_is_for_the_next_container() {
    let Some(engine) = Engine::find().await else { return };
    let version = |number: u32| ContainerConfig {
        env: Some(vec![format!("VERSION={number}")]),
        ..Default::default()
    };
    let image = engine.image_with(version(1)).await;
    let soul = probe(&format!("IMAGE {}\nRESTART always backoff=100ms", image.name));
    let fleet = Runtime::Docker(engine.clone()).fleet(&[("a", &soul)]).await;
    assert_eq!(ask(&fleet, "a", VERSION).await, "1");

    let newer = engine.image_with(version(2)).await;
    let (repo, tag) = image.name.split_once(':').expect("a tag");
    let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
    engine.docker().tag_image(&newer.name, Some(options)).await.expect("tagged");
    assert_eq!(ask(&fleet, "a", VERSION).await, "1");
    let _replaced = fleet.cli(["replace", "a", "--wait"]).await.ok();
    assert_eq!(ask(&fleet, "a", VERSION).await, "2");
    // Nothing that the fleet knows has changed.
    let row = fleet.wait_incarnation("a", 2).await;
    assert_eq!(row["generation"], 1, "{row:#}");
}

/// A network of a test's own; gone when [`Network::remove`] is called.
struct Network {
    engine: Engine,
    name: String,
}

impl Network {
    async fn create(&self) {
        // Always the same, as where a compose file says so.
        let config = IpamConfig {
            subnet: Some("10.213.77.0/24".to_owned()),
            gateway: Some("10.213.77.1".to_owned()),
            ..Default::default()
        };
        let request = NetworkCreateRequest {
            name: self.name.clone(),
            ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
            ..Default::default()
        };
        let _made = self.engine.docker().create_network(request).await.expect("a network");
    }

    async fn remove(&self) {
        self.engine.docker().remove_network(&self.name).await.expect("removed");
    }
}

#[tokio::test]
async fn a_network_that_is_removed_is_named_until_it_is_back() {
    let Some(engine) = Engine::find().await else { return };
    let name = format!("mozart-test-{}", uuid::Uuid::now_v7().simple());
    let network = Network { engine: engine.clone(), name };
    network.create().await;
    let soul = probe("RESTART always backoff=500ms");
    let fleet = Fleet::laid_out(Runtime::Docker(engine), &[("a", &soul)]);
    let mut fleet = fleet.env("MOZART_NETWORK", &network.name);
    fleet.all_up().await;
    assert_eq!(ask(&fleet, "a", "1 + 1").await, 2);

    stop(&fleet).await;
    network.remove().await;
    // The broker is where containers reach it.
    let told = fleet.cli(["ps"]).await.exit(6).says("this host has that address no longer");
    assert!(told.stderr.contains("create the network"), "{told}");
    network.create().await;
    eventually("the broker answers", async || {
        let started = fleet.cli(["start", "a"]).await;
        if started.stderr.is_empty() { Ok(()) } else { Err(started.to_string()) }
    })
    .await;
    assert_eq!(ask(&fleet, "a", "1 + 1").await, 2);

    stop(&fleet).await;
    network.remove().await;
    let _down = fleet.cli(["down"]).await.ok();
}

async fn stop(fleet: &Fleet) {
    let _stopped = fleet.cli(["stop", "a"]).await.ok();
    let _gone = fleet.wait_state("a", "stopped").await;
    nothing_left(fleet, "a").await;
}

/// The node fails after the broker and the supervisor have started.
#[tokio::test]
async fn what_keeps_a_node_from_starting_is_what_up_in_the_background_says() {
    let Some(engine) = Engine::find().await else { return };
    let fleet = Fleet::laid_out(Runtime::Docker(engine), &[("a", &probe(""))]);
    let souls = fleet.souls().as_os_str();
    let needs_a_loader = binary("mozart-shim");
    for (name, value, code, why) in [
        ("MOZART_NETWORK", "mozart-test-nowhere".as_ref(), 6, "network mozart-test-nowhere"),
        ("MOZART_SHIM", needs_a_loader.as_os_str(), 1, "is not static"),
    ] {
        let args = ["up".as_ref(), souls, "-d".as_ref()];
        let up = fleet.cli_with(args, &[(name, value)]).await.exit(code);
        up.says("cannot run containers").says(why);
        eventually("it has ended", async || match fleet.processes() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("{left:?}")),
        })
        .await;
        assert_eq!(fleet.note(), None);
    }
}
