//! The SANCTUMs of an agent that moves to another node: read into parts there, and written from them here.
//!
//! Every path, mode, owner, time and byte arrives as it was; holes stay holes, and links are copied as they are. Hard links become files
//! of their own, extended attributes are left out, and so are sockets, pipes and devices.

mod pack;
mod place;
mod unpack;

pub use pack::{measure, pack};
pub use place::{Identity, Place, free, look, place, put_aside, remove_draft};
pub use unpack::Unpack;

use std::io;
use std::path::Path;

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    /// All parts of a folder.
    fn parts(folder: &Path) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        pack(&[Some(folder.to_owned()), None], |part| {
            parts.push(part);
            true
        });
        parts
    }

    fn unpack(parts: &[Vec<u8>], draft: &Path) -> Result<Vec<bool>, String> {
        let mut unpack = Unpack::into(vec![draft.to_owned(), draft.with_extension("none")]);
        for part in parts {
            if let Some(begun) = unpack.take(part)? {
                return Ok(begun);
            }
        }
        Err("it does not end".to_owned())
    }

    #[test]
    fn a_folder_arrives_as_it_was_and_a_damaged_or_incomplete_one_does_not() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let root = temp.path().join("data");
        fs::create_dir_all(root.join("sub/empty")).expect("made");
        fs::write(root.join("sub/large"), vec![7; 3 << 20]).expect("written");
        symlink("sub/large", root.join("link")).expect("made");
        let sparse = fs::File::create(root.join("sparse")).expect("made");
        sparse.set_len(1 << 30).expect("set");
        let closed = fs::Permissions::from_mode(0o1510);
        fs::set_permissions(root.join("sub"), closed).expect("set");
        let parts = parts(&root);
        let sent: usize = parts.iter().map(Vec::len).sum();
        assert!(sent < 4 << 20, "holes are not sent: {sent}");
        assert!(parts.iter().all(|part| part.len() < 1 << 20), "each fits a message");
        let draft = temp.path().join("draft");
        assert_eq!(unpack(&parts, &draft), Ok(vec![true, false]));
        assert_eq!(fs::read(draft.join("link")).expect("there"), vec![7; 3 << 20]);
        let of = |path: &Path| {
            let known = fs::symlink_metadata(path).expect("it is there");
            (known.mode(), known.len(), known.mtime(), known.mtime_nsec(), known.blocks() < 9000)
        };
        for name in ["", "sub", "sub/empty", "sub/large", "sparse"] {
            let (before, after) = (of(&root.join(name)), of(&draft.join(name)));
            assert_eq!((before.0, before.2, before.3), (after.0, after.2, after.3), "{name}");
            assert_eq!(before.4, after.4, "{name} has holes");
        }
        assert_eq!(of(&draft.join("sparse")).1, 1 << 30);

        let other = temp.path().join("other");
        let mut damaged = parts.clone();
        let middle = damaged[1].len() / 2;
        damaged[1][middle] ^= 1;
        let said = unpack(&damaged, &other).expect_err("damaged");
        assert!(said.contains("is not what was sent"), "{said}");
        let lacking = temp.path().join("lacking");
        let without = [&parts[..1], &parts[2..]].concat();
        assert!(unpack(&without, &lacking).is_err());
        remove_draft(&other).expect("removed");
        assert_eq!(remove_draft(&other), Ok(()), "again");
    }

    #[test]
    fn only_what_is_empty_is_replaced_and_what_is_left_is_renamed_once() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (path, draft) = (temp.path().join("data"), temp.path().join("draft"));
        fs::create_dir_all(draft.join("new")).expect("made");
        assert_eq!(look(&path), Ok(Place::Free));
        fs::create_dir(&path).expect("made");
        assert_eq!(look(&path), Ok(Place::Empty));
        fs::write(path.join("mine"), "").expect("written");
        assert!(matches!(look(&path), Ok(Place::Taken(_))));
        assert!(place(&draft, &path).is_err() && path.join("mine").exists());
        let aside = put_aside(&path, ".moved");
        assert_eq!(aside, temp.path().join("data.moved"));
        assert_eq!(put_aside(&path, ".moved"), aside, "the answer was lost");
        assert_eq!(place(&draft, &path), Ok(()));
        assert_eq!(put_aside(&path, ".moved"), path, "both are there: nothing is replaced");
        assert!(path.join("new").exists() && aside.join("mine").exists());
        symlink("/etc", temp.path().join("elsewhere")).expect("made");
        assert!(matches!(look(&temp.path().join("elsewhere")), Ok(Place::Taken(_))));
    }
}
