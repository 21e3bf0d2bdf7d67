//! The image of an agent: whether it is included, how it leaves the engine, and whether an archive's image is what it claims to be.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::pin::pin;

use common::api::ApiError;
use futures_util::StreamExt as _;
use serde_json::Value;
use tar::EntryType;

use super::alike::{alike, bounded};
use super::manifest::Image;
use super::names::shown;
use super::slice::Slice;
use super::{progress, slice};
use crate::output;
use common::failure;
use runtime::engine::{Connection, Found, is_same_image};

/// Whether an image is to be included.
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
    /// None if it is not included.
    pub(super) from: Option<(Connection, Found)>,
}

/// Whether the image is included, and from which engine.
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
        let cause =
            format!("{reference} is a reference by digest, which only a registry can resolve");
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

/// Fetches the image into a temporary file, since the archive must state its length first.
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
        failure::file(what, &error, "free some space there, or use --without-image")
    };
    let mut file = slice::spool(aside).map_err(no_room)?;
    let bar = progress(found.size, "saving the image");
    let mut pieces = pin!(engine.save(reference));
    let mut size = 0;
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(|cause| {
            let what = format!("{what}: {} cannot save the image", engine.kind.as_str());
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
/// an image which others run. What an engine might read otherwise than it is read here is refused.
///
/// # Errors
/// A human-readable message.
pub(super) fn check(reference: &str, mut archive: Slice) -> Result<(), String> {
    /// More than any list of names, in bytes.
    const MOST: u64 = 4 << 20;
    let broken = |error: io::Error| format!("image.tar: {error}");
    if is_compressed(&mut archive).map_err(broken)? {
        // An engine would unpack it, and find what nobody has seen here.
        return Err("image.tar is compressed".to_owned());
    }
    bounded(&mut archive)
        .and_then(|()| archive.rewind().map_err(|error| error.to_string()))
        .map_err(|error| format!("image.tar: {error}"))?;
    let mut found = Vec::new();
    let mut lists = HashSet::new();
    let mut links = HashSet::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries_with_seek().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let (path, kind) = alike(&mut entry).map_err(|error| format!("image.tar: {error}"))?;
        if path.ancestors().any(|above| links.contains(above)) {
            return Err(format!("image.tar: {} is at or below a link", shown(&path)));
        }
        if matches!(kind, EntryType::Symlink | EntryType::Link) {
            links.insert(path.clone());
        }
        let names: fn(&Value) -> Vec<String> = match path.to_str() {
            Some("manifest.json") => in_manifest,
            Some("repositories") => in_repositories,
            Some("index.json") => in_index,
            Some(_) | None => continue,
        };
        let name = path.display();
        if kind != EntryType::Regular {
            return Err(format!("image.tar: its {name} is not a file"));
        }
        if !lists.insert(path.clone()) {
            // Which of the two counts is up to the engine.
            return Err(format!("image.tar: {name} appears twice"));
        }
        if entry.size() > MOST {
            return Err(format!("image.tar: its {name} is too long"));
        }
        let mut text = Vec::new();
        entry.read_to_end(&mut text).map_err(broken)?;
        let value: Value =
            serde_json::from_slice(&text).map_err(|error| format!("image.tar: {name}: {error}"))?;
        found.extend(names(&value));
    }
    if let Some(other) = found.iter().find(|name| !is_same_image(name, reference)) {
        return Err(format!("image.tar holds the image {other:?}, but the soul names {reference}"));
    }
    if found.is_empty() {
        return Err(format!("image.tar does not name its image {reference}"));
    }
    Ok(())
}

/// Whether it begins as something compressed does that an engine unpacks by itself.
fn is_compressed(archive: &mut Slice) -> io::Result<bool> {
    let mut first = Vec::new();
    archive.by_ref().take(6).read_to_end(&mut first)?;
    archive.rewind()?;
    let magics: [&[u8]; 4] =
        [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd\x37\x7a\x58\x5a\x00"];
    // A frame of zstd that is skipped, with others behind it.
    let is_skipped = matches!(first.as_slice(), [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]);
    Ok(is_skipped || magics.iter().any(|magic| first.starts_with(magic)))
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

    const OURS: &str = r#"[{"Config":"c.json","RepoTags":["docker.io/a/b:1"],"Layers":[]}]"#;
    const MORE: &str = r#"[{"RepoTags":["a/b:1","alpine:latest"]}]"#;

    /// Entries with names that the crate itself would refuse.
    fn packed(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut pack = tar::Builder::new(Vec::new());
        for (name, kind, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_size(text.len() as u64);
            let gnu = header.as_gnu_mut().expect("it is one");
            gnu.name[..name.len()].copy_from_slice(name.as_bytes());
            gnu.linkname[..1].copy_from_slice(b"x");
            header.set_cksum();
            pack.append(&header, text.as_bytes()).expect("written");
        }
        pack.into_inner().expect("written")
    }

    fn checked_bytes(bytes: &[u8]) -> Result<(), String> {
        let mut file = slice::spool(&std::env::temp_dir()).expect("made");
        file.write_all(bytes).expect("written");
        let len = bytes.len() as u64;
        check("a/b:1", Slice::new(&file, Range { start: 0, len }).expect("a file"))
    }

    fn checked(files: &[(&str, &str)]) -> Result<(), String> {
        let entries: Vec<_> =
            files.iter().map(|(name, text)| (*name, EntryType::Regular, *text)).collect();
        checked_bytes(&packed(&entries))
    }

    #[test]
    fn an_image_brings_no_name_but_its_own() {
        assert_eq!(checked(&[("manifest.json", OURS)]), Ok(()));
        let index = r#"{"manifests":[{"annotations":{"io.containerd.image.name":"docker.io/a/b:1","org.opencontainers.image.ref.name":"1"}}]}"#;
        assert_eq!(checked(&[("index.json", index), ("./manifest.json", OURS)]), Ok(()));

        let refused = [
            ("manifest.json", MORE),
            ("repositories", r#"{"alpine":{"latest":"0"}}"#),
            ("index.json", r#"{"manifests":[{"annotations":{"io.containerd.image.name":"x:1"}}]}"#),
            ("manifest.json", "{"),
            ("manifest.json", "[]"),
            ("layer.tar", ""),
        ];
        for file in refused {
            checked(&[file]).expect_err(file.1);
        }
    }

    #[test]
    fn no_list_of_names_is_under_a_name_that_an_engine_reads_otherwise() {
        for name in ["x/../manifest.json", "/manifest.json", "../manifest.json", "x/.."] {
            let error = checked(&[("manifest.json", OURS), (name, MORE)]).expect_err(name);
            assert!(error.contains("points outside"), "{name}: {error}");
        }
        for name in ["manifest.json", "./manifest.json", ".//manifest.json", "./././manifest.json"]
        {
            let error = checked(&[("manifest.json", OURS), (name, MORE)]).expect_err(name);
            assert!(error.contains("twice"), "{name}: {error}");
        }
        let ours = ("manifest.json", EntryType::Regular, OURS);
        for kind in [EntryType::Symlink, EntryType::Link] {
            // Old lists of layers have links to files.
            assert_eq!(checked_bytes(&packed(&[("0/layer.tar", kind, ""), ours])), Ok(()));
            for name in ["l", "l/manifest.json", "./l/x/manifest.json"] {
                let below = packed(&[ours, ("l", kind, ""), (name, EntryType::Regular, MORE)]);
                let error = checked_bytes(&below).expect_err(name);
                assert!(error.contains("below a link"), "{name}: {error}");
            }
            let list = checked_bytes(&packed(&[("manifest.json", kind, "")]));
            assert!(list.is_err_and(|error| error.contains("is not a file")));
        }
    }

    #[test]
    fn an_image_is_not_compressed() {
        let magics: [&[u8]; 5] = [
            b"\x1f\x8b",
            b"\x28\xb5\x2f\xfd",
            b"\x5a\x2a\x4d\x18",
            b"BZh",
            b"\xfd\x37\x7a\x58\x5a\x00",
        ];
        for magic in magics {
            let mut bytes = packed(&[("manifest.json", EntryType::Regular, OURS)]);
            bytes[..magic.len()].copy_from_slice(magic);
            let error = checked_bytes(&bytes).expect_err("it begins so");
            assert!(error.contains("compressed"), "{magic:?}: {error}");
        }
    }
}
