//! The disk under the broker, if this process is on the same machine: answers queries about how full it is, and logs warnings.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use broker::{Broker, Subscription};
use common::storage::{Disk, Fault, Level, REFUSE};
use common::words::bytes;
use tokio::time::MissedTickBehavior;

/// How often it is looked at without being asked.
const EVERY: Duration = Duration::from_secs(10);

/// How long a file may be missing: the server puts a new folder in place of one that it empties.
const REPLACED: Duration = Duration::from_millis(100);

/// Answers and warns forever.
pub(super) async fn watch(broker: &Broker, store: Option<PathBuf>) {
    let Some(store) = store else { return std::future::pending().await };
    let mut known = Known::of(broker.subjects().stream(""));
    let mut is_said = false;
    loop {
        // Whoever cannot tell does not listen: nobody is to wait for that.
        if known.measure(&store, server(broker).as_deref()).await.is_none() {
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
        let server = server(broker);
        let Some(disk) = known.measure(store, server.as_deref()).await else { return };
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
    let (percent, free, store) = (disk.percent(), bytes(disk.free), store.display());
    let kept = bytes(disk.margin());
    if let Some(fault) = disk.fault {
        tracing::error!("{fault} ({store}): new messages are refused");
        return;
    }
    match level {
        Level::Full => tracing::error!(
            "the disk of {store} is {percent} % full ({free} free): new messages are refused"
        ),
        Level::Low => tracing::warn!(
            "the disk of {store} is {percent} % full ({free} free): new messages are refused from {REFUSE} % on, when less than {kept} are free"
        ),
        Level::Fine => {
            tracing::info!("the disk of {store} has enough free space again ({free} free)")
        }
    }
}

/// The server that runs, as far as it can be reached. One that was started again is another one.
fn server(broker: &Broker) -> Option<String> {
    broker.link().borrow().up.then(|| broker.server_id())
}

/// What is known of the disk from before.
#[derive(Debug)]
struct Known {
    /// What the names of this fleet's streams begin with: those of others on the server come and go.
    ours: String,
    level: Level,
    /// The server that has these files. Another one has opened what is there now, whatever was there before.
    server: String,
    /// Which of the broker's files were there.
    files: Files,
}

impl Known {
    fn of(ours: String) -> Self {
        Self { ours, level: Level::Fine, server: String::new(), files: Files::default() }
    }
}

/// When a folder was made: a copy put in its place was made later, and may well have the same inode. None if the file system does not
/// tell; one that does not may also give an inode another number at any time.
type Made = Option<SystemTime>;

/// A folder of the broker's.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Folder {
    made: Made,
    /// What it is the folder of: another one in its place must be of something else. None if that cannot be told.
    of: Option<String>,
}

impl Folder {
    fn is_replaced_by(&self, now: &Self) -> bool {
        differs(self.made, now.made) && self.of.is_some() && self.of == now.of
    }
}

fn differs(one: Made, other: Made) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// The broker's files, as far as they are looked at.
#[derive(Debug, Clone, Default)]
struct Files {
    /// The folders of JetStream and of our streams.
    folders: BTreeMap<PathBuf, Folder>,
    /// The number of the newest block of each stream, in which it stores what comes, and when the folder was made that this is in. The server
    /// removes older blocks once nothing in them is needed, but never this one.
    newest: BTreeMap<PathBuf, (u64, Made)>,
}

impl Files {
    /// Whether something that was there is missing now, or is another one, without the server having done that.
    fn miss(&self, now: &Self) -> bool {
        let is_gone = |(path, was): (&PathBuf, &Folder)| {
            now.folders.get(path).is_none_or(|now| was.is_replaced_by(now))
        };
        let has_lost = |(stream, (newest, made)): (&PathBuf, &(u64, Made))| {
            // A stream that was made anew counts from 1 again; one that was emptied has another folder, and counts on.
            let is_same = self.folders.get(stream) == now.folders.get(stream);
            now.newest.get(stream).is_none_or(|(now, of)| {
                is_same && if differs(*made, *of) { now <= newest } else { now < newest }
            })
        };
        self.folders.iter().any(is_gone) || self.newest.iter().any(has_lost)
    }
}

impl Known {
    /// The disk of a folder; none if it does not tell. A file system that does not answer keeps nothing else waiting. Without a server,
    /// files may come and go.
    async fn measure(&mut self, store: &Path, server: Option<&str>) -> Option<Disk> {
        if let Some(server) = server.filter(|server| *server != self.server) {
            self.files = Files::default();
            server.clone_into(&mut self.server);
        }
        let had_files = !self.files.folders.is_empty();
        let (mut disk, mut files) = look_within(store, &self.ours, had_files).await?;
        if server.is_none() {
            return Some(disk);
        }
        if self.files.miss(&files) {
            tokio::time::sleep(REPLACED).await;
            (disk, files) = look_within(store, &self.ours, had_files).await?;
        }
        if self.files.miss(&files) {
            return Some(Disk { fault: Some(Fault::Removed), ..disk });
        }
        self.files = files;
        Some(disk)
    }
}

async fn look_within(store: &Path, ours: &str, had_files: bool) -> Option<(Disk, Files)> {
    const WITHIN: Duration = Duration::from_secs(1);
    let (store, ours) = (store.to_owned(), ours.to_owned());
    let told = tokio::task::spawn_blocking(move || look(&store, &ours, had_files));
    tokio::time::timeout(WITHIN, told).await.ok()?.ok()?
}

/// The disk of a folder, and what there is of JetStream and of our streams in it. If it had some, it may have been removed as a whole.
fn look(store: &Path, ours: &str, had_files: bool) -> Option<(Disk, Files)> {
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
            name.strip_prefix("KV_").unwrap_or(&name).starts_with(ours)
        });
        for stream in streams {
            let blocks = stream.join("msgs");
            let number = |path: &PathBuf| -> Option<u64> {
                path.file_name()?.to_str()?.strip_suffix(".blk")?.parse().ok()
            };
            let newest = entries(&blocks).iter().filter_map(number).max();
            let newest = newest.filter(|_| !is_replica);
            if let Some(newest) = newest {
                files.newest.insert(stream.clone(), (newest, made(&blocks)));
            }
            // A replica may be made anew from the others.
            let of = created(&stream).filter(|_| !is_replica);
            files.folders.insert(stream.clone(), Folder { made: made(&stream), of });
        }
        if jetstream.is_dir() {
            let of = (!is_replica).then(String::new);
            files.folders.insert(jetstream.clone(), Folder { made: made(&jetstream), of });
        }
    }
    let existing = store.ancestors().find(|folder| folder.exists()).filter(|_| had_files);
    let told = rustix::fs::statvfs(existing.unwrap_or(store)).ok()?;
    let disk = Disk::of_blocks(told.f_blocks, told.f_bfree, told.f_bavail, told.f_frsize);
    (disk.total > 0).then_some((disk, files))
}

