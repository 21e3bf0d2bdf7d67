//! The folders of the host that a container sees: checked before the engine is asked, because an engine mounts whatever a path
//! leads to.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use bollard::models::{Mount, MountType};
use common::spec::{AgentSpec, Sanctum};

/// The worker's user where neither the image nor a folder suggests one: the number that minimal images use for nobody special.
const NOBODY: u32 = 65_532;

/// Where skills are, within a container.
const SKILLS: &str = "/.mozart-skills";
/// Where the soul's folder is, with `--dev`.
pub(super) const CHECKOUT: &str = "/agent";

/// What must never be within a container.
pub(super) struct Forbidden<'a> {
    /// The engine's socket: who has it has the host.
    pub(super) engine: &'a str,
    /// The data folder: it holds the broker's credentials.
    pub(super) home: &'a Path,
    /// Whether the engine runs as a common user: then no worker may write to a folder of this host.
    pub(super) rootless: bool,
}

/// The mounts of a soul, and whom its worker runs as if its image does not say.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    pub(super) user: u32,
    /// Where the skills are, for the worker.
    pub(super) skills: Vec<String>,
}

/// Checks and collects.
///
/// # Errors
/// A human-readable message: what is not there, not a folder, leads elsewhere, or must not be seen.
pub(super) fn collect(
    spec: &AgentSpec,
    dev: bool,
    forbidden: &Forbidden<'_>,
) -> Result<Mounts, String> {
    let soul = Path::new(&spec.source_path).parent().filter(|folder| folder.is_absolute());
    let mut found = Mounts { user: own_user(), ..Mounts::default() };
    let mut owner = None;
    for sanctum in &spec.sanctums {
        let Sanctum { host, path, read_only, shared: _ } = sanctum;
        let what = format!("SANCTUM {host}:{path}");
        let folder = resolve(&what, Path::new(host), soul, forbidden)?;
        let metadata = std::fs::metadata(&folder).map_err(|error| format!("{what}: {error}"))?;
        if !metadata.is_dir() {
            return Err(format!("{what}: {host} is not a folder"));
        }
        if forbidden.rootless && !read_only {
            return Err(format!(
                "{what}: the engine is rootless: the worker is another user on this host and cannot write there; try: :ro, or the engine as root"
            ));
        }
        if !read_only && owner.is_none() && metadata.uid() != 0 {
            owner = Some(metadata.uid());
        }
        found.mounts.push(bind(&folder, path, *read_only));
    }
    for (index, skill) in spec.skills.iter().enumerate() {
        let real = resolve(&format!("SKILL {skill}"), Path::new(skill), soul, forbidden)?;
        let name = real.file_name().map(|name| name.to_string_lossy().into_owned());
        let inside = format!("{SKILLS}/{index}/{}", name.unwrap_or_default());
        found.mounts.push(bind(&real, &inside, true));
        found.skills.push(inside);
    }
    if let Some(folder) = soul.filter(|_| dev) {
        let real = resolve("the soul's folder, for --dev", folder, None, forbidden)?;
        found.mounts.push(bind(&real, CHECKOUT, true));
    }
    if let Some(owner) = owner {
        found.user = owner;
    }
    Ok(found)
}

/// The user of this node, so that files are the same user's within and without; root becomes nobody.
fn own_user() -> u32 {
    match rustix::process::getuid().as_raw() {
        0 => NOBODY,
        user => user,
    }
}

/// The real location of a path. A symbolic link in it would show a container what a reader of the soul does not expect: it is refused,
/// unless it is above the soul's own folder.
fn resolve(
    what: &str,
    path: &Path,
    soul: Option<&Path>,
    forbidden: &Forbidden<'_>,
) -> Result<PathBuf, String> {
    let real = path.canonicalize().map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            let path = path.display();
            format!("{what}: {path} does not exist; try: `mkdir -p {path}`; if the node is in a container, mount it there, too")
        } else {
            format!("{what}: {error}")
        }
    })?;
    let written = without_dots(path);
    let expected = soul
        .and_then(|soul| Some(soul.canonicalize().ok()?.join(written.strip_prefix(soul).ok()?)))
        .unwrap_or(written);
    if real != expected {
        return Err(format!(
            "{what}: a symbolic link leads from {} to {}; try: use the real path",
            path.display(),
            real.display()
        ));
    }
    let engine = forbidden.engine.strip_prefix("unix://").map(Path::new);
    let socket = engine.and_then(|socket| socket.canonicalize().ok());
    if socket.is_some_and(|socket| socket.starts_with(&real)) {
        return Err(format!("{what}: it contains the container engine's socket"));
    }
    if let Some(cause) = own_data(&real, forbidden.home) {
        return Err(format!("{what}: {cause}"));
    }
    if ["/proc", "/sys", "/dev"].iter().any(|system| real.starts_with(system)) {
        return Err(format!("{what}: {} belongs to the system", real.display()));
    }
    Ok(real)
}

