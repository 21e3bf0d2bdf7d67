//! Entries of a tar that every program reads the same. Where they disagree about a name or a length, one sees entries that another
//! does not, and a check by this one says nothing about what an engine does.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use tar::{Entry, EntryType, Header, PaxExtensions};

use super::names::shown;

/// The extended header fields that are accepted: none of them changes which entry it is.
const BESIDE: [&str; 8] = ["size", "mtime", "atime", "ctime", "uid", "gid", "uname", "gname"];

/// Demands that no entry says more about the next one than names and times are long: all of that is read at once.
///
/// What is broken otherwise is for those who read it then.
///
/// # Errors
/// A human-readable message.
pub(super) fn bounded(archive: &mut (impl Read + Seek)) -> Result<(), String> {
    /// In bytes.
    const MOST: u64 = 64 << 10;
    let mut header = Header::new_old();
    let mut size_of_next = None;
    let mut at = 0_u64;
    loop {
        let is_there = archive.seek(SeekFrom::Start(at)).is_ok()
            && archive.read_exact(header.as_mut_bytes()).is_ok()
            && header.as_bytes().iter().any(|byte| *byte != 0);
        let Some(size) = header.entry_size().ok().filter(|_| is_there) else { return Ok(()) };
        let kind = header.entry_type();
        let is_known = header.as_gnu().is_some() || header.as_ustar().is_some();
        let is_global = kind.is_pax_global_extensions();
        let is_pax = is_known && kind.is_pax_local_extensions();
        let is_name = is_known && (kind.is_gnu_longname() || kind.is_gnu_longlink());
        if (is_pax || is_name || is_global) && size > MOST {
            return Err(format!("an extended header is too large: {size} bytes"));
        }
        if kind.is_gnu_sparse() {
            // Its header has parts of which this knows nothing.
            return Err("it contains a sparse file".to_owned());
        }
        let mut len = size;
        if is_pax {
            let mut text = Vec::new();
            if archive.take(size).read_to_end(&mut text).is_err() {
                return Ok(());
            }
            size_of_next = said_size(&text);
        } else if !is_name {
            len = size_of_next.take().filter(|_| !is_global).unwrap_or(size);
        }
        let next = len.checked_next_multiple_of(512).and_then(|len| at.checked_add(512 + len));
        let Some(next) = next else { return Ok(()) };
        at = next;
    }
}

/// The size of the next entry, where it is not in its header.
fn said_size(text: &[u8]) -> Option<u64> {
    for record in PaxExtensions::new(text) {
        let record = record.ok()?;
        if record.key_bytes() == b"size" {
            return record.value().ok()?.parse().ok();
        }
    }
    None
}

/// The name of an entry, and what it is: a file, a folder, or a link.
///
/// # Errors
/// A human-readable message, when it could be read otherwise.
pub(super) fn alike<R: Read>(entry: &mut Entry<'_, R>) -> Result<(PathBuf, EntryType), String> {
    let broken = |error: io::Error| error.to_string();
    let path = entry.path().map_err(broken)?.into_owned();
    let other = || format!("programs may read the entry {} differently", shown(&path));
    let kind = entry.header().entry_type();
    let is_file = kind == EntryType::Regular;
    if !is_file && !matches!(kind, EntryType::Directory | EntryType::Symlink | EntryType::Link) {
        return Err(format!("{} is not a file, folder or link", shown(&path)));
    }
    // A name elsewhere than in the header is of one program's dialect. None that an engine writes is so long.
    let is_named_once = entry.path_bytes() == entry.header().path_bytes();
    let is_folders = is_file && entry.path_bytes().ends_with(b"/");
    // Some skip what is behind a folder or link, some read it.
    let is_odd = !is_file && entry.size() != 0;
    if !is_named_once || is_folders || is_odd || !is_clear(entry.header()) {
        return Err(other());
    }
    let mut said = Vec::new();
    for record in entry.pax_extensions().map_err(broken)?.into_iter().flatten() {
        let record = record.map_err(broken)?;
        let key = BESIDE.iter().find(|key| key.as_bytes() == record.key_bytes());
        let key = key.filter(|key| !said.contains(*key)).ok_or_else(other)?;
        said.push(*key);
    }
    let name = plain(&path)?;
    if name.as_os_str().is_empty() && kind != EntryType::Directory {
        return Err(other());
    }
    Ok((name, kind))
}

/// Whether a header says its length as everybody does, and nothing where some look for more of the name.
fn is_clear(header: &Header) -> bool {
    let bytes = header.as_bytes();
    let size = &bytes[124..136];
    let digits = size.iter().take_while(|byte| (b'0'..=b'7').contains(*byte)).count();
    let is_octal = digits > 0 && size[digits..].iter().all(|byte| matches!(byte, 0 | b' '));
    let is_binary = size[0] == 0x80;
    let rest = if header.as_ustar().is_some() { 500 } else { 345 };
    (is_octal || is_binary) && bytes[rest..].iter().all(|byte| *byte == 0)
}

