//! The only place that writes to stdout and stderr: data to stdout, messages to stderr. A closed pipe is an end, not a crash.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use common::api::ApiError;
use serde::Serialize;

pub use common::words::shown;

use crate::args::Output;
use common::failure;

/// Stdout's reader went away: the exit code that a shell shows for SIGPIPE. [`fail`] says nothing about it.
const BROKEN_PIPE: u8 = 141;

/// Whether colours are wanted (`NO_COLOR`).
pub fn colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether a person looks at stdout.
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Whether a person looks at stderr.
pub fn stderr_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Writes bytes to stdout as they are, at once.
///
/// # Errors
/// When stdout cannot be written.
pub fn bytes(data: &[u8]) -> Result<(), ApiError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(|cause| unwritten(&cause))
}

/// Why stdout cannot be written.
pub(crate) fn unwritten(cause: &io::Error) -> ApiError {
    if cause.kind() == ErrorKind::BrokenPipe {
        return failure::error(BROKEN_PIPE, "", "", "");
    }
    failure::file("cannot write to stdout", cause, "check the disk space")
}

/// What came of writing the result of something that is done and is not done again: where stdout cannot be written, `done` is said on
/// stderr, or nobody would learn of it.
///
/// # Errors
/// That of writing.
pub(crate) fn result(
    written: Result<(), ApiError>,
    done: impl FnOnce() -> String,
) -> Result<(), ApiError> {
    written.map_err(|mut error| {
        if error.code == BROKEN_PIPE {
            note(done());
        } else {
            error.what = format!("{}, but {}", done(), error.what);
        }
        error
    })
}

/// Writes a text to stdout, as it is [`shown`] on a terminal.
///
/// # Errors
/// As [`bytes()`].
pub fn text(text: &str) -> Result<(), ApiError> {
    if stdout_is_terminal() { bytes(shown(text).as_bytes()) } else { bytes(text.as_bytes()) }
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`bytes()`].
pub fn line(line: impl AsRef<str>) -> Result<(), ApiError> {
    text(&format!("{}\n", line.as_ref()))
}

/// Writes a value to stdout as one JSON line.
///
/// # Errors
/// As [`bytes()`].
pub fn json_line(value: &impl Serialize) -> Result<(), ApiError> {
    match serde_json::to_string(value) {
        Ok(text) => line(text),
        Err(cause) => Err(failure::error(failure::FAILED, "cannot write JSON", cause, "")),
    }
}

/// Writes a value to stdout as one JSON document: indented for a person, compact for a program.
///
/// # Errors
/// As [`bytes()`].
pub fn json(value: &impl Serialize) -> Result<(), ApiError> {
    if !stdout_is_terminal() {
        return json_line(value);
    }
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(text),
        Err(cause) => Err(failure::error(failure::FAILED, "cannot write JSON", cause, "")),
    }
}

/// Writes a JSON array to stdout as its items come, so that it need not be held: as [`json`] would write it.
#[derive(Debug)]
pub(crate) struct Array {
    is_empty: bool,
    is_pretty: bool,
}

impl Array {
    /// One without items yet: nothing is written.
    pub(crate) fn new() -> Self {
        Self { is_empty: true, is_pretty: stdout_is_terminal() }
    }

    /// The next item.
    ///
    /// # Errors
    /// As [`bytes()`].
    pub(crate) fn item(&mut self, value: &impl Serialize) -> Result<(), ApiError> {
        let text = item(value, self.is_empty, self.is_pretty)
            .map_err(|cause| failure::error(failure::FAILED, "cannot write JSON", cause, ""))?;
        self.is_empty = false;
        bytes(text.as_bytes())
    }

    /// Ends it, with what the work on it came to. Where that failed, the document is ended nevertheless: it says what was done by then.
    ///
    /// # Errors
    /// That of the work, else as [`bytes()`].
    pub(crate) fn end<T>(self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        match (self.is_empty, self.is_pretty) {
            (true, _) if result.is_err() => {}
            (true, _) => line("[]")?,
            (false, true) => line("\n]")?,
            (false, false) => line("]")?,
        }
        result
    }
}

