//! What does not start, and what is not touched on the way.

use std::fs;
use std::os::unix::fs::symlink;

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::CreateContainerOptionsBuilder;
use system_tests::harness::{Fleet, IMAGE, Runtime, flaky};

use super::fails;

const FAR: &str = "RESTART always backoff=20s";

async fn apply(fleet: &Fleet, agent: &str, more: &str) {
    let soul = fleet.soul(agent, &flaky(more));
    let _applied = fleet.cli(["apply".as_ref(), soul.as_os_str()]).await.ok();
}

#[tokio::test]
async fn a_folder_that_must_not_be_mounted_is_refused() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("good", &flaky(""))]).await;
    let souls = fleet.souls();
    symlink("/etc", souls.join("link")).expect("made");
    fs::write(souls.join("file"), "x").expect("written");
    fs::create_dir(souls.join("closed")).expect("made");
    let home = format!("{}:/data", fleet.home().display());
    let engine = fleet.engine().socket().expect("it is local");
    let engine = format!("{}:/data", engine.parent().expect("a folder").display());
    for (agent, sanctum, why) in [
        ("missing", "nowhere:/data", "nowhere does not exist; try: `mkdir -p "),
        ("link", "link:/data", "a symbolic link leads from "),
        ("file", "file:/data", "file is not a folder"),
        ("socket", &engine, "it contains the container engine's socket"),
        ("system", "/proc:/data", "belongs to the system"),
        ("home", &home, "it contains mozart's own data, with the broker's credentials"),
        ("closed", "closed:/data", "the worker, as user 65532, may not write to "),
    ] {
        apply(&fleet, agent, &format!("SANCTUM {sanctum}\n{FAR}")).await;
        let row = fails(&fleet, agent, why).await;
        assert!(row["nextTry"].is_string(), "{row:#}");
    }
    assert!(!souls.join("nowhere").exists(), "what is not there is not made");
    assert_eq!(fleet.containers().await.len(), 1);
}

#[tokio::test]
async fn bounds_that_cannot_be_are_refused() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = Fleet::laid_out(runtime, &[("good", &flaky(""))]);
    let mut fleet = fleet.env("MOZART_CAPACITY", "cpus=1000");
    fleet.all_up().await;
    // Less than any engine takes is a mistake in the soul.
    let soul = fleet.soul("tiny", &flaky("LIMIT memory=1k"));
    fleet.cli(["apply".as_ref(), soul.as_os_str()]).await.exit(2).says("tiny.soul").says("6m");
    fs::remove_file(soul).expect("it is there");
    // More CPUs than there are, and no more than the node was said to have, is for the engine to refuse.
    apply(&fleet, "many", &format!("LIMIT cpus=1000\n{FAR}")).await;
    let _row = fails(&fleet, "many", "docker refuses it: ").await;
    // One process is the shim: there is none for the worker.
    apply(&fleet, "alone", &format!("LIMIT pids=1\n{FAR}")).await;
    let _row = fails(&fleet, "alone", "cannot start the worker \"python3\": ").await;
    assert_eq!(fleet.ask("good", "say hello").await, "hello");
}

#[tokio::test]
async fn a_strangers_container_of_that_name_is_left_alone() {
    let Some(runtime) = Runtime::docker().await else { return };
    let fleet = runtime.fleet(&[("good", &flaky(""))]).await;
    let docker = fleet.engine().docker();
    let known = fleet.engine().inspect(&fleet.container("good")).await;
    // mozart-<agent>-<incarnation>-<fleet>
    let name = known.name.expect("it has one").trim_start_matches('/').replacen("good", "w", 1);
    assert!(name.starts_with("mozart-w-1-"), "{name}");
    let options = CreateContainerOptionsBuilder::default().name(&name).build();
    let body = ContainerCreateBody { image: Some(IMAGE.to_owned()), ..Default::default() };
    let stranger = docker.create_container(Some(options), body).await.expect("a container").id;

    apply(&fleet, "w", FAR).await;
    let row =
        fails(&fleet, "w", &format!("a container that is not mozart's has the name {name}")).await;
    assert!(row.to_string().contains("try: "), "{row:#}");
    let there = fleet.engine().inspect(&stranger).await;
    fleet.engine().remove(&stranger).await;
    assert_eq!(there.id.as_deref(), Some(stranger.as_str()));
    // The next incarnation has another name.
    let _restarted = fleet.cli(["restart", "w"]).await.ok();
    let _row = fleet.wait_incarnation("w", 2).await;
    assert_eq!(fleet.ask("w", "say hello").await, "hello");
}
