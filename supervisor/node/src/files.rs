//! The files that incarnations run with: fetched once, kept as archives under their hashes, and looked at again before each use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, BrokerError, ConnectOptions, FilesFault, Retries};
use common::files::{Files, MAX_BYTES, Sha256};
use common::frame::StartIncarnation;
use common::spec::AgentSpec;
use sha2::Digest as _;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Node;
use super::running::{Key, Seen, Starting, wants_container};
use runtime::files::lay_out;

/// Archives that are fetched at once: each is in memory while it is.
const AT_ONCE: usize = 2;
/// How long a start waits for its files.
const WITHIN: Duration = Duration::from_secs(300);
/// An archive that is damaged on the broker may just be being mended.
const AGAIN: Duration = Duration::from_secs(1);
/// So often it is read again.
const TRIES: u32 = 3;
/// Archives that were not used for this long are removed.
pub(super) const UNUSED: Duration = Duration::from_secs(24 * 3600);
/// And those that were not used for the longest time, if all of them together have more bytes than this.
const MOST: u64 = 16 * MAX_BYTES;
/// A download that is older was interrupted.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The archives that are kept on this host. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    fetches: Semaphore,
    /// Those that are in use by a start.
    used: Mutex<BTreeMap<Sha256, Arc<tokio::sync::Mutex<()>>>>,
}

/// An archive that is not removed as long as this is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) path: PathBuf,
    _use: Arc<tokio::sync::Mutex<()>>,
}

/// What is ready for a start.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) archive: Held,
    pub(super) files: Files,
    /// Where the files are laid out, if a process is to start.
    pub(super) folder: Option<PathBuf>,
}

impl Cache {
    /// Those in a folder, which need not exist.
    pub(super) fn new(folder: PathBuf) -> Self {
        let (fetches, used) = (Semaphore::new(AT_ONCE), Mutex::new(BTreeMap::new()));
        Self { inner: Arc::new(Inner { folder, fetches, used }) }
    }

    fn path(&self, archive: &Sha256) -> PathBuf {
        self.inner.folder.join(format!("{archive}.tar"))
    }

    /// An archive of which every byte was just read. Several starts fetch it once.
    ///
    /// # Errors
    /// A human-readable message.
    pub(super) async fn hold(
        &self,
        files: &Files,
        key: &Key,
        connect: &ConnectOptions,
        progress: impl Fn(String),
    ) -> Result<Held, String> {
        let one = {
            let mut used = self.inner.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.retain(|_, one| Arc::strong_count(one) > 1);
            Arc::clone(used.entry(files.sha256.clone()).or_default())
        };
        let _alone = one.lock().await;
        let path = self.path(&files.sha256);
        if !self.has(files).await? {
            let _turn = self.inner.fetches.acquire().await.map_err(|error| error.to_string())?;
            progress(format!("fetching its files ({} KiB)", files.bytes.div_ceil(1024)));
            let archive = match tokio::time::timeout(WITHIN, fetch(files, key, connect)).await {
                Ok(archive) => archive?,
                Err(_) => {
                    return Err(format!("its files could not be fetched within {WITHIN:?}"));
                }
            };
            let (folder, place) = (self.inner.folder.clone(), path.clone());
            apart(move || keep(&folder, &place, &archive)).await??;
        }
        drop(_alone);
        Ok(Held { path, _use: one })
    }

