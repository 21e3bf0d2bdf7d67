//! Containers outlive whoever started them, and processes run beside them.

use serde_json::json;
use system_tests::harness::{
    Engine, Fleet, IMAGE, Runtime, Signal, eventually, flaky, kill, started_at,
};

/// The container, the shim and the worker of an agent, each with its start: the same later means that nobody touched them.
fn identity(fleet: &Fleet, agent: &str) -> (String, [(u32, Option<u64>); 2]) {
    let processes = [fleet.shim(agent), fleet.worker(agent)].map(|pid| (pid, started_at(pid)));
    (fleet.container(agent), processes)
}

#[tokio::test]
async fn containers_outlive_the_death_of_their_supervisor_and_are_adopted_by_the_next() {
    let Some(runtime) = Runtime::docker().await else { return };
    let soul = flaky("ATTEMPTS 1");
    let souls = [("a", soul.as_str()), ("b", &soul), ("c", &soul), ("d", &soul)];
    let mut fleet = runtime.fleet(&souls).await;
    let (a, b) = (identity(&fleet, "a"), identity(&fleet, "b"));
    let long = fleet.send("a", "count 30 0.1").await;
    fleet.kill_up().await;
    // Nobody is needed to answer.
    assert_eq!(fleet.ask("b", "say hello").await, "hello");
    // One ends while no node watches.
    kill(fleet.worker("d"), Signal::KILL);
    eventually("nothing of d runs", async || {
        let left = fleet.processes_of("d");
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    // One has a dead letter to leave, which a supervisor stores.
    let lost = fleet.send("c", "exit 7").await;
    let _failed = fleet.wait_status(&lost, "failed").await;

    fleet.up(&[]).await;
    for (agent, before) in [("a", a), ("b", b)] {
        let row = fleet.wait_state(agent, "running").await;
        assert_eq!((&row["restartCount"], &row["incarnation"]), (&json!(0), &json!(1)), "{row}");
        assert_eq!(identity(&fleet, agent), before);
    }
    assert_eq!(fleet.wait_status(&long, "completed").await.row.attempts, 1);
    let row = fleet.wait_incarnation("c", 2).await;
    assert_eq!(
        (&row["restartCount"], &row["lastExit"]),
        (&json!(1), &json!("exit code 7")),
        "{row}"
    );
    assert_eq!(fleet.wait_status(&lost, "failed").await.row.attempts, 1);
    let dead = fleet.json(["dead", "ls"]).await;
    assert_eq!(dead.as_array().map(Vec::len), Some(1), "{dead}");
    let row = fleet.wait_incarnation("d", 2).await;
    assert_eq!(
        (&row["restartCount"], &row["lastExit"]),
        (&json!(1), &json!("exit code 137 (signal 9)")),
        "{row}"
    );
    // They are looked after as if this one had started them.
    kill(fleet.worker("b"), Signal::KILL);
    let row = fleet.wait_incarnation("b", 2).await;
    assert_eq!(
        (&row["restartCount"], &row["lastExit"]),
        (&json!(1), &json!("exit code 137 (signal 9)"))
    );
    assert_eq!(fleet.containers().await.len(), 4);
}

#[tokio::test]
async fn one_soul_in_a_container_and_one_as_a_process() {
    let Some(engine) = Engine::find().await else { return };
    let souls = [("inside", flaky(&format!("IMAGE {IMAGE}"))), ("outside", flaky(""))];
    let souls = souls.each_ref().map(|(name, text)| (*name, text.as_str()));
    let mut fleet = Fleet::laid_out(Runtime::Docker(engine), &souls);
    fleet.up(&["--runtime", "auto"]).await;
    for (agent, _) in souls {
        let _row = fleet.wait_state(agent, "running").await;
    }
    // A process of a container has its cgroup.
    let contained = |agent: &str| {
        let worker = fleet.worker(agent);
        let known: Vec<String> = fleet.noted_containers().into_iter().map(|one| one.id).collect();
        let process = fleet.processes().into_iter().find(|process| process.pid == worker);
        process.and_then(|process| process.container).is_some_and(|id| known.contains(&id))
    };
    assert!(contained("inside"));
    assert!(!contained("outside"));
    assert_eq!(fleet.ask("inside", "ask outside say hello").await, "hello");
    assert_eq!(fleet.ask("outside", "ask inside say hello").await, "hello");
    // Each is restarted where it was.
    for agent in ["inside", "outside"] {
        kill(fleet.worker(agent), Signal::KILL);
        let row = fleet.wait_incarnation(agent, 2).await;
        assert_eq!(row["lastExit"], "exit code 137 (signal 9)");
    }
    assert!(contained("inside"));
    assert!(!contained("outside"));
    let _down = fleet.cli(["down"]).await.ok();
    assert_eq!(fleet.processes(), []);
    let left = fleet.containers().await;
    assert!(left.is_empty(), "{left:?}");
}
