//! What is in a soul's folder and does not travel.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The file, beside the soul, that says what else does not travel: in git's syntax.
pub const IGNORE: &str = ".mozartignore";

/// What does not travel unless `.mozartignore` says otherwise (`!ca.pem`): the souls, since one that changes is no change of the others;
/// what can be made again, for another system maybe; the data of a NATS server; and what is likely to hold secrets.
const DEFAULTS: [&str; 25] = [
    "*.soul",
    ".git",
    ".hg",
    ".svn",
    ".mozart",
    "__pycache__",
    "*.pyc",
    "node_modules",
    ".venv",
    "venv",
    ".DS_Store",
    "jetstream",
    ".env",
    ".env.*",
    "*.env",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".ssh",
    ".aws",
    ".gnupg",
    "*.pem",
    "*.key",
    "id_rsa",
    "id_ed25519",
];

/// What is of no use beside other files than those that it was made with.
const MADE: [&str; 6] = [".git", ".hg", ".svn", ".mozart", "__pycache__", "*.pyc"];

/// The rules of a folder.
#[derive(Debug)]
pub struct LeftOut {
    rules: Gitignore,
    made: Gitignore,
}

impl LeftOut {
    /// The defaults, and what a `.mozartignore` adds to them.
    ///
    /// # Errors
    /// A human-readable message: which line is no pattern.
    pub fn new(text: &str) -> Result<Self, String> {
        let lines = DEFAULTS.into_iter().map(|line| (0, line));
        let own = text.trim_start_matches('\u{feff}').lines();
        let all = lines.chain((1..).zip(own));
        Ok(Self { rules: rules(all)?, made: rules(MADE.into_iter().map(|line| (0, line)))? })
    }

    /// Whether something does not travel, by its path from the folder. What is in a folder that does not, does not either.
    #[must_use]
    pub fn has(&self, path: &Path, is_folder: bool) -> bool {
        matches!(self.rules.matched(path, is_folder), Match::Ignore(_))
    }

    /// Whether something would be wrong beside other files.
    #[must_use]
    pub(super) fn is_made(&self, path: &Path, is_folder: bool) -> bool {
        matches!(self.made.matched(path, is_folder), Match::Ignore(_))
    }
}

fn rules<'a>(lines: impl Iterator<Item = (usize, &'a str)>) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new("");
    for (number, line) in lines {
        let added = builder.add_line(None, line);
        added.map_err(|error| format!("{IGNORE}:{number}: {error}"))?;
    }
    builder.build().map_err(|error| format!("{IGNORE}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_lines_win_and_the_defaults_come_first() {
        let rules =
            LeftOut::new("# notes\n/data/\n*.log\n!ca.pem\nsub/only-here\n").expect("rules");
        for (path, is_folder) in [
            ("a.soul", false),
            ("deep/agent.soul", false),
            (".env", false),
            (".env.local", false),
            ("deep/secrets.env", false),
            ("deep/.git", true),
            ("node_modules", true),
            ("key.pem", false),
            ("data", true),
            ("deep/x.log", false),
            ("sub/only-here", false),
        ] {
            assert!(rules.has(Path::new(path), is_folder), "{path}");
        }
        for (path, is_folder) in [
            ("worker.py", false),
            (".mozartignore", false),
            ("ca.pem", false),
            ("data", false),
            ("deep/data", true),
            ("deep/sub/only-here", false),
            ("environment", false),
        ] {
            assert!(!rules.has(Path::new(path), is_folder), "{path}");
        }
        assert!(rules.is_made(Path::new("x/__pycache__"), true));
        assert!(!rules.is_made(Path::new(".venv"), true));
    }

    #[test]
    fn a_line_that_is_no_pattern_is_named() {
        let error = LeftOut::new("fine\n[z-a]\n").expect_err("no pattern");
        assert!(error.starts_with(".mozartignore:2: "), "{error}");
    }
}
