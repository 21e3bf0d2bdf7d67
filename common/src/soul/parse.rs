//! From the file's instructions to the agent's spec.

use std::collections::BTreeMap;
use std::path::Path;

use super::diagnostic::SoulErrors;
use super::instruction::{self, Context};
use super::keyword::Keyword;
use super::lines::{Instruction, Instructions};
use super::source::{Problem, Problems, Source, Span};
use super::suggest::{did_you_mean, quoted};
use super::text::Part;
use super::{MAX_FILE, MAX_INSTRUCTIONS, MAX_SPEC};
use crate::AgentName;
use crate::id::{SCHEDULE, USER};
use crate::spec::AgentSpec;

/// Parses a soul. Relative paths in it are taken from the folder of `path`, which nothing else is read from; a byte order mark
/// and CRLF are accepted.
///
/// # Errors
/// Every problem of the file, up to [`MAX_PROBLEMS`](super::MAX_PROBLEMS).
pub fn parse(name: AgentName, path: &Path, text: &str) -> Result<AgentSpec, Box<SoulErrors>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    check(name, path, text, |_| {})
}

/// As [`parse`], for a file as it was read: what is not UTF-8 is a problem like any other.
///
/// # Errors
/// Every problem of the file, up to [`MAX_PROBLEMS`](super::MAX_PROBLEMS).
pub fn parse_bytes(
    name: AgentName,
    path: &Path,
    bytes: &[u8],
) -> Result<AgentSpec, Box<SoulErrors>> {
    // A file that is too large is not worth decoding: its first bytes are enough to say so.
    let readable = &bytes[..bytes.len().min(MAX_FILE + 1)];
    let text = String::from_utf8_lossy(readable);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let marked = bytes.starts_with(b"\xef\xbb\xbf");
    let bytes = if marked { &readable[3..] } else { readable };
    check(name, path, text, |problems| {
        if bytes.len() <= MAX_FILE {
            refuse_invalid_utf8(bytes, problems);
        }
    })
}

