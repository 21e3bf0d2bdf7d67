//! Paths: `SKILL`, `SANCTUM`.

use std::path::{Component, Path, PathBuf};

use super::value::unquoted;
use crate::soul::source::{Checked, Problem};
use crate::soul::suggest::{closest, did_you_mean, quoted};
use crate::soul::text::Part;
use crate::spec::Sanctum;

/// The longest path, in bytes: Linux's `PATH_MAX`.
const MAX_PATH: usize = 4096;

pub(super) fn skill(rest: Part<'_>, folder: &Path) -> Checked<String> {
    on_host(rest, &value(rest)?, folder)
}

/// Says that every host has the folder.
const SHARED: &str = "shared";

/// Folder, path and mode of a text in which only the last `:` before the path counts.
fn from_the_end(text: &str) -> Vec<&str> {
    let is_mode = |mode: &str| matches!(mode, "ro" | "rw");
    let (rest, mode) = match text.rsplit_once(':').filter(|(_, mode)| is_mode(mode)) {
        Some((rest, mode)) => (rest, Some(mode)),
        None => (text, None),
    };
    let (host, path) = match rest.rsplit_once(':') {
        Some((host, path)) => (host, Some(path)),
        None => (rest, None),
    };
    [Some(host), path, mode].into_iter().flatten().collect()
}

/// The sanctum, and where its path in the container stands.
pub(super) fn sanctum<'t>(rest: Part<'t>, folder: &Path) -> Checked<(Sanctum, Part<'t>)> {
    const USAGE: &str = "expected `SANCTUM <host path>:<path>[:ro] [shared]`";
    let (rest, shared) = shared(rest)?;
    let text = value(rest)?;
    let is_quoted = rest.as_str().starts_with(['"', '\'']);
    // A quoted folder may have a `:` in its name.
    let pieces: Vec<&str> = if is_quoted { from_the_end(&text) } else { text.split(':').collect() };
    // The pieces in the file, for the spans; a quoted value is pointed at as a whole.
    let piece = |index: usize| {
        if is_quoted {
            return rest;
        }
        let start: usize = pieces.iter().take(index).map(|piece| piece.len() + 1).sum();
        let len = pieces.get(index).map_or(0, |piece| piece.len());
        rest.sub(start..start + len)
    };
    if pieces.len() > 3 {
        return Err(Problem::new(rest.span(), "SANCTUM with too many `:`", USAGE)
            .help(Some("a folder with a `:` in its name is written in quotes".to_owned())));
    }
    let (host, path, mode) = (
        pieces.first().copied().unwrap_or_default(),
        pieces.get(1).copied(),
        pieces.get(2).copied(),
    );
    let Some(path) = path else {
        let message = "SANCTUM without a path in the container";
        return Err(Problem::new(rest.end().span(), message, USAGE));
    };
    if host.is_empty() {
        let message = "SANCTUM without a folder on the host";
        return Err(Problem::new(rest.span(), message, USAGE));
    }
    let read_only = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(other) => {
            return Err(Problem::new(
                piece(2).span(),
                format!("unknown mode {}", quoted(other)),
                "expected `ro` or `rw`",
            )
            .help(closest(other, ["ro", "rw"]).map(did_you_mean)));
        }
    };
    let sanctum = Sanctum {
        host: on_host(piece(0), host, folder)?,
        path: in_container(piece(1), path)?,
        read_only,
        shared,
    };
    Ok((sanctum, piece(1)))
}

/// What comes before the word `shared`, and whether that is there. An unquoted folder may have spaces in its name; the word stands
/// after the path in the container, which has none here.
fn shared(rest: Part<'_>) -> Checked<(Part<'_>, bool)> {
    let text = rest.as_str();
    let Some((before, last)) = text.rsplit_once([' ', '\t']) else { return Ok((rest, false)) };
    let is_after_path = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => before.trim_end().ends_with(quote),
        _ => before.contains(':'),
    };
    if !is_after_path {
        return Ok((rest, false));
    }
    if last == SHARED {
        return Ok((rest.sub(0..before.trim_end().len()), true));
    }
    let word = rest.sub(text.len() - last.len()..text.len());
    match closest(last, [SHARED]) {
        Some(meant) => {
            let message = format!("unknown word {}", quoted(last));
            let problem = Problem::new(word.span(), message, "expected `shared`, or nothing");
            Err(problem.help(Some(did_you_mean(meant))))
        }
        None => Ok((rest, false)),
    }
}

fn value(rest: Part<'_>) -> Checked<String> {
    if rest.as_str().starts_with(['"', '\'']) {
        unquoted(rest)
    } else {
        Ok(rest.as_str().to_owned())
    }
}

fn on_host(at: Part<'_>, path: &str, folder: &Path) -> Checked<String> {
    let problem = |message: &str, label: &str| Problem::new(at.span(), message, label);
    if path.trim().is_empty() {
        return Err(problem("an empty path", "expected a path on the host"));
    }
    if path.starts_with(['~', '$']) {
        return Err(problem(
            "a path that a shell would expand",
            "expected an absolute path, or one from the soul's folder",
        ));
    }
    if path.len() > MAX_PATH {
        return Err(problem("a path that is too long", "expected at most 4096 bytes"));
    }
    let resolved = clean(&folder.join(path));
    Ok(resolved.to_string_lossy().into_owned())
}

fn in_container(at: Part<'_>, path: &str) -> Checked<String> {
    let problem = |message: String, label: &str| Problem::new(at.span(), message, label);
    if !path.starts_with('/') {
        let message = format!("{} is not absolute", quoted(path));
        let label = "expected a path in the container that starts with `/`";
        return Err(problem(message, label).help(did_you_mean_rooted(path)));
    }
    if path.len() > MAX_PATH {
        let message = "a path that is too long".to_owned();
        return Err(problem(message, "expected at most 4096 bytes"));
    }
    if path.split('/').any(|name| name == "..") {
        let message = "a path with `..`".to_owned();
        return Err(problem(message, "expected the plain path"));
    }
    let cleaned = clean(Path::new(path));
    if cleaned == Path::new("/") {
        let message = "the container's root as a sanctum".to_owned();
        return Err(problem(message, "expected a folder below `/`"));
    }
    Ok(cleaned.to_string_lossy().into_owned())
}

fn did_you_mean_rooted(path: &str) -> Option<String> {
    let short = !path.is_empty() && path.len() < 60 && !path.starts_with('.');
    short.then(|| did_you_mean(format!("/{path}")))
}

/// The path without `.`, `..` and doubled slashes, by its text alone: no link is followed.
pub(in crate::soul) fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => match out.components().next_back() {
                Some(Component::Normal(_)) => {
                    out.pop();
                }
                Some(Component::RootDir) => {}
                _ => out.push(".."),
            },
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                out.push(component);
            }
        }
    }
    if out.as_os_str().is_empty() {
        out.push(".");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::from_the_end;

    #[test]
    fn a_quoted_folder_may_have_a_colon_in_its_name() {
        for (text, pieces) in [
            ("a:b:/data", &["a:b", "/data"][..]),
            ("a:b:/data:ro", &["a:b", "/data", "ro"]),
            ("a:/data", &["a", "/data"]),
            ("a:ro", &["a", "ro"]),
            ("a", &["a"]),
            ("", &[""]),
        ] {
            assert_eq!(from_the_end(text), pieces, "{text}");
        }
    }
}
