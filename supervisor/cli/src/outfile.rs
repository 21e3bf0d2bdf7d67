//! A file that a command writes: to a temporary name, which is changed once it is complete; or stdout.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use common::api::ApiError;
use common::failure;
use rustix::fs::{CWD, RenameFlags, SeekFrom, seek};
use rustix::io::Errno;
use uuid::Uuid;

use super::output;

/// An unpredictable name for what is not complete yet.
pub(crate) fn draft_name() -> String {
    format!(".mozart-{}", Uuid::now_v7())
}

/// What is being written. Dropped before its end, nothing is left of it.
#[derive(Debug)]
pub(crate) enum OutFile {
    Stdout,
    File { file: File, draft: Draft, path: PathBuf, replace: bool },
}

/// A file that is removed unless it is completed.
#[derive(Debug)]
pub(crate) struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // Renamed: then it is not there.
        let _gone = std::fs::remove_file(&self.0);
    }
}

impl OutFile {
    /// A file of that name; `replace`: also if there is one.
    ///
    /// # Errors
    /// When the folder does not take it.
    pub(crate) fn create(path: &Path, replace: bool) -> Result<Self, ApiError> {
        // A name that nobody has put a link under. What is there already is not ours, nor to be removed.
        let aside = path.with_file_name(draft_name());
        let made = File::options().write(true).create_new(true).mode(0o600).open(&aside);
        let file = made.map_err(|error| cannot_write(path, &error))?;
        Ok(Self::File { file, draft: Draft(aside), path: path.to_owned(), replace })
    }

    /// Writes bytes behind the others.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        match self {
            Self::Stdout => output::bytes(bytes),
            Self::File { file, path, .. } => {
                file.write_all(bytes).map_err(|error| cannot_write(path, &error))
            }
        }
    }

    /// Leaves out so many zeros, which become a hole. False: zeros have to be written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn skip(&mut self, count: u64) -> Result<bool, ApiError> {
        let Self::File { file, path, .. } = self else { return Ok(false) };
        let by = i64::try_from(count).unwrap_or(i64::MAX);
        seek(&*file, SeekFrom::Current(by)).map_err(|error| cannot_write(path, &error.into()))?;
        Ok(true)
    }

    /// Ends it, and gives the file its name.
    ///
    /// # Errors
    /// When it cannot be written, or a file of that name has appeared.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if let Self::File { file, draft, path, replace } = self {
            let named = file.sync_all().and_then(|()| rename(&draft.0, &path, replace));
            named.map_err(|error| cannot_write(&path, &error))?;
        }
        Ok(())
    }
}

/// Demands that FILE is one that can be written: not a terminal, and not there, unless it is replaced.
///
/// # Errors
/// 2 where it is a terminal, 4 when it is there.
pub(crate) fn may_write(path: &Path, replace: bool, what: &str) -> Result<(), ApiError> {
    if is_stdout(path) {
        if output::stdout_is_terminal() {
            let cause = "stdout is a terminal, and the file is binary data";
            return Err(failure::error(
                failure::USAGE,
                what,
                cause,
                "name a FILE, or pipe the output",
            ));
        }
        return Ok(());
    }
    runtime::home::reaches(path)?;
    if !replace && path.symlink_metadata().is_ok() {
        let cause = format!("{} already exists", path.display());
        return Err(failure::error(failure::CONFLICT, what, cause, "another FILE, or --force"));
    }
    Ok(())
}

/// Whether a path means stdout.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn rename(from: &Path, to: &Path, replace: bool) -> io::Result<()> {
    if !replace {
        match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
            // A file system that cannot: nobody is expected to have been that fast.
            Err(Errno::INVAL | Errno::NOSYS) => {}
            renamed => return Ok(renamed?),
        }
    }
    std::fs::rename(from, to)
}

fn cannot_write(path: &Path, error: &io::Error) -> ApiError {
    let what = format!("cannot write {}", path.display());
    if error.kind() == io::ErrorKind::AlreadyExists {
        return failure::error(failure::CONFLICT, what, error, "another FILE, or --force");
    }
    failure::file(what, error, "another FILE; `df` shows the free space there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn each_draft_is_a_new_file_of_this_users() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let target = temp.path().join("a.tar");
        let made = || OutFile::create(&target, false).expect("made");
        let two = [made(), made()];
        let names: Vec<_> = std::fs::read_dir(temp.path()).expect("readable").flatten().collect();
        assert_eq!(names.len(), 2, "one for each");
        for name in names {
            assert_eq!(name.metadata().expect("there").permissions().mode() & 0o777, 0o600);
        }
        drop(two);
        assert_eq!(std::fs::read_dir(temp.path()).expect("readable").count(), 0);
    }

    #[test]
    fn what_appeared_meanwhile_is_replaced_only_if_that_was_asked_for() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let target = temp.path().join("a.tar");
        let mut out = OutFile::create(&target, false).expect("made");
        out.write(b"new").expect("written");
        std::fs::write(&target, "theirs").expect("written");
        assert_eq!(out.finish().expect_err("it is there").code, failure::CONFLICT);
        assert_eq!(std::fs::read_to_string(&target).expect("there"), "theirs");
        let mut out = OutFile::create(&target, true).expect("made");
        out.write(b"new").expect("written");
        out.finish().expect("replaced");
        assert_eq!(std::fs::read_to_string(&target).expect("there"), "new");
        assert_eq!(std::fs::read_dir(temp.path()).expect("readable").count(), 1);
    }
}
