//! Which files are souls, and which agents they declare. The only place here that looks at the disk.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::instruction::clean;
use crate::AgentName;
use crate::id::InvalidId;

/// The soul of the agent that the folder is named after.
const IN_FOLDER: &str = "agent.soul";

/// Why a path gives no agent's name.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// Not `<name>.soul`.
    #[error("{} is not a soul: expected `<agent>.soul`, or `agent.soul` in a folder named after the agent", .0.display())]
    NotASoul(PathBuf),
    /// The file's or folder's name is no agent's name.
    #[error("{} does not name an agent: {source}{}", .path.display(), suggestion(.meant.as_deref()))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with the name.
        source: InvalidId,
        /// A name that would do.
        meant: Option<String>,
    },
}

fn suggestion(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Why the souls of some paths are not known.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// No such file or folder.
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is not named like a soul.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Nothing there.
    #[error("no soul in {}: expected `<agent>.soul` or `<agent>/agent.soul`", list(.0))]
    Nothing(Vec<PathBuf>),
    /// Nothing in a folder, but one level down, where files of other names belong to nobody.
    #[error(
        "no soul in {}: expected {}, not {}",
        .folder.display(), .below.with_file_name(IN_FOLDER).display(), .below.display()
    )]
    Below {
        /// The folder.
        folder: PathBuf,
        /// What is there.
        below: PathBuf,
    },
    /// Two files declare the same agent.
    #[error("two souls for agent `{name}`: {} and {}", .first.display(), .second.display())]
    Twice {
        /// The agent.
        name: AgentName,
        /// The file that comes first.
        first: PathBuf,
        /// The other one.
        second: PathBuf,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    shown.join(", ")
}

/// The agent that a file declares: `<name>.soul`, or `agent.soul` in a folder of the agent's name. Looks at the path alone; a
/// relative `agent.soul` is taken from the current folder.
///
/// # Errors
/// When the file is not named like a soul, or the name is not an agent's name.
pub fn name_from_path(path: &Path) -> Result<AgentName, NameError> {
    let not_a_soul = || NameError::NotASoul(path.to_owned());
    let file = path.file_name().and_then(OsStr::to_str);
    let stem = file
        .and_then(|file| file.strip_suffix(".soul"))
        .filter(|stem| !stem.is_empty())
        .ok_or_else(not_a_soul)?;
    let folder;
    let name = if file == Some(IN_FOLDER) {
        let absolute = std::path::absolute(path).map_err(|_| not_a_soul())?;
        folder = clean(&absolute)
            .parent()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned())
            .ok_or_else(not_a_soul)?;
        &*folder
    } else {
        stem
    };
    AgentName::new(name).map_err(|source| NameError::Invalid {
        path: path.to_owned(),
        source,
        meant: as_name(name),
    })
}

/// The text as an agent's name, if a few characters' change makes it one.
fn as_name(text: &str) -> Option<String> {
    let dashed: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let name = dashed.trim_matches('-');
    AgentName::new(name).ok().map(String::from)
}

/// The souls among some paths: files as they are, of folders every `*.soul` in them and every `<name>/agent.soul` one level
/// down, hidden ones left out. Sorted, each file once, below the paths that were given.
///
/// # Errors
/// When a path does not exist or cannot be read, a file is not named like a soul, two files declare the same agent, or there is
/// no soul at all.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, FindError> {
    let mut found = Vec::new();
    for path in paths {
        let read = |source: io::Error| {
            let path = path.clone();
            if source.kind() == io::ErrorKind::NotFound {
                FindError::Missing(path)
            } else {
                FindError::Read { path, source }
            }
        };
        if fs::metadata(path).map_err(read)?.is_dir() {
            let before = found.len();
            in_folder(path, &mut found)?;
            // Beside others that have some, it would be passed over in silence.
            if found.len() == before {
                let nothing = || FindError::Nothing(vec![path.clone()]);
                return Err(below(path).map_or_else(nothing, |below| FindError::Below {
                    folder: path.clone(),
                    below,
                }));
            }
        } else {
            found.push(path.clone());
        }
    }
    if found.is_empty() {
        return Err(FindError::Nothing(paths.to_vec()));
    }
    found.sort();
    distinct(found)
}

/// Reads a soul, or as much of it as shows that it is too large.
///
/// # Errors
/// When it cannot be read, or is not a file: a pipe or a device might never end.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(super::MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn in_folder(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), FindError> {
    let read = |source| FindError::Read { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(read)? {
        let entry = entry.map_err(read)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let path = entry.path();
        // A link that leads nowhere is passed by like any other file that is not a soul, unless it is named like one.
        let is_folder = path.is_dir();
        let inside = path.join(IN_FOLDER);
        if is_folder && inside.is_file() {
            found.push(inside);
        } else if !is_folder && path.extension() == Some(OsStr::new("soul")) {
            found.push(path);
        }
    }
    Ok(())
}

/// A soul in a folder of a folder, where none is looked for.
fn below(folder: &Path) -> Option<PathBuf> {
    let entries = |folder: &Path| {
        let paths = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
        let mut paths: Vec<PathBuf> = paths.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let folders = entries(folder).into_iter().filter(|path| path.is_dir());
    let mut files = folders.flat_map(|folder| entries(&folder));
    files.find(|path| path.extension() == Some(OsStr::new("soul")))
}

/// Every file once, and every agent once.
fn distinct(found: Vec<PathBuf>) -> Result<Vec<PathBuf>, FindError> {
    let mut by_name: BTreeMap<AgentName, PathBuf> = BTreeMap::new();
    let mut souls = Vec::with_capacity(found.len());
    for path in found {
        let name = name_from_path(&path)?;
        match by_name.get(&name) {
            Some(first) if same_file(first, &path) => {}
            Some(first) => {
                return Err(FindError::Twice { name, first: first.clone(), second: path });
            }
            None => {
                by_name.insert(name, path.clone());
                souls.push(path);
            }
        }
    }
    Ok(souls)
}

fn same_file(one: &Path, other: &Path) -> bool {
    let absolute = |path| fs::canonicalize(path).ok();
    absolute(one).is_some_and(|one| Some(one) == absolute(other))
}
