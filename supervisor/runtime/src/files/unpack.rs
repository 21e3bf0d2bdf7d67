//! Unpacks an archive. It is not trusted: whoever may apply a soul may have made it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Component, Path, PathBuf};

use common::files::{MAX_BYTES, MAX_FILES};
use sha2::Digest as _;
use tar::EntryType;

use crate::tree::leads_out;

/// What an archive has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A file, by its SHA-256; whether it is a program.
    File([u8; 32], bool),
    /// A link, and where it leads.
    Link(PathBuf),
}

/// What is in an archive, by path. Blocks.
///
/// # Errors
/// A human-readable message: what no archive of ours has.
pub fn list(archive: impl Read) -> Result<BTreeMap<PathBuf, Item>, String> {
    let mut items = BTreeMap::new();
    read(archive, |path, found| {
        let item = match found {
            Found::Link(target) => Item::Link(target.to_owned()),
            Found::File(content, is_program) => {
                let mut hash = sha2::Sha256::new();
                let mut chunk = vec![0; 64 << 10];
                loop {
                    let read = content.read(&mut chunk)?;
                    let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
                        break;
                    };
                    hash.update(bytes);
                }
                Item::File(hash.finalize().into(), is_program)
            }
        };
        items.insert(path.to_owned(), item);
        Ok(())
    })?;
    Ok(items)
}

/// Unpacks an archive into a new folder, which only this user can read. Blocks.
///
/// # Errors
/// A human-readable message: no room, or what no archive of ours has. Then the folder may be there, with a part of it.
pub fn unpack(archive: impl Read, into: &Path) -> Result<(), String> {
    let made = folder().create(into);
    made.map_err(|error| format!("cannot make {}: {error}", into.display()))?;
    unpack_beside(archive, into)
}

/// The same, into a folder that is there. No link may be in it. Blocks.
///
/// # Errors
/// As [`unpack`]; when a file is there already.
pub fn unpack_beside(archive: impl Read, into: &Path) -> Result<(), String> {
    let mut links = Vec::new();
    read(archive, |path, found| {
        let target = into.join(path);
        if let Some(above) = target.parent() {
            folder().recursive(true).create(above)?;
        }
        match found {
            Found::Link(to) => links.push((target, to.to_owned())),
            Found::File(content, is_program) => {
                let mut file =
                    File::options().write(true).create_new(true).mode(0o600).open(&target)?;
                io::copy(content, &mut file)?;
                let mode = if is_program { 0o700 } else { 0o600 };
                file.set_permissions(fs::Permissions::from_mode(mode))?;
            }
        }
        Ok(())
    })?;
    // Last, so that nothing is written through one.
    for (path, target) in links {
        let made = std::os::unix::fs::symlink(target, &path);
        made.map_err(|error| format!("cannot make {}: {error}", path.display()))?;
    }
    Ok(())
}

fn folder() -> fs::DirBuilder {
    let mut folder = fs::DirBuilder::new();
    folder.mode(0o700);
    folder
}

