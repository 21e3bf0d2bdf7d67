//! The disk under the broker, where this process is on the same machine: whoever asks is told how full it is, and people are warned.

use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::Broker;
use common::storage::{Disk, Level};
use tokio::time::MissedTickBehavior;

/// How often it is looked at without being asked.
const EVERY: Duration = Duration::from_secs(10);

/// Answers and warns for ever.
pub(super) async fn watch(broker: &Broker, store: Option<PathBuf>) {
    let Some(store) = store else { return std::future::pending().await };
    let asked = loop {
        match broker.subscribe(broker.subjects().disk(), None).await {
            Ok(asked) => break asked,
            Err(error) => tracing::debug!("cannot tell how full {} is: {error}", store.display()),
        }
        tokio::time::sleep(EVERY).await;
    };
    let mut asked = asked;
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Level::Fine;
    loop {
        let question = tokio::select! {
            Some(question) = asked.next() => Some(question),
            _ = tick.tick() => None,
        };
        let Some(disk) = measure(&store).await else { continue };
        if let Some(question) = question
            && let Err(error) = broker.tell_disk(question, disk).await
        {
            tracing::debug!("cannot tell how full {} is: {error}", store.display());
        }
        let level = disk.level();
        if level != known {
            say(&store, disk, level);
            known = level;
        }
    }
}

fn say(store: &Path, disk: Disk, level: Level) {
    let (percent, free, store) = (disk.percent(), disk.free >> 20, store.display());
    match level {
        Level::Full => tracing::error!(
            "the disk of {store} is {percent} % full ({free} MiB free): new messages are refused"
        ),
        Level::Low => tracing::warn!(
            "the disk of {store} is {percent} % full ({free} MiB free): at 95 % new messages are refused"
        ),
        Level::Fine => tracing::info!("the disk of {store} has room again ({free} MiB free)"),
    }
}

/// The disk of a folder. A file system that does not answer keeps nobody else waiting.
async fn measure(store: &Path) -> Option<Disk> {
    let store = store.to_owned();
    let told = tokio::task::spawn_blocking(move || rustix::fs::statvfs(&store)).await.ok()?.ok()?;
    Some(Disk::of_blocks(told.f_blocks, told.f_bfree, told.f_bavail, told.f_frsize))
}
