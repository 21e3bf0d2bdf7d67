//! Parsing the command line. Clap quotes its arguments as they are, and they may steer a terminal: so what it says is written here.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::builder::Styles;
use clap::{ArgMatches, Command};

use crate::args::Output;
use crate::{examples, output};
use common::failure;

/// Parses the command line of this process.
///
/// # Errors
/// The exit code, where it names no command: help or the version is on stdout by then, or on stderr what is wrong.
pub fn parse(grammar: fn() -> Command) -> Result<ArgMatches, ExitCode> {
    let args: Vec<OsString> = std::env::args_os().collect();
    let parsed = |grammar| examples::with(grammar).try_get_matches_from(&args);
    let error = match parsed(grammar()) {
        Ok(matches) => return Ok(matches),
        Err(error) => error,
    };
    if !error.use_stderr() {
        let written = error.print().and_then(|()| std::io::stdout().flush());
        return Err(match written {
            Ok(()) => ExitCode::SUCCESS,
            Err(cause) => output::fail(&output::unwritten(&cause), Output::Table),
        });
    }
    // Once more without clap's own colours: then whatever steers a terminal is from an argument or a variable.
    let plain = match parsed(grammar().styles(Styles::plain())) {
        Err(plain) => plain.render().ansi().to_string(),
        Ok(_) => error.to_string(),
    };
    if wants_json(&args) {
        output::complain(&usage(&plain), Output::Json);
    } else if output::stderr_is_terminal() && matches!(output::shown(&plain), Cow::Borrowed(_)) {
        // Nobody is left to be told that stderr cannot be written.
        let _written = error.print();
    } else {
        output::note(plain.trim_end());
    }
    Err(ExitCode::from(failure::USAGE))
}

/// Whether results and errors are to be JSON, as far as that can be told of a command line that does not parse.
fn wants_json(args: &[OsString]) -> bool {
    let is = |arg: &OsString, word: &str| arg == word;
    let mut options = args.iter().take_while(|arg| !is(arg, "--")).peekable();
    while let Some(arg) = options.next() {
        let is_joined = ["-ojson", "-o=json", "--output=json"].iter().any(|word| is(arg, word));
        let is_option = is(arg, "-o") || is(arg, "--output");
        if is_joined || is_option && options.peek().is_some_and(|format| is(format, "json")) {
            return true;
        }
    }
    false
}

/// What clap says, as an error of ours: its first line is what is wrong, and a tip tells what was probably meant.
fn usage(text: &str) -> common::api::ApiError {
    let mut paragraphs = text.trim().split("\n\n").map(str::trim);
    let what = paragraphs.next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let cause = paragraphs.find(|text| text.starts_with("tip:")).unwrap_or_default();
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    failure::error(failure::USAGE, line(what), line(cause), "`mozart --help`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_wanted_where_an_option_says_so() {
        let wants =
            |line: &str| wants_json(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in ["mozart ps -o json", "mozart -ojson x", "mozart x --output=json"] {
            assert!(wants(line), "{line}");
        }
        for line in ["mozart ps", "mozart ps -o table", "mozart send a -- -o json", "mozart json"] {
            assert!(!wants(line), "{line}");
        }
    }

    #[test]
    fn what_clap_says_becomes_an_error() {
        let grammar = || Command::new("mozart").subcommand(Command::new("send"));
        let error = grammar().try_get_matches_from(["mozart", "sned"]).expect_err("a typo");
        let error = usage(&error.to_string());
        assert_eq!(
            (error.code, error.what.as_str(), error.cause.as_str()),
            (2, "unrecognized subcommand 'sned'", "tip: a similar subcommand exists: 'send'")
        );
    }
}