/// An item of an array, with what is between it and the one before.
fn item(
    value: &impl Serialize,
    is_first: bool,
    is_pretty: bool,
) -> Result<String, serde_json::Error> {
    let comma = if is_first { "[" } else { "," };
    Ok(if is_pretty {
        let text = serde_json::to_string_pretty(value)?.replace('\n', "\n  ");
        format!("{comma}\n  {text}")
    } else {
        format!("{comma}{}", serde_json::to_string(value)?)
    })
}

/// Writes a line to stderr. A closed stderr is not an error.
pub fn note(text: impl AsRef<str>) {
    if stderr_is_terminal() {
        drawing(&shown(text.as_ref()));
    } else {
        drawing(text.as_ref());
    }
}

/// The same with what steers a terminal, which is ours.
pub(crate) fn drawing(text: &str) {
    if let Some(write) = &*ELSEWHERE.read().unwrap_or_else(PoisonError::into_inner) {
        return write(&format!("{text}\n"));
    }
    let mut stderr = io::stderr().lock();
    drop(writeln!(stderr, "{text}"));
}

/// How text reaches stderr in a process that must not wait for its reader.
static ELSEWHERE: RwLock<Option<Writes>> = RwLock::new(None);

/// What writes a text to stderr.
pub type Writes = Box<dyn Fn(&str) + Send + Sync>;

/// Lets another thread write messages, since a stopped terminal would block the threads that serve; none: they write by themselves
pub fn write_by(write: Option<Writes>) {
    *ELSEWHERE.write().unwrap_or_else(PoisonError::into_inner) = write;
}

/// Says what went wrong and yields the exit code.
pub fn fail(error: &ApiError, output: Output) -> ExitCode {
    if error.code != BROKEN_PIPE {
        complain(error, output);
    }
    ExitCode::from(error.code)
}

/// Says what went wrong.
pub fn complain(error: &ApiError, output: Output) {
    note(match output {
        Output::Json => error_json(error),
        Output::Table => error_text(error, io::stderr().is_terminal()),
    });
}

fn error_json(error: &ApiError) -> String {
    serde_json::json!({
        "error": {
            "code": error.code,
            "what": error.what,
            "cause": error.cause,
            "try": error.try_,
        }
    })
    .to_string()
}

/// One line for programs and logs, one line a part for people.
fn error_text(error: &ApiError, terminal: bool) -> String {
    let separator = if terminal { "\n  " } else { "; " };
    let mut text = format!("error: {}", error.what);
    for (name, part) in [("cause", &error.cause), ("try", &error.try_)] {
        if !part.is_empty() {
            text.push_str(&format!("{separator}{name}: {part}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_said_where_its_result_cannot_be_written() {
        let full = || Err(unwritten(&io::Error::from(ErrorKind::StorageFull)));
        let error = result(full(), || "message m1 is stored".to_owned()).expect_err("full");
        assert_eq!(error.what, "message m1 is stored, but cannot write to stdout");
        assert_eq!(error.code, failure::LIMIT);
        let closed = Err(unwritten(&io::Error::from(ErrorKind::BrokenPipe)));
        assert_eq!(result(closed, String::new).expect_err("closed").code, BROKEN_PIPE);
        assert_eq!(result(Ok(()), || unreachable!()), Ok(()));
    }

    #[test]
    fn an_array_is_the_same_in_pieces() {
        let items = [serde_json::json!({ "a": [1, 2] }), serde_json::json!("x\ny")];
        for is_pretty in [true, false] {
            let mut text = String::new();
            for (place, value) in items.iter().enumerate() {
                text.push_str(&item(value, place == 0, is_pretty).expect("plain"));
            }
            text.push_str(if is_pretty { "\n]" } else { "]" });
            let whole = match is_pretty {
                true => serde_json::to_string_pretty(&items),
                false => serde_json::to_string(&items),
            };
            assert_eq!(text, whole.expect("plain"));
        }
    }

    #[test]
    fn an_error_says_what_why_and_what_to_try() {
        let error = failure::error(6, "cannot send", "no route", "mozart up");
        assert_eq!(
            error_text(&error, false),
            "error: cannot send; cause: no route; try: mozart up"
        );
        assert_eq!(
            error_text(&error, true),
            "error: cannot send\n  cause: no route\n  try: mozart up"
        );
        let bare = failure::error(1, "no", "", "");
        assert_eq!(error_text(&bare, false), "error: no");
        assert_eq!(
            error_json(&error),
            r#"{"error":{"cause":"no route","code":6,"try":"mozart up","what":"cannot send"}}"#
        );
    }
}
