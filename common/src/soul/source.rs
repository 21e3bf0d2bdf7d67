//! The file's text with its line starts, and the list of what is wrong with it.

use std::ops::Range;

use super::MAX_PROBLEMS;
use super::diagnostic::{Also, SoulProblem, printable};

/// A range of bytes of the file's text.
pub(super) type Span = Range<usize>;

/// A value, or the problem that kept it from being one. Boxed, since problems are rare and large.
pub(super) type Checked<T> = Result<T, Box<Problem>>;

/// The file's text.
pub(super) struct Source<'s> {
    pub(super) file: String,
    pub(super) text: &'s str,
    line_starts: Vec<usize>,
}

impl<'s> Source<'s> {
    pub(super) fn new(file: &str, text: &'s str) -> Self {
        let file = safe(file);
        let newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(newlines).collect();
        Self { file, text, line_starts }
    }

    /// Line and column of a byte, both from 1, the column in characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }
}

/// One problem, before it is tied to the file.
#[derive(Debug)]
pub(super) struct Problem {
    span: Span,
    message: String,
    label: String,
    help: Option<String>,
    also: Option<(Span, &'static str)>,
}

impl Problem {
    /// What is wrong, and what was expected there.
    pub(super) fn new(
        span: Span,
        message: impl Into<String>,
        label: impl Into<String>,
    ) -> Box<Self> {
        Box::new(Self {
            span,
            message: message.into(),
            label: label.into(),
            help: None,
            also: None,
        })
    }

    /// What was probably meant.
    pub(super) fn help(mut self: Box<Self>, help: impl Into<Option<String>>) -> Box<Self> {
        self.help = help.into();
        self
    }

    /// A second place that has to do with it.
    pub(super) fn also(mut self: Box<Self>, span: Span, label: &'static str) -> Box<Self> {
        self.also = Some((span, label));
        self
    }
}

impl Problem {
    /// In one line, for a text that is not a file.
    pub(super) fn plain(&self) -> String {
        let help = self.help.iter().map(|help| format!("; {help}"));
        safe(&format!("{}: {}{}", self.message, self.label, help.collect::<String>()))
    }
}

/// The problems of one file, as they are found.
pub(super) struct Problems<'s> {
    source: &'s Source<'s>,
    found: Vec<SoulProblem>,
}

impl<'s> Problems<'s> {
    pub(super) fn new(source: &'s Source<'s>) -> Self {
        Self { source, found: Vec::new() }
    }

    #[expect(clippy::boxed_local, reason = "problems come boxed, as errors do")]
    pub(super) fn push(&mut self, problem: Box<Problem>) {
        if self.is_full() {
            return;
        }
        let Problem { span, message, label, help, also } = *problem;
        let (line, column) = self.source.position(span.start);
        let also = also.map(|(span, label)| Also {
            line: self.source.position(span.start).0,
            span: span.into(),
            label,
        });
        self.found.push(SoulProblem {
            file: self.source.file.clone(),
            line,
            column,
            message: safe(&message),
            label: safe(&label),
            help: help.as_deref().map(safe),
            span: span.into(),
            also,
        });
    }

    /// Takes the value, or notes why there is none.
    pub(super) fn take<T>(&mut self, checked: Checked<T>) -> Option<T> {
        checked.map_err(|problem| self.push(problem)).ok()
    }

    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MAX_PROBLEMS
    }

    /// All of them, in the order of the file.
    pub(super) fn finish(mut self) -> Vec<SoulProblem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        self.found
    }
}

/// Text of the file may be part of a message: what a terminal would obey is taken out.
fn safe(text: &str) -> String {
    text.chars().map(printable).collect()
}
