//! The files beside a soul: packed and stored before it is applied, so that any host can run it, and a rollback brings them back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use broker::{Attempt as _, Broker};
use bytes::Bytes;
use common::api::{ApiError, SoulSource};
use common::failure;
use common::files::Files;
use common::soul;
use common::spec::AgentSpec;
use runtime::files::{IGNORE, Item, PackError, Packed, list, pack, starts_in_folder};
use runtime::home::Home;
use serde::Serialize;

use super::output;

/// Souls in one folder that are looked at for their SANCTUMs.
const SOULS: usize = 1_000;

/// How a file differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileChange {
    /// Its path from the soul's folder.
    pub(crate) path: String,
    /// `added`, `changed`, `removed`.
    pub(crate) what: &'static str,
}

/// Packs what souls use of their folders, stores it, and notes its name in them. Several souls in a folder have one archive.
///
/// # Errors
/// When a folder cannot be packed, or the broker does not take it.
pub(crate) async fn store(
    broker: &Broker,
    souls: &mut [SoulSource],
    home: &Home,
) -> Result<(), ApiError> {
    let mut known: BTreeMap<PathBuf, Option<Files>> = BTreeMap::new();
    let mut stores = None;
    for soul in souls {
        let Some(folder) = used(soul) else { continue };
        if let Some(files) = known.get(&folder) {
            soul.files.clone_from(files);
            continue;
        }
        if stores.is_none() {
            // A fleet of an earlier version goes on as it did.
            stores = Some(broker.stores_files().await.attempt("cannot store the souls' files")?);
        }
        if stores == Some(false) {
            return Ok(());
        }
        let packed = packed(&folder, home).await?;
        if let Some(Packed { files, archive, .. }) = packed {
            let what = format!("cannot store the files of {}", folder.display());
            broker.store_files(&files, &Bytes::from(archive)).await.attempt(what)?;
            soul.files = Some(files);
        }
        known.insert(folder, soul.files.clone());
    }
    Ok(())
}

/// What `store` would note in a soul, and nothing is stored.
///
/// # Errors
/// When the folder cannot be packed.
pub(crate) async fn would_store(
    soul: &SoulSource,
    home: &Home,
) -> Result<Option<Packed>, ApiError> {
    match used(soul) {
        Some(folder) => packed(&folder, home).await,
        None => Ok(None),
    }
}

/// How the files of an agent would change; none if that cannot be told.
pub(crate) async fn changes(
    broker: &Broker,
    before: Option<&Files>,
    after: Option<&Packed>,
) -> Option<Vec<FileChange>> {
    if before == after.map(|packed| &packed.files) {
        return Some(Vec::new());
    }
    let before = match before {
        Some(files) => list(&*broker.read_files(files).await.ok()?.ok()?).ok()?,
        None => BTreeMap::new(),
    };
    let after = match after {
        Some(packed) => list(&*packed.archive).ok()?,
        None => BTreeMap::new(),
    };
    Some(between(&before, &after))
}

fn between(before: &BTreeMap<PathBuf, Item>, after: &BTreeMap<PathBuf, Item>) -> Vec<FileChange> {
    let all: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let change = |path: &PathBuf| {
        let what = match (before.get(path), after.get(path)) {
            (None, _) => "added",
            (_, None) => "removed",
            (Some(one), Some(other)) if one == other => return None,
            (Some(_), Some(_)) => "changed",
        };
        Some(FileChange { path: path.to_string_lossy().into_owned(), what })
    };
    all.into_iter().filter_map(change).collect()
}

/// The folder of a soul, if something of it is used: by a worker that starts there, or by a SKILL.
fn used(source: &SoulSource) -> Option<PathBuf> {
    let path = Path::new(&source.path);
    let spec = soul::parse(source.name.clone(), path, &source.text).ok()?;
    let folder = path.parent().filter(|folder| folder.is_absolute())?;
    uses(&spec, folder).then(|| folder.to_owned())
}

fn uses(spec: &AgentSpec, folder: &Path) -> bool {
    let is_inside = |path: &str| Path::new(path).starts_with(folder);
    if spec.skills.iter().any(|skill| is_inside(skill)) {
        return true;
    }
    starts_in_folder(spec, |path| folder.join(path).exists())
}

async fn packed(folder: &Path, home: &Home) -> Result<Option<Packed>, ApiError> {
    let (folder, data) = (folder.to_owned(), home.dir.clone());
    let what = format!("cannot pack the files of {}", folder.display());
    let shown = folder.join(IGNORE);
    let packed = tokio::task::spawn_blocking(move || {
        let mut apart = sanctums(&folder);
        // All of it is data.
        let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        if real.ancestors().any(|above| apart.contains(above)) {
            return Ok(None);
        }
        apart.insert(data.canonicalize().unwrap_or(data));
        pack(&folder, &apart)
    });
    match packed.await {
        Ok(Ok(packed)) => {
            for path in packed.iter().flat_map(|packed| &packed.left_out) {
                let path = path.to_string_lossy();
                output::note(format!(
                    "warning: {path:?} leads out of the folder, and does not travel to other hosts"
                ));
            }
            Ok(packed)
        }
        Ok(Err(error)) => Err(said(&what, &error, &shown)),
        Err(error) => Err(failure::error(failure::FAILED, what, error, "")),
    }
}

