//! The `.soul` parser through its public face.

mod bad;
mod docs;
mod finding;
mod good;
mod properties;

use std::path::Path;

use common::AgentName;
use common::soul::{SoulErrors, parse};
use common::spec::AgentSpec;

/// Parses `/fleet/writer.soul`.
fn soul(text: &str) -> Result<AgentSpec, Box<SoulErrors>> {
    parse(writer(), Path::new("/fleet/writer.soul"), text)
}

fn writer() -> AgentName {
    AgentName::new("writer").expect("a valid name")
}
