//! Questions between agents.

use std::time::{Duration, Instant};

use system_tests::harness::{Fleet, Output, flaky};

/// A question that cannot be answered is refused at once: nobody waits for a deadline.
const AT_ONCE: Duration = Duration::from_secs(5);

/// Sends a message that fails, and soon.
async fn refused(fleet: &Fleet, agent: &str, text: &str) -> Output {
    let began = Instant::now();
    let output = fleet.cli(["send", agent, text, "--wait"]).await.exit(1);
    assert!(began.elapsed() < AT_ONCE, "after {:?}: {output}", began.elapsed());
    output
}

#[tokio::test]
async fn the_pair_of_the_examples_works() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/pair");
    let read = |name: &str| std::fs::read_to_string(examples.join(name)).expect("it is there");
    let mut fleet =
        Fleet::new(&[("asker", &read("asker.soul")), ("answerer", &read("answerer.soul"))]);
    for worker in ["asker.py", "answerer.py"] {
        std::fs::write(fleet.souls().join(worker), read(worker)).expect("written");
    }
    fleet.up(&[]).await;
    let answer = fleet.ask("asker", "how are you").await;
    assert_eq!(answer, "I asked answerer. It says: asker sent 3 words.");
}

#[tokio::test]
async fn a_question_to_nobody_or_to_oneself_is_refused_at_once() {
    let fleet = Fleet::with(&[("a", &flaky(""))]).await;
    refused(&fleet, "a", "ask nobody hello").await.says("nobody");
    refused(&fleet, "a", "ask a hello").await.says("cannot ask itself");
    refused(&fleet, "a", "ask No.Name hello").await.says("invalid agent name");
    assert_eq!(fleet.ask("a", "say well").await, "well");
}

#[tokio::test]
async fn a_chain_of_more_than_16_hops_is_refused_at_once() {
    let fleet =
        Fleet::with(&[("a", &flaky("CONCURRENCY 20")), ("b", &flaky("CONCURRENCY 20"))]).await;
    let chain = |hops: u32| {
        let asks = (0..hops).map(|hop| if hop % 2 == 0 { "ask b " } else { "ask a " });
        asks.collect::<String>() + "say done"
    };
    assert_eq!(fleet.ask("a", &chain(16)).await, "done");
    refused(&fleet, "a", &chain(17)).await.says("more than 16");
}

#[tokio::test]
async fn a_question_whose_deadline_has_passed_is_refused_at_once() {
    let fleet = Fleet::with(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let args = ["send", "a", "sleep 1.2; ask b hello", "--deadline", "1s", "--wait"];
    let output = fleet.cli(args).await.exit(1);
    output.says("deadline");
    // One that passes while the question waits for its agent.
    let _stopped = fleet.cli(["stop", "b"]).await.ok();
    let began = Instant::now();
    let args = ["send", "a", "ask b hello", "--deadline", "2s", "--wait"];
    let output = fleet.cli(args).await.exit(1);
    assert!(began.elapsed() < Duration::from_secs(2) + AT_ONCE, "{:?}", began.elapsed());
    output.says("deadline");
}

#[tokio::test]
async fn an_agent_that_would_wait_for_itself_is_told_so_at_once() {
    let fleet = Fleet::with(&[("a", &flaky("")), ("b", &flaky(""))]).await;
    let output = refused(&fleet, "a", "ask b ask a say hello").await;
    output.says("deadlock").says("CONCURRENCY");
    // Both go on, and room for two turns is all that was missing.
    assert_eq!(fleet.ask("a", "ask b say hello").await, "hello");
    let roomy = fleet.soul("a", &flaky("CONCURRENCY 2"));
    let _applied = fleet.cli(["apply".as_ref(), roomy.as_os_str()]).await.ok();
    let _two = fleet.wait_incarnation("a", 2).await;
    assert_eq!(fleet.ask("a", "ask b ask a say hello").await, "hello");
}

#[tokio::test]
async fn an_answer_survives_the_death_of_who_asked_and_of_who_answers() {
    let soul = flaky("RESTART always backoff=50ms..200ms");
    let fleet = Fleet::with(&[("a", &soul), ("b", &soul)]).await;
    // The callee crashes once; then the caller does, after it has the answer.
    let output = fleet
        .cli(["send", "a", "ask b crash until 2; ask b say two; crash until 2", "--wait"])
        .await
        .ok();
    assert_eq!(output.stdout, "two\n");
    let routes = fleet.json(["journal", "ls", "--agent", "b"]).await;
    let routes = routes.as_array().expect("a list");
    assert_eq!(routes.len(), 2, "the second attempt asks nothing anew: {routes:#?}");
}
