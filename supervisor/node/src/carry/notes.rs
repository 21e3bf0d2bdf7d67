//! What must be known of copies after this process has ended, as files in the data folder.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use common::AgentName;
use runtime::sanctum::{Identity, place, put_aside, remove_draft};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Where they are.
#[derive(Debug, Clone)]
pub(super) struct Notes {
    folder: PathBuf,
}

/// A folder of a copy to this node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Taken {
    /// Where it is to be.
    pub(super) path: PathBuf,
    /// Where it is written, beside that.
    pub(super) draft: PathBuf,
    /// Once it is complete.
    pub(super) identity: Option<Identity>,
    /// Whether the agent writes to it.
    pub(super) counts: bool,
}

/// A copy to this node that its agent was not started from yet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TakeNote {
    pub(super) copy: u64,
    pub(super) folders: Vec<Taken>,
}

/// A copy from this node: the folders, as they were then.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct GiveNote {
    copy: u64,
    folders: Vec<(PathBuf, Identity)>,
}

impl TakeNote {
    fn is_complete(&self) -> bool {
        self.folders.iter().all(|one| one.identity.is_some())
    }

    /// Gives all folders of a complete copy their names; again, if that was interrupted. The result says which were copied.
    ///
    /// # Errors
    /// When a name is taken by something else.
    pub(super) fn place(&self) -> Result<Vec<String>, String> {
        for one in &self.folders {
            if Identity::of(&one.path) != one.identity {
                place(&one.draft, &one.path)?;
            }
        }
        let counts = self.folders.iter().filter(|one| one.counts);
        Ok(counts.map(|one| one.path.to_string_lossy().into_owned()).collect())
    }

    /// Removes what this copy left: its agent was never started from it.
    fn undo(&self) -> Result<(), String> {
        for one in &self.folders {
            if one.identity.is_some() && Identity::of(&one.path) == one.identity {
                fs::rename(&one.path, &one.draft).map_err(|error| {
                    format!("cannot remove the earlier copy {}: {error}", one.path.display())
                })?;
            }
            remove_draft(&one.draft)?;
        }
        Ok(())
    }
}

impl Notes {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn take_path(&self, agent: &AgentName) -> PathBuf {
        self.folder.join(format!("{agent}.take.json"))
    }

    fn give_path(&self, agent: &AgentName) -> PathBuf {
        self.folder.join(format!("{agent}.give.json"))
    }

    /// The copy of this number, if it is complete. What another one left is removed.
    ///
    /// # Errors
    /// When that cannot be removed.
    pub(super) fn taken(&self, agent: &AgentName, copy: u64) -> Result<Option<TakeNote>, String> {
        let Some(note) = read::<TakeNote>(&self.take_path(agent)) else { return Ok(None) };
        if note.copy == copy && note.is_complete() {
            return Ok(Some(note));
        }
        note.undo()?;
        self.forget_take(agent);
        Ok(None)
    }

    /// Whether what is at a path is a copy from which the agent was never started: it is removed before another one.
    pub(super) fn is_unused(&self, agent: &AgentName, path: &Path) -> bool {
        let note = read::<TakeNote>(&self.take_path(agent));
        let known = note.iter().flat_map(|note| &note.folders).find(|one| one.path == path);
        known.is_some_and(|one| one.identity.is_some() && one.identity == Identity::of(path))
    }

    /// # Errors
    /// When it cannot be written.
    pub(super) fn note_take(&self, agent: &AgentName, note: &TakeNote) -> Result<(), String> {
        self.write(&self.take_path(agent), note)
    }

    /// Removes what a copy left that was given up.
    pub(super) fn give_up(&self, agent: &AgentName) {
        let Some(note) = read::<TakeNote>(&self.take_path(agent)) else { return };
        match note.undo() {
            Ok(()) => self.forget_take(agent),
            Err(error) => tracing::warn!("{error}"),
        }
    }

    pub(super) fn forget_take(&self, agent: &AgentName) {
        remove(&self.take_path(agent));
    }

    /// # Errors
    /// When it cannot be written.
    pub(super) fn note_give(
        &self,
        agent: &AgentName,
        copy: u64,
        folders: &[PathBuf],
    ) -> Result<(), String> {
        let known = |path: &PathBuf| Some((path.clone(), Identity::of(path)?));
        let folders = folders.iter().filter_map(known).collect();
        self.write(&self.give_path(agent), &GiveNote { copy, folders })
    }

    /// Renames the folders that a copy was made from, if they are still the same; where they are then.
    pub(super) fn put_aside(
        &self,
        agent: &AgentName,
        copy: u64,
        folders: &[String],
        suffix: &str,
    ) -> Vec<String> {
        let path = self.give_path(agent);
        let note = read::<GiveNote>(&path).filter(|note| note.copy == copy);
        let aside = folders.iter().map(|folder| {
            let known = note.iter().flat_map(|note| &note.folders);
            let identity =
                known.filter(|(path, _)| path == Path::new(folder)).map(|(_, of)| *of).next();
            let there = Identity::of(Path::new(folder));
            if identity.is_none() || there.is_some() && there != identity {
                return folder.clone();
            }
            put_aside(Path::new(folder), suffix).to_string_lossy().into_owned()
        });
        // The note stays: the answer may be lost.
        aside.collect()
    }

