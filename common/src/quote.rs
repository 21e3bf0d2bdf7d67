//! Quoting for the formats of others, each by its own rules. Rust's `{:?}` writes `\u{301}`, which no other format reads.

/// A string of nats-server's configuration, with its quotes. Whatever is not plain ASCII is written byte by byte.
#[must_use]
pub fn nats_conf(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => quoted.extend(['\\', byte.into()]),
            b' '..=b'~' => quoted.push(byte.into()),
            _ => quoted.push_str(&format!("\\x{byte:02x}")),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_plain_is_escaped_as_nats_server_reads_it() {
        assert_eq!(nats_conf("/a b/$c#"), r#""/a b/$c#""#);
        assert_eq!(nats_conf("a\"b\\c\n"), r#""a\"b\\c\x0a""#);
        // A decomposed é, a no-break space.
        assert_eq!(nats_conf("e\u{301}\u{a0}"), r#""e\xcc\x81\xc2\xa0""#);
    }
}