/// A name without what leads elsewhere.
fn plain(path: &Path) -> Result<PathBuf, String> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => plain.push(name),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::ParentDir => {
                return Err(format!("the name {} points outside of it", shown(path)));
            }
        }
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tar::{Archive, Builder};

    type Change = fn(&mut [u8; 512]);

    /// The entries of a tar; the first that is not alike ends them.
    fn names(pack: Builder<Vec<u8>>) -> Result<Vec<PathBuf>, String> {
        let bytes = pack.into_inner().expect("written");
        let mut archive = Archive::new(&*bytes);
        let entries = archive.entries().expect("a tar");
        let alike = |entry: io::Result<Entry<'_, &[u8]>>| {
            let mut entry = entry.map_err(|error| error.to_string())?;
            alike(&mut entry).map(|(name, _)| name)
        };
        entries.map(alike).collect()
    }

    /// One entry, whose header was changed before it was summed up.
    fn one(mut header: Header, kind: EntryType, name: &str, change: Change) -> bool {
        header.set_entry_type(kind);
        header.set_size(0);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        change(header.as_mut_bytes());
        header.set_cksum();
        let mut pack = Builder::new(Vec::new());
        pack.append(&header, [0; 512].as_slice()).expect("written");
        names(pack).is_ok()
    }

    #[test]
    fn headers_as_engines_write_them_are_taken() {
        for header in [Header::new_gnu, Header::new_ustar] {
            for kind in [EntryType::Regular, EntryType::Symlink, EntryType::Link] {
                assert!(one(header(), kind, "blobs/sha256/0", |_| {}), "{kind:?}");
            }
            assert!(one(header(), EntryType::Directory, "./", |_| {}));
            assert!(one(header(), EntryType::Regular, "a", |bytes| bytes[156] = 0));
        }
        // The folder of a name that was cut in two.
        assert!(one(Header::new_ustar(), EntryType::Regular, "a", |bytes| bytes[345] = b'p'));
        let mut pack = Builder::new(Vec::new());
        let records = [("size", b"1".as_slice()), ("mtime", b"1.5".as_slice())];
        pack.append_pax_extensions(records).expect("written");
        let mut header = Header::new_ustar();
        header.set_size(1);
        pack.append_data(&mut header, "a", b"x".as_slice()).expect("written");
        assert_eq!(names(pack), Ok(vec![PathBuf::from("a")]));
    }

    #[test]
    fn what_programs_disagree_about_is_refused() {
        let refused: [(&str, EntryType, &str, Change); 11] = [
            ("a device", EntryType::Char, "a", |_| {}),
            ("a sparse file", EntryType::GNUSparse, "a", |_| {}),
            ("for all entries", EntryType::XGlobalHeader, "a", |_| {}),
            ("a file like a folder", EntryType::Regular, "a/", |_| {}),
            ("no name", EntryType::Regular, ".", |_| {}),
            ("a link with no name", EntryType::Symlink, ".", |_| {}),
            ("a folder with content", EntryType::Directory, "a", |bytes| bytes[134] = b'1'),
            ("a link with content", EntryType::Symlink, "a", |bytes| bytes[134] = b'1'),
            ("spaces before the length", EntryType::Regular, "a", |bytes| bytes[124] = b' '),
            ("more of the name", EntryType::Regular, "a", |bytes| bytes[345] = b'p'),
            ("another dialect", EntryType::Regular, "a", |bytes| bytes[508] = b't'),
        ];
        for (what, kind, name, change) in refused {
            assert!(!one(Header::new_gnu(), kind, name, change), "{what}");
        }
        // Not of a dialect that has long names, for one program.
        let old = Header::new_old;
        assert!(!one(old(), EntryType::GNULongName, "a", |_| {}));
        assert!(!one(old(), EntryType::XHeader, "a", |_| {}));
    }

    #[test]
    fn no_more_is_read_at_once_than_names_are_long() {
        let made = |kind, len: usize, pax: Option<&[u8]>| {
            let mut pack = Builder::new(Vec::new());
            let mut header = Header::new_gnu();
            header.set_size(0);
            if let Some(size) = pax {
                pack.append_pax_extensions([("size", size)]).expect("written");
                // Of this length for those who do not read what was said before.
                header.set_size(1 << 20);
            }
            pack.append_data(&mut header, "a", b"".as_slice()).expect("written");
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(len as u64);
            header.set_cksum();
            pack.append(&header, vec![b'x'; len].as_slice()).expect("written");
            bounded(&mut io::Cursor::new(pack.into_inner().expect("written")))
        };
        const MOST: usize = 64 << 10;
        let long = [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader];
        for kind in long.into_iter().chain([EntryType::XGlobalHeader]) {
            assert_eq!(made(kind, MOST, None), Ok(()), "{kind:?}");
            made(kind, MOST + 1, None).expect_err("too long");
            made(kind, MOST + 1, Some(b"0")).expect_err("too long, behind another one");
        }
        assert_eq!(made(EntryType::Regular, MOST + 1, None), Ok(()));
        made(EntryType::GNUSparse, 0, None).expect_err("sparse");
    }

    #[test]
    fn a_name_is_said_once() {
        let empty = || {
            let mut header = Header::new_gnu();
            header.set_size(0);
            header
        };
        let with = |key: &str, value: &[u8]| {
            let mut pack = Builder::new(Vec::new());
            pack.append_pax_extensions([(key, value)]).expect("written");
            pack.append_data(&mut empty(), "a", b"".as_slice()).expect("written");
            names(pack)
        };
        with("mtime", b"1").expect("it changes nothing");
        for key in ["path", "linkpath", "GNU.sparse.name", "GNU.sparse.major", "odd"] {
            with(key, b"manifest.json").expect_err(key);
        }
        let mut twice = Builder::new(Vec::new());
        let sizes = [("size", b"0".as_slice()), ("size", b"0".as_slice())];
        twice.append_pax_extensions(sizes).expect("written");
        twice.append_data(&mut empty(), "a", b"".as_slice()).expect("written");
        names(twice).expect_err("which of them");
        let mut long = Builder::new(Vec::new());
        let name = "x/".repeat(60) + "manifest.json";
        long.append_data(&mut empty(), name, b"".as_slice()).expect("written");
        names(long).expect_err("a name beside the header");
    }
}
