//! The fleets that can be written. Their files are part of this checkout, and of its tests.

use std::path::Path;

use clap::ValueEnum;

/// The library of workers in Python.
const PYTHON: (&str, &str) =
    ("mozart_worker.py", include_str!("../../../../sdk/python/mozart_worker.py"));

/// A kind of fleet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Template {
    /// One agent without a worker of its own, which repeats what it is told
    Hello,
    /// An agent with a worker in Python
    Python,
    /// An agent with a worker in Rust
    Rust,
    /// Three agents in Python: a schedule, questions between agents, and a question to a person
    Team,
}

impl Template {
    /// The files, by their paths within the folder.
    pub(super) fn files(self) -> &'static [(&'static str, &'static str)] {
        macro_rules! file {
            ($name:literal, $path:literal) => {
                ($name, include_str!(concat!("../../", $path)))
            };
        }
        match self {
            Self::Hello => &[
                file!("hello.soul", "templates/hello/hello.soul"),
                file!("README.md", "templates/hello/README.md"),
            ],
            Self::Python => &[
                file!("assistant.soul", "templates/python/assistant.soul"),
                file!("assistant.py", "templates/python/assistant.py"),
                PYTHON,
                file!("README.md", "templates/python/README.md"),
            ],
            Self::Rust => &[
                file!("assistant.soul", "templates/rust/assistant.soul"),
                file!("Cargo.toml", "templates/rust/Cargo.toml"),
                file!("src/main.rs", "templates/rust/src/main.rs"),
                file!("mozart-worker/Cargo.toml", "templates/rust/mozart-worker/Cargo.toml"),
                file!("mozart-worker/src/lib.rs", "../../sdk/rust/src/lib.rs"),
                file!("mozart-worker/src/error.rs", "../../sdk/rust/src/error.rs"),
                file!("mozart-worker/src/line.rs", "../../sdk/rust/src/line.rs"),
                file!("mozart-worker/src/link.rs", "../../sdk/rust/src/link.rs"),
                file!("mozart-worker/src/tests.rs", "../../sdk/rust/src/tests.rs"),
                file!("mozart-worker/src/turn.rs", "../../sdk/rust/src/turn.rs"),
                file!(".mozartignore", "templates/rust/mozartignore"),
                file!(".gitignore", "templates/rust/gitignore"),
                file!("README.md", "templates/rust/README.md"),
            ],
            Self::Team => &[
                file!("editor.soul", "../../examples/team/editor.soul"),
                file!("editor.py", "../../examples/team/editor.py"),
                file!("writer.soul", "../../examples/team/writer.soul"),
                file!("writer.py", "../../examples/team/writer.py"),
                file!("checker.soul", "../../examples/team/checker.soul"),
                file!("checker.py", "../../examples/team/checker.py"),
                PYTHON,
                file!("README.md", "templates/team/README.md"),
            ],
        }
    }

    /// The commands that come next.
    pub(super) fn next(self, dir: &Path) -> Vec<String> {
        let folder = quoted(dir);
        let up = format!("mozart up {folder} --detach --wait");
        match self {
            Self::Hello => vec![up, "mozart send hello Hello --wait".to_owned()],
            Self::Python => vec![up, "mozart send assistant Hello --wait".to_owned()],
            Self::Rust => {
                let manifest = quoted(&dir.join("Cargo.toml"));
                let build = format!("cargo build --release --manifest-path {manifest}");
                vec![build, up, "mozart send assistant Hello --wait".to_owned()]
            }
            Self::Team => vec![up, "mozart send editor \"draft tea\" --wait".to_owned()],
        }
    }
}

/// As a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:=-".contains(c);
    match text.chars().all(is_plain) && !text.starts_with('-') {
        true => text.into_owned(),
        false if text.starts_with('-') => format!("'./{}'", text.replace('\'', r"'\''")),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_quoted_where_a_shell_needs_it() {
        for (path, shown) in [
            ("a/b-c", "a/b-c"),
            ("my fleet", "'my fleet'"),
            ("it's", r"'it'\''s'"),
            ("-x", "'./-x'"),
        ] {
            assert_eq!(quoted(Path::new(path)), shown);
        }
    }
}
