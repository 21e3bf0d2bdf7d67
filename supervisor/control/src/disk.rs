//! The disk under the broker, if this process is on the same machine: answers queries about how full it is, and logs warnings.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::{Broker, Subscription};
use common::storage::{Disk, Fault, Level, REFUSE};
use tokio::time::MissedTickBehavior;

/// How often it is looked at without being asked.
const EVERY: Duration = Duration::from_secs(10);

/// How long a file may be missing: the server puts a new folder in place of one that it empties.
const REPLACED: Duration = Duration::from_millis(100);

/// Answers and warns forever.
pub(super) async fn watch(broker: &Broker, store: Option<PathBuf>) {
    let Some(store) = store else { return std::future::pending().await };
    let mut known = Known::default();
    let mut is_said = false;
    loop {
        // Whoever cannot tell does not listen: nobody is to wait for that.
        if known.measure(&store).await.is_none() {
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!(
                    "cannot tell how full the disk of {} is: is this the folder of the broker's data?",
                    store.display()
                );
            }
        } else {
            match broker.subscribe(broker.subjects().disk(), None).await {
                Ok(asked) => answer(broker, &store, asked, &mut known).await,
                Err(error) => tracing::debug!("cannot listen for disk queries: {error}"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Answers as long as it can be told.
async fn answer(broker: &Broker, store: &Path, mut asked: Subscription, known: &mut Known) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let question = tokio::select! {
            question = asked.next() => match question {
                Some(question) => Some(question),
                None => return,
            },
            _ = tick.tick() => None,
        };
        let Some(disk) = known.measure(store).await else { return };
        if let Some(question) = question
            && let Err(error) = broker.tell_disk(question, disk).await
        {
            tracing::debug!("cannot tell how full {} is: {error}", store.display());
        }
        let level = disk.level();
        if level != known.level {
            say(store, disk, level);
            known.level = level;
        }
    }
}

fn say(store: &Path, disk: Disk, level: Level) {
    let (percent, free, store) = (disk.percent(), disk.free >> 20, store.display());
    let kept = disk.margin() >> 20;
    if let Some(fault) = disk.fault {
        tracing::error!("{fault} ({store}): new messages are refused");
        return;
    }
    match level {
        Level::Full => tracing::error!(
            "the disk of {store} is {percent} % full ({free} MiB free): new messages are refused"
        ),
        Level::Low => tracing::warn!(
            "the disk of {store} is {percent} % full ({free} MiB free): new messages are refused from {REFUSE} % on, when less than {kept} MiB are free"
        ),
        Level::Fine => {
            tracing::info!("the disk of {store} has enough free space again ({free} MiB free)")
        }
    }
}

/// What is known of the disk from before.
#[derive(Debug)]
struct Known {
    level: Level,
    /// Which of the broker's files were there.
    files: Files,
}

impl Default for Known {
    fn default() -> Self {
        Self { level: Level::Fine, files: Files::default() }
    }
}

/// The broker's files, as far as they are looked at.
#[derive(Debug, Clone, Default)]
struct Files {
    /// The folders of JetStream and of our streams.
    folders: BTreeSet<PathBuf>,
    /// The number of the newest block of each stream, in which it stores what comes, and the inode of the folder that this is in. The server
    /// removes older blocks once nothing in them is needed, but never this one.
    newest: BTreeMap<PathBuf, (u64, u64)>,
}

impl Files {
    /// Whether something that was there is missing now, which the server has not removed.
    fn miss(&self, now: &Self) -> bool {
        let is_gone = |(stream, (newest, folder)): (&PathBuf, &(u64, u64))| {
            now.newest.get(stream).is_none_or(|(now, of)| folder == of && now < newest)
        };
        !self.folders.is_subset(&now.folders) || self.newest.iter().any(is_gone)
    }
}

impl Known {
    /// The disk of a folder; none if it does not tell. A file system that does not answer keeps nothing else waiting.
    async fn measure(&mut self, store: &Path) -> Option<Disk> {
        let had_files = !self.files.folders.is_empty();
        let (mut disk, mut files) = look_within(store, had_files).await?;
        if self.files.miss(&files) {
            tokio::time::sleep(REPLACED).await;
            (disk, files) = look_within(store, had_files).await?;
        }
        if self.files.miss(&files) {
            return Some(Disk { fault: Some(Fault::Removed), ..disk });
        }
        self.files = files;
        Some(disk)
    }
}

async fn look_within(store: &Path, had_files: bool) -> Option<(Disk, Files)> {
    const WITHIN: Duration = Duration::from_secs(1);
    let store = store.to_owned();
    let told = tokio::task::spawn_blocking(move || look(&store, had_files));
    tokio::time::timeout(WITHIN, told).await.ok()?.ok()?
}

/// The disk of a folder, and what there is of JetStream and of our streams in it. If it had some, it may have been removed as a whole.
fn look(store: &Path, had_files: bool) -> Option<(Disk, Files)> {
    let entries = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let folders_in = |folder: &Path| {
        let mut entries = entries(folder);
        entries.retain(|path| path.is_dir());
        entries
    };
    let mut files = Files::default();
    for jetstream in [store.join("data/jetstream"), store.join("jetstream")] {
        let accounts = folders_in(&jetstream);
        // A replica that has more than the others agreed on is cut back: there it may go.
        let is_replica = accounts.iter().any(|account| account.join("_js_").is_dir());
        let streams = accounts.iter().flat_map(|account| folders_in(&account.join("streams")));
        let streams = streams.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("MOZART_") || name.starts_with("KV_MOZART_")
        });
        for stream in streams {
            let blocks = stream.join("msgs");
            let number = |path: &PathBuf| -> Option<u64> {
                path.file_name()?.to_str()?.strip_suffix(".blk")?.parse().ok()
            };
            let newest = entries(&blocks).iter().filter_map(number).max();
            let newest = newest.filter(|_| !is_replica);
            if let Some(of) = newest.zip(std::fs::metadata(&blocks).ok().map(|it| it.ino())) {
                files.newest.insert(stream.clone(), of);
            }
            files.folders.insert(stream);
        }
        files.folders.extend(jetstream.is_dir().then_some(jetstream));
    }
    let existing = store.ancestors().find(|folder| folder.exists()).filter(|_| had_files);
    let told = rustix::fs::statvfs(existing.unwrap_or(store)).ok()?;
    let disk = Disk::of_blocks(told.f_blocks, told.f_bfree, told.f_bavail, told.f_frsize);
    (disk.total > 0).then_some((disk, files))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn files_that_were_there_and_are_gone_are_a_fault() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut known = Known::default();
        let fault = async |known: &mut Known| known.measure(temp.path()).await.expect("told").fault;
        assert_eq!(fault(&mut known).await, None, "a new one");
        fs::create_dir_all(temp.path().join("data/jetstream")).expect("made");
        assert_eq!(fault(&mut known).await, None);
        fs::remove_dir_all(temp.path().join("data")).expect("removed");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed));
        fs::create_dir_all(temp.path().join("data/jetstream")).expect("put back");
        assert_eq!(fault(&mut known).await, None);
        let stream = temp.path().join("data/jetstream/$G/streams/MOZART_default_JOURNAL_0");
        fs::create_dir_all(&stream).expect("made");
        assert_eq!(fault(&mut known).await, None);
        fs::remove_dir(&stream).expect("removed");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "one stream of it");
        fs::create_dir_all(&stream).expect("put back");
        assert_eq!(fault(&mut known).await, None);
        fs::remove_dir_all(temp.path()).expect("removed");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "with all around it");
        let mut unknown = Known::default();
        assert!(unknown.measure(temp.path()).await.is_none(), "it was never there");
    }

    #[tokio::test]
    async fn the_block_that_is_written_to_must_stay() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut known = Known::default();
        let fault = async |known: &mut Known| known.measure(temp.path()).await.expect("told").fault;
        let msgs = temp.path().join("jetstream/$G/streams/MOZART_default_CONTROL/msgs");
        fs::create_dir_all(&msgs).expect("made");
        let put = |number: u32| fs::write(msgs.join(format!("{number}.blk")), b"").expect("put");
        let remove = |number: u32| fs::remove_file(msgs.join(format!("{number}.blk")));
        (1..=3).for_each(put);
        assert_eq!(fault(&mut known).await, None);
        remove(1).expect("it is there");
        assert_eq!(fault(&mut known).await, None, "nothing in it is needed any more");
        remove(3).expect("it is there");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "the newest");
        put(3);
        assert_eq!(fault(&mut known).await, None);
        for block in [2, 3] {
            remove(block).expect("it is there");
        }
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "all of them");
        put(4);
        assert_eq!(fault(&mut known).await, None, "purged: the next one is there");
        // A stream that was made anew has another folder, while the old one still exists.
        fs::rename(&msgs, msgs.with_file_name("__msgs__")).expect("moved");
        fs::create_dir(&msgs).expect("made");
        put(1);
        assert_eq!(fault(&mut known).await, None, "made anew");
        fs::create_dir_all(temp.path().join("jetstream/SYS/_js_/_meta_")).expect("made");
        put(2);
        let mut known = Known::default();
        let fault = async |known: &mut Known| known.measure(temp.path()).await.expect("told").fault;
        assert_eq!(fault(&mut known).await, None);
        remove(2).expect("it is there");
        assert_eq!(fault(&mut known).await, None, "a replica is cut back to what the others have");
    }
}
