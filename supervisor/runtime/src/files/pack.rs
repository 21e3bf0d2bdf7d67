//! Packs a folder. It is not trusted: it may change meanwhile, hold what is no file, or be a whole disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use common::files::{Files, MAX_BYTES, MAX_FILES, Sha256};
use sha2::Digest as _;
use tar::{EntryType, Header};

use super::left_out::{IGNORE, LeftOut};
use crate::tree::{Kind, Tree, leads_out};

/// The most entries that are looked at, whether they travel or not.
const LOOKED_AT: usize = 50_000;
/// The largest `.mozartignore`, in bytes.
const MAX_IGNORE: u64 = 64 << 10;
/// How often a folder that changes meanwhile is packed anew.
const TRIES: u32 = 3;
/// The size of a tar's blocks.
const BLOCK: u64 = 512;
/// The time of all entries, in seconds since 1970: the same for everybody, and late enough for every format.
const TIME: u64 = 946_684_800;
/// How many links are listed that do not travel.
const LISTED: usize = 20;
/// How many are named of what is too much.
const NAMED: usize = 3;

/// An archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// What names it.
    pub files: Files,
    /// A tar.
    pub archive: Vec<u8>,
    /// Links that lead out of the folder: they stay.
    pub left_out: Vec<PathBuf>,
}

/// Why a folder cannot be packed.
#[derive(Debug, PartialEq, Eq)]
pub enum PackError {
    /// More than an archive may hold: how much, at least, and the largest entries of the folder.
    TooMuch {
        /// Files and links.
        files: usize,
        /// Bytes of the archive.
        bytes: u64,
        /// The largest entries of the folder, largest first, with their bytes.
        largest: Vec<(String, u64)>,
    },
    /// It is no folder of somebody's.
    System,
    /// Something in it cannot travel, and why.
    Unfit(PathBuf, &'static str),
    /// It cannot be read, and why.
    Unreadable(PathBuf, String, io::ErrorKind),
    /// It changed all the time.
    Changing(PathBuf),
    /// Its `.mozartignore` says nothing that can be understood.
    Rules(String),
}

impl fmt::Display for PackError {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whatever somebody called it.
        let shown = |path: &Path| format!("{:?}", path.to_string_lossy());
        match self {
            Self::TooMuch { files, bytes, largest } => {
                let (most, mib) = (MAX_BYTES >> 20, bytes >> 20);
                match *bytes > MAX_BYTES {
                    true => write!(to, "more than {most} MiB would travel ({mib} MiB at least)")?,
                    false => write!(to, "more than {MAX_FILES} files would travel")?,
                }
                let named = largest.iter().take(NAMED);
                let named: Vec<_> =
                    named.map(|(name, size)| format!("{name:?} {}", size_of(*size))).collect();
                if !named.is_empty() {
                    write!(to, "; the largest entries are {}", named.join(", "))?;
                }
                debug_assert!(*files > 0 || *bytes > 0);
                Ok(())
            }
            Self::System => to.write_str("it is the whole system, not a folder of its own"),
            Self::Unfit(path, why) => write!(to, "{} {why}", shown(path)),
            Self::Unreadable(path, why, _) => write!(to, "cannot read {}: {why}", shown(path)),
            Self::Changing(path) => write!(to, "{} changes while it is being read", shown(path)),
            Self::Rules(why) => to.write_str(why),
        }
    }
}

impl std::error::Error for PackError {}

fn size_of(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("({bytes} B)"),
        1024..1_048_576 => format!("({} KiB)", bytes >> 10),
        _ => format!("({} MiB)", bytes >> 20),
    }
}

/// A file or link that travels.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    kind: Kind,
}

/// Packs a folder, without what is at one of the `apart` paths; none if nothing of it travels. Blocks.
///
/// # Errors
/// When it cannot be read, is too much, or something in it cannot travel.
pub fn pack(folder: &Path, apart: &BTreeSet<PathBuf>) -> Result<Option<Packed>, PackError> {
    let unreadable =
        |error: io::Error| PackError::Unreadable(PathBuf::new(), error.to_string(), error.kind());
    let root = folder.canonicalize().map_err(unreadable)?;
    if root.parent().is_none() {
        return Err(PackError::System);
    }
    let mut last = PathBuf::new();
    for _ in 0..TRIES {
        match pack_once(&root, apart) {
            Err(PackError::Changing(path)) => last = path,
            packed => return packed,
        }
    }
    Err(PackError::Changing(last))
}

