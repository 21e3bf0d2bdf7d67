//! `mozart forget`: of whom nothing is to be kept, nothing is in any file.

use std::path::Path;

use system_tests::harness::{Fleet, eventually};

const ECHO: &str = "MODEL test/model\nSOUL You repeat.\nCONCURRENCY 4";

/// Whether a text is in any file of a folder.
pub(crate) fn is_in(folder: &Path, text: &str) -> bool {
    // What goes while this looks is not in it.
    std::fs::read_dir(folder).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return is_in(&path, text);
        }
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

async fn say(fleet: &Fleet, agent: &str, text: &str, conversation: &str) {
    let sent = ["send", agent, text, "--conversation", conversation, "--wait"];
    assert_eq!(fleet.json(sent).await["response"], text);
}

#[tokio::test]
async fn a_conversation_and_then_an_agent_are_erased_and_the_log_says_by_whom() {
    let mut fleet = Fleet::new(&[("echo", ECHO), ("other", ECHO)]).env("MOZART_HOT", "1s");
    fleet.all_up().await;
    for agent in ["echo", "other"] {
        say(&fleet, agent, &format!("cold words of {agent}"), "one").await;
    }
    let broker = fleet.broker().await;
    eventually("they have left the journal", async || {
        let listed = broker.list(&broker::ListQuery { about: 10, ..Default::default() }).await;
        let mut listing = listed.expect("a list");
        let mut hot = 0;
        while let Some(listed) = listing.next().await.expect("an answer") {
            hot += usize::from(!listed.archived);
        }
        if hot == 0 { Ok(()) } else { Err(format!("{hot} have not")) }
    })
    .await;
    for (agent, talk) in [("echo", "one"), ("echo", "two"), ("other", "one")] {
        say(&fleet, agent, &format!("hot words {talk} of {agent}"), talk).await;
    }
    let store = fleet.home().join("nats");
    let one = ["forget", "echo", "--conversation", "one"];
    let would = fleet.json(one.into_iter().chain(["--dry-run"])).await;
    assert_eq!((&would["messages"], &would["dryRun"]), (&2.into(), &true.into()), "{would}");
    assert!(is_in(&store, "cold words of echo") && is_in(&store, "hot words one of echo"));

    let done = fleet.json(one).await;
    assert_eq!((&done["messages"], &done["open"]), (&2.into(), &0.into()), "{done}");
    assert_eq!((&done["records"], &done["bytes"]), (&would["records"], &would["bytes"]));
    for gone in ["cold words of echo", "hot words one of echo"] {
        assert!(!is_in(&store, gone), "{gone}");
    }
    let talks = fleet.json(["conversations", "echo"]).await;
    assert_eq!(talks.as_array().map(Vec::len), Some(1), "{talks}");

    let told = fleet.cli(["forget", "echo"]).await.ok().stdout;
    assert!(told.starts_with("erased 1 message of echo: "), "{told}");
    assert!(!is_in(&store, "words one of echo") && !is_in(&store, "words two of echo"));
    assert!(is_in(&store, "cold words of other") && is_in(&store, "hot words one of other"));
    assert_eq!(fleet.json(["history", "other"]).await.as_array().map(Vec::len), Some(2));
    assert_eq!(fleet.json(["journal", "ls", "--agent", "echo"]).await, serde_json::json!([]));

    let log = fleet.cli(["events", "echo"]).await.ok().stdout;
    for said in
        [": erasing 2 messages of a conversation: ", ": erased 2 messages of a conversation: "]
    {
        assert!(log.contains(said), "{log}");
    }
    assert!(!log.contains("words"), "{log}");
    // The agent goes on, also as one that can be asked by name.
    say(&fleet, "echo", "new words", "one").await;
    fleet.cli(["forget", "ech"]).await.exit(3).says("did you mean");
    fleet.cli(["forget", "echo", "--before", "soon"]).await.exit(2).says("how long ago");
}

#[tokio::test]
async fn what_is_open_stays_and_a_removed_agent_is_forgotten_as_well() {
    let mut fleet = Fleet::new(&[("echo", ECHO)]);
    fleet.all_up().await;
    say(&fleet, "echo", "finished words", "one").await;
    let _done = fleet.cli(["stop", "echo"]).await.ok();
    let _done = fleet.cli(["wait", "echo", "--for", "stopped"]).await.ok();
    let open = fleet.json(["send", "echo", "open words", "--conversation", "one"]).await;
    let open = open["messageId"].as_str().expect("an id");
    let store = fleet.home().join("nats");
    fleet.cli(["forget", "echo"]).await.ok().says("kept: 1 message without a final state");
    assert!(!is_in(&store, "finished words") && is_in(&store, "open words"));
    let _done = fleet.cli(["cancel", open]).await.ok();
    let _done = fleet.cli(["rm", "echo"]).await.ok();
    let done = fleet.json(["forget", "echo"]).await;
    assert_eq!((&done["messages"], &done["open"]), (&1.into(), &0.into()), "{done}");
    assert!(!is_in(&store, "open words"));
    // What is forgotten of an agent does not bring it back.
    fleet.cli(["send", "echo", "hello"]).await.exit(3).says("no agent");
    let nothing = fleet.json(["forget", "echo"]).await;
    assert_eq!((&nothing["messages"], &nothing["records"]), (&0.into(), &0.into()), "{nothing}");
    fleet.cli(["forget", "nobody"]).await.exit(3).says("no agent");
}
