//! Unpacks an archive's files to a temporary folder, which is renamed once it is complete.

use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::api::ApiError;
use common::words::count;
use indicatif::ProgressBar;
use tar::EntryType;

use super::names::{self, Place};
use super::slice::{Range, Slice};
use super::{Breath, CHUNK};
use crate::outfile::draft_name;
use crate::output;
use common::failure;

/// Whose a file is, and what may be done with it.
#[derive(Debug, Clone, Copy)]
struct Owner {
    mode: u32,
    user: u32,
    group: u32,
    modified: u64,
}

/// A folder that is removed unless it got its name.
#[derive(Debug)]
pub(super) struct Draft {
    path: PathBuf,
    /// Folders with what they will be in the end: none may be closed to us before.
    folders: Vec<(PathBuf, Owner)>,
    /// Files that could not be given to whom they belong.
    kept: u64,
    /// Files that had the set-uid or set-gid bit.
    tamed: u64,
    placed: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            output::note(format!("warning: cannot remove {}: {error}", self.path.display()));
        }
    }
}

impl Draft {
    /// A new temporary folder next to the target.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn beside(target: &Path) -> Result<Self, ApiError> {
        let path = target.with_file_name(draft_name());
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| cannot_write(&path, &error))?;
        Ok(Self { path, folders: Vec::new(), kept: 0, tamed: 0, placed: false })
    }

    /// Writes a file of ours.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn file(&self, name: &str, text: &str) -> Result<(), ApiError> {
        let path = self.path.join(name);
        fs::write(&path, text).map_err(|error| cannot_write(&path, &error))
    }

    /// Unpacks what was in the soul's folder.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) fn files(&self, archive: Slice) -> Result<(), ApiError> {
        runtime::files::unpack_beside(archive, &self.path).map_err(|cause| {
            let what = format!("cannot write {}", self.path.display());
            failure::error(failure::FAILED, what, cause, "--to DIR")
        })
    }

    /// Unpacks the SANCTUMs and SKILLs of an archive that was checked.
    ///
    /// # Errors
    /// When there is no room.
    pub(super) async fn unpack(&mut self, file: &File, bar: &ProgressBar) -> Result<(), ApiError> {
        let broken = |error: io::Error| failure::file("cannot read the archive", &error, "");
        let len = file.metadata().map_err(broken)?.len();
        let slice = Slice::new(file, Range { start: 0, len }).map_err(broken)?;
        let mut archive = tar::Archive::new(slice);
        let mut breath = Breath::new();
        let mut chunk = vec![0; CHUNK];
        let mut links = Vec::new();
        for entry in archive.entries_with_seek().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let name = entry.path().map_err(broken)?.into_owned();
            let Ok(Place::Within(depth)) = names::place(&name) else { continue };
            let path = self.path.join(&name);
            let owner = owner(entry.header()).map_err(broken)?;
            let cannot = |error: io::Error| cannot_write(&path, &error);
            if depth == 0 {
                let parent = path.parent().unwrap_or(&self.path);
                fs::create_dir_all(parent).map_err(cannot)?;
            }
            let kind = entry.header().entry_type();
            if kind == EntryType::Directory {
                fs::DirBuilder::new().mode(0o700).create(&path).map_err(cannot)?;
                self.folders.push((path, owner));
            } else if kind == EntryType::Symlink {
                let target = entry.link_name().map_err(broken)?.unwrap_or_default();
                links.push((path, target.into_owned(), owner));
            } else {
                let mut options = File::options();
                let made = options.write(true).create_new(true).mode(0o600).open(&path);
                let mut out = made.map_err(cannot)?;
                let mut len = 0;
                loop {
                    let read = entry.read(&mut chunk).map_err(broken)?;
                    let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
                        break;
                    };
                    len += read as u64;
                    // Zeros take no room.
                    if bytes.iter().all(|byte| *byte == 0) {
                        out.seek(SeekFrom::Current(read as i64)).map_err(cannot)?;
                    } else {
                        out.write_all(bytes).map_err(cannot)?;
                    }
                    bar.inc(read as u64);
                    breath.take().await;
                }
                out.set_len(len).map_err(cannot)?;
                self.give(&out, owner, 0o1777).map_err(cannot)?;
            }
            breath.take().await;
        }
        // Last, so that nothing is written through one.
        for (path, target, owner) in links {
            std::os::unix::fs::symlink(target, &path)
                .map_err(|error| cannot_write(&path, &error))?;
            // Nobody asks whose a link is.
            let _kept = std::os::unix::fs::lchown(&path, Some(owner.user), Some(owner.group));
        }
        Ok(())
    }

    /// Restores the owner and the mode of a file or folder, without the set-uid and set-gid bits.
    fn give(&mut self, file: &File, owner: Owner, allowed: u32) -> io::Result<()> {
        if std::os::unix::fs::fchown(file, Some(owner.user), Some(owner.group)).is_err() {
            self.kept += 1;
        }
        if owner.mode & !allowed != 0 {
            self.tamed += 1;
        }
        file.set_permissions(fs::Permissions::from_mode(owner.mode & allowed))?;
        let modified = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(owner.modified));
        match modified {
            Some(modified) => file.set_modified(modified),
            None => Ok(()),
        }
    }

    /// Gives the folder its name.
    ///
    /// # Errors
    /// When something that is not empty has that name by now.
    pub(super) fn place(&mut self, target: &Path) -> Result<(), ApiError> {
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&self.path, open).map_err(|error| cannot_write(target, &error))?;
        for (path, owner) in std::mem::take(&mut self.folders).into_iter().rev() {
            let given = File::open(&path).and_then(|folder| self.give(&folder, owner, 0o3777));
            given.map_err(|error| cannot_write(&path, &error))?;
        }
        if self.kept > 0 {
            output::note(format!(
                "warning: the owner of {} is not restored: only root can do that",
                count(self.kept, "file", "files")
            ));
        }
        if self.tamed > 0 {
            let tamed = count(self.tamed, "file", "files");
            output::note(format!("warning: {tamed} lost the set-uid or set-gid bit"));
        }
        // An empty folder of that name gives way.
        fs::rename(&self.path, target).map_err(|error| cannot_write(target, &error))?;
        self.placed = true;
        Ok(())
    }
}

fn owner(header: &tar::Header) -> io::Result<Owner> {
    // A number that no user has is nobody's.
    let id = |id: u64| u32::try_from(id).unwrap_or(65_534);
    Ok(Owner {
        mode: header.mode()? & 0o7777,
        user: id(header.uid()?),
        group: id(header.gid()?),
        modified: header.mtime()?,
    })
}

fn cannot_write(path: &Path, error: &io::Error) -> ApiError {
    let what = format!("cannot write {}", path.display());
    failure::file(what, error, "--to DIR; `df` shows the free space there")
}
