//! Lays the files of an incarnation out, which is a process: in a folder of its own, which goes with its run folder.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use common::spec::AgentSpec;

use super::left_out::{IGNORE, LeftOut};
use super::unpack::{list, unpack};

/// The most entries of one folder that are looked at.
const LOOKED_AT: usize = 10_000;

/// Unpacks an archive into a new folder. What is in the soul's folder on this host, and did not travel, is found there by links: what
/// `.mozartignore` and the defaults leave out, links that lead out of it, and folders of which nothing was packed. `apart` is found by none: it holds credentials. Blocks.
///
/// # Errors
/// A human-readable message.
pub fn lay_out(
    archive: &Path,
    soul: Option<&Path>,
    into: &Path,
    apart: &Path,
) -> Result<(), String> {
    let open = || File::open(archive).map_err(|error| format!("{}: {error}", archive.display()));
    // Of a start that was interrupted.
    match fs::remove_dir_all(into) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(format!("cannot remove {}: {error}", into.display()));
        }
        _ => {}
    }
    unpack(open()?, into)?;
    let Some(soul) = soul.filter(|soul| soul.is_dir()) else { return Ok(()) };
    let packed: BTreeSet<PathBuf> = list(open()?)?.into_keys().collect();
    let rules = fs::read_to_string(into.join(IGNORE)).unwrap_or_default();
    let rules = LeftOut::new(&rules)?;
    let folders: BTreeSet<&Path> =
        packed.iter().flat_map(|path| path.ancestors().skip(1)).collect();
    for folder in &folders {
        let there = fs::read_dir(soul.join(folder)).into_iter().flatten().flatten();
        for entry in there.take(LOOKED_AT) {
            let path = folder.join(entry.file_name());
            if packed.contains(&path) || folders.contains(path.as_path()) {
                continue;
            }
            let Ok(kind) = entry.file_type() else { continue };
            let is_folder = kind.is_dir();
            let stays = is_folder || kind.is_symlink() || rules.has(&path, is_folder);
            if stays && !rules.is_made(&path, is_folder) && !apart.starts_with(entry.path()) {
                // What cannot be linked is missing: then the worker says what it lacks.
                if let Err(error) = std::os::unix::fs::symlink(entry.path(), into.join(&path)) {
                    tracing::debug!("{} is not linked: {error}", path.display());
                }
            }
        }
    }
    Ok(())
}

/// The spec of an incarnation whose soul's folder is at another place: paths that lead to something of that folder lead there. `has` tells
/// whether something is at a path in it.
#[must_use]
pub fn moved(spec: &AgentSpec, to: &Path, has: impl Fn(&Path) -> bool) -> AgentSpec {
    let mut spec = spec.clone();
    let soul = Path::new(&spec.source_path).parent().map(Path::to_owned);
    let Some(soul) = soul.filter(|soul| soul.is_absolute()) else { return spec };
    let place = |path: &mut String| {
        let rest = Path::new(path.as_str()).strip_prefix(&soul).ok();
        let there = rest.filter(|rest| has(rest)).map(|rest| to.join(rest));
        if let Some(there) = there.as_deref().and_then(Path::to_str) {
            *path = there.to_owned();
        }
    };
    spec.skills.iter_mut().for_each(place);
    spec.worker.iter_mut().flatten().for_each(place);
    spec
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;

    #[test]
    fn what_did_not_travel_is_found_where_it_is() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let root = temp.path().canonicalize().expect("there");
        let (soul, archive) = (root.join("soul"), root.join("archive"));
        for name in [
            "worker.py",
            "lib/a.py",
            "lib/__pycache__/a.pyc",
            "lib/a.pyc",
            ".venv/bin/python",
            ".env",
            "lib/secrets.env",
            "a.soul",
            ".git/config",
            "home/nats/access.json",
        ] {
            let path = soul.join(name);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, name).expect("written");
        }
        let apart = BTreeSet::from([soul.join("home")]);
        let packed = super::super::pack(&soul, &apart).expect("packed").expect("something");
        fs::write(&archive, packed.archive).expect("written");
        // Made later: folders are found, files are not.
        fs::create_dir(soul.join("seen")).expect("made");
        fs::write(soul.join("config.json"), "{}").expect("written");
        fs::write(soul.join("worker.py"), "changed").expect("written");
        let into = root.join("into");
        for _ in 0..2 {
            lay_out(&archive, Some(&soul), &into, &soul.join("home")).expect("laid out");
            let there = |name: &str| fs::read_to_string(into.join(name)).ok();
            assert_eq!(there("worker.py").as_deref(), Some("worker.py"), "as it was applied");
            for name in [".venv/bin/python", ".env", "lib/secrets.env", "lib/a.py", "a.soul"] {
                assert_eq!(there(name).as_deref(), Some(name));
            }
            for name in ["lib/__pycache__", "lib/a.pyc", ".git", "home", "config.json"] {
                assert!(into.join(name).symlink_metadata().is_err(), "{name}");
            }
            fs::write(into.join("seen/note"), "x").expect("the folder of this host");
        }
        assert!(soul.join("seen/note").exists());
        // Removing it leaves what it leads to.
        fs::remove_dir_all(&into).expect("removed");
        assert!(soul.join("seen/note").exists() && soul.join(".venv/bin/python").exists());
        lay_out(&archive, Some(&root.join("gone")), &into, &root).expect("on another host");
        assert!(into.join("worker.py").exists() && !into.join(".env").exists());
    }

    #[test]
    fn paths_into_the_soul_s_folder_lead_to_what_was_applied() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(temp.path().join("skill")).expect("made");
        fs::write(temp.path().join("w.py"), "").expect("written");
        let mut spec = AgentSpec::new(AgentName::new("a").expect("valid"), "m", "i");
        spec.source_path = "/souls/a.soul".into();
        spec.skills = vec!["/souls/skill".into(), "/souls/gone".into(), "/other/skill".into()];
        spec.worker = Some(vec!["python3".into(), "/souls/w.py".into(), "/soulsw.py".into()]);
        let there = |name: &str| temp.path().join(name).to_str().expect("text").to_owned();
        let moved = moved(&spec, temp.path(), |path| temp.path().join(path).exists());
        assert_eq!(moved.skills, [&there("skill"), "/souls/gone", "/other/skill"]);
        assert_eq!(moved.worker.expect("some"), ["python3", &there("w.py"), "/soulsw.py"]);
    }
}
