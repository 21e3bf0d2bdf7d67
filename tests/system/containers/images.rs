//! Images of all kinds.

use bollard::models::ContainerConfig;
use system_tests::harness::{Engine, Fleet, Runtime, flaky};

use super::{ask, fails, nothing_left, probe};

/// The user of an agent's worker, as the host sees it.
fn user(fleet: &Fleet, agent: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", fleet.worker(agent)));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("it has one");
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

#[tokio::test]
async fn an_image_brings_its_own_worker_and_user() {
    let Some(engine) = Engine::find().await else { return };
    let entrypoint = words(&["python3"]);
    let cmd = words(&["/workers/worker.py"]);
    let user_of = |user: &str| Some(user.to_owned());
    let config = ContainerConfig { entrypoint, cmd, user: user_of("daemon"), ..Default::default() };
    let own = engine.image_with(config.clone()).await;
    let root = engine.image_with(ContainerConfig { user: user_of("root"), ..config }).await;

    let soul = |image: &str| {
        format!(
            "MODEL test/flaky\nSOUL You do what you are told.\nIMAGE {image}\nTIMEOUT drain=1s\n"
        )
    };
    let souls = [("own", soul(&own.name)), ("root", soul(&root.name))];
    let souls = souls.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut fleet = Fleet::laid_out(Runtime::Docker(engine), &souls).without_checkout();
    fleet.all_up().await;
    for (agent, expected) in [("own", "1"), ("root", "65532")] {
        assert_eq!(fleet.ask(agent, "say hello").await, "hello");
        assert_eq!(user(&fleet, agent), expected, "{agent}");
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_used_is_an_error_that_says_why() {
    let Some(engine) = Engine::find().await else { return };
    let empty = engine.empty_image().await;
    let foreign = engine.foreign_image("s390x").await;
    let unknown = ContainerConfig { user: Some("nobody-knows".to_owned()), ..Default::default() };
    let unknown = engine.image_with(unknown).await;
    // A registry that nobody runs.
    let missing = "localhost:1/mozart-test/missing:1";

    let fleet = Runtime::Docker(engine.clone()).fleet(&[("good", &flaky(""))]).await;
    let far = "RESTART always backoff=20s";
    let bad = [
        (
            "shell",
            &*empty.name,
            "WORKER exec python3 worker.py",
            "the image has no shell; try: WORKER [",
        ),
        (
            "program",
            &empty.name,
            "WORKER [\"python3\", \"worker.py\"]",
            "cannot start the worker \"python3\"",
        ),
        ("foreign", &foreign.name, "", "is for linux/s390x, and this machine runs linux/"),
        (
            "missing",
            missing,
            "",
            "image localhost:1/mozart-test/missing:1 was not found and cannot be pulled: ",
        ),
        ("whose", &unknown.name, "", "USER \"nobody-knows\" is not in its /etc/passwd"),
    ];
    for (agent, image, more, why) in bad {
        let soul = fleet.soul(agent, &flaky(&format!("IMAGE {image}\n{more}\n{far}")));
        let _applied = fleet.cli(["apply".as_ref(), soul.as_os_str()]).await.ok();
        let row = fails(&fleet, agent, why).await;
        assert!(row["nextTry"].is_string(), "{row:#}");
    }
    assert_eq!(fleet.ask("good", "say hello").await, "hello");
    for (agent, ..) in bad {
        nothing_left(&fleet, agent).await;
    }
    assert_eq!(fleet.containers().await.len(), 1);
}

#[tokio::test]
async fn what_an_image_declares_as_a_volume_can_be_written_to() {
    let Some(engine) = Engine::find().await else { return };
    // A folder that the image has, and root's.
    let volumes = Some(vec!["/var/lib".to_owned()]);
    let image = engine.image_with(ContainerConfig { volumes, ..Default::default() }).await;
    let soul = probe(&format!("IMAGE {}", image.name));
    let fleet = Runtime::Docker(engine).fleet(&[("a", &soul)]).await;
    for folder in ["/var/lib", "/tmp"] {
        let written = ask(&fleet, "a", &format!("open('{folder}/mine', 'w').write('x')")).await;
        assert_eq!(written, 1, "{folder}");
    }
}