/// What is read at a path.
enum Found<'a> {
    Link(&'a Path),
    File(&'a mut dyn Read, bool),
}

fn read(
    archive: impl Read,
    mut take: impl FnMut(&Path, Found<'_>) -> io::Result<()>,
) -> Result<(), String> {
    let broken = |error: io::Error| format!("it is no archive of files: {error}");
    // However long it says that it is.
    let mut archive = tar::Archive::new(archive.take(MAX_BYTES));
    // By path: whether it is something in which others are.
    let mut known: BTreeMap<PathBuf, bool> = BTreeMap::new();
    let (mut files, mut bytes) = (0, 0_u64);
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let shown = format!("{:?}", path.to_string_lossy().chars().take(200).collect::<String>());
        let refuse = |why: &str| Err(format!("it has an entry {shown} that {why}"));
        let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let text = path.to_str().filter(|text| !text.is_empty() && is_plain);
        // Not what it comes to: `a//b` and `a/./b` are no names that are written here.
        if text.is_none_or(|text| text.split('/').any(|part| part.is_empty() || part == ".")) {
            return refuse("is not a path within the folder");
        }
        if text.is_some_and(|text| text.chars().any(char::is_control)) {
            return refuse("has a control character in its name");
        }
        if known.insert(path.clone(), false).is_some() {
            return refuse("is there twice");
        }
        for above in path.ancestors().skip(1) {
            if !above.as_os_str().is_empty() && known.insert(above.to_owned(), true) == Some(false)
            {
                return refuse("is in a file or a link");
            }
        }
        files += 1;
        bytes = bytes.saturating_add(entry.size());
        if files > MAX_FILES || bytes > MAX_BYTES {
            return Err(format!("it has more than {MAX_FILES} files, or {} MiB", MAX_BYTES >> 20));
        }
        let kind = entry.header().entry_type();
        let taken = if kind == EntryType::Symlink {
            let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
            let depth = path.components().count().saturating_sub(1);
            if target.as_os_str().is_empty() || leads_out(depth, &target) {
                return refuse("is a link that leads out of the folder");
            }
            take(&path, Found::Link(&target))
        } else if kind == EntryType::Regular {
            let is_program = entry.header().mode().map_err(broken)? & 0o111 != 0;
            let size = entry.size();
            let mut counted = Counted { inner: &mut entry, count: 0 };
            let taken = take(&path, Found::File(&mut counted, is_program));
            if taken.is_ok() && counted.count != size {
                return refuse("is shorter than it says");
            }
            taken
        } else {
            return refuse("is neither a file nor a link");
        };
        taken.map_err(|error| format!("{shown}: {error}"))?;
    }
    Ok(())
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(to)?;
        self.count += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::Header;

    /// An archive of these entries, whatever they are.
    fn made(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut archive = tar::Builder::new(Vec::new());
        for (kind, name, text) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
            let content = if is_link { "" } else { text };
            header.set_size(content.len() as u64);
            // As bytes: the crate would refuse some of these.
            let gnu = header.as_gnu_mut().expect("GNU's");
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            if is_link {
                gnu.linkname[..text.len()].copy_from_slice(text.as_bytes());
            }
            header.set_cksum();
            archive.append(&header, content.as_bytes()).expect("written");
        }
        archive.into_inner().expect("written")
    }

    fn refused(archive: &[u8]) -> String {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let error = unpack(archive, &temp.path().join("into")).expect_err("refused");
        // Whatever was unpacked before is within.
        for entry in fs::read_dir(temp.path()).expect("there").flatten() {
            assert_eq!(entry.file_name(), "into", "{error}");
        }
        assert!(list(archive).is_err());
        error
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let from = temp.path().join("from");
        let long = "x".repeat(180);
        fs::create_dir_all(from.join(format!("deep/{long}"))).expect("made");
        let deep = format!("deep/{long}/{long}.py");
        for (name, text) in [("run.sh", "#!/bin/sh\n"), (&deep, "deep"), ("empty", "")] {
            fs::write(from.join(name), text).expect("written");
        }
        fs::set_permissions(from.join("run.sh"), fs::Permissions::from_mode(0o755)).expect("set");
        std::os::unix::fs::symlink("../run.sh", from.join("deep/link")).expect("made");
        let packed = super::super::pack(&from, &std::collections::BTreeSet::new());
        let archive = packed.expect("packed").expect("something").archive;
        let into = temp.path().join("into");
        unpack(&archive[..], &into).expect("unpacked");
        assert_eq!(fs::read_to_string(into.join(&deep)).expect("there"), "deep");
        assert_eq!(fs::read_to_string(into.join("deep/link")).expect("there"), "#!/bin/sh\n");
        let mode = |name: &str| fs::metadata(into.join(name)).expect("there").permissions().mode();
        assert_eq!((mode("run.sh") & 0o777, mode("empty") & 0o777), (0o700, 0o600));
        assert_eq!(list(&archive[..]).expect("ours").len(), 4);
        unpack(&archive[..], &into).expect_err("it is there");
    }

    #[test]
    fn nothing_gets_out_of_the_folder() {
        use EntryType as T;
        for (name, text) in
            [("../x", "x"), ("/tmp/x", "x"), ("a/../../x", "x"), (".", ""), ("a//b", "x")]
        {
            let error = refused(&made(&[(T::Regular, name, text)]));
            assert!(error.contains("not a path within the folder"), "{name}: {error}");
        }
        for target in ["/etc", "..", "a/../..", ""] {
            let error = refused(&made(&[(T::Symlink, "link", target)]));
            assert!(error.contains("leads out"), "{target}: {error}");
        }
        // Through a link, a file, or twice.
        let error = refused(&made(&[(T::Symlink, "a", "b"), (T::Regular, "a/x", "x")]));
        assert!(error.contains("in a file or a link"), "{error}");
        let error = refused(&made(&[(T::Regular, "a/x", "x"), (T::Symlink, "a", "b")]));
        assert!(error.contains("twice"), "{error}");
        let error = refused(&made(&[(T::Regular, "a", "x"), (T::Regular, "a", "y")]));
        assert!(error.contains("twice"), "{error}");
        for kind in [T::Link, T::Char, T::Block, T::Fifo, T::Directory, T::GNUSparse, T::Continuous]
        {
            let error = refused(&made(&[(kind, "a", "b")]));
            assert!(error.contains("neither") || error.contains("no archive"), "{kind:?}: {error}");
        }
        let error = refused(&made(&[(T::Regular, "a\u{1b}[2J", "x")]));
        assert!(error.contains("control") && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn an_archive_that_says_more_than_it_has_is_refused() {
        let whole = made(&[(EntryType::Regular, "a", &"x".repeat(2000))]);
        for cut in [100, 600, 1500, 2511] {
            refused(&whole[..cut]);
        }
        let mut header = Header::new_gnu();
        header.set_path("bomb").expect("fits");
        header.set_size(1 << 40);
        header.set_mode(0o644);
        header.set_cksum();
        let error = refused(header.as_bytes());
        assert!(error.contains("64 MiB"), "{error}");
        refused(b"garbage".repeat(200).as_slice());
    }
}
