//! The subjects of FILES: the archives of the files that agents run with.

use super::Subjects;
use crate::files::Sha256;

impl Subjects {
    /// What is said of an archive of files: that it is whole, or on its way out.
    #[must_use]
    pub fn files(&self, archive: &Sha256) -> String {
        format!("{}.files.{archive}", self.prefix)
    }

    /// One of its chunks, counted from 0.
    #[must_use]
    pub fn files_chunk(&self, archive: &Sha256, number: u64) -> String {
        format!("{}.files.{archive}.{number}", self.prefix)
    }

    /// All chunks of an archive.
    #[must_use]
    pub fn files_chunks(&self, archive: &Sha256) -> String {
        format!("{}.files.{archive}.*", self.prefix)
    }

    /// Everything that FILES takes.
    #[must_use]
    pub fn files_filter(&self) -> String {
        format!("{}.files.>", self.prefix)
    }

    /// Parses a subject of [`Self::files`] or [`Self::files_chunk`]: the archive, and the number of the chunk if it is one's.
    #[must_use]
    pub fn parse_files(&self, subject: &str) -> Option<(Sha256, Option<u64>)> {
        let rest = subject.strip_prefix(&self.prefix)?.strip_prefix(".files.")?;
        let Some((archive, number)) = rest.split_once('.') else {
            return Some((Sha256::new(rest).ok()?, None));
        };
        let (archive, number) = (Sha256::new(archive).ok()?, number.parse().ok()?);
        // As for snapshots: `007` is another subject than `7`.
        (self.files_chunk(&archive, number) == subject).then_some((archive, Some(number)))
    }
}
