//! Writing an archive: in pieces, to a temporary file that is renamed once it is complete.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use common::api::ApiError;
use indicatif::ProgressBar;
use runtime::tree::{Entry, Kind};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::{Breath, CHUNK};
use crate::outfile::OutFile;
use common::failure;

/// The size of a tar's blocks.
const BLOCK: u64 = 512;

/// An archive that is being written. Dropped before its end, nothing is left of it.
#[derive(Debug)]
pub(super) struct Pack {
    out: OutFile,
    bar: ProgressBar,
    breath: Breath,
    written: u64,
    chunk: Vec<u8>,
}

impl Pack {
    /// An archive on stdout.
    pub(super) fn to_stdout(bar: ProgressBar) -> Self {
        Self::new(OutFile::Stdout, bar)
    }

    /// An archive in a file.
    ///
    /// # Errors
    /// When the folder does not take it.
    pub(super) fn to_file(path: &Path, replace: bool, bar: ProgressBar) -> Result<Self, ApiError> {
        Ok(Self::new(OutFile::create(path, replace)?, bar))
    }

    fn new(out: OutFile, bar: ProgressBar) -> Self {
        Self { out, bar, breath: Breath::new(), written: 0, chunk: vec![0; CHUNK] }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        self.out.write(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn head(
        &mut self,
        path: &Path,
        mut header: Header,
        link: Option<&Path>,
    ) -> Result<(), ApiError> {
        let mut head = tar::Builder::new(Vec::new());
        let made = match link {
            Some(target) => head.append_link(&mut header, path, target),
            None => head.append_data(&mut header, path, io::empty()),
        };
        made.map_err(|error| {
            let what = format!("{} does not fit into an archive", path.display());
            failure::error(failure::FAILED, what, error, "rename it")
        })?;
        // Not its end, which is written once.
        let bytes = head.get_ref().clone();
        self.write(&bytes)
    }

    /// Writes a file of ours.
    ///
    /// # Errors
    /// When the archive cannot be written.
    pub(super) async fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), ApiError> {
        self.source(path, &mut &*bytes, bytes.len() as u64).await.map(|_| ())
    }

    /// Writes a file of ours, of `size` bytes.
    ///
    /// # Errors
    /// When the archive cannot be written, or the source not read.
    pub(super) async fn source(
        &mut self,
        path: &str,
        source: &mut impl Read,
        size: u64,
    ) -> Result<bool, ApiError> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_mtime(crate::client::now().as_millis() / 1000);
        header.set_size(size);
        self.head(Path::new(path), header, None)?;
        self.copy(Path::new(path), source, size).await
    }

    /// Writes an entry of a folder under its name within the archive; the content is a file's. False: it has changed meanwhile, and
    /// what is missing of it became zeros.
    ///
    /// # Errors
    /// When the archive cannot be written, or the content not read.
    pub(super) async fn entry(
        &mut self,
        path: &Path,
        entry: &Entry,
        content: Option<File>,
    ) -> Result<bool, ApiError> {
        let mut header = Header::new_gnu();
        header.set_mode(entry.mode);
        header.set_uid(entry.user.into());
        header.set_gid(entry.group.into());
        header.set_mtime(entry.modified);
        header.set_size(0);
        match (&entry.kind, content) {
            (Kind::Folder, _) => {
                header.set_entry_type(EntryType::Directory);
                self.head(path, header, None)?;
            }
            (Kind::Link(target), _) => {
                header.set_entry_type(EntryType::Symlink);
                self.head(path, header, Some(target))?;
            }
            (Kind::File(size), Some(mut content)) => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(*size);
                self.head(path, header, None)?;
                return self.copy_file(path, &mut content, *size).await;
            }
            (Kind::File(_), None) | (Kind::Special, _) => {}
        }
        self.breath.take().await;
        Ok(true)
    }

    /// Copies a file: holes are not read, and take no space in an archive that is a file.
    async fn copy_file(
        &mut self,
        path: &Path,
        content: &mut File,
        size: u64,
    ) -> Result<bool, ApiError> {
        let failed =
            |error: io::Error| failure::file(format!("cannot read {}", path.display()), &error, "");
        let mut chunk = std::mem::take(&mut self.chunk);
        let (mut at, mut is_whole) = (0, true);
        while at < size {
            let data = match seek(&*content, SeekFrom::Data(at)) {
                Ok(data) => data.min(size),
                // The rest is a hole, or the file is shorter by now.
                Err(Errno::NXIO) => {
                    is_whole = content.metadata().map_err(failed)?.len() >= size;
                    size
                }
                // A file system that does not tell holes.
                Err(_) => {
                    seek(&*content, SeekFrom::Start(at)).map_err(|error| failed(error.into()))?
                }
            };
            self.zeros(data - at).await?;
            at = data;
            if at == size {
                break;
            }
            let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(CHUNK);
            let got = read(content, &mut chunk[..most]).map_err(failed)?;
            if got == 0 {
                is_whole = false;
                self.zeros(size - at).await?;
                break;
            }
            self.write(&chunk[..got])?;
            self.bar.inc(got as u64);
            at += got as u64;
            self.breath.take().await;
        }
        self.chunk = chunk;
        self.pad(size)?;
        // Grown meanwhile, it is not whole either.
        Ok(is_whole && content.metadata().map_err(failed)?.len() == size)
    }

    /// Writes zeros: in a file, a hole.
    async fn zeros(&mut self, count: u64) -> Result<(), ApiError> {
        let mut left = count;
        if self.out.skip(count)? {
            self.written += left;
            self.bar.inc(left);
            return Ok(());
        }
        let zeros = vec![0; CHUNK];
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            self.write(&zeros[..most])?;
            self.bar.inc(most as u64);
            left -= most as u64;
            self.breath.take().await;
        }
        Ok(())
    }

    /// An entry ends with a whole block.
    fn pad(&mut self, size: u64) -> Result<(), ApiError> {
        let rest = (BLOCK - size % BLOCK) % BLOCK;
        self.write(&[0; BLOCK as usize][..rest as usize])
    }

    async fn copy(
        &mut self,
        path: &Path,
        source: &mut impl Read,
        size: u64,
    ) -> Result<bool, ApiError> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let mut left = size;
        let mut is_whole = true;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK);
            let read = if is_whole { read(source, &mut chunk[..most]) } else { Ok(most) };
            let mut read = read.map_err(|error| {
                failure::file(format!("cannot read {}", path.display()), &error, "")
            })?;
            if read == 0 {
                is_whole = false;
                chunk.fill(0);
                read = most;
            }
            self.write(&chunk[..read])?;
            self.bar.inc(read as u64);
            left -= read as u64;
            self.breath.take().await;
        }
        chunk.resize(CHUNK, 0);
        self.chunk = chunk;
        self.pad(size)?;
        if is_whole {
            // Grown meanwhile, it is not whole either.
            let more = read(source, &mut [0]);
            is_whole = !matches!(more, Ok(1));
        }
        Ok(is_whole)
    }

    /// Ends the archive, and gives the file its name; how long it is, in bytes.
    ///
    /// # Errors
    /// When it cannot be written, or a file of that name has appeared.
    pub(super) fn finish(mut self) -> Result<u64, ApiError> {
        self.write(&[0; 2 * BLOCK as usize])?;
        self.bar.finish_and_clear();
        self.out.finish()?;
        Ok(self.written)
    }
}

fn read(source: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
