//! Checks all of an archive before anything is done with it: it may be malicious or truncated.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use common::{AgentName, MessageId, SenderName};
use serde_json::Value;
use tar::EntryType;

use super::alike::bounded;
use super::manifest::{Counts, FORMAT, Line, Manifest};
use super::names::{self, Place, shown};
use super::slice::{Range, Slice};
use super::{Breath, image};

/// The longest manifest, in bytes.
const MOST: u64 = 4 << 20;
/// The longest line of a journal, in bytes: a record of a mebibyte and what surrounds it.
const LINE: u64 = 2 << 20;
/// The end mark after the last entry of every archive, in bytes.
const END: usize = 1024;

/// A valid archive.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) manifest: Manifest,
    pub(super) soul: String,
    pub(super) image: Option<Range>,
    pub(super) journal: Range,
    /// None if nothing of the soul's folder was used.
    pub(super) files: Option<Range>,
    /// Messages without a final state.
    pub(super) open: HashSet<(SenderName, MessageId)>,
}

/// What has been seen of an archive so far.
#[derive(Debug, Default)]
struct Seen {
    manifest: Option<Manifest>,
    soul: Option<String>,
    image: Option<Range>,
    journal: Option<Range>,
    files: Option<Range>,
    /// SANCTUMs and SKILLs.
    roots: HashSet<PathBuf>,
    folders: HashSet<PathBuf>,
    /// Files and links in them.
    others: HashSet<PathBuf>,
}

/// Checks an archive; `links` says that links may lead out of their folders.
///
/// # Errors
/// A human-readable message.
pub(super) async fn check(file: &File, links: bool) -> Result<Checked, String> {
    let len = file.metadata().map_err(|error| error.to_string())?.len();
    let whole = Range { start: 0, len };
    if !begins_as_one(file) {
        return Err(NONE.to_owned());
    }
    // What a tar reader says of a broken header quotes it, and a file that is no archive may hold anything.
    let broken = |error: io::Error| match error.raw_os_error() {
        Some(_) => format!("it cannot be read: {error}"),
        None => "it is damaged".to_owned(),
    };
    bounded(&mut Slice::new(file, whole).map_err(broken)?)?;
    let mut archive = tar::Archive::new(Slice::new(file, whole).map_err(broken)?);
    let mut seen = Seen::default();
    let mut breath = Breath::new();
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let range = Range { start: entry.raw_file_position(), len: entry.size() };
        end = range.start.checked_add(range.len).filter(|end| *end <= len).ok_or_else(cut)?;
        seen.entry(&mut entry, range, links)?;
        breath.take().await;
    }
    let mut rest = Slice::new(file, Range { start: end.next_multiple_of(512), len: END as u64 })
        .map_err(broken)?;
    let mut zeros = Vec::new();
    rest.read_to_end(&mut zeros).map_err(broken)?;
    if zeros.len() < END || zeros.iter().any(|byte| *byte != 0) {
        return Err(cut());
    }
    seen.end(file).await
}

pub(super) const NONE: &str = "it is not an archive that `mozart export` wrote";

/// Whether a file begins as every archive does, with the name of its manifest.
fn begins_as_one(file: &File) -> bool {
    let name = super::MANIFEST.as_bytes();
    let mut there = vec![0; name.len()];
    file.read_exact_at(&mut there, 0).is_ok() && there == name
}

fn cut() -> String {
    "it is truncated".to_owned()
}

