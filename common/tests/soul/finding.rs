//! Which files are souls.

use std::fs;
use std::path::{Path, PathBuf};

use common::soul::{FindError, MAX_FILE, NameError, find, name_from_path, read};

/// A folder with some files.
fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for file in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("has one")).expect("created");
        fs::write(path, "MODEL m\nSOUL s\n").expect("written");
    }
    folder
}

fn found(folder: &Path, paths: &[&str]) -> Result<Vec<String>, FindError> {
    let paths: Vec<PathBuf> = paths.iter().map(|path| folder.join(path)).collect();
    let relative = |path: PathBuf| {
        let inside = path.strip_prefix(folder).expect("inside");
        inside.to_string_lossy().into_owned()
    };
    find(&paths).map(|souls| souls.into_iter().map(relative).collect())
}

#[test]
fn the_name_is_the_files_or_the_folders() {
    let name = |path: &str| name_from_path(Path::new(path)).map(String::from);
    assert_eq!(name("/fleet/writer.soul").expect("named"), "writer");
    assert_eq!(name("writer.soul").expect("named"), "writer");
    assert_eq!(name("/fleet/reader/agent.soul").expect("named"), "reader");
    assert_eq!(name("/fleet/x/../reader/./agent.soul").expect("named"), "reader");

    for path in ["/fleet/writer.txt", "/fleet/.soul", "/agent.soul", "/", ""] {
        assert!(matches!(name(path), Err(NameError::NotASoul(_))), "{path}");
    }
    assert_eq!(
        name("/fleet/My Writer.soul").expect_err("a space").to_string(),
        "/fleet/My Writer.soul does not name an agent: invalid agent name \"My Writer\": 1 to 63 of a-z, 0-9 and '-', \
         starting with a letter or digit; did you mean `my-writer`?"
    );
    assert!(matches!(name("/fleet/--.soul"), Err(NameError::Invalid { meant: None, .. })));
}

#[test]
fn a_folder_gives_its_souls_and_one_level_down() {
    let fleet = folder(&[
        "writer.soul",
        "b/agent.soul",
        "b/other.soul",
        "deep/er/agent.soul",
        ".hidden.soul",
        ".git/agent.soul",
        "notes.txt",
        "a.soul",
    ]);
    assert_eq!(
        found(fleet.path(), &["."]).expect("found"),
        ["a.soul", "b/agent.soul", "writer.soul"]
    );
    assert_eq!(found(fleet.path(), &["b"]).expect("found")[0], "b/agent.soul");
}

#[test]
fn files_and_folders_are_taken_once() {
    let fleet = folder(&["a.soul", "b/agent.soul"]);
    let souls =
        found(fleet.path(), &["b/agent.soul", "a.soul", ".", "a.soul", "b"]).expect("found");
    assert_eq!(souls, ["a.soul", "b/agent.soul"]);
}

#[test]
fn two_files_for_one_agent_are_both_named() {
    let fleet = folder(&["writer.soul", "writer/agent.soul"]);
    let error = found(fleet.path(), &[""]).expect_err("twice").to_string();
    let at = fleet.path().display();
    assert_eq!(
        error,
        format!("two souls for agent `writer`: {at}/writer/agent.soul and {at}/writer.soul")
    );
}

#[test]
fn a_soul_of_another_name_one_level_down_is_named() {
    let fleet = folder(&["writer/writer.soul", "writer/notes.txt"]);
    let error = found(fleet.path(), &[""]).expect_err("none").to_string();
    let at = fleet.path().display();
    assert_eq!(
        error.replace(&format!("{at}/"), ""),
        "no soul in : expected writer/agent.soul, not writer/writer.soul"
    );
}

#[test]
fn nothing_is_an_error() {
    let empty = folder(&["notes.txt"]);
    assert!(matches!(found(empty.path(), &["."]), Err(FindError::Nothing(_))));
    assert!(matches!(find(&[]), Err(FindError::Nothing(_))));
    assert!(matches!(found(empty.path(), &["gone.soul"]), Err(FindError::Missing(_))));
    let not_a_soul = found(empty.path(), &["notes.txt"]);
    assert!(matches!(not_a_soul, Err(FindError::Name(NameError::NotASoul(_)))));
}

#[test]
fn a_soul_is_read_no_further_than_it_may_be_long() {
    let folder = folder(&["a.soul"]);
    let path = folder.path().join("a.soul");
    assert_eq!(read(&path).expect("a file"), b"MODEL m\nSOUL s\n");
    fs::write(&path, vec![b'x'; 2 * MAX_FILE]).expect("written");
    assert_eq!(read(&path).expect("a file").len(), MAX_FILE + 1);
    assert!(read(Path::new("/dev/zero")).is_err(), "a device has no end");
    assert!(read(folder.path()).is_err(), "a folder is no file");
}
