//! What an agent in a container takes along: its image, without anything of ours and without secrets.

use std::ffi::OsStr;
use std::fs;

use bollard::models::{ContainerConfig, ImageInspect};
use bollard::query_parameters::RemoveImageOptions;
use system_tests::harness::{Engine, Fleet, OwnImage, Runtime};
use uuid::Uuid;

const SECRET: &str = "the-value-of-the-secret";

async fn inspect(engine: &Engine, image: &str) -> ImageInspect {
    let known = engine.docker().inspect_image(image).await;
    known.unwrap_or_else(|error| panic!("{image}: {error}"))
}

fn elsewhere(engine: &Engine, souls: &[(&str, &str)]) -> Fleet {
    let fleet = Fleet::laid_out(Runtime::Docker(engine.clone()), souls);
    fleet.env("TOKEN", SECRET).without_checkout()
}

#[tokio::test]
async fn a_committed_image_travels_with_its_agent_and_holds_nothing_of_ours() {
    let Some(engine) = Engine::find().await else { return };
    let words = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    let config = ContainerConfig {
        entrypoint: words(&["python3"]),
        cmd: words(&["/workers/worker.py"]),
        user: Some("daemon".to_owned()),
        working_dir: Some("/tmp".to_owned()),
        labels: Some([("maker".to_owned(), "somebody".to_owned())].into()),
        stop_signal: Some("SIGINT".to_owned()),
        ..ContainerConfig::default()
    };
    let original = engine.image_with(config).await;
    let agent = format!("mover-{}", Uuid::now_v7().simple());
    let soul = format!("MODEL m\nSOUL s\nIMAGE {}\nSECRET TOKEN\n", original.name);
    let mut from = elsewhere(&engine, &[(&agent, &soul)]);
    from.all_up().await;
    let mut to = elsewhere(&engine, &[]);
    to.up(&[]).await;

    let reference = from.cli(["commit", &agent]).await.ok().stdout.trim().to_owned();
    let committed = OwnImage { name: reference.clone() };
    assert_eq!(reference, format!("mozart-commit/{agent}:1-1"));
    let _unknown = to.cli(["commit", &agent]).await.exit(3);
    let (ours, theirs) =
        (inspect(&engine, &reference).await, inspect(&engine, &original.name).await);
    assert_eq!(ours.config, theirs.config);
    let shown = format!("{ours:?}");
    assert!(!shown.contains("dev.mozart") && !shown.contains(SECRET), "{shown}");

    let _replaced = from.cli(["replace", &agent, "--image", &reference, "--wait"]).await.ok();
    assert_eq!(from.ask(&agent, "say hello").await, "hello");
    let _stopped = from.cli(["stop", &agent]).await.ok();
    let open = from.send(&agent, "say later").await;
    let file = from.souls().join("agent.tar");
    let args = ["export", &agent].into_iter().map(OsStr::new);
    let _exported = from.cli(args.chain([file.as_os_str()])).await.ok().says(&reference);
    // It has ended by now, since it was exported.
    let _no_container = from.cli(["commit", &agent]).await.exit(4).says("is not running");
    let archive = fs::read(&file).expect("it is there");
    for hidden in [SECRET, "dev.mozart"] {
        let found = memchr::memmem::find(&archive, hidden.as_bytes());
        assert_eq!(found, None, "{hidden} is in the archive");
    }

    // Elsewhere the image is not there, and nobody can pull it.
    let gone = engine.docker().remove_image(&reference, None::<RemoveImageOptions>, None).await;
    let _gone = gone.expect("it is ours");
    let _imported = to.cli(["import".as_ref(), file.as_os_str()]).await.ok();
    assert_eq!(inspect(&engine, &reference).await.id, theirs.id);
    let row = to.wait_status(&open, "completed").await.row;
    assert_eq!((row.response.as_deref(), row.attempts), (Some("later"), 1));
    drop((from, to));
    drop(committed);
}
