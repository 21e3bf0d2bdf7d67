//! Text that knows where in the file each of its bytes came from, also when it was joined from several lines.

use super::source::Span;

/// An instruction's text, its continued lines joined by one space.
#[derive(Debug)]
pub(super) struct Text {
    text: String,
    /// Offset in the text, offset in the file; rising, never empty.
    pieces: Vec<(usize, usize)>,
}

impl Text {
    /// An empty text at a place of the file.
    pub(super) fn at(offset: usize) -> Self {
        Self { text: String::new(), pieces: vec![(0, offset)] }
    }

    /// Adds a line's text, found at `offset` of the file.
    pub(super) fn push_line(&mut self, line: &str, offset: usize) {
        let kept = self.text.trim_end().len();
        self.text.truncate(kept);
        if kept > 0 {
            self.text.push(' ');
        }
        self.pieces.push((self.text.len(), offset));
        self.text.push_str(line);
    }

    /// Drops what follows the byte `len` of the text.
    pub(super) fn truncate(&mut self, len: usize) {
        self.text.truncate(len);
    }

    pub(super) fn whole(&self) -> Part<'_> {
        Part { of: self, from: 0, until: self.text.len() }
    }

    fn in_file(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|(at, _)| *at <= offset);
        let (at, start) = self.pieces[after - 1];
        start + (offset - at)
    }
}

/// A part of a [`Text`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'t> {
    of: &'t Text,
    from: usize,
    until: usize,
}

impl<'t> Part<'t> {
    pub(super) fn as_str(self) -> &'t str {
        &self.of.text[self.from..self.until]
    }

    pub(super) fn is_empty(self) -> bool {
        self.from == self.until
    }

    /// Where it begins in its text, in bytes.
    pub(super) fn start_in_text(self) -> usize {
        self.from
    }

    /// Its range in the file; an empty part is a position without width.
    pub(super) fn span(self) -> Span {
        let start = self.of.in_file(self.from);
        match self.as_str().char_indices().next_back() {
            Some((last, c)) => start..self.of.in_file(self.from + last) + c.len_utf8(),
            None => start..start,
        }
    }

    /// The bytes `range` of it.
    pub(super) fn sub(self, range: std::ops::Range<usize>) -> Self {
        debug_assert!(self.as_str().get(range.clone()).is_some(), "{range:?}");
        Self { of: self.of, from: self.from + range.start, until: self.from + range.end }
    }

    /// The position right after it.
    pub(super) fn end(self) -> Self {
        Self { from: self.until, ..self }
    }

    pub(super) fn split_at(self, at: usize) -> (Self, Self) {
        (self.sub(0..at), self.sub(at..self.until - self.from))
    }

    pub(super) fn trim(self) -> Self {
        let text = self.as_str();
        let from = text.len() - text.trim_start().len();
        self.sub(from..from.max(text.trim_end().len()))
    }

    /// The first word, and what follows it, trimmed.
    pub(super) fn split_word(self) -> (Self, Self) {
        let part = self.trim();
        let text = part.as_str();
        let (word, rest) = part.split_at(text.find(char::is_whitespace).unwrap_or(text.len()));
        (word, rest.trim())
    }

    /// The text before and after the first `separator`.
    pub(super) fn split_once(self, separator: char) -> Option<(Self, Self)> {
        let at = self.as_str().find(separator)?;
        let (before, rest) = self.split_at(at);
        Some((before, rest.sub(separator.len_utf8()..rest.until - rest.from)))
    }

    pub(super) fn words(self) -> impl Iterator<Item = Part<'t>> {
        let mut rest = self;
        std::iter::from_fn(move || {
            let (word, after) = rest.split_word();
            rest = after;
            (!word.is_empty()).then_some(word)
        })
    }
}