fn said(what: &str, error: &PackError, ignore: &Path) -> ApiError {
    let ignore = ignore.display();
    let (code, try_) = match error {
        PackError::TooMuch { .. } | PackError::System => (
            failure::LIMIT,
            format!(
                "list what the agent does not need in {ignore}, or move the soul to its own folder"
            ),
        ),
        PackError::Unfit(..) => (failure::FAILED, format!("remove it, or list it in {ignore}")),
        PackError::Unreadable(_, _, std::io::ErrorKind::PermissionDenied) => {
            (failure::DENIED, format!("make it readable, or list it in {ignore}"))
        }
        PackError::Unreadable(..) => (failure::FAILED, format!("list it in {ignore}")),
        PackError::Changing(_) => {
            (failure::FAILED, format!("repeat it; list what is written all the time in {ignore}"))
        }
        PackError::Rules(_) => (failure::USAGE, "use the syntax of .gitignore".to_owned()),
    };
    failure::error(code, what, error, try_)
}

/// The SANCTUMs of the souls in a folder, and one level below: they are data, whoever's.
fn sanctums(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(SOULS) {
        let Ok(kind) = entry.file_type() else { continue };
        let path = match kind.is_dir() {
            true => entry.path().join("agent.soul"),
            false => entry.path(),
        };
        let Ok(name) = soul::name_from_path(&path) else { continue };
        let Ok(bytes) = soul::read(&path) else { continue };
        let Ok(spec) = soul::parse_bytes(name, &path, &bytes) else { continue };
        let hosts = spec.sanctums.iter().map(|sanctum| Path::new(&sanctum.host));
        found.extend(hosts.filter_map(|host| host.canonicalize().ok()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;

    #[test]
    fn a_folder_is_packed_if_something_of_it_is_used() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = temp.path();
        fs::create_dir(folder.join("skill")).expect("made");
        fs::write(folder.join("w.py"), "").expect("written");
        let own = folder.join("w.py").to_str().expect("text").to_owned();
        let rows = [
            ("", false),
            ("SKILL skill", true),
            ("SKILL /other/skill", false),
            ("WORKER [\"npm\", \"start\"]", true),
            ("IMAGE a:1", false),
            ("IMAGE a:1\nWORKER [\"python3\", \"/app/w.py\"]", false),
            ("IMAGE a:1\nWORKER [\"python3\", \"gone.py\"]", false),
            ("IMAGE a:1\nWORKER [\"python3\", \"./w.py\"]", true),
            ("IMAGE a:1\nWORKER cd skill && exec x", true),
            (&format!("IMAGE a:1\nWORKER [\"python3\", {own:?}]"), true),
            ("IMAGE a:1\nWORKER [\"ls\", \".\", \"..\", \"/\"]", false),
        ];
        for (more, used_) in rows {
            let soul = SoulSource {
                name: AgentName::new("a").expect("valid"),
                path: folder.join("a.soul").to_str().expect("text").to_owned(),
                text: format!("MODEL m\nSOUL You.\n{more}\n"),
                content: None,
                files: None,
            };
            assert_eq!(used(&soul).is_some(), used_, "{more}");
        }
    }

    #[tokio::test]
    async fn the_data_of_the_souls_and_of_mozart_stays() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = temp.path();
        for name in ["data", "deep/notes", "home"] {
            fs::create_dir_all(folder.join(name)).expect("made");
            fs::write(folder.join(name).join("x"), "secret").expect("written");
        }
        let soul = |more: &str| format!("MODEL m\nSOUL You.\nWORKER [\"true\"]\n{more}\n");
        fs::write(folder.join("b.soul"), soul("SANCTUM data:/data")).expect("written");
        fs::write(folder.join("deep/agent.soul"), soul("SANCTUM notes:/n")).expect("written");
        let home = Home { dir: folder.join("home") };
        assert_eq!(packed(folder, &home).await.expect("packed"), None);
        fs::write(folder.join("w.py"), "").expect("written");
        let one = packed(folder, &home).await.expect("packed").expect("something");
        fs::write(folder.join("w.py"), "2").expect("written");
        fs::write(folder.join("new"), "").expect("written");
        let other = packed(folder, &home).await.expect("packed").expect("something");
        let [before, after] = [&one, &other].map(|packed| list(&packed.archive[..]).expect("ours"));
        let said: Vec<_> =
            between(&before, &after).into_iter().map(|one| (one.path, one.what)).collect();
        assert_eq!(said, [("new".to_owned(), "added"), ("w.py".to_owned(), "changed")]);
        assert_eq!(between(&after, &before).len(), 2);
        // A folder that is data is none of files.
        fs::write(folder.join("b.soul"), soul("SANCTUM .:/data")).expect("written");
        assert_eq!(packed(folder, &home).await.expect("packed"), None);
    }

    #[tokio::test]
    async fn what_cannot_be_packed_is_said_with_a_way_out() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home { dir: temp.path().join("home") };
        let pipe = temp.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, pipe, rustix::fs::Mode::RUSR).expect("made");
        let error = packed(temp.path(), &home).await.expect_err("a pipe");
        assert_eq!(error.code, failure::FAILED);
        assert!(error.cause.contains("\"pipe\" is a socket, a pipe"), "{error:?}");
        assert!(error.try_.contains(".mozartignore"), "{error:?}");
        let error = packed(Path::new("/"), &home).await.expect_err("the system");
        assert_eq!(error.code, failure::LIMIT);
    }
}
