//! Writes folders from the parts that were read elsewhere.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::codec;
use common::frame::carry::{Item, ItemKind, Part, split};
use sha2::{Digest as _, Sha256};

use super::cannot;

/// Whose an entry is, and when it was modified.
#[derive(Debug, Clone, Copy)]
struct Owner {
    mode: u32,
    user: u32,
    group: u32,
    modified: (i64, u32),
}

impl Owner {
    fn time(&self) -> SystemTime {
        let (seconds, nanos) = self.modified;
        SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seconds).unwrap_or_default(), nanos)
    }

    /// Gives a file to whom it belonged, as far as this user may.
    fn give(&self, file: &File) -> io::Result<()> {
        // Only root can; otherwise it stays this user's, as what an agent writes does.
        let _kept = std::os::unix::fs::fchown(file, Some(self.user), Some(self.group));
        file.set_permissions(fs::Permissions::from_mode(self.mode))?;
        file.set_modified(self.time())
    }
}

/// Folders that are being written.
#[derive(Debug)]
pub struct Unpack {
    /// Where each of them is written.
    drafts: Vec<PathBuf>,
    root: Option<PathBuf>,
    /// Whether it has folders at all.
    begun: Vec<bool>,
    file: Option<(File, PathBuf, Owner)>,
    /// What they will be in the end: none may be closed to us before.
    folders: Vec<(PathBuf, Owner)>,
    /// Made last, so that nothing is written through one.
    links: Vec<(PathBuf, PathBuf, Owner)>,
    hash: Sha256,
    parts: u64,
    bytes: u64,
}

impl Unpack {
    /// Into these folders, which do not exist yet.
    #[must_use]
    pub fn into(drafts: Vec<PathBuf>) -> Self {
        Self {
            begun: vec![false; drafts.len()],
            drafts,
            root: None,
            file: None,
            folders: Vec::new(),
            links: Vec::new(),
            hash: Sha256::new(),
            parts: 0,
            bytes: 0,
        }
    }

    /// How many bytes were written.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the next part. With the last one, everything is on disk; the result says which of the folders there are.
    ///
    /// # Errors
    /// When the disk does not take it, or it is not what was sent.
    pub fn take(&mut self, message: &[u8]) -> Result<Option<Vec<bool>>, String> {
        let (part, mut bytes) = split(message).ok_or("a part is damaged")?;
        let part = codec::decode(part).map_err(|error| format!("a part is damaged: {error}"))?;
        match part {
            Part::Failed(why) => Err(why),
            Part::End { sha256, parts } => {
                let found: [u8; 32] = self.hash.clone().finalize().into();
                if found != sha256 || parts != self.parts {
                    return Err("what arrived is not what was sent".to_owned());
                }
                self.finish().map(Some)
            }
            Part::Items(items) => {
                self.hash.update(message);
                self.parts += 1;
                for item in items {
                    self.item(item, &mut bytes)?;
                }
                Ok(None)
            }
        }
    }

    fn item(&mut self, item: Item, bytes: &mut &[u8]) -> Result<(), String> {
        match item {
            Item::Root(number) => {
                self.close()?;
                let number = number as usize;
                let draft = self.drafts.get(number).ok_or("a part names an unknown folder")?;
                self.root = Some(draft.clone());
                if let Some(begun) = self.begun.get_mut(number) {
                    *begun = true;
                }
                Ok(())
            }
            Item::Entry { path, kind, mode, user, group, modified } => {
                self.close()?;
                let root = self.root.as_ref().ok_or("a part names no folder")?;
                let path = within(root, &path)?;
                let owner = Owner { mode: mode & 0o7777, user, group, modified };
                self.entry(path, kind, owner)
            }
            Item::Data { at, bytes: count } => {
                let (content, rest) =
                    bytes.split_at_checked(count as usize).ok_or("a part is too short")?;
                *bytes = rest;
                let (file, path, _) = self.file.as_ref().ok_or("content without a file")?;
                file.write_all_at(content, at).map_err(|error| cannot("write", path, &error))?;
                self.bytes += u64::from(count);
                Ok(())
            }
        }
    }

    fn entry(&mut self, path: PathBuf, kind: ItemKind, owner: Owner) -> Result<(), String> {
        let failed = |error: io::Error| cannot("write", &path, &error);
        match kind {
            ItemKind::Folder => {
                fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
                self.folders.push((path, owner));
            }
            ItemKind::Link(target) => {
                self.links.push((path, PathBuf::from(OsStr::from_bytes(&target)), owner));
            }
            ItemKind::File(size) => {
                let mut options = File::options();
                let options = options.write(true).create_new(true).mode(0o600);
                let file = options.open(&path).map_err(failed)?;
                // What is not written is a hole.
                file.set_len(size).map_err(failed)?;
                self.file = Some((file, path, owner));
            }
        }
        Ok(())
    }

    /// The last file is complete.
    fn close(&mut self) -> Result<(), String> {
        let Some((file, path, owner)) = self.file.take() else { return Ok(()) };
        owner.give(&file).map_err(|error| cannot("write", &path, &error))
    }

    fn finish(&mut self) -> Result<Vec<bool>, String> {
        self.close()?;
        for (path, target, owner) in self.links.drain(..) {
            std::os::unix::fs::symlink(target, &path)
                .map_err(|error| cannot("write", &path, &error))?;
            // Nobody asks whose a link is.
            let _kept = std::os::unix::fs::lchown(&path, Some(owner.user), Some(owner.group));
        }
        // What is in a folder comes after it.
        for (path, owner) in self.folders.drain(..).rev() {
            let given = File::open(&path).and_then(|folder| owner.give(&folder));
            given.map_err(|error| cannot("write", &path, &error))?;
        }
        for (draft, _) in self.drafts.iter().zip(&self.begun).filter(|(_, begun)| **begun) {
            let folder = File::open(draft).map_err(|error| cannot("read", draft, &error))?;
            let synced = rustix::fs::syncfs(&folder).map_err(io::Error::from);
            synced.map_err(|error| cannot("write", draft, &error))?;
        }
        Ok(self.begun.clone())
    }
}

/// A path within a folder: whoever sends it cannot lead out of it.
fn within(root: &Path, path: &[u8]) -> Result<PathBuf, String> {
    let path = Path::new(OsStr::from_bytes(path));
    if path.as_os_str().is_empty() {
        return Ok(root.to_owned());
    }
    let is_plain = path.components().all(|one| matches!(one, Component::Normal(_)));
    if is_plain { Ok(root.join(path)) } else { Err("a part leads out of its folder".to_owned()) }
}
