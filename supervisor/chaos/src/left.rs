//! Where a run keeps what it has, and what a run that was killed has left: processes, streams and a folder.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::{Attempt as _, Broker, BrokerError, ConnectOptions, Reset, without_login};
use common::api::ApiError;
use common::{Namespace, failure};
use runtime::{labels, lock};
use tokio::task::JoinSet;

/// What the namespaces of all runs begin with; nothing else is ever removed.
const PREFIX: &str = "chaos-";
/// The folder of all runs, in the data folder.
const FOLDER: &str = "chaos";
/// Where a run notes its broker, without credentials.
const BROKER: &str = "broker";
/// What a run has come to; it is there if the run was kept.
const LEDGER: &str = "ledger.json";
/// How long the broker may take to be reached.
const CONNECT: Duration = Duration::from_secs(5);

/// The folder of a run. Locked for as long as the run takes.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) folder: PathBuf,
    pub(crate) namespace: Namespace,
    _lock: Option<File>,
}

impl Site {
    /// A new one.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn make(home: &Path, url: &str) -> Result<Self, ApiError> {
        let root = home.join(FOLDER);
        let failed = |error: io::Error| {
            let what = format!("cannot make a folder in {}", root.display());
            failure::file(what, &error, "check the disk space and permissions there, or --dir DIR")
        };
        let random = uuid::Uuid::now_v7().simple().to_string();
        // The last digits are the random ones.
        let name = format!("{PREFIX}{}", random.get(24..).unwrap_or(&random));
        let namespace = Namespace::new(&name).map_err(io::Error::other).map_err(failed)?;
        let folder = root.join(&name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder);
        made.map_err(failed)?;
        let lock = lock::take(&folder)?;
        let site = Self { folder, namespace, _lock: lock };
        site.put(BROKER, without_login(url).as_bytes()).map_err(failed)?;
        Ok(site)
    }

    /// Those of runs that are over.
    fn over(home: &Path) -> Vec<Self> {
        let folders = fs::read_dir(home.join(FOLDER)).into_iter().flatten().flatten();
        let sites = folders.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let namespace = name.starts_with(PREFIX).then(|| Namespace::new(&name).ok())??;
            let folder = entry.path();
            let lock = lock::take(&folder).ok()??;
            Some(Self { folder, namespace, _lock: Some(lock) })
        });
        sites.collect()
    }

    /// That of a run that was kept.
    ///
    /// # Errors
    /// 3 if there is none.
    pub(crate) fn kept(home: &Path, namespace: &Namespace) -> Result<Self, ApiError> {
        let all = Self::over(home).into_iter();
        let mut kept = all.filter(Self::is_kept);
        kept.find(|site| site.namespace == *namespace).ok_or_else(|| {
            let what = format!("no run in {namespace} was kept");
            let cause = format!("{} has no ledger of it", home.join(FOLDER).display());
            failure::error(failure::NOT_FOUND, what, cause, "`mozart chaos --keep`")
        })
    }

    fn is_kept(&self) -> bool {
        self.folder.join(LEDGER).is_file()
    }

    fn put(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut file = File::options();
        let file = file.create(true).truncate(true).write(true).mode(0o600);
        file.open(self.folder.join(name))?.write_all(content)
    }

    /// Writes down what the run has come to: it is kept then.
    pub(crate) fn keep(&self, ledger: &[u8]) -> io::Result<()> {
        self.put(LEDGER, ledger)
    }

    pub(crate) fn ledger(&self) -> io::Result<Vec<u8>> {
        fs::read(self.folder.join(LEDGER))
    }

    /// Kills what incarnations of the run have left, which name its folder in their environment.
    pub(crate) async fn sweep(&self) {
        let folder = self.folder.clone();
        let mut sweeping = JoinSet::new();
        sweeping.spawn_blocking(move || labels::sweep(&folder));
        let _swept = sweeping.join_next().await;
    }

    /// Removes the streams of the run, then its folder.
    ///
    /// # Errors
    /// When the broker does not answer, or files cannot be removed: the folder then stays, and a later run tries again.
    pub(crate) async fn remove(&self, connect: &ConnectOptions) -> Result<(), ApiError> {
        let what = format!("cannot remove the streams of {}", self.namespace);
        let timeout = CONNECT;
        let options =
            ConnectOptions { namespace: self.namespace.clone(), timeout, ..connect.clone() };
        match Broker::connect(&options).await {
            Ok(broker) => broker.reset(Reset::All).await.attempt(&what)?,
            Err(BrokerError::NoStreams(_)) => {}
            Err(error) => return Err(broker::failure(&what, error)),
        }
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let what = format!("cannot remove {}", self.folder.display());
                return Err(failure::file(what, &error, "remove it yourself"));
            }
            Ok(()) | Err(_) => {}
        }
        // Once the last run is gone.
        let _others = self.folder.parent().map(fs::remove_dir);
        Ok(())
    }

    /// Whether the run used this broker.
    fn is_of(&self, url: &str) -> bool {
        let noted = fs::read_to_string(self.folder.join(BROKER)).unwrap_or_default();
        // One that was killed before it noted that has no streams either.
        noted.is_empty() || noted == without_login(url)
    }
}

/// Waits for the end of stdin, which is that of the run, and kills what its nodes have left: nodes end with the run, and agents outlive them.
///
/// # Errors
/// When stdin cannot be read.
pub fn sweep_at_end(folder: &Path) -> io::Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    labels::sweep(folder);
    Ok(())
}

/// Removes what runs have left that were killed, and with `kept` also what was kept. Says what it does.
///
/// # Errors
/// The first one of [`Site::remove`].
pub(crate) async fn clean(
    home: &Path,
    connect: &ConnectOptions,
    kept: bool,
    tell: &dyn Fn(&str),
) -> Result<usize, ApiError> {
    let mut removed = 0;
    for site in Site::over(home).into_iter().filter(|site| kept || !site.is_kept()) {
        site.sweep().await;
        let namespace = &site.namespace;
        if !site.is_of(&connect.url) {
            tell(&format!(
                "{namespace} was left on another NATS server; `mozart chaos --clean --nats URL` removes it there"
            ));
            continue;
        }
        site.remove(connect).await?;
        removed += 1;
        tell(&format!("removed what an earlier run has left: {namespace}"));
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_runs_that_are_over_are_found_and_the_kept_ones_are_told_apart() {
        let home = tempfile::tempdir().expect("a temporary folder");
        let make = || Site::make(home.path(), "nats://u:p@h").expect("made");
        let (running, killed, kept) = (make(), make(), make());
        kept.keep(b"{}").expect("written");
        let names = [killed.namespace.clone(), kept.namespace.clone()];
        // Of somebody else.
        fs::create_dir(home.path().join("chaos/mine")).expect("made");
        drop((killed, kept));
        let mut over: Vec<_> = Site::over(home.path());
        over.sort_by_key(Site::is_kept);
        let found: Vec<_> = over.iter().map(|site| site.namespace.clone()).collect();
        assert_eq!(found, names);
        assert!(over.iter().all(|site| site.is_of("nats://h") && !site.is_of("nats://i")));
        drop(over);
        assert!(Site::kept(home.path(), &names[1]).is_ok());
        assert_eq!(Site::kept(home.path(), &names[0]).map_err(|error| error.code).err(), Some(3));
        drop(running);
    }
}
