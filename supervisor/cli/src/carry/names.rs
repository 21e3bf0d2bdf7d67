//! What the names within an archive may be, and where its links may lead.

use std::path::{Component, Path, PathBuf};

use super::{FILES, IMAGE, JOURNAL, MANIFEST, SANCTUMS, SKILLS, SOUL};

/// What an entry of an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Manifest,
    Soul,
    Image,
    Journal,
    Files,
    /// In a SANCTUM or SKILL, so many folders below its root.
    Within(usize),
}

/// Looks at an entry's name.
///
/// # Errors
/// When it points outside the archive, or is none that an archive has.
pub(super) fn place(path: &Path) -> Result<Place, String> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str()),
            Component::Prefix(_)
            | Component::RootDir
            | Component::CurDir
            | Component::ParentDir => {
                return Err(format!("the name {} points outside the archive", shown(path)));
            }
        }
    }
    let is_number = |text: &str| {
        text.len() <= 4 && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    match names.as_slice() {
        [Some(MANIFEST)] => Ok(Place::Manifest),
        [Some(SOUL)] => Ok(Place::Soul),
        [Some(IMAGE)] => Ok(Place::Image),
        [Some(JOURNAL)] => Ok(Place::Journal),
        [Some(FILES)] => Ok(Place::Files),
        [Some(SANCTUMS), Some(number), rest @ ..] if is_number(number) => {
            Ok(Place::Within(rest.len()))
        }
        [Some(SKILLS), Some(number), _, rest @ ..] if is_number(number) => {
            Ok(Place::Within(rest.len()))
        }
        _ => Err(format!("{} does not belong in an agent archive", shown(path))),
    }
}

/// A path of an archive within a folder.
pub(super) fn within(folder: &Path, archive: &str, rest: &Path) -> PathBuf {
    let root = folder.join(archive);
    if rest.as_os_str().is_empty() { root } else { root.join(rest) }
}

/// An unchecked name, made safe for a terminal.
pub(super) fn shown(path: &Path) -> String {
    let text: String = path.to_string_lossy().chars().take(200).collect();
    format!("{text:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_within_the_archive() {
        let of = |path: &str| place(Path::new(path));
        assert_eq!(of("manifest.json"), Ok(Place::Manifest));
        assert_eq!(of("files.tar"), Ok(Place::Files));
        assert_eq!(of("sanctums/0"), Ok(Place::Within(0)));
        assert_eq!(of("sanctums/12/a/b"), Ok(Place::Within(2)));
        assert_eq!(of("skills/0/x.md"), Ok(Place::Within(0)));
        assert_eq!(of("skills/0/x/y"), Ok(Place::Within(1)));
        for bad in [
            "../x",
            "/etc/passwd",
            "./manifest.json",
            "sanctums/../x",
            "sanctums/0/../../x",
            "",
            "x",
            "sanctums",
            "sanctums/x/a",
            "sanctums/-1/a",
            "skills/0",
            "manifest.json/x",
            "sanctums/99999",
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}
