//! The documentation's souls are souls.

use std::path::Path;

use common::soul::{find, name_from_path, parse_bytes};

use crate::soul;

#[test]
fn every_example_parses() {
    let text = include_str!("../../../docs/souls.md");
    let mut examples = 0;
    for block in text.split("```soul\n").skip(1) {
        let (example, _) = block.split_once("```").expect("a closed block");
        // An instruction is shown without the two that every soul has.
        let says = |keyword: &str| example.lines().any(|line| line.starts_with(keyword));
        let model = if says("MODEL ") { "" } else { "MODEL m\n" };
        let identity = if says("SOUL ") { "" } else { "SOUL s\n" };
        let whole = format!("{model}{identity}{example}");
        if let Err(errors) = soul(&whole) {
            panic!("{example}\n{}", errors.plain());
        }
        examples += 1;
    }
    assert!(examples >= 10, "only {examples} examples were found");
}

#[test]
fn every_instruction_is_shown() {
    let text = include_str!("../../../docs/souls.md");
    let shown: String = text
        .split("```soul\n")
        .skip(1)
        .filter_map(|block| block.split_once("```").map(|(example, _)| example))
        .collect();
    for keyword in [
        "MODEL",
        "SOUL",
        "IF",
        "SCHEDULE",
        "SKILL",
        "SANCTUM",
        "WORKER",
        "IMAGE",
        "ENV",
        "SECRET",
        "LIMIT",
        "CONCURRENCY",
        "ATTEMPTS",
        "TIMEOUT",
        "RESTART",
        "REPLACE",
        "KEEP",
        "LABEL",
        "REQUIRE",
    ] {
        let is_shown = shown.lines().any(|line| line.split(' ').next() == Some(keyword));
        assert!(is_shown, "{keyword} has no example");
    }
}

#[test]
fn every_example_fleet_parses() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    for fleet in ["hello", "pair", "flaky"] {
        let souls = find(&[Path::new(examples).join(fleet)]).expect("souls");
        for path in souls {
            let name = name_from_path(&path).expect("named");
            let bytes = std::fs::read(&path).expect("readable");
            if let Err(errors) = parse_bytes(name, &path, &bytes) {
                panic!("{}", errors.plain());
            }
        }
    }
}
