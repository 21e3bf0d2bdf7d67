//! What an agent consists of besides its soul: the files next to the soul that WORKER and SKILL name. A changed one makes a new generation.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use common::spec::AgentSpec;
use runtime::files::words;
use sha2::{Digest as _, Sha256};

/// Files of a skill that are looked at, at most.
const MOST: usize = 1_000;
/// Bytes of a file that are read, at most: of a larger one, size and beginning count.
const READ: u64 = 64 << 20;

/// The SHA-256 of the files' names and contents in hex; none if there are none.
pub(crate) fn digest(spec: &AgentSpec) -> Option<String> {
    let folder = Path::new(&spec.source_path).parent()?;
    let mut files = BTreeSet::new();
    for word in words(spec.worker.as_deref().unwrap_or_default()) {
        let path = folder.join(word);
        // A program of the system is not the agent's own.
        let is_own = Path::new(word).is_relative() || path.starts_with(folder);
        if is_own && path.is_file() {
            files.insert(path);
        }
    }
    for skill in &spec.skills {
        add(Path::new(skill), &mut files);
    }
    let mut all = Sha256::new();
    for file in &files {
        // What cannot be read now may be read by the worker: that it changed is not to be seen.
        let Ok(content) = content(file) else { continue };
        let name = file.strip_prefix(folder).unwrap_or(file).as_os_str().as_encoded_bytes();
        all.update(name.len().to_le_bytes());
        all.update(name);
        all.update(content);
    }
    let all = all.finalize();
    (!files.is_empty()).then(|| all.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add(path: &Path, files: &mut BTreeSet<PathBuf>) {
    if files.len() >= MOST {
        return;
    }
    // A link to a folder may lead around in a circle.
    let Ok(kind) = fs::symlink_metadata(path) else { return };
    if kind.is_dir() {
        let mut inside: Vec<_> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        inside.sort();
        inside.iter().for_each(|path| add(path, files));
    } else if path.is_file() {
        files.insert(path.to_owned());
    }
}

fn content(file: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(file)?;
    let mut hash = Sha256::new();
    hash.update(file.metadata()?.len().to_le_bytes());
    let mut buffer = vec![0; 64 << 10];
    let mut left = READ;
    while left > 0 {
        let read = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
        left = left.saturating_sub(read as u64);
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;

    fn spec(folder: &Path, worker: &[&str]) -> AgentSpec {
        let mut spec = AgentSpec::new(AgentName::new("a").expect("valid"), "m/m", "You.");
        spec.source_path = folder.join("a.soul").to_string_lossy().into_owned();
        spec.worker = Some(worker.iter().map(|word| (*word).to_owned()).collect());
        spec
    }

    #[test]
    fn a_changed_worker_or_skill_is_another_content() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = temp.path();
        fs::create_dir_all(folder.join("skill/deep")).expect("made");
        for (name, text) in [("w.py", "1"), ("other.py", "1"), ("skill/deep/x.md", "1")] {
            fs::write(folder.join(name), text).expect("written");
        }
        let shell = ["/bin/sh", "-c", "FILE=w.py; exec python3 \"w.py\" --fast >out"];
        for worker in [&["python3", "w.py"][..], &shell, &["./w.py"]] {
            let spec = spec(folder, worker);
            let before = digest(&spec).expect("there is a file");
            assert_eq!(digest(&spec), Some(before.clone()));
            fs::write(folder.join("other.py"), "2").expect("written");
            assert_eq!(digest(&spec), Some(before.clone()), "not its own");
            fs::write(folder.join("w.py"), "2").expect("written");
            assert_ne!(digest(&spec), Some(before));
            fs::write(folder.join("w.py"), "1").expect("written");
        }
        assert_eq!(digest(&spec(folder, &["/bin/sh", "-c", "true"])), None);
        let mut skilled = spec(folder, &["true"]);
        skilled.skills = vec![folder.join("skill").to_string_lossy().into_owned()];
        let before = digest(&skilled).expect("there is a file");
        fs::write(folder.join("skill/deep/x.md"), "2").expect("written");
        assert_ne!(digest(&skilled), Some(before));
    }
}
