//! Cuts what comes out of a pipe into lines, with a bound on their length. Pure.

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
    skipping: bool,
}

/// A line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Whole(&'a [u8]),
    /// The beginning of a line that is longer than the limit; its rest is dropped.
    Cut(&'a [u8]),
}

impl Lines {
    pub(crate) fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, limit, skipping: false }
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
            let newline = self.buffer[from..].iter().position(|byte| *byte == b'\n');
            let (start, Some(end)) = (self.start, newline.map(|at| from + at)) else {
                self.searched = self.buffer.len();
                return self.cut_long();
            };
            self.start = end + 1;
            self.searched = self.start;
            if std::mem::take(&mut self.skipping) {
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

    /// Gives the beginning of a line that has no end within the limit, once.
    fn cut_long(&mut self) -> Option<Line<'_>> {
        let start = self.start;
        if self.skipping {
            self.start = self.buffer.len();
            return None;
        }
        if self.buffer.len() - start <= self.limit {
            return None;
        }
        self.skipping = true;
        self.start = self.buffer.len();
        Some(Line::Cut(&self.buffer[start..start + self.limit]))
    }

    /// What was written after the last newline, at the end of the pipe.
    pub(crate) fn rest(&mut self) -> Option<Line<'_>> {
        let start = self.start;
        self.start = self.buffer.len();
        self.searched = self.start;
        let rest = &self.buffer[start..];
        (!rest.is_empty() && !self.skipping).then_some(Line::Whole(rest))
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
        let mut lines = Lines::new(100);
        assert_eq!(feed(&mut lines, b"on"), []);
        let whole = |text: &str| (text.to_owned(), false);
        assert_eq!(feed(&mut lines, b"e\r\ntwo\n\nthr"), [whole("one"), whole("two"), whole("")]);
        assert_eq!(lines.rest(), Some(Line::Whole(b"thr")));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_line_without_end_is_cut_once_and_its_rest_dropped() {
        let mut lines = Lines::new(4);
        assert_eq!(feed(&mut lines, b"abcdefgh"), [("abcd".to_owned(), true)]);
        for _ in 0..1000 {
            assert_eq!(feed(&mut lines, &[b'x'; 1000]), []);
            assert!(lines.buffer.len() <= 2000, "bounded");
        }
        assert_eq!(feed(&mut lines, b"end\nnext\n"), [("next".to_owned(), false)]);
    }

    #[test]
    fn a_long_line_that_comes_whole_is_cut_too() {
        let mut lines = Lines::new(4);
        let out = feed(&mut lines, b"abcdefgh\nok\n");
        assert_eq!(out, [("abcd".to_owned(), true), ("ok".to_owned(), false)]);
    }
}
