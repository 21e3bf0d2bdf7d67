//! The content of a folder of the host, as an archive takes it. No link is followed, not even one that appears meanwhile: an agent that
//! still runs could put one where a file was.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
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
pub struct Entry {
    /// From the tree's root, which is the empty path itself.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
    /// Its permissions.
    pub mode: u32,
    /// The user that it belongs to.
    pub user: u32,
    /// The group.
    pub group: u32,
    /// Seconds since 1970.
    pub modified: u64,
    /// And nanoseconds.
    pub nanos: u32,
    /// How many bytes it takes on disk: less than its size, if it has holes.
    pub allocated: u64,
}

/// A file, or a folder with all that is in it.
#[derive(Debug)]
pub struct Tree {
    /// The folder that it is in.
    above: OwnedFd,
    name: PathBuf,
    /// Folders whose entries are still to be listed.
    folders: Vec<PathBuf>,
    listed: std::vec::IntoIter<Entry>,
    /// How many entries may still be looked at.
    left: usize,
}

impl Tree {
    /// A tree by its real path.
    ///
    /// # Errors
    /// When it does not exist, or cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is the whole system"));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let above = rustix::fs::open(above, flags, Mode::empty())?;
        let root = look(&above, name.as_bytes(), PathBuf::new())?.ok_or(io::ErrorKind::NotFound)?;
        let name = PathBuf::from(name);
        Ok(Self {
            above,
            name,
            folders: Vec::new(),
            listed: vec![root].into_iter(),
            left: usize::MAX,
        })
    }

    /// The same, of which no more than so many entries are looked at: then there is an error of the kind
    /// [`FileTooLarge`](io::ErrorKind::FileTooLarge).
    #[must_use]
    pub fn at_most(mut self, entries: usize) -> Self {
        self.left = entries;
        self
    }

    /// Leaves out what is in the folder that was just yielded.
    pub fn leave_out(&mut self) {
        self.folders.pop();
    }

    /// The next entry: a folder comes before all that is in it.
    ///
    /// # Errors
    /// When a folder cannot be read, with its path.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, (PathBuf, io::Error)> {
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

    fn list(&mut self, folder: &Path) -> io::Result<Vec<Entry>> {
        let fd = self.open_beneath(folder, OFlags::DIRECTORY)?;
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            let name = CStr::to_bytes(entry.file_name());
            if name != b"." && name != b".." {
                let left = self.left.checked_sub(1);
                self.left = left.ok_or(io::ErrorKind::FileTooLarge)?;
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
    pub fn file(&self, path: &Path) -> io::Result<File> {
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
        nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
        allocated: u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512),
    }
}

/// Whether a link leads out of the folder that it is carried with, or could: `depth` folders are above it there. What goes up
/// after it went down may have gone down another link.
#[must_use]
pub fn leads_out(depth: usize, target: &Path) -> bool {
    let mut up = 0;
    let mut down = false;
    for component in target.components() {
        match component {
            Component::Prefix(_) | Component::RootDir => return true,
            Component::CurDir => {}
            Component::ParentDir if down => return true,
            Component::ParentDir => up += 1,
            Component::Normal(_) => down = true,
        }
    }
    up > depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn all(root: &Path) -> Vec<(String, Kind)> {
        let mut tree = Tree::open(root).expect("it is there");
        let mut found = Vec::new();
        while let Some(entry) = tree.next_entry().expect("readable") {
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
        let mut tree = Tree::open(&root).expect("it is there");
        symlink("../secret", root.join("sub")).expect("made");
        symlink("../secret/key", root.join("file")).expect("made");
        assert!(tree.file(Path::new("file")).is_err());
        assert!(tree.file(Path::new("sub/key")).is_err());
        assert!(tree.list(Path::new("sub")).is_err());
    }

    #[test]
    fn links_stay_within_their_folder() {
        for inside in [(0, "a"), (0, "./a/b"), (1, "../a"), (2, "../../a/b"), (0, "")] {
            assert!(!leads_out(inside.0, Path::new(inside.1)), "{inside:?}");
        }
        for outside in [(0, "/etc"), (0, ".."), (1, "../../a"), (3, "a/.."), (5, "a/b/../../c")] {
            assert!(leads_out(outside.0, Path::new(outside.1)), "{outside:?}");
        }
    }
}