    /// Whether an archive is here, whole. One that is damaged is removed.
    async fn has(&self, files: &Files) -> Result<bool, String> {
        let (path, wanted) = (self.path(&files.sha256), files.clone());
        apart(move || match check(&path, &wanted) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                tracing::warn!("{} is fetched again: {error}", path.display());
                let removed = match fs::symlink_metadata(&path) {
                    Ok(known) if known.is_dir() => fs::remove_dir_all(&path),
                    _ => fs::remove_file(&path),
                };
                removed
                    .map(|()| false)
                    .map_err(|error| format!("cannot remove {}: {error}", path.display()))
            }
        })
        .await?
    }

    /// Those that are here. Blocks.
    fn kept(&self) -> BTreeSet<Sha256> {
        let entries = fs::read_dir(&self.inner.folder).into_iter().flatten().flatten();
        let name = |entry: fs::DirEntry| Sha256::new(entry.path().file_stem()?.to_str()?).ok();
        entries.filter_map(name).collect()
    }

    /// Removes what was not used for so long, or is too much. What a start uses stays. Blocks.
    pub(super) fn evict(&self, unused: Duration, most: u64) {
        let now = SystemTime::now();
        let mut archives = Vec::new();
        for entry in fs::read_dir(&self.inner.folder).into_iter().flatten().flatten() {
            let Ok(known) = entry.metadata() else { continue };
            let age = known.modified().ok().and_then(|at| now.duration_since(at).ok());
            let age = age.unwrap_or_default();
            let path = entry.path();
            let name = path.file_stem().and_then(|name| Sha256::new(name.to_str()?).ok());
            match name {
                Some(name) if path.extension().is_some_and(|it| it == "tar") => {
                    archives.push((age, known.len(), name));
                }
                _ if age > ABANDONED => remove(&path),
                _ => {}
            }
        }
        archives.sort();
        let mut bytes = 0_u64;
        for (age, size, name) in archives {
            bytes = bytes.saturating_add(size);
            // Nothing begins to be used meanwhile.
            let used = self.inner.used.lock().unwrap_or_else(PoisonError::into_inner);
            let is_used = used.get(&name).is_some_and(|one| Arc::strong_count(one) > 1);
            if !is_used && (age > unused || bytes > most) {
                remove(&self.path(&name));
            }
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!("cannot remove {}: {error}", path.display());
    }
}

/// Whether a file is the archive that it is called after; its use is noted.
fn check(path: &Path, files: &Files) -> io::Result<()> {
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let known = fs::symlink_metadata(path)?;
    if !known.is_file() || known.len() != files.bytes {
        return Err(damaged("it has another length than its archive"));
    }
    let mut file = File::open(path)?;
    let (mut hash, mut chunk) = (sha2::Sha256::new(), vec![0; 256 << 10]);
    loop {
        let read = file.read(&mut chunk)?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
        hash.update(bytes);
    }
    if Sha256::of(hash.finalize().into()) != files.sha256 {
        return Err(damaged("its content is damaged"));
    }
    // A file system that does not take it has it fetched again, some day.
    if let Err(error) = File::options()
        .append(true)
        .open(path)
        .and_then(|file| file.set_modified(SystemTime::now()))
    {
        tracing::debug!("cannot note the use of {}: {error}", path.display());
    }
    Ok(())
}

/// Writes an archive under its name, whole or not at all.
fn keep(folder: &Path, place: &Path, archive: &[u8]) -> Result<(), String> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let draft = place.with_extension(format!("{}.part", std::process::id()));
    let write = || -> io::Result<()> {
        let mut options = File::options();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(archive)?;
        file.sync_all()?;
        fs::rename(&draft, place)
    };
    write().map_err(|error| {
        remove(&draft);
        format!("cannot keep its files in {}: {error}", place.display())
    })
}

/// Reads an archive from the broker, over a connection of its own: a large one must not hold up what the node reports.
async fn fetch(files: &Files, key: &Key, connect: &ConnectOptions) -> Result<Vec<u8>, String> {
    let sha256 = &files.sha256;
    let mut retries = Retries::new("fetching files");
    let mut tries = TRIES;
    loop {
        match read(files, key, connect).await {
            Ok(Ok(archive)) => return Ok(archive),
            Ok(Err(FilesFault::Missing)) => {
                return Err(format!(
                    "its files (sha256 {sha256}) are not on the broker; try: `mozart apply` its soul"
                ));
            }
            Ok(Err(FilesFault::Damaged(why))) => {
                tries -= 1;
                if tries == 0 {
                    return Err(format!(
                        "its files (sha256 {sha256}) are damaged on the broker: {why}; try: `mozart apply` its soul"
                    ));
                }
                tokio::time::sleep(AGAIN).await;
            }
            Err(BrokerError::Refused(why)) => return Err(format!("its files are refused: {why}")),
            Err(error) => retries.pause(&error).await,
        }
    }
}