fn check(
    name: AgentName,
    path: &Path,
    text: &str,
    look_first: impl FnOnce(&mut Problems<'_>),
) -> Result<AgentSpec, Box<SoulErrors>> {
    let source = Source::new(&path.display().to_string(), text);
    let mut problems = Problems::new(&source);
    for (taken, by) in [(USER, "people"), (SCHEDULE, "schedules")] {
        if name.as_str() == taken {
            problems.push(Problem::new(
                0..0,
                format!("no agent can be called `{taken}`"),
                format!("expected another name for the file: messages from {by} use this one"),
            ));
        }
    }
    look_first(&mut problems);
    let spec = if text.len() > MAX_FILE {
        problems.push(Problem::new(
            0..0,
            "the file is too large",
            format!("expected at most {} KiB", MAX_FILE >> 10),
        ));
        None
    } else {
        refuse_control_characters(text, &mut problems);
        Some(Parser::new(name, path).run(text, &mut problems))
    };
    let problems = problems.finish();
    match spec {
        Some(spec) if problems.is_empty() => Ok(spec),
        _ => Err(SoulErrors::new(&source.file, text, problems)),
    }
}

/// Every run of invalid bytes became one U+FFFD in the text that the spans refer to.
fn refuse_invalid_utf8(bytes: &[u8], problems: &mut Problems<'_>) {
    let mut at = 0;
    for chunk in bytes.utf8_chunks() {
        at += chunk.valid().len();
        if let Some(byte) = chunk.invalid().first() {
            let len = char::REPLACEMENT_CHARACTER.len_utf8();
            problems.push(Problem::new(
                at..at + len,
                format!("byte 0x{byte:02x} is not UTF-8"),
                "expected text in UTF-8",
            ));
            at += len;
        }
    }
}

fn refuse_control_characters(text: &str, problems: &mut Problems<'_>) {
    let mut line_of_last = None;
    for (at, c) in text.char_indices() {
        let ends_line = c == '\r' && text[at + 1..].starts_with('\n');
        if !c.is_control() || c == '\n' || c == '\t' || ends_line {
            continue;
        }
        // One a line says enough.
        let line = text[..at].rfind('\n');
        if line_of_last.replace(line) == Some(line) {
            continue;
        }
        problems.push(Problem::new(
            at..at + c.len_utf8(),
            format!("control character U+{:04X}", u32::from(c)),
            "expected text, tabs and line ends only",
        ));
        if problems.is_full() {
            return;
        }
    }
}

/// What the instructions have said so far.
struct Parser {
    context: Context,
    /// Where each keyword was first given.
    given: BTreeMap<Keyword, Span>,
    /// Keywords that a misspelled line was meant to be: not missing as well.
    meant: Vec<Keyword>,
}

impl Parser {
    fn new(name: AgentName, path: &Path) -> Self {
        Self { context: Context::new(name, path), given: BTreeMap::new(), meant: Vec::new() }
    }

    fn run(mut self, text: &str, problems: &mut Problems<'_>) -> AgentSpec {
        let mut instructions = Instructions::new(text);
        let mut count = 0;
        while let Some(instruction) = instructions.next(problems) {
            count += 1;
            if count > MAX_INSTRUCTIONS {
                let (keyword, _) = instruction.text.whole().split_word();
                problems.push(Problem::new(
                    keyword.span(),
                    "too many instructions",
                    format!("expected at most {MAX_INSTRUCTIONS}; the rest was not read"),
                ));
                break;
            }
            self.instruction(&instruction, problems);
            if problems.is_full() {
                break;
            }
        }
        let read_all = count <= MAX_INSTRUCTIONS && !problems.is_full();
        if read_all && !instructions.has_open_heredoc {
            self.require(Keyword::Model, text, problems);
            self.require(Keyword::Soul, text, problems);
        }
        let spec = self.context.spec;
        // A map with string keys and plain values always encodes.
        let size = serde_json::to_vec(&spec).map_or(0, |json| json.len());
        if size > MAX_SPEC {
            problems.push(Problem::new(
                0..0,
                format!("the agent's spec is {} KiB long", size >> 10),
                format!("expected at most {} KiB of JSON", MAX_SPEC >> 10),
            ));
        }
        spec
    }

    fn instruction(&mut self, instruction: &Instruction, problems: &mut Problems<'_>) {
        let (word, _) = instruction.text.whole().split_word();
        let Some(keyword) = Keyword::find(word.as_str()) else {
            let meant = Keyword::meant_by(word.as_str());
            self.meant.extend(meant);
            problems.push(unknown(word, meant));
            return;
        };
        if let Some(first) = self.given.get(&keyword)
            && !keyword.is_repeatable()
        {
            problems.push(
                Problem::new(
                    word.span(),
                    format!("{} is given twice", keyword.word()),
                    format!("expected one {} in a soul", keyword.word()),
                )
                .also(first.clone(), "first given"),
            );
            return;
        }
        self.given.entry(keyword).or_insert(word.span());
        instruction::parse(&mut self.context, keyword, instruction, problems);
    }

    fn require(&self, keyword: Keyword, text: &str, problems: &mut Problems<'_>) {
        if self.given.contains_key(&keyword) || self.meant.contains(&keyword) {
            return;
        }
        let end = text.trim_end().len();
        problems.push(Problem::new(
            end..end,
            format!("no {} in this soul", keyword.word()),
            format!("expected a line `{}`", keyword.usage()),
        ));
    }
}

fn unknown(word: Part<'_>, meant: Option<Keyword>) -> Box<Problem> {
    let help = match meant {
        Some(keyword) if word.as_str().eq_ignore_ascii_case(keyword.word()) => {
            Some(format!("did you mean `{}`? Keywords are written in upper case", keyword.word()))
        }
        Some(keyword) if word.as_str().contains(['=', ':']) => {
            Some(format!("did you mean `{}`? A space follows the keyword", keyword.word()))
        }
        Some(keyword) => Some(did_you_mean(keyword.word())),
        // Not a word in capitals: rather a sentence that was meant to go on.
        None if !word.as_str().chars().all(char::is_uppercase) => {
            Some("to continue the previous line, end it with `\\`, or use `<<END`".to_owned())
        }
        None => None,
    };
    Problem::new(
        word.span(),
        format!("unknown instruction {}", quoted(word.as_str())),
        "expected a keyword, such as `MODEL` or `SOUL`",
    )
    .help(help)
}
