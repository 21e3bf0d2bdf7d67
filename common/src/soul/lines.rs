//! Cuts a file into instructions: comments out, continued lines joined, heredocs taken.

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
        Self { text, at: 0, has_open_heredoc: false }
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
                            "the line continues into nothing",
                            "expected another line after this one",
                        )
                        .help("leave the `\\` out, or the empty line".to_owned()),
                    );
                    return text;
                }
            }
        }
    }

    fn with_heredoc(&mut self, mut text: Text, problems: &mut Problems<'_>) -> Instruction {
        let (keyword, rest) = text.whole().split_word();
        let Some(last) = rest.words().last() else {
            return Instruction { text, heredoc: None };
        };
        let Some(mark) = last.as_str().strip_prefix("<<") else {
            return Instruction { text, heredoc: None };
        };
        let takes_one = Keyword::find(keyword.as_str()).is_some_and(Keyword::takes_heredoc);
        let opening = last.span();
        // A shell's `<<-END` and `<<'END'` are plain here.
        let bare = mark.trim_start_matches('-').trim_matches(['\'', '"']);
        if mark != bare && takes_one || !is_identifier(bare) {
            if takes_one {
                problems.push(
                    Problem::new(
                        opening.clone(),
                        format!("{} opens no heredoc", quoted(last.as_str())),
                        "expected `<<` and a word, such as `<<END`",
                    )
                    .help("the word stands alone in the line that closes the text".to_owned()),
                );
            }
            if !is_identifier(bare) {
                return Instruction { text, heredoc: None };
            }
        }
        let mark = bare.to_owned();
        let before = last.start_in_text();
        let opened_at = self.at;
        if let Some(heredoc) = self.heredoc(&mark, opening.clone()) {
            text.truncate(before);
            return Instruction { text, heredoc: Some(heredoc) };
        }
        if takes_one {
            self.has_open_heredoc = true;
            let indented =
                self.text[opened_at..].lines().find(|line| line.trim().eq_ignore_ascii_case(&mark));
            let help = match indented {
                Some(line) => format!("{} is not it: case and indent matter", quoted(line)),
                None => format!("close the text with a line `{mark}`"),
            };
            problems.push(
                Problem::new(
                    opening.clone(),
                    "the heredoc is never closed",
                    format!("expected a line `{mark}` below"),
                )
                .help(help),
            );
            text.truncate(before);
            let heredoc = Heredoc {
                opening,
                // Already reported: a body that is empty would be reported again.
                body: "…".to_owned(),
            };
            return Instruction { text, heredoc: Some(heredoc) };
        }
        // An instruction without heredocs, and no line that would close one: the text is meant as it is.
        self.at = opened_at;
        Instruction { text, heredoc: None }
    }

    /// Takes lines up to the closing one; leaves the reader at the end of the file if there is none.
    fn heredoc(&mut self, mark: &str, opening: Span) -> Option<Heredoc> {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            if line.text.trim_end() == mark {
                let body = lines.join("\n");
                return Some(Heredoc { opening, body });
            }
            lines.push(line.text);
        }
        None
    }
}

fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
