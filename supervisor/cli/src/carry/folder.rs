//! The content of a folder of the host, as an archive takes it. No link is followed, not even one that appears meanwhile: an agent that
//! still runs could put one where a file was.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    /// With its size in bytes.
    File(u64),
    /// With what it says.
    Link(PathBuf),
    /// A socket, a pipe, a device.
    Special,
}

/// A file, folder or link.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// From the tree's root, which is the empty path itself.
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) user: u32,
    pub(super) group: u32,
    /// Seconds since 1970.
    pub(super) modified: u64,
}

/// A file, or a folder with all that is in it.
#[derive(Debug)]
pub(super) struct Tree {
    /// The folder that it is in.
    above: OwnedFd,
    name: PathBuf,
    /// Folders whose entries are still to be listed.
    folders: Vec<PathBuf>,
    listed: std::vec::IntoIter<Entry>,
}

impl Tree {
    /// A tree by its real path.
    ///
    /// # Errors
    /// When it does not exist, or cannot be read.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is the whole system"));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::open(above, flags, Mode::empty())?;
        let root = look(&above, name.as_bytes(), PathBuf::new())?.ok_or(io::ErrorKind::NotFound)?;
        let name = PathBuf::from(name);
        Ok(Self { above, name, folders: Vec::new(), listed: vec![root].into_iter() })
    }

    /// The next entry: a folder comes before all that is in it.
    ///
    /// # Errors
    /// When a folder cannot be read, with its path.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, (PathBuf, io::Error)> {
        loop {
            if let Some(entry) = self.listed.next() {
                if entry.kind == Kind::Folder {
                    self.folders.push(entry.path.clone());
                }
                return Ok(Some(entry));
            }
            let Some(folder) = self.folders.pop() else { return Ok(None) };
            match self.list(&folder) {
                Ok(entries) => self.listed = entries.into_iter(),
                // Removed meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err((folder, error)),
            }
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<Entry>> {
        let fd = self.open_beneath(folder, OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = CStr::to_bytes(entry.file_name());
            if name != b"." && name != b".." {
                let path = folder.join(OsStr::from_bytes(name));
                entries.extend(look(&fd, name, path)?);
            }
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }

    /// Opens a file of the tree.
    ///
    /// # Errors
    /// When it no longer exists, or is not a file now, or cannot be read.
    pub(super) fn file(&self, path: &Path) -> io::Result<File> {
        // What is a pipe by now is not waited for.
        let file = File::from(self.open_beneath(path, OFlags::NONBLOCK)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn open_beneath(&self, path: &Path, more: OFlags) -> io::Result<OwnedFd> {
        let whole = self.name.join(path);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | more;
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(&self.above, &whole, flags, Mode::empty(), beneath) {
            // A kernel before 5.6.
            Err(Errno::NOSYS) => Ok(rustix::fs::openat(&self.above, &whole, flags, Mode::empty())?),
            opened => Ok(opened?),
        }
    }
}

/// Looks at an entry; none if it is gone.
fn look(folder: impl AsFd, name: &[u8], path: PathBuf) -> io::Result<Option<Entry>> {
    let folder = folder.as_fd();
    let stat = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Folder,
        FileType::RegularFile => Kind::File(u64::try_from(stat.st_size).unwrap_or_default()),
        FileType::Symlink => match rustix::fs::readlinkat(folder, name, Vec::new()) {
            Ok(target) => Kind::Link(PathBuf::from(OsStr::from_bytes(target.as_bytes()))),
            Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        },
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Kind::Special,
    };
    Ok(Some(entry(path, kind, &stat)))
}

fn entry(path: PathBuf, kind: Kind, stat: &Stat) -> Entry {
    Entry {
        path,
        kind,
        mode: stat.st_mode & 0o7777,
        user: stat.st_uid,
        group: stat.st_gid,
        modified: u64::try_from(stat.st_mtime).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn all(root: &Path) -> Vec<(String, Kind)> {
        let mut tree = Tree::open(root).expect("it is there");
        let mut found = Vec::new();
        while let Some(entry) = tree.next().expect("readable") {
            found.push((entry.path.to_string_lossy().into_owned(), entry.kind));
        }
        found
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_links_are_not_followed() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let root = temp.path().join("data");
        fs::create_dir_all(root.join("sub")).expect("made");
        fs::write(root.join("sub/file"), "12345").expect("written");
        fs::write(root.join("sub.txt"), "").expect("written");
        symlink("/etc", root.join("etc")).expect("made");
        let pipe = root.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RUSR).expect("made");
        let expected = [
            ("", Kind::Folder),
            ("etc", Kind::Link("/etc".into())),
            ("pipe", Kind::Special),
            ("sub", Kind::Folder),
            ("sub.txt", Kind::File(0)),
            ("sub/file", Kind::File(5)),
        ];
        let expected = expected.map(|(path, kind)| (path.to_owned(), kind));
        assert_eq!(all(&root), expected);
        assert_eq!(all(&root.join("sub/file")), [(String::new(), Kind::File(5))]);
    }

    #[test]
    fn what_became_a_link_meanwhile_is_not_opened() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let root = temp.path().join("data");
        fs::create_dir_all(&root).expect("made");
        fs::create_dir(temp.path().join("secret")).expect("made");
        fs::write(temp.path().join("secret/key"), "k").expect("written");
        let tree = Tree::open(&root).expect("it is there");
        symlink("../secret", root.join("sub")).expect("made");
        symlink("../secret/key", root.join("file")).expect("made");
        assert!(tree.file(Path::new("file")).is_err());
        assert!(tree.file(Path::new("sub/key")).is_err());
        assert!(tree.list(Path::new("sub")).is_err());
    }
}
