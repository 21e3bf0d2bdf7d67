//! Reads folders into parts of a bounded size.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use common::codec;
use common::frame::carry::{Item, ItemKind, Part, join};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::cannot;
use crate::tree::{Entry, Kind, Tree};

/// Content in one part, at most.
const BYTES: usize = 512 << 10;
/// What the items of a part may take, roughly, beside their content.
const ITEMS: usize = 128 << 10;

/// How many bytes a folder takes.
///
/// # Errors
/// When it cannot be read.
pub fn measure(folder: &Path) -> Result<u64, String> {
    let read = |error: io::Error| cannot("read", folder, &error);
    let mut tree = Tree::open(folder).map_err(read)?;
    let mut bytes = 0_u64;
    while let Some(entry) =
        tree.next_entry().map_err(|(path, error)| cannot("read", &folder.join(path), &error))?
    {
        if let Kind::File(size) = entry.kind {
            bytes = bytes.saturating_add(size.min(entry.allocated));
        }
    }
    Ok(bytes)
}

/// Reads folders, each by its real path, and passes them on in parts until `send` takes no more. What goes wrong is the last part.
pub fn pack(folders: &[Option<PathBuf>], send: impl FnMut(Vec<u8>) -> bool) {
    let mut pack = Pack {
        send,
        items: Vec::new(),
        items_take: 0,
        bytes: Vec::with_capacity(BYTES),
        hash: Sha256::new(),
        parts: 0,
    };
    let packed = pack.all(folders).and_then(|()| pack.flush());
    let last = match packed {
        Ok(()) => Part::End { sha256: pack.hash.clone().finalize().into(), parts: pack.parts },
        Err(Stop::Refused) => return,
        Err(Stop::Failed(why)) => Part::Failed(why),
    };
    if let Ok(last) = codec::encode(&last) {
        (pack.send)(join(&last, &[]));
    }
}

enum Stop {
    /// Nobody takes any more.
    Refused,
    Failed(String),
}

struct Pack<Send> {
    send: Send,
    items: Vec<Item>,
    items_take: usize,
    bytes: Vec<u8>,
    hash: Sha256,
    parts: u64,
}

impl<Send: FnMut(Vec<u8>) -> bool> Pack<Send> {
    fn all(&mut self, folders: &[Option<PathBuf>]) -> Result<(), Stop> {
        for (number, folder) in folders.iter().enumerate() {
            let Some(folder) = folder else { continue };
            self.add(Item::Root(u32::try_from(number).unwrap_or(u32::MAX)))?;
            self.folder(folder)?;
        }
        Ok(())
    }

    fn folder(&mut self, folder: &Path) -> Result<(), Stop> {
        let failed = |path: &Path, error: io::Error| {
            Stop::Failed(cannot("read", &folder.join(path), &error))
        };
        let mut tree = Tree::open(folder).map_err(|error| failed(Path::new(""), error))?;
        let mut left_out = 0_u64;
        while let Some(entry) = tree.next_entry().map_err(|(path, error)| failed(&path, error))? {
            let kind = match &entry.kind {
                Kind::Folder => ItemKind::Folder,
                Kind::File(size) => ItemKind::File(*size),
                Kind::Link(target) => ItemKind::Link(target.as_os_str().as_bytes().to_vec()),
                Kind::Special => {
                    left_out += 1;
                    continue;
                }
            };
            let Entry { path, mode, user, group, modified, nanos, .. } = &entry;
            self.add(Item::Entry {
                path: path.as_os_str().as_bytes().to_vec(),
                kind,
                mode: *mode,
                user: *user,
                group: *group,
                modified: (i64::try_from(*modified).unwrap_or_default(), *nanos),
            })?;
            if let Kind::File(size) = entry.kind {
                let mut file = tree.file(path).map_err(|error| failed(path, error))?;
                self.content(&mut file, size, &folder.join(path))?;
            }
        }
        if left_out > 0 {
            tracing::warn!(
                "{left_out} sockets, pipes or devices in {} are not copied",
                folder.display()
            );
        }
        Ok(())
    }

    /// The content of a file, without its holes.
    fn content(&mut self, file: &mut File, size: u64, path: &Path) -> Result<(), Stop> {
        let failed = |error: io::Error| Stop::Failed(cannot("read", path, &error));
        let changed =
            || Stop::Failed(format!("{} was changed while it was copied", path.display()));
        let mut at = 0;
        while at < size {
            at = match seek(&*file, SeekFrom::Data(at)) {
                Ok(data) => data,
                // The rest is a hole.
                Err(Errno::NXIO) => break,
                // A file system that does not tell holes.
                Err(_) => {
                    seek(&*file, SeekFrom::Start(at)).map_err(|error| failed(error.into()))?
                }
            };
            if at >= size {
                break;
            }
            if self.bytes.len() == BYTES {
                self.flush()?;
            }
            let begin = self.bytes.len();
            let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(BYTES - begin);
            self.bytes.resize(begin + most, 0);
            let got = loop {
                match file.read(self.bytes.get_mut(begin..).unwrap_or_default()) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    result => break result.map_err(failed)?,
                }
            };
            self.bytes.truncate(begin + got);
            if got == 0 {
                return Err(changed());
            }
            let bytes = u32::try_from(got).unwrap_or(u32::MAX);
            self.add(Item::Data { at, bytes })?;
            at += got as u64;
        }
        if file.metadata().map_err(failed)?.len() == size { Ok(()) } else { Err(changed()) }
    }

    fn add(&mut self, item: Item) -> Result<(), Stop> {
        self.items_take += match &item {
            Item::Root(_) | Item::Data { .. } => 16,
            Item::Entry { path, kind: ItemKind::Link(target), .. } => {
                64 + path.len() + target.len()
            }
            Item::Entry { path, .. } => 64 + path.len(),
        };
        self.items.push(item);
        if self.items_take >= ITEMS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Stop> {
        if self.items.is_empty() {
            return Ok(());
        }
        let part = Part::Items(std::mem::take(&mut self.items));
        let part = codec::encode(&part).map_err(|error| Stop::Failed(error.to_string()))?;
        let message = join(&part, &self.bytes);
        self.items_take = 0;
        self.bytes.clear();
        self.hash.update(&message);
        self.parts += 1;
        if (self.send)(message) { Ok(()) } else { Err(Stop::Refused) }
    }
}
