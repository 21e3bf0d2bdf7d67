//! The reply subject of a delivery: where it came from, and where its ack goes.

/// The content of an ack subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AckSubject<'a> {
    pub(crate) stream: &'a str,
    pub(crate) consumer: &'a str,
    /// How often the consumer has given it out.
    pub(crate) delivered: u64,
    pub(crate) stream_seq: u64,
    pub(crate) consumer_seq: u64,
    /// When it was stored, in nanoseconds since 1970.
    pub(crate) time: u64,
    /// How many come after it.
    pub(crate) pending: u64,
}

impl<'a> AckSubject<'a> {
    /// Parses both forms: `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, and the same
    /// with `<domain>.<account hash>` before the stream and perhaps a token after the end.
    pub(crate) fn parse(subject: &'a str) -> Option<Self> {
        let rest = subject.strip_prefix("$JS.ACK.")?;
        let mut tokens = rest.split('.');
        match rest.bytes().filter(|byte| *byte == b'.').count() + 1 {
            7 => {}
            9.. => {
                tokens.nth(1)?;
            }
            _ => return None,
        }
        let (stream, consumer) = (tokens.next()?, tokens.next()?);
        let mut number = || tokens.next()?.parse().ok();
        let (delivered, stream_seq, consumer_seq) = (number()?, number()?, number()?);
        Some(Self {
            stream,
            consumer,
            delivered,
            stream_seq,
            consumer_seq,
            time: number()?,
            pending: number()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let expected = AckSubject {
            stream: "S",
            consumer: "a-1",
            delivered: 2,
            stream_seq: 3,
            consumer_seq: 4,
            time: 5,
            pending: 6,
        };
        for subject in [
            "$JS.ACK.S.a-1.2.3.4.5.6",
            "$JS.ACK._.hash.S.a-1.2.3.4.5.6",
            "$JS.ACK.hub.hash.S.a-1.2.3.4.5.6.random",
        ] {
            assert_eq!(AckSubject::parse(subject), Some(expected), "{subject}");
        }
    }

    #[test]
    fn anything_else_is_not_an_ack_subject() {
        for subject in ["", "x", "$JS.ACK.S.a-1.2.3.4.5", "$JS.ACK.S.a-1.2.3.4.x.6"] {
            assert_eq!(AckSubject::parse(subject), None, "{subject}");
        }
    }
}
