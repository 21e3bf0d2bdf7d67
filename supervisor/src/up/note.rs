//! The notes about what runs: clients find it by `mozart.json`, and the next `up` needs the rest. They are kept while it runs,
//! even if they are removed meanwhile, as programs that clear temporary folders do.

use std::fs;
use std::io;
use std::time::Duration;

use common::api::ApiError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use runtime::home::{Home, Running};

use super::cluster;

/// How often the note is looked at.
const EVERY: Duration = Duration::from_secs(2);

/// Small files of the folder that do not change while it is in use.
const FILES: [&str; 8] = [
    "format",
    "node",
    "nats/access.json",
    "nats/nats.conf",
    "nats/cluster.json",
    "nats/ca.pem",
    "nats/server.pem",
    "nats/server-key.pem",
];

/// Keeps the note and the other files until `stop`. nats-server gets another process id whenever it is started again; the node `serves` at
/// some moment.
///
/// # Errors
/// None: if the disk cannot be written, that is logged and retried.
pub(super) async fn keep(
    home: Home,
    id: String,
    mut note: Running,
    mut nats: watch::Receiver<Option<u32>>,
    serves: CancellationToken,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let mut is_said = false;
    let files = FILES.map(|name| (name, fs::read(home.dir.join(name)).ok()));
    loop {
        let mut is_news = tokio::select! {
            () = tokio::time::sleep(EVERY) => false,
            Ok(()) = nats.changed() => {
                note.nats_pid = *nats.borrow_and_update();
                true
            }
            () = serves.cancelled(), if !note.ready => {
                note.ready = true;
                true
            }
            () = stop.cancelled() => return Ok(()),
        };
        // Hosts that joined meanwhile are a way to the cluster while this one's server is cut off.
        if note.nats_pid.is_some()
            && let Ok(Some(member)) = cluster::read(&home)
            && note.url != member.url()
        {
            note.url = member.url();
            is_news = true;
        }
        if let Err(error) = restore(&home, &id, &files) {
            tracing::debug!("cannot restore removed files: {error}");
        }
        if home.read_running().is_ok_and(|kept| kept.as_ref() == Some(&note)) {
            is_said = false;
            continue;
        }
        match home.write_running(&note) {
            Ok(()) if is_news => {}
            Ok(()) => tracing::info!("rewrote {}", home.running_file().display()),
            Err(error) if !is_said => tracing::warn!("{error}"),
            Err(_) => continue,
        }
        is_said = true;
    }
}

/// Restores files that are missing, or empty.
fn restore(home: &Home, id: &str, files: &[(&str, Option<Vec<u8>>)]) -> io::Result<()> {
    home.keep_id(id)?;
    for (name, content) in files {
        let is_gone = fs::metadata(home.dir.join(name)).map_or(true, |file| file.len() == 0);
        if let Some(content) = content.as_ref().filter(|content| is_gone && !content.is_empty()) {
            home.put(name, content)?;
            tracing::info!("restored {}, which was missing", home.dir.join(name).display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{Namespace, Timestamp};

    #[tokio::test(start_paused = true)]
    async fn a_note_that_is_removed_or_damaged_is_written_again() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let home = Home::locate(Some(temp.path())).expect("given");
        let note = Running {
            url: "nats://u:p@127.0.0.1:4222".to_owned(),
            ca: None,
            namespace: Namespace::new("default").expect("valid"),
            pid: 1,
            nats_pid: Some(2),
            runtime: None,
            api: None,
            version: "0.1.0".to_owned(),
            started_at: Timestamp::from_millis(5),
            ready: false,
        };
        let (pid, pids) = watch::channel(Some(2));
        let (serves, stop) = (CancellationToken::new(), CancellationToken::new());
        std::fs::write(home.dir.join("node"), "n\n").expect("written");
        let id = home.claim().expect("it is new");
        let keeping =
            keep(home.clone(), id.clone(), note.clone(), pids, serves.clone(), stop.clone());
        let trying = async {
            // Once it has read what is there.
            tokio::time::sleep(EVERY / 2).await;
            for _removed in 0..2 {
                home.remove_running().expect("it is gone");
                for file in ["node", "identity"] {
                    std::fs::remove_file(home.dir.join(file)).expect("it is there");
                }
                tokio::time::sleep(EVERY * 2).await;
                assert_eq!(home.read_running().expect("readable"), Some(note.clone()));
                assert_eq!(home.claim().expect("ours"), id);
                let node = std::fs::read_to_string(home.dir.join("node"));
                assert_eq!(node.expect("there"), "n\n");
            }
            std::fs::write(home.running_file(), b"{").expect("written");
            tokio::time::sleep(EVERY * 2).await;
            assert_eq!(home.read_running().expect("readable"), Some(note.clone()));
            pid.send(Some(3)).expect("it is kept");
            tokio::time::sleep(EVERY / 2).await;
            let kept = home.read_running().expect("readable").expect("there");
            assert_eq!((kept.nats_pid, kept.ready), (Some(3), false));
            serves.cancel();
            tokio::time::sleep(EVERY / 2).await;
            let kept = home.read_running().expect("readable").expect("there");
            assert!(kept.ready);
            stop.cancel();
        };
        let (kept, ()) = tokio::join!(keeping, trying);
        kept.expect("it ends in order");
    }
}
