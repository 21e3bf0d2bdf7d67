//! Cuts a file into instructions: comments out, continued lines joined, heredocs taken.

use std::collections::BTreeMap;

use super::keyword::Keyword;
use super::source::{Problem, Problems, Span};
use super::suggest::quoted;
use super::text::Text;

/// One instruction as written.
#[derive(Debug)]
pub(super) struct Instruction {
    /// Keyword and the rest, without the heredoc's opening.
    pub(super) text: Text,
    pub(super) heredoc: Option<Heredoc>,
}

/// The text between `<<END` and `END`.
#[derive(Debug)]
pub(super) struct Heredoc {
    /// `<<END`.
    pub(super) opening: Span,
    pub(super) body: String,
}

/// The file's instructions, one after the other.
pub(super) struct Instructions<'s> {
    text: &'s str,
    at: usize,
    closings: Option<BTreeMap<&'s str, Vec<usize>>>,
    /// A heredoc swallowed the rest of the file: what is missing may be in there.
    pub(super) has_open_heredoc: bool,
}

/// A line without its end.
#[derive(Clone, Copy)]
struct Line<'s> {
    text: &'s str,
    at: usize,
}

impl<'s> Line<'s> {
    fn trim_start(self) -> Self {
        let text = self.text.trim_start();
        Self { text, at: self.at + (self.text.len() - text.len()) }
    }

    fn is_blank(self) -> bool {
        self.text.trim().is_empty()
    }

    /// The text without a `\` that continues the line, and whether there was one. `\\` is one backslash and ends the line.
    fn continued(self) -> (&'s str, Option<Span>) {
        let text = self.text.trim_end();
        let Some(kept) = text.strip_suffix('\\') else {
            return (text, None);
        };
        if kept.ends_with('\\') {
            return (kept, None);
        }
        let end = self.at + text.len();
        (kept.trim_end(), Some(end - 1..end))
    }
}

impl<'s> Instructions<'s> {
    pub(super) fn new(text: &'s str) -> Self {
        Self { text, at: 0, closings: None, has_open_heredoc: false }
    }

    fn line(&mut self) -> Option<Line<'s>> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let at = self.at;
        let end = rest.find('\n').unwrap_or(rest.len());
        self.at = at + (end + 1).min(rest.len());
        let text = &rest[..end];
        Some(Line { text: text.strip_suffix('\r').unwrap_or(text), at })
    }

    /// The next instruction.
    pub(super) fn next(&mut self, problems: &mut Problems<'_>) -> Option<Instruction> {
        let first = loop {
            let line = self.line()?.trim_start();
            if !line.is_blank() && !line.text.starts_with('#') {
                break line;
            }
        };
        let text = self.joined(first, problems);
        Some(self.with_heredoc(text, problems))
    }

    fn joined(&mut self, first: Line<'s>, problems: &mut Problems<'_>) -> Text {
        let mut text = Text::at(first.at);
        let mut line = first;
        loop {
            let (kept, backslash) = line.continued();
            text.push_line(kept, line.at);
            let Some(backslash) = backslash else {
                return text;
            };
            match self.line().map(Line::trim_start) {
                Some(next) if !next.is_blank() => line = next,
                _ => {
                    problems.push(
                        Problem::new(
                            backslash,
                            "the continued line has no next line",
                            "expected another line after this one",
                        )
                        .help("remove the `\\`, or the empty line".to_owned()),
                    );
                    return text;
                }
            }
        }
    }

    fn with_heredoc(&mut self, mut text: Text, problems: &mut Problems<'_>) -> Instruction {
        let Some(Opening { mark, span, start, takes_one }) = opening(&text, problems) else {
            return Instruction { text, heredoc: None };
        };
        let body = match self.body(&mark) {
            Some(body) => body,
            None if takes_one => {
                problems.push(self.never_closed(&mark, span.clone()));
                self.has_open_heredoc = true;
                self.at = self.text.len();
                // Already reported: an empty body would be reported again.
                "…".to_owned()
            }
            // An instruction without heredocs, and no line that would close one: the text is meant as it is.
            None => return Instruction { text, heredoc: None },
        };
        text.truncate(start);
        Instruction { text, heredoc: Some(Heredoc { opening: span, body }) }
    }

    fn never_closed(&self, mark: &str, opening: Span) -> Box<Problem> {
        let similar =
            self.text[self.at..].lines().find(|line| line.trim().eq_ignore_ascii_case(mark));
        let help = match similar {
            Some(line) => {
                format!("{} does not close it: case and indentation matter", quoted(line))
            }
            None => format!("close the text with a line `{mark}`"),
        };
        let expected = format!("expected a line `{mark}` below");
        Problem::new(opening, "the heredoc is never closed", expected).help(help)
    }

    /// Takes lines up to the closing one, if there is one.
    fn body(&mut self, mark: &str) -> Option<String> {
        let text = self.text;
        let closings = self.closings.get_or_insert_with(|| closings(text));
        let starts = closings.get(mark)?;
        let end = *starts.get(starts.partition_point(|start| *start < self.at))?;
        let mut lines = Vec::new();
        while self.at < end {
            lines.extend(self.line().map(|line| line.text));
        }
        self.line();
        Some(lines.join("\n"))
    }
}

/// `<<END` at the end of an instruction.
struct Opening {
    mark: String,
    span: Span,
    /// Where it begins in the instruction's text, in bytes.
    start: usize,
    /// Whether the keyword takes a heredoc.
    takes_one: bool,
}

fn opening(text: &Text, problems: &mut Problems<'_>) -> Option<Opening> {
    let (keyword, rest) = text.whole().split_word();
    let last = rest.words().last()?;
    let written = last.as_str().strip_prefix("<<")?;
    let takes_one = Keyword::find(keyword.as_str()).is_some_and(Keyword::takes_heredoc);
    // A shell's `<<-END` and `<<'END'` are plain here; the text is taken all the same, so that its lines are not reported too.
    let mark = written.trim_start_matches('-').trim_matches(['\'', '"']);
    if takes_one && !is_identifier(written) {
        problems.push(
            Problem::new(
                last.span(),
                format!("{} opens no heredoc", quoted(last.as_str())),
                "expected `<<` and a word, such as `<<END`",
            )
            .help("the word stands alone in the line that closes the text".to_owned()),
        );
    }
    is_identifier(mark).then(|| Opening {
        mark: mark.to_owned(),
        span: last.span(),
        start: last.start_in_text(),
        takes_one,
    })
}

/// Where the lines that could close a heredoc begin, by their word: looked up once, so that a file of nothing but openings is
/// not searched to its end for each of them.
fn closings(text: &str) -> BTreeMap<&str, Vec<usize>> {
    let mut closings: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let word = line.trim_end();
        if is_identifier(word) {
            closings.entry(word).or_default().push(at);
        }
        at += line.len();
    }
    closings
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
