//! Whom the worker runs as, in a container: the image's user, or one that is given; never root.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use common::shim::WorkerUser;
use common::spec::Sanctum;

/// A user and group, and the home folder if it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: Option<String>,
}

/// Finds out who is meant.
///
/// # Errors
/// When the image names a user or group that its own files do not know.
pub(crate) fn resolve(wanted: &WorkerUser) -> Result<User, String> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    resolve_in(wanted, &read("/etc/passwd"), &read("/etc/group"))
}

/// Lets everybody write to folders in memory: an engine that mounts one over a folder of the image gives it that one's mode, whatever
/// mode it was asked for (runc).
pub(crate) fn open_folders(folders: &[String]) {
    for folder in folders {
        let open = std::fs::Permissions::from_mode(0o1777);
        if let Err(error) = std::fs::set_permissions(folder, open) {
            tracing::warn!("the worker may not be able to write to {folder}: {error}");
        }
    }
}

fn resolve_in(wanted: &WorkerUser, passwd: &str, group: &str) -> Result<User, String> {
    let given = User { uid: wanted.id, gid: wanted.id, home: None };
    let Some(image) = wanted.image.as_deref().filter(|image| !image.is_empty()) else {
        return Ok(given);
    };
    let (user, of_group) = match image.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image, None),
    };
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
        // Numbers first: a name may not consist of digits alone.
        fields.get(2) == Some(&user) || fields.first() == Some(&user)
    });
    let field = |index: usize| entry.as_ref().and_then(|fields| fields.get(index)).copied();
    let number = |index: usize| field(index).and_then(|text| text.parse().ok());
    let uid: u32 = user.parse().ok().or_else(|| number(2)).ok_or_else(|| {
        format!("the image's USER {image:?} is not in its /etc/passwd; try: a number as USER")
    })?;
    if uid == 0 {
        return Ok(given);
    }
    let gid = match of_group {
        Some(name) => name.parse().ok().or_else(|| gid_of(group, name)).ok_or_else(|| {
            format!("the image's USER {image:?} names a group that is not in its /etc/group")
        })?,
        None => number(3).unwrap_or(uid),
    };
    Ok(User { uid, gid, home: field(5).filter(|home| !home.is_empty()).map(str::to_owned) })
}

fn gid_of(group: &str, name: &str) -> Option<u32> {
    let mut entries = group.lines().map(|line| line.split(':').collect::<Vec<_>>());
    entries.find(|fields| fields.first() == Some(&name))?.get(2)?.parse().ok()
}

/// Checks that the worker may write where its soul says so: else it would only find out in the middle of a turn.
///
/// # Errors
/// Which folder it may not write to, and what helps.
pub(crate) fn check_folders(sanctums: &[Sanctum], user: &User) -> Result<(), String> {
    for sanctum in sanctums.iter().filter(|sanctum| !sanctum.read_only) {
        let folder = std::fs::metadata(Path::new(&sanctum.path))
            .map_err(|error| format!("SANCTUM {}: {error}", sanctum.path))?;
        if !may_write(folder.mode(), (folder.uid(), folder.gid()), user) {
            return Err(format!(
                "SANCTUM {}: the worker, as user {}, may not write to {}; try: `chown {} {}` there, or :ro",
                sanctum.path, user.uid, sanctum.host, user.uid, sanctum.host
            ));
        }
    }
    Ok(())
}

fn may_write(mode: u32, (uid, gid): (u32, u32), user: &User) -> bool {
    let bits = match (uid == user.uid, gid == user.gid) {
        (true, _) => mode >> 6,
        (false, true) => mode >> 3,
        (false, false) => mode,
    };
    bits & 0o3 == 0o3
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1001:Node:/home/node:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nstaff:x:50:node\n";

    fn user(image: Option<&str>) -> Result<(u32, u32, Option<String>), String> {
        let wanted = WorkerUser { image: image.map(Into::into), id: 65532 };
        resolve_in(&wanted, PASSWD, GROUP).map(|user| (user.uid, user.gid, user.home))
    }

    #[test]
    fn the_images_user_counts_unless_it_is_root() {
        let home = Some("/home/node".to_owned());
        for (image, expected) in [
            (None, (65532, 65532, None)),
            (Some(""), (65532, 65532, None)),
            (Some("root"), (65532, 65532, None)),
            (Some("0:0"), (65532, 65532, None)),
            (Some("node"), (1000, 1001, home.clone())),
            (Some("1000"), (1000, 1001, home.clone())),
            (Some("node:staff"), (1000, 50, home.clone())),
            (Some("1000:7"), (1000, 7, home)),
            (Some("1234"), (1234, 1234, None)),
        ] {
            assert_eq!(user(image), Ok(expected), "{image:?}");
        }
    }

    #[test]
    fn a_user_that_the_image_does_not_know_is_an_error() {
        assert!(user(Some("nobody-there")).is_err_and(|error| error.contains("/etc/passwd")));
        assert!(user(Some("node:nogroup")).is_err_and(|error| error.contains("/etc/group")));
    }

    #[test]
    fn writing_takes_the_bits_of_the_first_class_that_fits() {
        let user = User { uid: 5, gid: 6, home: None };
        for (mode, owner, expected) in [
            (0o700, (5, 0), true),
            (0o077, (5, 6), false),
            (0o070, (0, 6), true),
            (0o755, (0, 0), false),
            (0o777, (0, 0), true),
            (0o766, (0, 0), false),
        ] {
            assert_eq!(may_write(mode, owner, &user), expected, "{mode:o} {owner:?}");
        }
    }
}
