//! Archives as the engine's API takes them.

use std::io;

use bytes::Bytes;

/// A file or folder of an archive, owned by root.
pub(super) struct Entry<'a> {
    pub(super) path: &'a str,
    pub(super) mode: u32,
    /// None is a folder.
    pub(super) content: Option<&'a [u8]>,
}

/// Packs entries.
///
/// # Errors
/// When a path is too long for the format.
pub(super) fn pack(entries: &[Entry<'_>]) -> io::Result<Bytes> {
    let mut archive = tar::Builder::new(Vec::new());
    for Entry { path, mode, content } in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let content = content.unwrap_or_default();
        header.set_size(content.len() as u64);
        header.set_entry_type(if path.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        archive.append_data(&mut header, path, content)?;
    }
    archive.into_inner().map(Bytes::from)
}