/// Why a location must not be mounted, as a human-readable message; none if it is unrelated to mozart's own data. Both paths are real.
pub fn own_data(real: &Path, home: &Path) -> Option<String> {
    let shown = home.display();
    if home.starts_with(real) {
        return Some(format!(
            "it contains mozart's own data, with the broker's credentials: {shown}"
        ));
    }
    real.starts_with(home)
        .then(|| format!("it is inside mozart's own data, with the broker's credentials: {shown}"))
}

/// The path without `.` and `..`, as it reads.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                plain.push(component);
            }
        }
    }
    plain
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        target: Some(target.to_owned()),
        source: Some(source.to_string_lossy().into_owned()),
        typ: Some(MountType::BIND),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Ground {
        folder: tempfile::TempDir,
    }

    impl Ground {
        fn new() -> Self {
            let ground = Self { folder: tempfile::tempdir().expect("a folder") };
            for name in ["souls/data", "home", "elsewhere"] {
                fs::create_dir_all(ground.path(name)).expect("made");
            }
            fs::write(ground.path("souls/file"), "x").expect("written");
            symlink(ground.path("elsewhere"), ground.path("souls/link")).expect("made");
            ground
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().canonicalize().expect("there").join(name)
        }

        fn collect(&self, host: &Path) -> Result<Mounts, String> {
            let mut spec = AgentSpec::new(AgentName::new("a").expect("valid"), "m", "i");
            spec.source_path = self.path("souls/a.soul").to_string_lossy().into_owned();
            let host = host.to_string_lossy().into_owned();
            spec.sanctums =
                vec![Sanctum { host, path: "/data".into(), read_only: false, shared: false }];
            let home = self.path("home");
            collect(
                &spec,
                false,
                &Forbidden { engine: "unix:///run/x.sock", home: &home, rootless: false },
            )
        }
    }

    #[test]
    fn a_folder_is_mounted_where_the_soul_says() {
        let ground = Ground::new();
        let found = ground.collect(&ground.path("souls/data")).expect("a folder");
        let mount = &found.mounts[0];
        assert_eq!(mount.source.as_deref(), ground.path("souls/data").to_str());
        assert_eq!((mount.target.as_deref(), mount.read_only), (Some("/data"), Some(false)));
    }

    #[test]
    fn what_is_not_there_is_said_and_not_made() {
        let ground = Ground::new();
        let error = ground.collect(&ground.path("souls/missing")).expect_err("missing");
        assert!(error.contains("does not exist") && error.contains("mkdir -p"), "{error}");
        assert!(!ground.path("souls/missing").exists());
        let error = ground.collect(&ground.path("souls/file")).expect_err("a file");
        assert!(error.contains("is not a folder"), "{error}");
    }

    #[test]
    fn a_link_does_not_lead_out() {
        let ground = Ground::new();
        for name in ["souls/link", "souls/link/.."] {
            let error = ground.collect(&ground.path(name)).expect_err("a link");
            assert!(error.contains("symbolic link"), "{name}: {error}");
        }
    }

    #[test]
    fn a_link_above_the_souls_folder_is_the_users_own_affair() {
        let ground = Ground::new();
        symlink(ground.path("souls"), ground.path("moved")).expect("made");
        let mut spec = AgentSpec::new(AgentName::new("a").expect("valid"), "m", "i");
        spec.source_path = ground.path("moved/a.soul").to_string_lossy().into_owned();
        let host = ground.path("moved/data").to_string_lossy().into_owned();
        spec.sanctums =
            vec![Sanctum { host, path: "/data".into(), read_only: true, shared: false }];
        let home = ground.path("home");
        let found = collect(
            &spec,
            false,
            &Forbidden { engine: "unix:///run/x.sock", home: &home, rootless: false },
        );
        let found = found.expect("its own folder");
        assert_eq!(found.mounts[0].source.as_deref(), ground.path("souls/data").to_str());
    }

    #[test]
    fn neither_the_engine_nor_the_credentials_are_seen_inside() {
        let ground = Ground::new();
        let error = ground.collect(&ground.path("")).expect_err("the home is in it");
        assert!(error.contains("credentials"), "{error}");
        fs::create_dir(ground.path("home/nats")).expect("made");
        for name in ["home", "home/nats"] {
            let error = ground.collect(&ground.path(name)).expect_err("it is the home's");
            assert!(error.contains("credentials"), "{name}: {error}");
        }
        fs::create_dir(ground.path("home2")).expect("made");
        ground.collect(&ground.path("home2")).expect("it is not the home's");
        let socket = ground.path("souls/data/engine.sock");
        fs::write(&socket, "").expect("written");
        let engine = format!("unix://{}", socket.display());
        let home = ground.path("home");
        let forbidden = Forbidden { engine: &engine, home: &home, rootless: false };
        let error = resolve("it", &ground.path("souls/data"), None, &forbidden);
        assert!(error.is_err_and(|error| error.contains("socket")));
        let error = resolve("it", Path::new("/proc/1"), None, &forbidden);
        assert!(error.is_err_and(|error| error.contains("belongs to the system")));
    }
}
