//! The image of an agent: whether it goes along, out of its engine, and whether an archive's image is the one that it says.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::pin::pin;

use common::api::ApiError;
use futures_util::StreamExt as _;
use serde_json::Value;

use super::manifest::Image;
use super::slice::Slice;
use super::{progress, slice};
use crate::cli::output;
use crate::failure;
use crate::runtime::engine::{Connection, Found, is_same_image};

/// Whether an image is to go along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    With,
    /// If no registry has it.
    IfNeeded,
    Without,
}

/// An image that goes into the archive.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) note: Image,
    /// None where it does not go along.
    pub(super) from: Option<(Connection, Found)>,
}

/// Whether the image goes along, and from which engine.
///
/// # Errors
/// 2 when it cannot be carried, 3 when it is wanted and not there.
pub(super) async fn choose(what: &str, reference: &str, wish: Wish) -> Result<Saved, ApiError> {
    let mut found = None;
    for engine in Connection::every().await {
        match engine.find_image(reference).await {
            Ok(Some(image)) => {
                found = Some((engine, image));
                break;
            }
            Ok(None) => {}
            Err(cause) => {
                output::note(format!("warning: {}: {cause}", engine.kind.as_str()));
            }
        }
    }
    let Some((engine, image)) = found else {
        if wish == Wish::With {
            let cause = format!("no engine here has the image {reference}");
            let try_ = "run the command on the machine where the agent ran, or --without-image";
            return Err(failure::error(failure::NOT_FOUND, what, cause, try_));
        }
        if wish == Wish::IfNeeded {
            output::note(format!(
                "warning: no engine here has the image {reference}: the archive only names it"
            ));
        }
        let note =
            Image { reference: reference.to_owned(), id: None, digest: None, included: false };
        return Ok(Saved { note, from: None });
    };
    let included = match wish {
        Wish::With => true,
        Wish::IfNeeded => image.digest.is_none(),
        Wish::Without => false,
    };
    if included && reference.contains('@') {
        let cause = format!("{reference} names it by digest, which only a registry can");
        let try_ = "--without-image, or an IMAGE with a name and a tag";
        return Err(failure::error(failure::USAGE, what, cause, try_));
    }
    let note = Image {
        reference: reference.to_owned(),
        id: Some(image.id.clone()),
        digest: image.digest.clone(),
        included,
    };
    Ok(Saved { note, from: included.then_some((engine, image)) })
}

/// Fetches the image into a file aside: an archive must say beforehand how long it is.
///
/// # Errors
/// When the engine does not give it, or there is no room.
pub(super) async fn save(
    what: &str,
    engine: &Connection,
    reference: &str,
    found: &Found,
    aside: &Path,
) -> Result<(File, u64), ApiError> {
    let no_room = |error: io::Error| {
        let what = format!("{what}: cannot write a temporary file to {}", aside.display());
        failure::file(what, &error, "make room there, or --without-image")
    };
    let mut file = slice::spool(aside).map_err(no_room)?;
    let bar = progress(found.size, "saving the image");
    let mut pieces = pin!(engine.save(reference));
    let mut size = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|cause| {
            let what = format!("{what}: {} does not save the image", engine.kind.as_str());
            failure::error(failure::FAILED, what, cause, "--without-image")
        })?;
        file.write_all(&piece).map_err(no_room)?;
        size += piece.len() as u64;
        bar.inc(piece.len() as u64);
    }
    bar.finish_and_clear();
    file.seek(SeekFrom::Start(0)).map_err(no_room)?;
    Ok((file, size))
}

/// Demands that an image's archive holds nothing but the image that the soul names: an engine takes every name in it, also that of
/// an image which others run.
///
/// # Errors
/// In words for people.
pub(super) fn check(reference: &str, archive: Slice) -> Result<(), String> {
    /// More than any list of names, in bytes.
    const MOST: u64 = 4 << 20;
    let broken = |error: io::Error| format!("image.tar: {error}");
    let mut found = Vec::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?;
        let name = path.to_str().map(|name| name.trim_start_matches("./")).unwrap_or_default();
        let names: fn(&Value) -> Vec<String> = match name {
            "manifest.json" => in_manifest,
            "repositories" => in_repositories,
            "index.json" => in_index,
            _ => continue,
        };
        if entry.size() > MOST {
            return Err(format!("image.tar: its {name} is too long"));
        }
        let name = name.to_owned();
        let mut text = Vec::new();
        entry.read_to_end(&mut text).map_err(broken)?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| format!("image.tar: {name}: {error}"))?;
        found.extend(names(&value));
    }
    if let Some(other) = found.iter().find(|name| !is_same_image(name, reference)) {
        return Err(format!("image.tar holds the image {other:?}, and the soul names {reference}"));
    }
    if found.is_empty() {
        return Err(format!("image.tar does not name its image {reference}"));
    }
    Ok(())
}

/// The names in docker's list of images.
fn in_manifest(value: &Value) -> Vec<String> {
    let images = value.as_array().into_iter().flatten();
    images.flat_map(|image| strings(&image["RepoTags"])).collect()
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// The names in the list that docker kept before that one.
fn in_repositories(value: &Value) -> Vec<String> {
    let repositories = value.as_object().into_iter().flatten();
    let tags = repositories.flat_map(|(repo, tags)| {
        tags.as_object().into_iter().flatten().map(move |(tag, _)| format!("{repo}:{tag}"))
    });
    tags.collect()
}

/// The names in the index of an OCI layout. What is only a tag there is no name by itself.
fn in_index(value: &Value) -> Vec<String> {
    let manifests = value["manifests"].as_array().into_iter().flatten();
    let names = manifests.flat_map(|manifest| {
        ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .into_iter()
            .filter_map(|key| manifest["annotations"][key].as_str())
            .filter(|name| name.contains(['/', ':']))
    });
    names.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::super::slice::Range;
    use super::*;

    fn checked(reference: &str, files: &[(&str, &str)]) -> Result<(), String> {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let file = slice::spool(temp.path()).expect("made");
        let mut pack = tar::Builder::new(file.try_clone().expect("open"));
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            pack.append_data(&mut header, name, text.as_bytes()).expect("written");
        }
        let mut file_end = pack.into_inner().expect("written");
        let len = file_end.stream_position().expect("a file");
        check(reference, Slice::new(&file, Range { start: 0, len }).expect("a file"))
    }

    #[test]
    fn an_image_brings_no_name_but_its_own() {
        let ours = r#"[{"Config":"c.json","RepoTags":["docker.io/a/b:1"],"Layers":[]}]"#;
        assert_eq!(checked("a/b:1", &[("manifest.json", ours)]), Ok(()));
        let index = r#"{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/a/b:1","org.opencontainers.image.ref.name":"1"}}]}"#;
        assert_eq!(checked("a/b:1", &[("index.json", index), ("manifest.json", ours)]), Ok(()));

        let more = r#"[{"RepoTags":["a/b:1","alpine:latest"]}]"#;
        let refused = [
            ("manifest.json", more),
            ("repositories", r#"{"alpine":{"latest":"0"}}"#),
            ("index.json", r#"{"manifests":[{"annotations":{"io.containerd.image.name":"x:1"}}]}"#),
            ("manifest.json", "{"),
            ("manifest.json", "[]"),
            ("layer.tar", ""),
        ];
        for file in refused {
            checked("a/b:1", &[file]).expect_err(file.1);
        }
        // The last one of a name is what an engine reads.
        checked("a/b:1", &[("manifest.json", ours), ("./manifest.json", more)])
            .expect_err("one of them is another");
    }
}