fn made(folder: &Path) -> Made {
    std::fs::metadata(folder).and_then(|it| it.created()).ok()
}

/// When a stream was created, as the server has noted it there.
fn created(stream: &Path) -> Option<String> {
    let noted = std::fs::read(stream.join("meta.inf")).ok()?;
    let noted: serde_json::Value = serde_json::from_slice(&noted).ok()?;
    noted["Created"].as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn files_that_were_there_and_are_gone_are_a_fault() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut known = Known::of("MOZART_default_".to_owned());
        let fault = async |known: &mut Known| {
            known.measure(temp.path(), Some("A")).await.expect("told").fault
        };
        assert_eq!(fault(&mut known).await, None, "a new one");
        fs::create_dir_all(temp.path().join("data/jetstream")).expect("made");
        assert_eq!(fault(&mut known).await, None);
        fs::remove_dir_all(temp.path().join("data")).expect("removed");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed));
        fs::create_dir_all(temp.path().join("data/jetstream")).expect("put back");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "it is another one");
        let again = known.measure(temp.path(), Some("B")).await.expect("told").fault;
        assert_eq!(again, None, "the server was started again");
        let fault = async |known: &mut Known| {
            known.measure(temp.path(), Some("B")).await.expect("told").fault
        };
        let stream = temp.path().join("data/jetstream/$G/streams/MOZART_default_JOURNAL_0");
        fs::create_dir_all(&stream).expect("made");
        assert_eq!(fault(&mut known).await, None);
        fs::remove_dir(&stream).expect("removed");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "one stream of it");
        fs::create_dir_all(&stream).expect("put back");
        assert_eq!(fault(&mut known).await, None);
        fs::remove_dir_all(temp.path()).expect("removed");
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "with all around it");
        let mut unknown = Known::of("MOZART_default_".to_owned());
        assert!(unknown.measure(temp.path(), Some("A")).await.is_none(), "it was never there");
    }

    #[tokio::test]
    async fn the_streams_of_another_fleet_may_go() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut known = Known::of("MOZART_default_".to_owned());
        let mut fault = async || known.measure(temp.path(), Some("A")).await.expect("told").fault;
        let stream = |name: &str| temp.path().join("jetstream/$G/streams").join(name);
        let others = ["MOZART_other_CONTROL", "KV_MOZART_other_LEASE", "MOZART_default-2_LOGS"];
        let ours = "KV_MOZART_default_LEASE";
        for name in others.into_iter().chain([ours]) {
            fs::create_dir_all(stream(name).join("msgs")).expect("made");
            fs::write(stream(name).join("msgs/1.blk"), b"").expect("put");
        }
        assert_eq!(fault().await, None);
        for name in others {
            fs::remove_dir_all(stream(name)).expect("removed");
            assert_eq!(fault().await, None, "{name}");
        }
        fs::remove_dir_all(stream(ours)).expect("removed");
        assert_eq!(fault().await, Some(Fault::Removed));
    }

    #[tokio::test]
    async fn the_block_that_is_written_to_must_stay() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut known = Known::of("MOZART_default_".to_owned());
        let fault = async |known: &mut Known| {
            known.measure(temp.path(), Some("A")).await.expect("told").fault
        };
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
        // A stream that is emptied gets another folder.
        let anew = || {
            fs::remove_dir_all(&msgs).expect("removed");
            fs::create_dir_all(&msgs).expect("made");
        };
        anew();
        put(5);
        assert_eq!(fault(&mut known).await, None, "emptied");
        anew();
        put(5);
        assert_eq!(fault(&mut known).await, Some(Fault::Removed), "a copy was put back");
        put(6);
        assert_eq!(fault(&mut known).await, None);
        fs::create_dir_all(temp.path().join("jetstream/SYS/_js_/_meta_")).expect("made");
        put(2);
        let mut known = Known::of("MOZART_default_".to_owned());
        let fault = async |known: &mut Known| {
            known.measure(temp.path(), Some("A")).await.expect("told").fault
        };
        assert_eq!(fault(&mut known).await, None);
        remove(2).expect("it is there");
        assert_eq!(fault(&mut known).await, None, "a replica is cut back to what the others have");
    }
    #[tokio::test]
    async fn what_was_put_in_place_of_the_files_is_not_them() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut known = Known::of("MOZART_default_".to_owned());
        let fault = async |known: &mut Known, server| {
            known.measure(temp.path(), server).await.expect("told").fault
        };
        let stream = temp.path().join("jetstream/$G/streams/MOZART_default_CONTROL");
        let put = |created: &str, block: u32| {
            let made = fs::create_dir_all(stream.join("msgs"));
            let meta = format!(r#"{{"name":"x","Created":"{created}"}}"#);
            let meta = made.and_then(|()| fs::write(stream.join("meta.inf"), meta));
            let block = stream.join(format!("msgs/{block}.blk"));
            meta.and_then(|()| fs::write(block, b"")).expect("put");
        };
        put("monday", 7);
        assert_eq!(fault(&mut known, Some("A")).await, None);
        fs::remove_dir_all(&stream).expect("removed");
        put("monday", 7);
        assert_eq!(fault(&mut known, Some("A")).await, Some(Fault::Removed), "a copy");
        assert_eq!(fault(&mut known, None).await, None, "nothing runs");
        assert_eq!(fault(&mut known, Some("A")).await, Some(Fault::Removed), "it still runs");
        assert_eq!(fault(&mut known, Some("B")).await, None, "it was started again");
        fs::remove_dir_all(&stream).expect("removed");
        put("tuesday", 1);
        assert_eq!(fault(&mut known, Some("B")).await, None, "the server made it anew");
        fs::remove_dir_all(temp.path().join("jetstream")).expect("removed");
        put("wednesday", 1);
        assert_eq!(fault(&mut known, Some("B")).await, Some(Fault::Removed), "all of it");
    }
}
