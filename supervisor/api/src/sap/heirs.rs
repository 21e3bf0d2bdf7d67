//! Answers of processes that are gone: they go on here, exactly where they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::Attempt as _;
use common::api::ApiError;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::prompts::MOST;
use super::{Host, telling, words};

/// How often it is looked which answers are under way, and who is at them.
const LOOK: Duration = Duration::from_secs(2);
/// How long a process may take to say that it is there. One that is late loses its answers, and notices.
const ANSWERED: Duration = Duration::from_secs(2);

/// Looks for answers whose process is gone, and goes on with them.
pub(super) async fn inherit(host: &Arc<Host>) -> Result<(), ApiError> {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = JoinSet::new();
    // Who was last seen at each answer. An answer changes hands when its process is gone alone.
    let mut holders = BTreeMap::new();
    let mut is_told = false;
    loop {
        tokio::select! {
            Some(_) = open.join_next() => continue,
            _ = look.tick() => {}
        }
        let room = MOST.saturating_sub(open.len());
        match orphans(host, &mut holders).await {
            Ok(orphans) => {
                is_told = false;
                for (inbox, holder) in orphans.into_iter().take(room) {
                    let host = Arc::clone(host);
                    open.spawn(async move { go_on(&host, &inbox, &holder).await });
                }
            }
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                tracing::warn!("{}: {}; it is tried again", error.what, error.cause);
            }
            Err(_) => {}
        }
    }
}

/// The answers that nobody is at, and who was.
async fn orphans(
    host: &Host,
    holders: &mut BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, ApiError> {
    const WHAT: &str = "cannot look for answers that are under way";
    let broker = &host.api.client.broker;
    let mut inboxes: BTreeSet<String> =
        broker.open_replies().await.attempt(WHAT)?.into_iter().collect();
    inboxes.retain(|inbox| !host.is_open(inbox));
    holders.retain(|inbox, _| inboxes.contains(inbox));
    for inbox in &inboxes {
        if !holders.contains_key(inbox)
            && let Some(state) = broker.reply_to_state(inbox).await.attempt(WHAT)?
        {
            holders.insert(inbox.clone(), state.holder);
        }
    }
    let mut gone = BTreeSet::new();
    for holder in holders.values().collect::<BTreeSet<_>>() {
        // One's own that one is not at was given up when the broker did not answer.
        if *holder == host.run || !is_there(host, holder).await {
            gone.insert(holder.clone());
        }
    }
    let mut orphans: Vec<_> = std::mem::take(holders).into_iter().collect();
    orphans.retain(|(inbox, holder)| {
        let is_orphan = gone.contains(holder);
        if !is_orphan {
            holders.insert(inbox.clone(), holder.clone());
        }
        is_orphan
    });
    Ok(orphans)
}

/// Whether a process answers. The server knows at once when one is killed.
async fn is_there(host: &Host, run: &str) -> bool {
    let broker = &host.api.client.broker;
    let subject = broker.subjects().api_alive(run);
    broker.ask(subject, bytes::Bytes::new(), ANSWERED).await.is_ok()
}

async fn go_on(host: &Host, inbox: &str, holder: &str) {
    let Some(_open) = host.open(inbox) else { return };
    let broker = &host.api.client.broker;
    let taken = broker.take_reply(inbox, holder, &host.run, words::ack()).await;
    let reply = match taken {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(error) => return tracing::warn!("cannot take over an answer: {error}"),
    };
    tracing::info!(message = %reply.state.key.message_id, "going on with an answer of a process that is gone");
    let key = reply.state.key.clone();
    let opened = async {
        let mut watch = host.api.watch(&key).await?;
        watch.look().await?;
        Ok::<_, ApiError>(watch)
    };
    match opened.await {
        Ok(watch) => telling::tell(reply, watch).await,
        Err(error) => tracing::warn!("{}: {}; it is tried again", error.what, error.cause),
    }
}
