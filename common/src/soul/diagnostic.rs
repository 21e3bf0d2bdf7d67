//! The problems of a soul, for people: rendered by `miette` in the command line, plain in logs and JSON.

use std::fmt::Write as _;

use miette::{LabeledSpan, NamedSource, SourceCode, SourceSpan};
use serde::Serialize;

/// The longest piece of a line that [`SoulErrors::plain`] shows, in characters.
const SHOWN: usize = 120;

/// All problems of one file, with its text for the rendering.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("{} has {} problem{}", .src.name(), .problems.len(), if .problems.len() == 1 { "" } else { "s" })]
pub struct SoulErrors {
    #[source_code]
    src: NamedSource<String>,
    #[related]
    problems: Vec<SoulProblem>,
}

/// One problem of a soul.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize)]
#[error("{message}")]
#[serde(rename_all = "camelCase")]
pub struct SoulProblem {
    /// The file, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What was expected there.
    #[serde(rename = "expected")]
    pub label: String,
    /// What was probably meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Where: bytes of the text, without its byte order mark.
    #[serde(skip)]
    pub span: SourceSpan,
    /// A second place that has to do with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub also: Option<Also>,
}

/// A second place that a problem has to do with, such as the first of two `MODEL`s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Also {
    /// The line, from 1.
    pub line: usize,
    /// What it is.
    pub label: &'static str,
    /// Where: bytes of the text, without its byte order mark.
    #[serde(skip)]
    pub span: SourceSpan,
}

// By hand, since the derive cannot label an optional second span beside a required first one with a text of its own.
impl miette::Diagnostic for SoulProblem {
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        let help = self.help.as_ref()?;
        Some(Box::new(help))
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        // miette shows no label without width at the very start.
        let at_start = self.span == SourceSpan::from(0..0);
        let span = if at_start { (0..1).into() } else { self.span };
        let first = LabeledSpan::new_primary_with_span(Some(self.label.clone()), span);
        let second = self
            .also
            .iter()
            .map(|also| LabeledSpan::new_with_span(Some(also.label.to_owned()), also.span));
        Some(Box::new(std::iter::once(first).chain(second)))
    }
}

impl SoulErrors {
    pub(super) fn new(file: &str, text: &str, problems: Vec<SoulProblem>) -> Box<Self> {
        // Nor in an empty line: what a blank file lacks is labelled in its first.
        let is_blank = text.trim_matches([' ', '\t', '\n']).is_empty();
        let text = if is_blank { " " } else { text };
        Box::new(Self { src: NamedSource::new(file, text.to_owned()), problems })
    }

    /// The problems in the order of the file; there is at least one.
    #[must_use]
    pub fn problems(&self) -> &[SoulProblem] {
        &self.problems
    }

    /// Every problem as `file:line:column: message`, the line, a caret and the help; without colours, for logs and JSON. Does
    /// not end with a newline.
    #[must_use]
    pub fn plain(&self) -> String {
        let blocks: Vec<String> = self.problems.iter().map(|p| self.block(p)).collect();
        blocks.join("\n\n")
    }

    fn block(&self, problem: &SoulProblem) -> String {
        let SoulProblem { file, line, column, message, label, .. } = problem;
        let (shown, indent, carets) = self.excerpt(problem);
        let gutter = line.to_string().len();
        let mut out = format!("{file}:{line}:{column}: {message}\n");
        // Writing to a string cannot fail.
        let _ = writeln!(out, " {line} | {shown}");
        let _ = write!(out, " {:gutter$} | {:indent$}{} {label}", "", "", "^".repeat(carets));
        if let Some(also) = &problem.also {
            let _ = write!(out, "\n {:gutter$} = {} in line {}", "", also.label, also.line);
        }
        if let Some(help) = &problem.help {
            let _ = write!(out, "\n {:gutter$} = help: {help}", "");
        }
        out
    }

    /// The problem's line, cut to what a person can read, with the caret's indent and length in characters.
    fn excerpt(&self, problem: &SoulProblem) -> (String, usize, usize) {
        let line = self.line_of(problem.span.offset());
        let chars: Vec<char> = line.chars().map(printable).collect();
        let column = problem.column - 1;
        let from = if chars.len() <= SHOWN {
            0
        } else {
            column.saturating_sub(SHOWN / 2).min(chars.len().saturating_sub(SHOWN))
        };
        let until = chars.len().min(from + SHOWN);
        let mut shown: String = chars[from..until].iter().collect();
        let mut indent = column - from;
        if from > 0 {
            shown.insert(0, '…');
            indent += 1;
        }
        if until < chars.len() {
            shown.push('…');
        }
        let wide = self.text().get(problem.span.offset()..span_end(problem));
        let wide = wide.unwrap_or_default().lines().next().map_or(0, |l| l.chars().count());
        let carets = wide.min(until.saturating_sub(column)).max(1);
        (shown.trim_end().to_owned(), indent, carets)
    }

    /// The file, as it is.
    #[must_use]
    pub fn text(&self) -> &str {
        self.src.inner()
    }

    fn line_of(&self, offset: usize) -> &str {
        let (before, after) = self.text().split_at_checked(offset).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        let end = after.find('\n').map_or(self.text().len(), |at| offset + at);
        self.text()[start..end].trim_end_matches('\r')
    }

    /// The text that the spans refer to, for other renderings.
    #[must_use]
    pub fn source_code(&self) -> &dyn SourceCode {
        &self.src
    }
}

fn span_end(problem: &SoulProblem) -> usize {
    problem.span.offset() + problem.span.len()
}

/// One character for one character, so that the caret stays below its place; nothing that a terminal would obey.
pub(super) fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}
