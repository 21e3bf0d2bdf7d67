//! Answers of processes that are gone: they go on here, exactly where they were.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use broker::{Attempt as _, BrokerError, ReplyState};
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
    let mut holders = Holders::new();
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

/// Who was last seen at each answer. An answer changes hands when its process is gone alone.
type Holders = BTreeMap<String, Holder>;

/// Who is at an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Holder {
    /// This process.
    Process(String),
    /// Its record cannot be read.
    Unknown,
}

/// Who is at an answer, by its record. One that cannot be read, as that of a later version, is left to others, and holds up no other answer.
fn holder(
    inbox: &str,
    state: broker::Result<Option<ReplyState>>,
) -> broker::Result<Option<Holder>> {
    match state {
        Ok(state) => Ok(state.map(|state| Holder::Process(state.holder))),
        Err(error @ BrokerError::Malformed { .. }) => {
            tracing::warn!(inbox, "an answer that is on its way cannot be taken over: {error}");
            Ok(Some(Holder::Unknown))
        }
        Err(error) => Err(error),
    }
}

/// The answers that nobody is at, and who was.
async fn orphans(host: &Host, holders: &mut Holders) -> Result<Vec<(String, String)>, ApiError> {
    const WHAT: &str = "cannot look for answers that are under way";
    let broker = &host.api.client.broker;
    let mut inboxes: BTreeSet<String> =
        broker.open_replies().await.attempt(WHAT)?.into_iter().collect();
    inboxes.retain(|inbox| !host.is_open(inbox));
    holders.retain(|inbox, _| inboxes.contains(inbox));
    for inbox in &inboxes {
        if !holders.contains_key(inbox)
            && let Some(holder) = holder(inbox, broker.reply_to_state(inbox).await).attempt(WHAT)?
        {
            holders.insert(inbox.clone(), holder);
        }
    }
    let mut gone = BTreeSet::new();
    let processes = holders.values().filter_map(|holder| match holder {
        Holder::Process(run) => Some(run),
        Holder::Unknown => None,
    });
    for holder in processes.collect::<BTreeSet<_>>() {
        // One's own that one is not at was given up when the broker did not answer.
        if *holder == host.run || !is_there(host, holder).await {
            gone.insert(holder.clone());
        }
    }
    Ok(taken(holders, &gone))
}

/// Takes out the answers whose processes are gone.
fn taken(holders: &mut Holders, gone: &BTreeSet<String>) -> Vec<(String, String)> {
    let mut orphans = Vec::new();
    holders.retain(|inbox, holder| match holder {
        Holder::Process(run) if gone.contains(run) => {
            orphans.push((inbox.clone(), run.clone()));
            false
        }
        Holder::Process(_) | Holder::Unknown => true,
    });
    orphans
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_cannot_be_read_holds_up_no_other_answer() {
        let unreadable = || BrokerError::Malformed {
            subject: "s".to_owned(),
            seq: 1,
            cause: "another format".to_owned(),
        };
        assert_eq!(holder("i", Err(unreadable())).expect("it is left out"), Some(Holder::Unknown));
        assert_eq!(holder("i", Ok(None)).expect("nothing is there"), None);
        let mut holders = Holders::from([
            ("bad".to_owned(), Holder::Unknown),
            ("theirs".to_owned(), Holder::Process("p1".to_owned())),
            ("orphan".to_owned(), Holder::Process("p2".to_owned())),
        ]);
        let gone = BTreeSet::from(["p2".to_owned()]);
        assert_eq!(taken(&mut holders, &gone), [("orphan".to_owned(), "p2".to_owned())]);
        assert_eq!(holders.len(), 2);
    }
}
