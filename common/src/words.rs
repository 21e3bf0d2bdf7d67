//! Text for people, for all crates.

/// A number of something: `1 message`, `2 messages`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