impl Seen {
    fn entry(
        &mut self,
        entry: &mut tar::Entry<'_, Slice>,
        range: Range,
        links: bool,
    ) -> Result<(), String> {
        let path = entry.path().map_err(|error| error.to_string())?.into_owned();
        if self.manifest.is_none() && path != Path::new(super::MANIFEST) {
            return Err(NONE.to_owned());
        }
        let place = names::place(&path)?;
        let kind = entry.header().entry_type();
        let is_file = kind == EntryType::Regular;
        let Place::Within(depth) = place else {
            if !is_file {
                return Err(format!("{} is not a file", shown(&path)));
            }
            return self.own(entry, place, range);
        };
        // What is not one of the three could be a device, or another name of a file elsewhere.
        if !is_file && kind != EntryType::Directory && kind != EntryType::Symlink {
            return Err(format!("{} is not a file, folder or link", shown(&path)));
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        if depth == 0 {
            let is_skill = path.starts_with(super::SKILLS);
            if kind == EntryType::Symlink || (is_file && !is_skill) {
                return Err(format!("{} is not a folder", shown(&path)));
            }
            self.roots.insert(path.clone());
        } else if !self.folders.contains(parent) {
            return Err(format!("{} is not in a folder of the archive", shown(&path)));
        }
        if self.folders.contains(&path) || self.others.contains(&path) {
            return Err(format!("{} appears twice", shown(&path)));
        }
        let known = match kind == EntryType::Directory {
            true => &mut self.folders,
            false => &mut self.others,
        };
        known.insert(path.clone());
        if kind == EntryType::Symlink {
            let target = entry.link_name().map_err(|error| error.to_string())?.unwrap_or_default();
            if !links && runtime::tree::leads_out(depth.saturating_sub(1), &target) {
                let (path, target) = (shown(&path), shown(&target));
                return Err(format!("the link {path} points outside its folder, to {target}"));
            }
        }
        Ok(())
    }

    /// One of the archive's own files.
    fn own(
        &mut self,
        entry: &mut tar::Entry<'_, Slice>,
        place: Place,
        range: Range,
    ) -> Result<(), String> {
        let mut text = |most: u64| {
            if range.len > most {
                return Err(format!("one of its files is too long: {} bytes", range.len));
            }
            let mut text = String::new();
            let read = entry.read_to_string(&mut text);
            read.map(|_| text).map_err(|error| error.to_string())
        };
        let is_new = match place {
            Place::Manifest => {
                let text = text(MOST)?;
                self.manifest.replace(manifest(&text)?).is_none()
            }
            Place::Soul => {
                let text = text(common::soul::MAX_FILE as u64)?;
                self.soul.replace(text).is_none()
            }
            Place::Image => self.image.replace(range).is_none(),
            Place::Journal => self.journal.replace(range).is_none(),
            Place::Files => self.files.replace(range).is_none(),
            Place::Within(_) => true,
        };
        if is_new { Ok(()) } else { Err("one of its files appears twice".to_owned()) }
    }

    async fn end(self, file: &File) -> Result<Checked, String> {
        let missing = |what: &str| format!("it is damaged: it has no {what}");
        let manifest = self.manifest.ok_or_else(|| missing(super::MANIFEST))?;
        let soul = self.soul.ok_or_else(|| missing(super::SOUL))?;
        let journal = self.journal.ok_or_else(|| missing(super::JOURNAL))?;
        if let Some(range) = self.files {
            beside(Slice::new(file, range).map_err(|error| error.to_string())?)?;
        }
        let carried: HashSet<PathBuf> = manifest
            .sanctums
            .iter()
            .chain(&manifest.skills)
            .map(|one| PathBuf::from(&one.archive))
            .collect();
        if let Some(odd) = carried.symmetric_difference(&self.roots).next() {
            return Err(format!(
                "it is damaged: {} is missing from it or from its manifest",
                shown(odd)
            ));
        }
        let included = manifest.image.as_ref().filter(|image| image.included);
        match (included, self.image) {
            (Some(image), Some(range)) => {
                let slice = Slice::new(file, range).map_err(|error| error.to_string())?;
                image::check(&image.reference, slice)?;
            }
            (None, None) => {}
            (Some(_), None) => return Err(missing(super::IMAGE)),
            (None, Some(_)) => {
                return Err("it has an image that its manifest does not list".to_owned());
            }
        }
        let slice = Slice::new(file, journal).map_err(|error| error.to_string())?;
        let (counts, open) = messages(&manifest.agent, Lines::new(slice)).await?;
        let said = manifest.counts;
        if (counts.messages, counts.open, counts.dead_letters)
            != (said.messages, said.open, said.dead_letters)
        {
            return Err(format!(
                "it is damaged: {} messages of {} are in its journal",
                counts.messages, said.messages
            ));
        }
        Ok(Checked { manifest, soul, image: self.image, journal, files: self.files, open })
    }
}

/// Checks what is to be put beside the soul: it must not be in the way of what the archive has there itself.
fn beside(files: impl Read) -> Result<(), String> {
    let listed = runtime::files::list(files).map_err(|error| format!("its files: {error}"))?;
    let taken = listed.into_keys().find(|path| {
        let is_soul = path.extension().is_some_and(|it| it == "soul");
        path.starts_with(super::SANCTUMS) || (is_soul && path.components().count() == 1)
    });
    match taken {
        Some(path) => Err(format!("its files have {}, which does not belong there", shown(&path))),
        None => Ok(()),
    }
}

fn manifest(text: &str) -> Result<Manifest, String> {
    let broken = |error: serde_json::Error| format!("its manifest: {error}");
    let value: Value = serde_json::from_str(text).map_err(broken)?;
    match value["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => {}
        Some(format) => {
            let by = value["mozart"].as_str().unwrap_or("another one");
            let by: String = by.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(format!(
                "it has format {format}, written by mozart {by}; this mozart knows format {FORMAT}"
            ));
        }
        None => return Err("its manifest names no format".to_owned()),
    }
    serde_json::from_value(value).map_err(broken)
}

/// Counts the messages, and finds those that are open.
async fn messages(
    agent: &AgentName,
    mut lines: Lines,
) -> Result<(Counts, HashSet<(SenderName, MessageId)>), String> {
    let mut counts = Counts::default();
    let mut open = HashSet::new();
    let mut breath = Breath::new();
    let ours = |named: &AgentName| match named == agent {
        true => Ok(()),
        false => Err(format!("its journal has a message of another agent: {named}")),
    };
    while let Some(line) = lines.next()? {
        match line {
            Line::Request { record, .. } => {
                ours(&record.agent)?;
                counts.messages += 1;
                let id = record.message_id.clone();
                if !open.insert((record.sender, record.message_id)) {
                    return Err(format!("its journal has message {id} twice"));
                }
            }
            Line::Final { sender, message_id, .. } => {
                open.remove(&(sender, message_id));
            }
            Line::DeadLetter { record } => {
                ours(&record.envelope.agent)?;
                counts.dead_letters += 1;
            }
        }
        breath.take().await;
    }
    counts.open = open.len() as u64;
    Ok((counts, open))
}

/// The lines of a journal, one after the other.
#[derive(Debug)]
pub(super) struct Lines {
    reader: BufReader<Slice>,
    line: Vec<u8>,
    number: u64,
}

impl Lines {
    pub(super) fn new(slice: Slice) -> Self {
        Self { reader: BufReader::new(slice), line: Vec::new(), number: 0 }
    }

    /// The next line; none at the end.
    ///
    /// # Errors
    /// A human-readable message.
    pub(super) fn next(&mut self) -> Result<Option<Line>, String> {
        self.line.clear();
        self.number += 1;
        let of_line = |error: String| format!("line {} of its journal: {error}", self.number);
        let read = (&mut self.reader).take(LINE).read_until(b'\n', &mut self.line);
        if read.map_err(|error| of_line(error.to_string()))? == 0 {
            return Ok(None);
        }
        serde_json::from_slice(&self.line).map(Some).map_err(|error| of_line(error.to_string()))
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
