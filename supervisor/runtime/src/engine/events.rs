//! The engine's events: which containers have ended. To be sure, all containers are listed periodically, too.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::container::Listed;
use super::{Engine, labels, say};

/// A list is compared with what should be there this often: an event can be lost.
const LIST_EVERY: Duration = Duration::from_secs(10);
/// The pause before an engine that does not answer is asked again.
const PAUSE: Duration = Duration::from_secs(1);
/// Events from so long before the list, in seconds: an end in between is then told twice, which does no harm.
const OVERLAP: u64 = 2;

/// The events of a container's end.
const ENDS: [&str; 4] = ["die", "died", "destroy", "remove"];
/// A list that fails is asked for so often before the engine counts as down: podman tells of containers that are just ending in
/// a word that its API does not know.
const TRIES: u32 = 3;

/// News of an engine.
#[derive(Debug)]
pub enum News {
    /// All containers of this node: the engine answers.
    Listed(Vec<Listed>),
    /// The container with this id has ended.
    Ended(String),
    /// It does not answer: its last answer counts until it does.
    Down(String),
}

impl Engine {
    /// Sends news until the receiver is dropped.
    pub async fn watch(self, news: mpsc::Sender<News>) {
        let mut is_down = false;
        loop {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            let mut listed = self.list().await;
            for _ in 1..TRIES {
                if listed.is_err() && !is_down {
                    sleep(PAUSE / 4).await;
                    listed = self.list().await;
                }
            }
            match listed {
                Ok(all) => {
                    is_down = false;
                    if news.send(News::Listed(all)).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_down, true)
                        && news.send(News::Down(error)).await.is_err()
                    {
                        return;
                    }
                    sleep(PAUSE).await;
                    continue;
                }
            }
            if !self.follow(since.saturating_sub(OVERLAP), &news).await {
                return;
            }
        }
    }

    /// Follows the events until the next list is due, or the engine ends the stream; whether anybody listens still.
    async fn follow(&self, since: u64, news: &mpsc::Sender<News>) -> bool {
        let mut filter = labels::filter(self.options());
        filter.insert("type".to_owned(), vec!["container".to_owned()]);
        let options =
            EventsOptionsBuilder::default().since(&since.to_string()).filters(&filter).build();
        let mut events = self.docker().events(Some(options));
        let until = Instant::now() + LIST_EVERY;
        loop {
            match timeout_at(until, events.next()).await {
                // Not filtered by the engine: docker and podman have other words for it there.
                Ok(Some(Ok(event))) if !ENDS.contains(&event.action.as_deref().unwrap_or("")) => {}
                Ok(Some(Ok(event))) => {
                    let id = event.actor.and_then(|actor| actor.id);
                    if let Some(id) = id
                        && news.send(News::Ended(id)).await.is_err()
                    {
                        return false;
                    }
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!("the engine's events: {}", say(error));
                    sleep(PAUSE).await;
                    return !news.is_closed();
                }
                Ok(None) => {
                    sleep(PAUSE).await;
                    return !news.is_closed();
                }
                Err(_) => return !news.is_closed(),
            }
        }
    }
}
