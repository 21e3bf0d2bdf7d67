//! Text for people, for all crates.

use std::borrow::Cow;
use std::time::Duration;

/// A number of something: `1 message`, `2 messages`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A text as it is shown on a terminal: what workers, souls, nodes and engines say does not steer it. Control characters but newline and
/// tab are escaped, and so is what changes the direction of the text around it.
#[must_use]
pub fn shown(text: &str) -> Cow<'_, str> {
    let steers = |c: char| (c.is_control() && c != '\n' && c != '\t') || turns(c);
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

/// Whether a character changes the direction of a text, so that it reads as what it is not.
fn turns(c: char) -> bool {
    let marks = ['\u{61c}', '\u{200e}', '\u{200f}'];
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') || marks.contains(&c)
}

/// A text that is part of a line, as a path is: newlines are escaped, too.
#[must_use]
pub fn in_line(text: &str) -> Cow<'_, str> {
    if !text.contains('\n') {
        return text.into();
    }
    text.replace('\n', "\\n").into()
}

/// Bytes, in the largest unit of which there is one: `512 MiB`, `1.5 GiB`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let Some((shift, unit)) = UNITS.into_iter().find(|(shift, _)| bytes >> shift > 0) else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

/// Thousandths as a number: `2`, `0.5`.
#[must_use]
pub fn thousandths(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A duration in its largest unit: `45s`, `12m`, `3h`, `9d`.
#[must_use]
pub fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A text on one line, cut to `max` characters.
#[must_use]
pub fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == max {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_does_not_steer_a_terminal() {
        assert_eq!(shown("a\tb\nc \u{e4}\u{1f600}"), "a\tb\nc \u{e4}\u{1f600}");
        assert_eq!(shown("\x1b]0;x\x07 \u{9b}31m \r \x7f"), r"\u{1b}]0;x\u{7} \u{9b}31m \r \u{7f}");
    }

    #[test]
    fn what_turns_a_text_around_is_escaped_and_a_line_is_one() {
        assert_eq!(shown("a\u{202e}b\u{2066}c\u{200f}"), r"a\u{202e}b\u{2066}c\u{200f}");
        assert_eq!(in_line("a\nb"), r"a\nb");
    }

    #[test]
    fn sizes_and_parts_are_short() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1 << 10, "1 KiB"), (3 << 29, "1.5 GiB")];
        for (number, text) in sizes {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes(u64::MAX), "16777215.9 TiB");
        for (number, text) in [(0, "0"), (1000, "1"), (500, "0.5"), (1025, "1.025"), (10_000, "10")]
        {
            assert_eq!(thousandths(number), text);
        }
    }

    #[test]
    fn times_are_short() {
        assert_eq!(short(Duration::from_secs(59)), "59s");
        assert_eq!(short(Duration::from_secs(150)), "2m");
        assert_eq!(short(Duration::from_secs(7_200)), "2h");
        assert_eq!(short(Duration::from_secs(864_000)), "10d");
    }

    #[test]
    fn a_long_text_is_cut_and_cannot_break_the_line() {
        assert_eq!(one_line("a\nb\x1b[31m", 20), "a b [31m");
        assert_eq!(one_line("äöü", 2), "äö…");
        assert_eq!(one_line("äö", 2), "äö");
    }
}