fn pack_once(root: &Path, apart: &BTreeSet<PathBuf>) -> Result<Option<Packed>, PackError> {
    let mut tree = Tree::open(root)
        .map_err(|error| PackError::Unreadable(PathBuf::new(), error.to_string(), error.kind()))?
        .at_most(LOOKED_AT);
    let rules = LeftOut::new(&ignore_file(&tree)?).map_err(PackError::Rules)?;
    let (entries, left_out) = entries(root, &mut tree, &rules, apart)?;
    if entries.is_empty() {
        return Ok(None);
    }
    let mut archive = tar::Builder::new(Vec::new());
    for Entry { path, kind } in &entries {
        let unfit = |_: io::Error| PackError::Unfit(path.clone(), "does not fit into an archive");
        let mut header = Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_size(0);
        if let Kind::Link(target) = kind {
            header.set_mode(0o777);
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, path, target).map_err(unfit)?;
        } else if let Kind::File(size) = kind {
            let (content, is_program) = content(&tree, path, *size)?;
            header.set_mode(if is_program { 0o755 } else { 0o644 });
            header.set_entry_type(EntryType::Regular);
            header.set_size(*size);
            archive.append_data(&mut header, path, &*content).map_err(unfit)?;
        }
    }
    let whole = archive.into_inner();
    let archive = whole
        .map_err(|error| PackError::Unreadable(PathBuf::new(), error.to_string(), error.kind()))?;
    let bytes = archive.len() as u64;
    if bytes > MAX_BYTES {
        return Err(PackError::TooMuch { files: entries.len(), bytes, largest: Vec::new() });
    }
    let sha256 = Sha256::of(sha2::Sha256::digest(&archive).into());
    Ok(Some(Packed { files: Files { sha256, bytes }, archive, left_out }))
}

