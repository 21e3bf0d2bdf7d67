//! Repairs JSON, if nothing has to be guessed.

use std::borrow::Cow;
use std::fmt::Write as _;

/// What stands for a character that cannot be read.
const UNREADABLE: char = '\u{fffd}';

/// The text, with U+FFFD in place of invalid UTF-8 and of lone surrogates, control characters in strings escaped, and `null` in place of
/// `NaN` and the infinities, as Python and JavaScript write them.
pub(super) fn repair(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(text.len());
    let mut rest = Cow::as_ref(&text);
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let mut taken = c.len_utf8();
        match c {
            '"' => {
                in_string = !in_string;
                out.push(c);
            }
            '\\' if in_string => {
                taken = escape(rest, &mut out);
            }
            '\0'..' ' if in_string => {
                // Writing to a string cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            'N' | 'I' | '-' if !in_string => match number(rest) {
                Some(length) => {
                    out.push_str("null");
                    taken = length;
                }
                None => out.push(c),
            },
            _ => out.push(c),
        }
        rest = &rest[taken..];
    }
    out
}

/// Copies an escape within a string; how long it was.
fn escape(text: &str, out: &mut String) -> usize {
    let unit = |from: usize| {
        let digits = text.get(from..).and_then(|rest| rest.strip_prefix("\\u")?.get(..4))?;
        u32::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => {
            out.push_str(&text[..12]);
            12
        }
        (Some(0xd800..=0xdfff), _) => {
            out.push(UNREADABLE);
            6
        }
        _ => {
            // The backslash and what it escapes, be that a quote.
            let length = text.chars().take(2).map(char::len_utf8).sum();
            out.push_str(&text[..length]);
            length
        }
    }
}

/// The length of a number that JSON has no word for.
fn number(text: &str) -> Option<usize> {
    ["NaN", "Infinity", "-Infinity"].iter().find(|word| text.starts_with(**word)).map(|it| it.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_replaced_and_the_rest_stays() {
        for (line, repaired) in [
            (&br#"{"a":"\ud83d"}"#[..], "{\"a\":\"\u{fffd}\"}"),
            (br#"{"a":"\ude00 all"}"#, "{\"a\":\"\u{fffd} all\"}"),
            (br#"{"a":"\ud83d\ude00"}"#, r#"{"a":"\ud83d\ude00"}"#),
            (br#"{"a":"\ud83d\ud83d\ude00"}"#, "{\"a\":\"\u{fffd}\\ud83d\\ude00\"}"),
            (br#"{"a":"\\ud83d \" NaN"}"#, r#"{"a":"\\ud83d \" NaN"}"#),
            (b"{\"a\":\"\xf0\x9f\x98\"}", "{\"a\":\"\u{fffd}\"}"),
            (b"{\"a\":\"\t\x1b[0m\"}", "{\"a\":\"\\u0009\\u001b[0m\"}"),
            (
                br#"{"a":NaN,"b":-Infinity,"c":Infinity,"d":-1}"#,
                r#"{"a":null,"b":null,"c":null,"d":-1}"#,
            ),
            (br#"{"a":"\"#, r#"{"a":"\"#),
        ] {
            assert_eq!(repair(line), repaired);
        }
    }
}
