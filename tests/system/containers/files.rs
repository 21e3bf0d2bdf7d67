//! The files of a soul's folder within containers: from a volume, not from the node's host.

use std::fs;

use bollard::query_parameters::{ListVolumesOptions, RemoveVolumeOptions};
use system_tests::harness::{Engine, Fleet, Runtime, flaky};

use super::{ask, nothing_left, refusal};

fn write(fleet: &Fleet, name: &str, text: &str) {
    fs::write(fleet.souls().join(name), text).expect("written");
}

/// The names of the volumes with files of a fleet.
async fn volumes(engine: &Engine, of: &str) -> Vec<String> {
    let all = engine.docker().list_volumes(None::<ListVolumesOptions>).await.expect("a list");
    let all = all.volumes.unwrap_or_default().into_iter();
    let ours = all.filter(|one| {
        one.labels.contains_key("dev.mozart.files")
            && one.labels.get("dev.mozart.fleet").is_some_and(|fleet| fleet == of)
    });
    ours.map(|one| one.name).collect()
}

#[tokio::test]
async fn a_container_runs_the_files_that_were_applied_and_cannot_change_them() {
    let Some(engine) = Engine::find().await else { return };
    let more = "IMAGE mozart-test-python:latest\nWORKER [\"python3\", \"own.py\"]\nSKILL skill";
    let runtime = Runtime::Docker(engine.clone());
    let mut fleet = Fleet::laid_out(runtime, &[("a", &flaky(more))]).without_checkout();
    let probe = fs::read_to_string(fleet.souls().join("probe.py")).expect("it is there");
    write(&fleet, "own.py", &probe);
    write(&fleet, "version.txt", "first");
    fs::create_dir(fleet.souls().join("skill")).expect("made");
    write(&fleet, "skill/note", "a skill");
    fleet.all_up().await;
    let version = "open('version.txt').read()";
    assert_eq!(ask(&fleet, "a", version).await, "first");
    assert_eq!(ask(&fleet, "a", "os.getcwd()").await, "/agent");
    assert_eq!(ask(&fleet, "a", "open('/agent/skill/note').read()").await, "a skill");
    let said = ask(&fleet, "a", "open('/agent/version.txt', 'w')").await;
    assert!(refusal(&said).contains("Error"), "{said}");
    let containers = fleet.containers().await;
    let labels = containers.first().and_then(|one| one.labels.clone()).expect("labels");
    let of = labels.get("dev.mozart.fleet").expect("the fleet's id");

    let soul = fleet.souls().join("a.soul").to_str().expect("text").to_owned();
    write(&fleet, "version.txt", "second");
    let _done = fleet.cli(["apply", &soul, "--wait"]).await.ok();
    assert_eq!(ask(&fleet, "a", version).await, "second");
    // The folder is gone: what was applied is enough.
    fs::rename(fleet.souls(), fleet.souls().with_file_name("moved")).expect("renamed");
    fs::create_dir(fleet.souls()).expect("made");
    let _undone = fleet.cli(["rollout", "undo", "a", "--wait"]).await.ok();
    assert_eq!(ask(&fleet, "a", version).await, "first");

    // Somebody removes the volumes: they are made anew.
    let _done = fleet.cli(["stop", "a"]).await.ok();
    let _done = fleet.cli(["wait", "a", "--for", "stopped"]).await.ok();
    nothing_left(&fleet, "a").await;
    let made = volumes(&engine, of).await;
    assert_eq!(made.len(), 2, "{made:?}");
    for volume in &made {
        let removed = engine.docker().remove_volume(volume, None::<RemoveVolumeOptions>).await;
        removed.expect("nothing uses it");
    }
    let _done = fleet.cli(["start", "a"]).await.ok();
    let _row = fleet.wait_state("a", "running").await;
    assert_eq!(ask(&fleet, "a", version).await, "first");
    let _done = fleet.cli(["stop", "a"]).await.ok();
    let _done = fleet.cli(["wait", "a", "--for", "stopped"]).await.ok();
    nothing_left(&fleet, "a").await;
    for volume in volumes(&engine, of).await {
        let _left = engine.docker().remove_volume(&volume, None::<RemoveVolumeOptions>).await;
    }
}
