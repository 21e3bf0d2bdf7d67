//! Text for people, for all crates.

use std::borrow::Cow;

/// A number of something: `1 message`, `2 messages`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A text as it is shown on a terminal: what workers, souls, nodes and engines say does not steer it. Control characters but newline and
/// tab are escaped.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(steers) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if steers(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_does_not_steer_a_terminal() {
        assert_eq!(shown("a\tb\nc \u{e4}\u{1f600}"), "a\tb\nc \u{e4}\u{1f600}");
        assert_eq!(shown("\x1b]0;x\x07 \u{9b}31m \r \x7f"), r"\u{1b}]0;x\u{7} \u{9b}31m \r \u{7f}");
    }
}
