//! The only place that writes to stdout and stderr: data here, words there, and a closed pipe is an end, not a crash.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use common::api::ApiError;
use serde::Serialize;

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
    stdout.write_all(data).and_then(|()| stdout.flush()).map_err(|cause| {
        if cause.kind() == ErrorKind::BrokenPipe {
            return failure::error(BROKEN_PIPE, "", "", "");
        }
        failure::error(failure::FAILED, "cannot write to stdout", cause, "check the disk space")
    })
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`bytes()`].
pub fn line(text: impl AsRef<str>) -> Result<(), ApiError> {
    bytes(format!("{}\n", text.as_ref()).as_bytes())
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

/// Writes a line to stderr. That nobody reads it is no error.
pub fn note(text: impl AsRef<str>) {
    let mut stderr = io::stderr().lock();
    drop(writeln!(stderr, "{}", text.as_ref()));
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