    /// What an earlier process left incomplete goes. A complete copy may be asked for again.
    pub(super) fn clear_up(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".mark") {
                if let Some(mark) = read::<PathBuf>(&path) {
                    remove(&mark);
                }
                remove(&path);
            } else if name.ends_with(".part") {
                remove(&path);
            } else if name.ends_with(".take.json")
                && let Some(note) = read::<TakeNote>(&path).filter(|note| !note.is_complete())
            {
                match note.undo() {
                    Ok(()) => remove(&path),
                    Err(error) => tracing::warn!("{error}"),
                }
            }
        }
    }

    /// A marker is in a folder: it is removed if this process ends before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn note_mark(&self, nonce: u64, mark: &Path) -> Result<(), String> {
        self.write(&self.mark_path(nonce), &mark)
    }

    pub(super) fn forget_mark(&self, nonce: u64) {
        remove(&self.mark_path(nonce));
    }

    fn mark_path(&self, nonce: u64) -> PathBuf {
        self.folder.join(format!("{nonce:016x}.mark"))
    }

    /// Writes a note, whole or not at all.
    fn write(&self, path: &Path, note: &impl Serialize) -> Result<(), String> {
        let write = || -> io::Result<()> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
            let draft = path.with_extension("part");
            let mut file = fs::File::create(&draft)?;
            file.write_all(&serde_json::to_vec(note)?)?;
            file.sync_all()?;
            fs::rename(&draft, path)?;
            fs::File::open(&self.folder)?.sync_all()
        };
        write().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let note = fs::read(path).ok()?;
    match serde_json::from_slice(&note) {
        Ok(note) => Some(note),
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", path.display());
            None
        }
    }
}

pub(super) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentName {
        AgentName::new("a").expect("valid")
    }

    /// A complete copy that has not got its name yet.
    fn copied(folder: &Path, copy: u64) -> TakeNote {
        let (path, draft) = (folder.join("data"), folder.join(format!(".carrying-{copy}")));
        fs::create_dir_all(draft.join("content")).expect("made");
        let identity = Identity::of(&draft);
        TakeNote { copy, folders: vec![Taken { path, draft, identity, counts: true }] }
    }

    #[test]
    fn a_copy_that_was_interrupted_is_completed_or_removed_and_what_is_in_use_stays() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let notes = Notes::new(temp.path().join("notes"));
        let path = temp.path().join("data");
        // Complete, and this process died before it had its name.
        let note = copied(temp.path(), 5);
        notes.note_take(&agent(), &note).expect("written");
        notes.clear_up();
        let found = notes.taken(&agent(), 5).expect("read").expect("it is complete");
        for _again in 0..2 {
            assert_eq!(found.place(), Ok(vec![path.to_string_lossy().into_owned()]));
        }
        assert!(path.join("content").exists());
        // The move was given up: another one begins anew.
        assert!(notes.is_unused(&agent(), &path));
        assert!(notes.taken(&agent(), 6).expect("removed").is_none() && !path.exists());
        // Not complete: it goes with the next start.
        let mut note = copied(temp.path(), 7);
        note.folders[0].identity = None;
        notes.note_take(&agent(), &note).expect("written");
        notes.clear_up();
        assert!(!note.folders[0].draft.exists() && !path.exists());
        // The agent was started from it: it is nobody's to remove.
        let note = copied(temp.path(), 8);
        notes.note_take(&agent(), &note).expect("written");
        note.place().expect("placed");
        notes.forget_take(&agent());
        assert!(notes.taken(&agent(), 9).expect("read").is_none() && path.exists());
        // Something else has the name by now: that is not removed either.
        notes.note_take(&agent(), &note).expect("written");
        fs::rename(&path, temp.path().join("moved")).expect("renamed");
        fs::create_dir(&path).expect("made");
        assert!(notes.taken(&agent(), 9).expect("read").is_none() && path.exists());
    }

    #[test]
    fn only_the_folder_that_was_copied_is_put_aside() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let notes = Notes::new(temp.path().join("notes"));
        let path = temp.path().join("data");
        let folders = vec![path.to_string_lossy().into_owned()];
        fs::create_dir(&path).expect("made");
        let aside = |copy| notes.put_aside(&agent(), copy, &folders, ".old");
        assert_eq!(aside(5), folders, "nothing was copied");
        notes.note_give(&agent(), 5, std::slice::from_ref(&path)).expect("written");
        assert_eq!(aside(4), folders, "for another copy");
        let renamed = vec![format!("{}.old", folders[0])];
        assert_eq!((aside(5), aside(5)), (renamed.clone(), renamed), "and once more");
        fs::create_dir(&path).expect("made");
        assert_eq!(aside(5), folders, "what came later stays");
        assert!(path.exists());
    }
}
