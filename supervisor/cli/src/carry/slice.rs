//! A part of a file as a file of its own; and files that disappear when they are closed.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use super::CHUNK;
use crate::outfile::draft_name;
use bytes::Bytes;
use common::api::ApiError;
use common::failure;
use futures_util::Stream;

/// Where a part is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) start: u64,
    pub(super) len: u64,
}

/// A part of a file, with a position of its own.
#[derive(Debug)]
pub(super) struct Slice {
    file: File,
    range: Range,
    at: u64,
}

impl Slice {
    /// The part of a file.
    ///
    /// # Errors
    /// When the system has no descriptor left for it.
    pub(super) fn new(file: &File, range: Range) -> io::Result<Self> {
        Ok(Self { file: file.try_clone()?, range, at: 0 })
    }

    /// What is left of it, in pieces.
    pub(super) fn stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        futures_util::stream::try_unfold(self, |mut slice| async move {
            let mut piece = vec![0; CHUNK];
            let read = slice.read(&mut piece)?;
            piece.truncate(read);
            Ok((read > 0).then(|| (Bytes::from(piece), slice)))
        })
    }
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.range.len.saturating_sub(self.at);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..most], self.range.start + self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for Slice {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.range.len.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let at = at.ok_or(io::ErrorKind::InvalidInput)?;
        self.at = at;
        Ok(at)
    }
}

/// A new file of this user's that no folder lists: gone as soon as it is closed.
///
/// # Errors
/// When the folder does not take it.
pub(super) fn spool(folder: &Path) -> io::Result<File> {
    let path = folder.join(draft_name());
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Opens an archive, which `writer` writes. What cannot be read twice is copied to a temporary file first.
///
/// # Errors
/// 3 when it is not there, 2 when it is not a file, 9 when there is no room.
pub(crate) async fn open(path: &Path, what: &str, writer: &str) -> Result<File, ApiError> {
    if path.as_os_str() != "-" {
        let file = File::open(path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                let try_ = format!("check the path; `{writer}` writes such a file");
                return failure::error(failure::NOT_FOUND, what, &error, try_);
            }
            failure::file(what, &error, "")
        })?;
        let metadata = file.metadata().map_err(|error| failure::file(what, &error, ""))?;
        if metadata.is_dir() {
            let try_ = format!("name a file that `{writer}` has written");
            return Err(failure::error(failure::USAGE, what, "it is a folder", try_));
        }
        if !metadata.is_file() {
            let cause = "it is not a regular file";
            return Err(failure::error(failure::USAGE, what, cause, "- to read from a pipe"));
        }
        return Ok(file);
    }
    let aside = std::env::temp_dir();
    let no_room = |error: io::Error| {
        let what = format!("{what}: cannot copy it to {}", aside.display());
        failure::file(what, &error, "free some space there, or set TMPDIR to another folder")
    };
    let mut file = spool(&aside).map_err(no_room)?;
    let mut chunk = Some(vec![0; CHUNK]);
    while let Some(mut piece) = chunk.take() {
        // A pipe may say nothing for long, and the command be interrupted meanwhile.
        let reading = tokio::task::spawn_blocking(move || {
            io::stdin().lock().read(&mut piece).map(|read| (piece, read))
        });
        let read = reading.await.map_err(io::Error::from).and_then(|read| read);
        let (piece, read) = read.map_err(|error| failure::file(what, &error, ""))?;
        file.write_all(&piece[..read]).map_err(no_room)?;
        chunk = (read > 0).then_some(piece);
    }
    file.rewind().map_err(no_room)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_ends_where_its_part_does() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut file = spool(temp.path()).expect("made");
        assert_eq!(std::fs::read_dir(temp.path()).expect("readable").count(), 0);
        file.write_all(b"0123456789").expect("written");
        let mut slice = Slice::new(&file, Range { start: 3, len: 4 }).expect("a file");
        let mut text = String::new();
        slice.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "3456");
        assert_eq!(slice.seek(SeekFrom::End(-1)).expect("inside"), 3);
        text.clear();
        slice.read_to_string(&mut text).expect("readable");
        assert_eq!(text, "6");
        assert!(slice.seek(SeekFrom::Current(-9)).is_err());
    }
}
