//! The disk under the broker, where this process is on the same machine: whoever asks is told how full it is, and people are warned.

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::{Broker, Subscription};
use common::storage::{Disk, Level, REFUSE};
use tokio::time::MissedTickBehavior;

/// How often it is looked at without being asked.
const EVERY: Duration = Duration::from_secs(10);

/// Answers and warns for ever.
pub(super) async fn watch(broker: &Broker, store: Option<PathBuf>) {
    let Some(store) = store else { return std::future::pending().await };
    let mut level = Level::Fine;
    let mut is_said = false;
    loop {
        // Whoever cannot tell does not listen: nobody is to wait for that.
        if measure(&store).await.is_none() {
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!(
                    "cannot tell how full the disk of {} is: is this the folder of the broker's data?",
                    store.display()
                );
            }
        } else {
            match broker.subscribe(broker.subjects().disk(), None).await {
                Ok(asked) => answer(broker, &store, asked, &mut level).await,
                Err(error) => tracing::debug!("cannot listen to who asks for the disk: {error}"),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Answers as long as it can be told.
async fn answer(broker: &Broker, store: &Path, mut asked: Subscription, known: &mut Level) {
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
        let Some(disk) = measure(store).await else { return };
        if let Some(question) = question
            && let Err(error) = broker.tell_disk(question, disk).await
        {
            tracing::debug!("cannot tell how full {} is: {error}", store.display());
        }
        let level = disk.level();
        if level != *known {
            say(store, disk, level);
            *known = level;
        }
    }
}

fn say(store: &Path, disk: Disk, level: Level) {
    let (percent, free, store) = (disk.percent(), disk.free >> 20, store.display());
    let kept = disk.margin() >> 20;
    match level {
        Level::Full => tracing::error!(
            "the disk of {store} is {percent} % full ({free} MiB free): new messages are refused"
        ),
        Level::Low => tracing::warn!(
            "the disk of {store} is {percent} % full ({free} MiB free): new messages are refused from {REFUSE} % on, when less than {kept} MiB are free"
        ),
        Level::Fine => tracing::info!("the disk of {store} has room again ({free} MiB free)"),
    }
}

/// The disk of a folder; none if it does not tell. A file system that does not answer keeps nothing else waiting.
async fn measure(store: &Path) -> Option<Disk> {
    const WITHIN: Duration = Duration::from_secs(1);
    let store = store.to_owned();
    let told = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&store));
    let told = tokio::time::timeout(WITHIN, told).await.ok()?.ok()?.ok()?;
    let disk = Disk::of_blocks(told.f_blocks, told.f_bfree, told.f_bavail, told.f_frsize);
    (disk.total > 0).then_some(disk)
}
