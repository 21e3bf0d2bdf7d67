//! No bytes make the `.soul` parser panic, and what it says points into them.

#![no_main]

use std::path::Path;

use common::AgentName;
use common::soul::parse_bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let name = AgentName::new("fuzzed").expect("a valid name");
    let Err(errors) = parse_bytes(name, Path::new("/fuzz/fuzzed.soul"), bytes) else {
        return;
    };
    assert!(!errors.problems().is_empty());
    assert!(errors.plain().starts_with("/fuzz/fuzzed.soul:"));
    let length = String::from_utf8_lossy(bytes).len();
    for problem in errors.problems() {
        assert!(problem.span.offset() + problem.span.len() <= length);
    }
});
