//! What the command of a worker names of its soul's folder.

use std::path::{Component, Path, PathBuf};

use common::spec::AgentSpec;

/// The words of a command, and those of a line that a shell reads.
pub fn words(worker: &[String]) -> impl Iterator<Item = &str> {
    const BETWEEN: &[char] = &[' ', '\t', '\n', ';', '&', '|', '<', '>', '(', ')', '"', '\'', '='];
    let split = worker.iter().flat_map(|word| word.split(BETWEEN));
    worker.iter().map(String::as_str).chain(split).filter(|word| !word.is_empty())
}

/// Whether a soul's worker starts in the soul's folder. `has` tells whether something is at a path in it. Without IMAGE it does, and what it
/// reads there is not to be known. In an image it starts where that says, unless its command names something of the folder.
pub fn starts_in_folder(spec: &AgentSpec, has: impl Fn(&Path) -> bool) -> bool {
    match (&spec.worker, &spec.image) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(worker), Some(_)) => {
            let folder = Path::new(&spec.source_path).parent().unwrap_or(Path::new("/"));
            words(worker).filter_map(|word| within(word, folder)).any(|path| has(&path))
        }
    }
}

/// A word as a path within a folder, if it can be one.
fn within(word: &str, folder: &Path) -> Option<PathBuf> {
    let path = Path::new(word);
    let inside = path.strip_prefix(folder).unwrap_or(path);
    let parts = inside.components().filter(|part| *part != Component::CurDir);
    let path: PathBuf = parts.collect();
    let is_plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (is_plain && !path.as_os_str().is_empty()).then_some(path)
}
