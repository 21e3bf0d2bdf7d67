//! Souls that cannot be: refused whole, with file, line and what was meant.

use std::fs;

use serde_json::json;
use system_tests::harness::{Fleet, flaky};

const GOOD: &str = "MODEL test/model\nSOUL You repeat.\n";

#[tokio::test]
async fn a_malformed_soul_is_refused_and_nothing_of_its_folder_is_registered() {
    let mut fleet = Fleet::new(&[]);
    fleet.up(&[]).await;
    let bad: [(&str, &[u8]); 12] = [
        ("empty", b""),
        ("without-model", b"SOUL You repeat.\n"),
        ("without-soul", b"MODEL test/model\n"),
        ("twice", b"MODEL a\nMODEL b\nSOUL x\n"),
        ("unknown", b"MODEL a\nSOUL x\nCONCURENCY 3\n"),
        ("heredoc", b"MODEL a\nSOUL <<END\nfor ever\n"),
        ("number", b"MODEL a\nSOUL x\nATTEMPTS many\n"),
        ("cron", b"MODEL a\nSOUL x\nSCHEDULE \"99 * * * *\" wake up\n"),
        ("worker", b"MODEL a\nSOUL x\nWORKER [\"python3\",\n"),
        ("reserved", b"MODEL a\nSOUL x\nENV MOZART_DIR=/tmp\n"),
        ("utf8", b"MODEL a\nSOUL \xff\xfe\n"),
        ("control", b"MODEL a\nSOUL a\0b\n"),
    ];
    fleet.soul("good", GOOD);
    let broken = fleet.souls().join("broken.soul");
    for (what, text) in bad {
        fs::write(&broken, text).expect("written");
        for command in ["apply", "validate", "up"] {
            let output = fleet.cli([command, "."]).await;
            assert_eq!(output.code, 2, "{what}: {output}");
            assert!(output.stderr.contains("broken.soul"), "{what}: {output}");
        }
    }
    fs::write(&broken, "MODEL a\nSOUL x\nCONCURENCY 3\n").expect("written");
    let output = fleet.cli(["apply", "."]).await.exit(2);
    for words in ["broken.soul:3:1", "CONCURENCY 3", "CONCURRENCY"] {
        output.clone().says(words);
    }
    assert_eq!(fleet.json(["ps", "-a"]).await, json!([]), "all or nothing");
    fs::remove_file(&broken).expect("it is there");
    let _applied = fleet.cli(["apply", "."]).await.ok();
    assert_eq!(fleet.ask("good", "hello").await, "hello");
}

#[tokio::test]
async fn two_souls_of_one_name_are_refused() {
    let mut fleet = Fleet::new(&[("a", GOOD)]);
    fleet.up(&[]).await;
    let _runs = fleet.wait_state("a", "running").await;
    fs::create_dir(fleet.souls().join("a")).expect("a new folder");
    fs::write(fleet.souls().join("a/agent.soul"), flaky("")).expect("written");
    fleet.soul("b", GOOD);
    for command in ["apply", "validate", "up"] {
        let output = fleet.cli([command, "."]).await.exit(2);
        output.says("a.soul").says("a/agent.soul");
    }
    let rows = fleet.json(["ps", "-a"]).await;
    let rows: Vec<_> = rows
        .as_array()
        .expect("a list")
        .iter()
        .map(|row| (&row["agent"], &row["generation"]))
        .collect();
    assert_eq!(rows, [(&json!("a"), &json!(1))]);
}

#[tokio::test]
async fn what_is_no_soul_at_all_is_refused() {
    let mut fleet = Fleet::new(&[]);
    fleet.up(&[]).await;
    fleet.cli(["apply", "nowhere.soul"]).await.exit(2).says("nowhere.soul");
    fleet.cli(["apply", "nowhere"]).await.exit(2).says("nowhere");
    let bad_name = fleet.souls().join("My Agent.soul");
    fs::write(&bad_name, GOOD).expect("written");
    let output = fleet.cli(["apply", "My Agent.soul"]).await.exit(2);
    output.says("My Agent");
    let _usage = fleet.cli(["apply"]).await.exit(2);
    assert_eq!(fleet.json(["ps", "-a"]).await, json!([]));
}
