//! `mozart init`: writes a fleet that runs. Nothing that is there is changed.

mod templates;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use common::api::ApiError;
use common::failure;
use common::words::shown;
use serde::Serialize;

use super::output;
use crate::args::{Global, Output};

use self::templates::Template;

/// How many files are named that are there already.
const NAMED: usize = 10;

/// `mozart init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The folder; it is made if there is none
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// What kind of fleet
    #[arg(long, value_enum, default_value_t = Template::Hello)]
    template: Template,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    dir: String,
    template: String,
    files: Vec<&'a str>,
    next: Vec<String>,
}

/// Writes the files of a template, all of them or none.
///
/// # Errors
/// 4 when one of them is there, or DIR is a file; 1, 7 or 9 when the file system does not take them.
pub(crate) fn run(global: &Global, args: &InitArgs) -> Result<u8, ApiError> {
    write(&args.dir, args.template)?;
    let files = args.template.files();
    let next = args.template.next(&args.dir);
    if global.output == Output::Json {
        let name = args.template.to_possible_value();
        let template = name.map(|name| name.get_name().to_owned()).unwrap_or_default();
        let dir = args.dir.to_string_lossy().into_owned();
        let files = files.iter().map(|(name, _)| *name).collect();
        output::json(&Written { dir, template, files, next })?;
        return Ok(0);
    }
    for (name, _) in files {
        output::line(shown(&args.dir.join(name).to_string_lossy()))?;
    }
    output::line(format!("\nNext:\n  {}", next.join("\n  ")))?;
    Ok(0)
}

fn write(dir: &Path, template: Template) -> Result<(), ApiError> {
    let files = template.files();
    vacant(dir, files)?;
    let mut made = Made::default();
    for (name, text) in files {
        made.file(dir, name, text).map_err(|error| refused(dir, name, &error))?;
    }
    made.keep();
    Ok(())
}

/// Whether nothing of this is there.
fn vacant(dir: &Path, files: &[(&str, &str)]) -> Result<(), ApiError> {
    let what = || format!("cannot write a fleet into {}", shown(&dir.to_string_lossy()));
    let elsewhere = "another folder: mozart init DIR";
    match fs::metadata(dir) {
        Ok(found) if !found.is_dir() => {
            return Err(failure::error(failure::CONFLICT, what(), "it is not a folder", elsewhere));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failure::file(what(), &error, elsewhere)),
    }
    // Links count, wherever they lead.
    let is_there = |(name, _): &&(&str, &str)| fs::symlink_metadata(dir.join(name)).is_ok();
    let there: Vec<_> = files.iter().filter(is_there).map(|(name, _)| *name).collect();
    if there.is_empty() {
        return Ok(());
    }
    let mut named = there.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if there.len() > NAMED {
        named.push_str(", …");
    }
    let verb = if there.len() == 1 { "exists" } else { "exist" };
    let cause = format!("{named} {verb} already, and nothing is overwritten");
    Err(failure::error(failure::CONFLICT, what(), cause, elsewhere))
}

fn refused(dir: &Path, name: &str, error: &io::Error) -> ApiError {
    let what = format!("cannot write {}", shown(&dir.join(name).to_string_lossy()));
    if error.kind() == io::ErrorKind::AlreadyExists {
        // Somebody was quicker.
        return failure::error(failure::CONFLICT, what, "it exists already", "another folder");
    }
    failure::file(what, error, "another folder: mozart init DIR")
}

/// What was made so far: removed again, unless all of it was.
#[derive(Debug, Default)]
struct Made {
    files: Vec<PathBuf>,
    /// Outer ones first.
    folders: Vec<PathBuf>,
}

impl Made {
    fn file(&mut self, dir: &Path, name: &str, text: &str) -> io::Result<()> {
        let path = dir.join(name);
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        let mut file = fs::File::create_new(&path)?;
        self.files.push(path);
        file.write_all(text.as_bytes())
    }

    fn folder(&mut self, folder: &Path) -> io::Result<()> {
        if folder.as_os_str().is_empty() || folder.is_dir() {
            return Ok(());
        }
        if let Some(outer) = folder.parent() {
            self.folder(outer)?;
        }
        fs::create_dir(folder)?;
        self.folders.push(folder.to_owned());
        Ok(())
    }

    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for file in &self.files {
            let _gone = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            // Only if nobody else has put something there.
            let _gone = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn tree(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            match entry.file_type().expect("known").is_dir() {
                true => found.extend(tree(&entry.path()).iter().map(|it| format!("{name}/{it}"))),
                false => found.push(name),
            }
        }
        found.sort();
        found
    }

    #[test]
    fn every_template_is_written_into_folders_that_are_made() {
        for template in Template::value_variants() {
            let temp = tempfile::tempdir().expect("a folder");
            let dir = temp.path().join("deep/fleet");
            write(&dir, *template).expect("written");
            let mut names: Vec<_> =
                template.files().iter().map(|(name, _)| (*name).to_owned()).collect();
            names.sort();
            assert_eq!(tree(&dir), names);
            assert!(
                names.contains(&"README.md".to_owned())
                    && names.iter().any(|it| it.ends_with(".soul"))
            );
        }
    }

    #[test]
    fn nothing_is_overwritten_and_what_is_there_is_named() {
        let temp = tempfile::tempdir().expect("a folder");
        let dir = temp.path();
        symlink("nowhere", dir.join("hello.soul")).expect("made");
        let error = write(dir, Template::Hello).expect_err("a link is there");
        assert_eq!(
            (error.code, &*error.cause),
            (failure::CONFLICT, "hello.soul exists already, and nothing is overwritten")
        );
        assert_eq!(tree(dir), ["hello.soul"]);
        fs::write(dir.join("README.md"), "mine").expect("written");
        let error = write(dir, Template::Hello).expect_err("both are there");
        assert!(
            error.cause.contains("hello.soul") && error.cause.contains("README.md"),
            "{error:?}"
        );
        let error = write(&dir.join("README.md"), Template::Hello).expect_err("a file");
        assert_eq!((error.code, &*error.cause), (failure::CONFLICT, "it is not a folder"));
        let error = write(&dir.join("README.md/fleet"), Template::Hello).expect_err("in a file");
        assert_eq!(error.code, failure::FAILED, "{error:?}");
        assert_eq!(fs::read_to_string(dir.join("README.md")).expect("there"), "mine");
    }

    #[test]
    fn what_cannot_be_written_whole_is_not_left_in_part() {
        let temp = tempfile::tempdir().expect("a folder");
        let dir = temp.path();
        // Where a folder of the template would be.
        fs::write(dir.join("src"), "mine").expect("written");
        let error = write(dir, Template::Rust).expect_err("a file is in the way");
        assert!(error.what.contains("src/main.rs"), "{error:?}");
        assert_eq!(tree(dir), ["src"]);
    }
}
