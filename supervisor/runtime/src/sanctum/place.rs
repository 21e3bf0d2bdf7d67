//! Where the folders of an agent go, and what is left of them.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::cannot;

/// What makes a folder this one and no other of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// Of what is at a path; none if nothing is.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let known = fs::symlink_metadata(path).ok()?;
        Some(Self { device: known.dev(), inode: known.ino() })
    }
}

/// What is where a folder is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Nothing.
    Free,
    /// A folder without anything in it.
    Empty,
    /// Something that must not be overwritten, in words that go on after the path.
    Taken(String),
}

/// Looks at a place.
///
/// # Errors
/// When it cannot be looked at.
pub fn look(path: &Path) -> Result<Place, String> {
    let failed = |error: io::Error| cannot("read", path, &error);
    let known = match fs::symlink_metadata(path) {
        Ok(known) => known,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Free),
        Err(error) => return Err(failed(error)),
    };
    if !known.is_dir() {
        return Ok(Place::Taken("exists there and is not a folder".to_owned()));
    }
    let is_empty = fs::read_dir(path).map_err(failed)?.next().is_none();
    Ok(if is_empty {
        Place::Empty
    } else {
        Place::Taken("exists there and is not empty".to_owned())
    })
}

/// How many bytes are free where a path is to be.
#[must_use]
pub fn free(path: &Path) -> Option<u64> {
    let known = rustix::fs::statvfs(path.ancestors().find(|above| above.exists())?).ok()?;
    Some(known.f_bavail.saturating_mul(known.f_frsize))
}

/// Gives a complete folder its name, in one step. Only an empty folder may have it already.
///
/// # Errors
/// When it cannot have it.
pub fn place(draft: &Path, path: &Path) -> Result<(), String> {
    let renamed = fs::rename(draft, path).and_then(|()| sync(path));
    renamed.map_err(|error| {
        let cause = cannot("rename the copy to", path, &error);
        if matches!(error.kind(), io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices) {
            return format!("{cause}: it is a mount point; try: mount a folder above it");
        }
        cause
    })
}

/// Renames a folder that is not used any more; where it is then. One that cannot be renamed stays where it is.
#[must_use]
pub fn put_aside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    let aside = PathBuf::from(name);
    if fs::symlink_metadata(&aside).is_ok() {
        // An earlier try has come so far, unless both are there.
        return if fs::symlink_metadata(path).is_ok() { path.to_owned() } else { aside };
    }
    match fs::rename(path, &aside).and_then(|()| sync(&aside)) {
        Ok(()) => aside,
        Err(error) => {
            tracing::warn!("{}", cannot("rename", path, &error));
            path.to_owned()
        }
    }
}

fn sync(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

/// Removes a copy that is not complete, also where its modes would forbid it.
///
/// # Errors
/// When something of it stays.
pub fn remove_draft(path: &Path) -> Result<(), String> {
    let mut removed = fs::remove_dir_all(path);
    if removed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        open_up(path);
        removed = fs::remove_dir_all(path);
    }
    removed.or_else(|error| {
        let is_gone = error.kind() == io::ErrorKind::NotFound;
        if is_gone { Ok(()) } else { Err(cannot("remove", path, &error)) }
    })
}

/// Lets this user list and change all folders of a tree.
fn open_up(path: &Path) {
    let Ok(known) = fs::symlink_metadata(path) else { return };
    if !known.is_dir() || fs::set_permissions(path, fs::Permissions::from_mode(0o700)).is_err() {
        return;
    }
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}