/// What the folder's `.mozartignore` says; nothing if there is none.
fn ignore_file(tree: &Tree) -> Result<String, PackError> {
    let path = PathBuf::from(IGNORE);
    let mut text = String::new();
    match tree.file(&path) {
        Ok(file) => {
            let read = file.take(MAX_IGNORE + 1).read_to_string(&mut text);
            read.map_err(|error| {
                PackError::Unreadable(path.clone(), error.to_string(), error.kind())
            })?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(PackError::Unreadable(path, error.to_string(), error.kind())),
    }
    if text.len() as u64 > MAX_IGNORE {
        return Err(PackError::Unfit(path, "has more than 64 KiB"));
    }
    Ok(text)
}

/// What travels, by its path; and the links that do not, since they lead elsewhere on another host.
fn entries(
    root: &Path,
    tree: &mut Tree,
    rules: &LeftOut,
    apart: &BTreeSet<PathBuf>,
) -> Result<(Vec<Entry>, Vec<PathBuf>), PackError> {
    let (mut entries, mut left_out): (Vec<Entry>, Vec<PathBuf>) = (Vec::new(), Vec::new());
    let (mut bytes, mut files) = (2 * BLOCK, 0);
    let mut sizes: BTreeMap<String, u64> = BTreeMap::new();
    let too_much = |files: usize, bytes: u64, sizes: BTreeMap<String, u64>| {
        let mut largest: Vec<_> = sizes.into_iter().collect();
        largest.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        largest.truncate(NAMED);
        PackError::TooMuch { files, bytes, largest }
    };
    loop {
        let entry = match tree.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            // However it goes on, this is enough of it.
            Err((_, error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Err(too_much(files.max(1), bytes, sizes));
            }
            Err((path, error)) => {
                return Err(PackError::Unreadable(path, error.to_string(), error.kind()));
            }
        };
        let path = entry.path;
        if path.as_os_str().is_empty() {
            continue;
        }
        let is_folder = entry.kind == Kind::Folder;
        if rules.has(&path, is_folder) || apart.contains(&root.join(&path)) {
            if is_folder {
                tree.leave_out();
            }
            continue;
        }
        let Some(name) = path.to_str() else {
            return Err(PackError::Unfit(path, "has a name that is not UTF-8"));
        };
        if name.chars().any(char::is_control) {
            return Err(PackError::Unfit(path, "has a control character in its name"));
        }
        let size = match &entry.kind {
            Kind::Folder => continue,
            Kind::File(size) => *size,
            Kind::Link(target) => {
                let depth = path.components().count().saturating_sub(1);
                if leads_out(depth, target) {
                    left_out.push(path);
                    continue;
                }
                if target.to_str().is_none_or(|target| target.chars().any(char::is_control)) {
                    return Err(PackError::Unfit(
                        path,
                        "is a link to a name that is not plain text",
                    ));
                }
                0
            }
            Kind::Special => {
                return Err(PackError::Unfit(path, "is a socket, a pipe or a device"));
            }
        };
        files += 1;
        bytes =
            bytes.saturating_add(BLOCK).saturating_add(size.div_ceil(BLOCK).saturating_mul(BLOCK));
        let first = path.components().next().map(|name| name.as_os_str().to_string_lossy());
        let sum = sizes.entry(first.unwrap_or_default().into_owned()).or_default();
        *sum = sum.saturating_add(size);
        // What is too much already is only counted, to say what it is.
        if files <= MAX_FILES && bytes <= MAX_BYTES {
            entries.push(Entry { path, kind: entry.kind });
        }
    }
    if files > MAX_FILES || bytes > MAX_BYTES {
        return Err(too_much(files, bytes, sizes));
    }
    entries.sort_by(|one, other| one.path.as_os_str().cmp(other.path.as_os_str()));
    left_out.sort();
    left_out.truncate(LISTED);
    Ok((entries, left_out))
}

/// A file as it was when it was looked at, and whether it is a program.
fn content(tree: &Tree, path: &Path, size: u64) -> Result<(Vec<u8>, bool), PackError> {
    use std::os::unix::fs::PermissionsExt as _;
    let changing = || PackError::Changing(path.to_owned());
    // It is gone, or something else by now.
    let unreadable = |error: io::Error| match error.kind() == io::ErrorKind::NotFound {
        true => changing(),
        false => PackError::Unreadable(path.to_owned(), error.to_string(), error.kind()),
    };
    let file: File = tree.file(path).map_err(unreadable)?;
    let before = file.metadata().map_err(unreadable)?;
    if before.len() != size {
        return Err(changing());
    }
    let mut content = Vec::new();
    // One more than there was: it may have grown.
    (&file).take(size + 1).read_to_end(&mut content).map_err(unreadable)?;
    let after = file.metadata().map_err(unreadable)?;
    if content.len() as u64 != size || stamp(&before) != stamp(&after) {
        return Err(changing());
    }
    Ok((content, before.permissions().mode() & 0o111 != 0))
}

fn stamp(metadata: &Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.len(), metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn ground(files: &[(&str, &str)]) -> tempfile::TempDir {
        let temp = tempfile::tempdir().expect("a temporary folder");
        for (name, text) in files {
            let path = temp.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        }
        temp
    }

    fn of(folder: &Path) -> Result<Option<Packed>, PackError> {
        pack(folder, &BTreeSet::new())
    }

    fn packed(folder: &Path) -> Packed {
        of(folder).expect("it can be packed").expect("there is something")
    }

    fn unfit(folder: &Path) -> String {
        of(folder).expect_err("unfit").to_string()
    }

    #[test]
    fn the_same_content_is_the_same_archive_and_other_content_another_one() {
        let files = [("worker.py", "1"), ("lib/a.py", "a"), ("lib.py", "b"), ("a.soul", "x")];
        let (one, other) = (ground(&files), tempfile::tempdir().expect("a folder"));
        // In another order, at another time, of other permissions, with what does not travel.
        for (name, text) in files.iter().rev() {
            let path = other.path().join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        }
        fs::write(other.path().join("a.soul"), "changed").expect("written");
        fs::write(other.path().join(".env"), "TOKEN=x").expect("written");
        fs::create_dir(other.path().join("empty")).expect("made");
        let first = packed(one.path());
        assert_eq!(first, packed(other.path()));
        assert_eq!(first.files.bytes, first.archive.len() as u64);
        assert!(!String::from_utf8_lossy(&first.archive).contains("TOKEN"));
        let script = one.path().join("worker.py");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
        let second = packed(one.path());
        assert_ne!(first.files, second.files, "it is a program now");
        fs::write(one.path().join("lib/a.py"), "b").expect("written");
        assert_ne!(second.files, packed(one.path()).files);
    }

    #[test]
    fn what_is_to_stay_stays_and_nothing_is_no_archive() {
        let temp = ground(&[("a.soul", "x"), (".env", "x"), ("data/big", "x"), ("home/x", "x")]);
        let root = temp.path().canonicalize().expect("there");
        let apart = BTreeSet::from([root.join("data"), root.join("home")]);
        assert_eq!(pack(&root, &apart), Ok(None));
        fs::write(root.join(IGNORE), "*.log\n/out\n").expect("written");
        fs::write(root.join("x.log"), "x").expect("written");
        fs::create_dir(root.join("out")).expect("made");
        fs::write(root.join("out/deep"), "x").expect("written");
        let archive = pack(&root, &apart).expect("packed").expect("the rules themselves").archive;
        let names: Vec<_> = super::super::list(&archive[..]).expect("ours").into_keys().collect();
        assert_eq!(names, [PathBuf::from(IGNORE)]);
        fs::write(root.join(IGNORE), "[z-a]").expect("written");
        assert!(unfit(&root).starts_with(".mozartignore:1: "));
    }

    #[test]
    fn what_cannot_travel_is_named() {
        let temp = ground(&[("worker.py", "1")]);
        let root = temp.path();
        let pipe = root.join("sub");
        fs::create_dir(&pipe).expect("made");
        let made = rustix::fs::mkfifoat(rustix::fs::CWD, pipe.join("pipe"), rustix::fs::Mode::RUSR);
        made.expect("the file system has pipes");
        assert_eq!(unfit(root), "\"sub/pipe\" is a socket, a pipe or a device");
        fs::remove_dir_all(pipe).expect("removed");
        let socket = std::os::unix::net::UnixListener::bind(root.join("s")).expect("made");
        assert!(unfit(root).starts_with("\"s\" is a socket"));
        drop(socket);
        fs::remove_file(root.join("s")).expect("removed");
        symlink("worker.py", root.join("fine")).expect("made");
        let without = packed(root);
        assert_eq!(without.left_out, Vec::<PathBuf>::new());
        for bad in ["/etc/passwd", "../x", "sub/../../x"] {
            symlink(bad, root.join("link")).expect("made");
            let packed = packed(root);
            assert_eq!(
                (packed.files, packed.left_out),
                (without.files.clone(), vec!["link".into()])
            );
            fs::remove_file(root.join("link")).expect("removed");
        }
        for (name, why) in [(&b"a\nb"[..], "control character"), (b"a\xffb", "not UTF-8")] {
            let path = root.join(std::ffi::OsStr::from_bytes(name));
            fs::write(&path, "x").expect("written");
            let said = unfit(root);
            assert!(said.contains(why) && !said.contains('\n'), "{said}");
            fs::remove_file(path).expect("removed");
        }
        fs::write(root.join(IGNORE), "/link\n").expect("written");
        symlink("/etc/passwd", root.join("link")).expect("made");
        assert_eq!(packed(root).left_out, Vec::<PathBuf>::new());
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_read() {
        let temp = ground(&[("worker.py", "1"), ("data/small", "x")]);
        let sparse = File::create(temp.path().join("data/huge")).expect("made");
        sparse.set_len(1 << 40).expect("a hole");
        let said = unfit(temp.path());
        assert!(said.contains("more than 64 MiB would travel"), "{said}");
        assert!(
            said.contains("the largest entries are \"data\" (1048576 MiB), \"worker.py\" (1 B)"),
            "{said}"
        );
        fs::write(temp.path().join(IGNORE), "data/\n").expect("written");
        packed(temp.path());
        let many = temp.path().join("many");
        fs::create_dir(&many).expect("made");
        for n in 0..=MAX_FILES {
            File::create(many.join(n.to_string())).expect("made");
        }
        assert!(unfit(temp.path()).contains("more than 10000 files would travel"));
        assert_eq!(of(Path::new("/")), Err(PackError::System));
        let began = std::time::Instant::now();
        let usr = of(Path::new("/usr")).expect_err("a whole system");
        assert!(began.elapsed() < std::time::Duration::from_secs(10), "{usr}");
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let temp = ground(&[("worker.py", "12345")]);
        let tree = Tree::open(temp.path()).expect("there");
        let path = Path::new("worker.py");
        assert_eq!(content(&tree, path, 5), Ok((b"12345".to_vec(), false)));
        for size in [4, 6] {
            assert_eq!(content(&tree, path, size), Err(PackError::Changing(path.to_owned())));
        }
        let gone = Path::new("gone.py");
        assert_eq!(content(&tree, gone, 1), Err(PackError::Changing(gone.to_owned())));
    }
}