async fn read(
    files: &Files,
    (agent, incarnation): &Key,
    connect: &ConnectOptions,
) -> Result<Result<Vec<u8>, FilesFault>, BrokerError> {
    let connect = ConnectOptions { name: format!("{}: files", connect.name), ..connect.clone() };
    Broker::connect(&connect).await?.read_files_of(agent, *incarnation, files).await
}

/// Does something that blocks.
///
/// # Errors
/// When it panicked.
pub(crate) async fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}

impl Node {
    /// The files that a start names. A spec that cannot be parsed is refused by whatever starts it.
    pub(super) fn files_of(start: &StartIncarnation) -> Option<Files> {
        serde_json::from_str::<AgentSpec>(&start.spec).ok()?.files
    }

    /// Gets the files of a start ready, outside the loop.
    pub(super) fn prepare(&mut self, start: StartIncarnation, files: Files) {
        let key: Key = (start.agent.clone(), start.incarnation);
        let cancel = CancellationToken::new();
        let (generation, since) = (start.generation, SystemTime::now().into());
        let starting = Starting { cancel: cancel.clone(), generation, since };
        self.starting.insert(key.clone(), starting);
        let is_process = self.process.is_some() && !wants_container(&start);
        let run = is_process.then(|| self.folders.of(&key.0, key.1));
        let (cache, folders) = (self.cache.clone(), self.folders.clone());
        let (connect, home) = (self.options.connect.clone(), self.options.home.clone());
        let preparing = Arc::clone(&self.preparing);
        self.evict_sometimes();
        self.watches.spawn(async move {
            let progress = |doing: String| {
                tracing::info!("{}-{}: {doing}", key.0, key.1);
                if let Ok(mut preparing) = preparing.lock() {
                    preparing.insert(key.clone(), doing);
                }
            };
            let held =
                cancel.run_until_cancelled(cache.hold(&files, &key, &connect, progress)).await;
            let stopped = || Err("stopped while it was being started".to_owned());
            let prepared = async {
                let archive = held.unwrap_or_else(stopped)?;
                let Some(run) = run else {
                    return Ok(Prepared { archive, files, folder: None });
                };
                folders.create(&start.agent, start.incarnation)?;
                let folder = run.join("files");
                let soul = soul_folder(&start);
                let (from, into) = (archive.path.clone(), folder.clone());
                apart(move || lay_out(&from, soul.as_deref(), &into, &home)).await??;
                Ok(Prepared { archive, files, folder: Some(folder) })
            };
            let prepared = prepared.await;
            Seen::Prepared(Box::new(start), prepared)
        });
    }

    /// The files are ready, or cannot be had.
    pub(super) async fn prepared(
        &mut self,
        start: StartIncarnation,
        prepared: Result<Prepared, String>,
    ) {
        let key = (start.agent.clone(), start.incarnation);
        if let Ok(mut preparing) = self.preparing.lock() {
            preparing.remove(&key);
        }
        let cancelled = self.starting.remove(&key).is_none_or(|start| start.cancel.is_cancelled());
        match prepared {
            Ok(_) if cancelled => {
                self.not_started(key, "stopped while it was being started".to_owned()).await;
            }
            Ok(prepared) => self.begin(start, Some(prepared)).await,
            Err(reason) => self.not_started(key, reason).await,
        }
    }

    /// Removes archives that are not used any more, every now and then.
    fn evict_sometimes(&mut self) {
        const EVERY: Duration = Duration::from_secs(60);
        if self.evicted.is_some_and(|at| at.elapsed() < EVERY) {
            return;
        }
        self.evicted = Some(Instant::now());
        let (cache, engine) = (self.cache.clone(), self.engine.clone());
        self.watches.spawn(async move {
            let evicted = apart(move || {
                cache.evict(UNUSED, MOST);
                cache.kept()
            });
            if let (Some(engine), Ok(kept)) = (engine, evicted.await) {
                engine.drop_idle_files(&kept).await;
            }
            Seen::Done
        });
    }

