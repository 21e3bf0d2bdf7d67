//! Splits the output of a pipe into lines, with a bound on their length. Pure.
//!
//! A line of the protocol ends with a newline, and of one that is too long only the beginning is of use. A line of the log may end with a
//! carriage return as well, as progress bars have it, and of a long one every piece is shown.

/// What is read at once: a pipe's usual size.
const READ: usize = 64 * 1024;
/// A buffer that grew beyond this for a long line is given back.
const KEPT: usize = 256 * 1024;

/// Lines out of bytes as they come.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    start: usize,
    /// Up to here there is no newline: a long line is not searched again and again.
    searched: usize,
    limit: usize,
    kind: Kind,
    /// In a line of which a part has been given.
    within: bool,
    /// Whether the line before ended with a carriage return.
    returned: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Protocol,
    Log,
}

/// A line, without its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// A whole one, or the last piece of one of the log.
    Whole(&'a [u8]),
    /// The beginning of one that is longer than the limit, or a piece of one of the log, with more to come.
    Cut(&'a [u8]),
}

impl Lines {
    /// Lines of the protocol.
    pub(crate) fn protocol(limit: usize) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Lines of the log.
    pub(crate) fn log(limit: usize) -> Self {
        Self { limit, kind: Kind::Log, ..Self::default() }
    }

    fn is_end(&self, byte: u8) -> bool {
        byte == b'\n' || (byte == b'\r' && self.kind == Kind::Log)
    }

    /// Where to read to: appended bytes become part of the next lines.
    pub(crate) fn space(&mut self) -> &mut Vec<u8> {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEPT);
        } else {
            self.buffer.drain(..self.start);
        }
        self.searched -= self.start.min(self.searched);
        self.start = 0;
        // Otherwise it would grow by as little as a few bytes, and every read would be of those.
        self.buffer.reserve(READ.min(self.limit));
        &mut self.buffer
    }

    /// The next line.
    pub(crate) fn next(&mut self) -> Option<Line<'_>> {
        loop {
            let from = self.searched.max(self.start);
            let end = self.buffer[from..].iter().position(|byte| self.is_end(*byte));
            let (start, Some(end)) = (self.start, end.map(|at| from + at)) else {
                self.searched = self.buffer.len();
                return self.cut_long();
            };
            if self.kind == Kind::Log && end - start > self.limit {
                return Some(self.piece());
            }
            self.start = end + 1;
            self.searched = self.start;
            let returns = self.buffer[end] == b'\r';
            let returned = std::mem::replace(&mut self.returned, returns);
            let was_within = std::mem::take(&mut self.within);
            // The rest of a long line; or what is between two ends that belong together.
            let is_nothing = match self.kind {
                Kind::Protocol => was_within,
                Kind::Log => !was_within && start == end && (returned || returns),
            };
            if is_nothing {
                continue;
            }
            let line = &self.buffer[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            return Some(if line.len() > self.limit {
                Line::Cut(&line[..self.limit])
            } else {
                Line::Whole(line)
            });
        }
    }

    /// Gives the beginning of a line that has no end within the limit: once, or piece by piece.
    fn cut_long(&mut self) -> Option<Line<'_>> {
        let start = self.start;
        if self.kind == Kind::Log {
            return (self.buffer.len() - start > self.limit).then(|| self.piece());
        }
        if self.within {
            self.start = self.buffer.len();
            return None;
        }
        if self.buffer.len() - start <= self.limit {
            return None;
        }
        self.within = true;
        self.start = self.buffer.len();
        Some(Line::Cut(&self.buffer[start..start + self.limit]))
    }

    /// The next piece of a long line: as much as the limit allows, and no character cut in two.
    fn piece(&mut self) -> Line<'_> {
        let start = self.start;
        let is_within = |byte: u8| byte & 0xc0 == 0x80;
        // No character has more than four bytes.
        let back = (0..4).find(|back| !is_within(self.buffer[start + self.limit - back]));
        let end = start + self.limit - back.unwrap_or(0).min(self.limit - 1);
        self.within = true;
        self.start = end;
        Line::Cut(&self.buffer[start..end])
    }

    /// What was written after the last end of a line, at the end of the pipe.
    pub(crate) fn rest(&mut self) -> Option<Line<'_>> {
        let start = self.start;
        self.start = self.buffer.len();
        self.searched = self.start;
        let rest = &self.buffer[start..];
        let is_part = self.kind == Kind::Protocol && self.within;
        (!rest.is_empty() && !is_part).then_some(Line::Whole(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(lines: &mut Lines, bytes: &[u8]) -> Vec<(String, bool)> {
        lines.space().extend_from_slice(bytes);
        let mut out = Vec::new();
        while let Some(line) = lines.next() {
            let (bytes, cut) = match line {
                Line::Whole(bytes) => (bytes, false),
                Line::Cut(bytes) => (bytes, true),
            };
            out.push((String::from_utf8_lossy(bytes).into_owned(), cut));
        }
        out
    }

    #[test]
    fn lines_come_out_whole_however_they_arrive() {
        let mut lines = Lines::protocol(100);
        assert_eq!(feed(&mut lines, b"on"), []);
        let whole = |text: &str| (text.to_owned(), false);
        assert_eq!(feed(&mut lines, b"e\r\ntwo\n\nthr"), [whole("one"), whole("two"), whole("")]);
        assert_eq!(lines.rest(), Some(Line::Whole(b"thr")));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_line_without_end_is_cut_once_and_its_rest_dropped() {
        let mut lines = Lines::protocol(4);
        assert_eq!(feed(&mut lines, b"abcdefgh"), [("abcd".to_owned(), true)]);
        for _ in 0..1000 {
            assert_eq!(feed(&mut lines, &[b'x'; 1000]), []);
            assert!(lines.buffer.len() <= 2000, "bounded");
        }
        assert_eq!(feed(&mut lines, b"end\nnext\n"), [("next".to_owned(), false)]);
    }

    #[test]
    fn a_long_line_that_comes_whole_is_cut_too() {
        let mut lines = Lines::protocol(4);
        let out = feed(&mut lines, b"abcdefgh\nok\n");
        assert_eq!(out, [("abcd".to_owned(), true), ("ok".to_owned(), false)]);
    }

    #[test]
    fn a_log_line_ends_with_a_return_too_and_comes_in_pieces_where_it_is_long() {
        let whole = |text: &str| (text.to_owned(), false);
        let piece = |text: &str| (text.to_owned(), true);
        let mut lines = Lines::log(8);
        assert_eq!(
            feed(&mut lines, b"1 %\r2 %\r\n\r3 %\n\nlast"),
            [whole("1 %"), whole("2 %"), whole("3 %"), whole("")]
        );
        assert_eq!(lines.rest(), Some(Line::Whole(b"last")));

        let mut lines = Lines::log(8);
        assert_eq!(
            feed(&mut lines, b"12345678abcdefgh.\nshort\n"),
            [piece("12345678"), piece("abcdefgh"), whole("."), whole("short")]
        );
        assert_eq!(feed(&mut lines, b"12345678abcd"), [piece("12345678")]);
        assert_eq!(feed(&mut lines, b"\n"), [whole("abcd")]);
        assert_eq!(feed(&mut lines, "1234567\u{e4}.".as_bytes()), [piece("1234567")]);
        assert_eq!(lines.rest(), Some(Line::Whole("\u{e4}.".as_bytes())));
        // Nothing that could be a character.
        let mut lines = Lines::log(8);
        assert_eq!(feed(&mut lines, &[0x80; 20]).len(), 2);
    }
}