    /// Removes the files of an incarnation that has ended, outside the loop.
    pub(super) fn clear_files(&mut self, (agent, incarnation): &Key) {
        let files = self.folders.of(agent, *incarnation).join("files");
        self.watches.spawn_blocking(move || {
            match fs::remove_dir_all(&files) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::debug!("cannot remove {}: {error}", files.display());
                }
                _ => {}
            }
            Seen::Done
        });
    }
}

/// Where a soul was applied from, whether that is on this host or not.
fn soul_folder(start: &StartIncarnation) -> Option<PathBuf> {
    let spec: AgentSpec = serde_json::from_str(&start.spec).ok()?;
    let folder = Path::new(&spec.source_path).parent().filter(|folder| folder.is_absolute())?;
    Some(folder.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(content: &[u8]) -> Files {
        let sha256 = Sha256::of(sha2::Sha256::digest(content).into());
        Files { sha256, bytes: content.len() as u64 }
    }

    #[tokio::test]
    async fn what_is_kept_is_looked_at_again_and_what_is_damaged_goes() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::new(temp.path().join("files"));
        let files = archive(b"content");
        let path = cache.path(&files.sha256);
        assert!(!cache.has(&files).await.expect("looked at"), "nothing is there yet");
        for damage in [&b"contend"[..], b"conten", b"content and more", b""] {
            keep(&cache.inner.folder, &path, b"content").expect("kept");
            assert!(cache.has(&files).await.expect("looked at"));
            fs::write(&path, damage).expect("written");
            assert!(!cache.has(&files).await.expect("looked at"));
            assert!(!path.exists(), "{damage:?}");
        }
        fs::create_dir_all(path.join("in it")).expect("made");
        assert!(!cache.has(&files).await.expect("looked at") && !path.exists());
        std::os::unix::fs::symlink("/etc/passwd", &path).expect("made");
        assert!(!cache.has(&files).await.expect("looked at") && !path.is_symlink());
    }

    #[tokio::test]
    async fn what_is_unused_or_too_much_goes_and_what_a_start_uses_stays() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let cache = Cache::new(temp.path().to_owned());
        let all: Vec<Files> = (0..4_u8).map(|n| archive(&[n; 10])).collect();
        let kept = || all.iter().map(|one| cache.path(&one.sha256).exists()).collect::<Vec<_>>();
        let ago = |seconds| SystemTime::now() - Duration::from_secs(seconds);
        for (n, files) in all.iter().enumerate() {
            let path = cache.path(&files.sha256);
            keep(temp.path(), &path, &[n as u8; 10]).expect("kept");
            let file = File::options().append(true).open(path).expect("there");
            file.set_modified(ago(100 * (n as u64 + 1))).expect("set");
        }
        let part = temp.path().join("x.part");
        fs::write(&part, "x").expect("written");
        cache.evict(Duration::from_secs(350), 1000);
        assert_eq!(kept(), [true, true, true, false]);
        assert!(part.exists(), "somebody writes it just now");
        let file = File::options().append(true).open(&part).expect("there");
        file.set_modified(ago(2 * ABANDONED.as_secs())).expect("set");
        // One is held: a connection is not needed for what is here.
        let connect = ConnectOptions {
            url: "nats://127.0.0.1:1".into(),
            creds: None,
            ca: None,
            name: "test".into(),
            namespace: common::Namespace::new("test").expect("valid"),
            timeout: Duration::from_millis(10),
            shim: None,
        };
        let key = ("a".parse().expect("valid"), 1);
        let held = cache.hold(&all[2], &key, &connect, |_| {}).await.expect("it is here");
        fs::File::options()
            .append(true)
            .open(&held.path)
            .expect("there")
            .set_modified(ago(900))
            .expect("set");
        cache.evict(Duration::from_secs(1000), 15);
        assert_eq!(kept(), [true, false, true, false]);
        assert!(!part.exists());
        drop(held);
        cache.evict(Duration::from_secs(1000), 15);
        assert_eq!(kept(), [true, false, false, false]);
    }
}
