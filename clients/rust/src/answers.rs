//! The answers that a process waits for, many at a time: one subscription for all that a sender waits for, where each of a [`crate::answer`]
//! costs the broker one that comes and goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use broker::{Attempt as _, Broker, Subscription};
use bytes::Bytes;
use common::SenderName;
use common::api::ApiError;
use common::message::MessageKey;
use tokio::sync::{Mutex as AsyncMutex, oneshot};
use tokio::task::JoinSet;

use crate::answer::Answer;

/// How long a subscription stays when nobody waits: a sender that waits once waits again soon.
const IDLE: Duration = Duration::from_secs(10);

/// Where a stored final state is given.
type Told = oneshot::Sender<Bytes>;

/// Who waits for the answers to one sender's messages, each with a number of its own.
#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    of: HashMap<MessageKey, Vec<(u64, Told)>>,
}

type Shared = Arc<Mutex<Waiting>>;

fn lock(shared: &Shared) -> MutexGuard<'_, Waiting> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct Senders {
    waiting: HashMap<SenderName, Shared>,
    /// One task for each of them.
    tasks: JoinSet<()>,
}

/// The waits of a process.
#[derive(Debug, Clone, Default)]
pub struct Answers(Arc<AsyncMutex<Senders>>);

/// A wait. Given up when it is dropped.
#[derive(Debug)]
pub(crate) struct Wait {
    shared: Shared,
    key: MessageKey,
    number: u64,
    pub(crate) told: oneshot::Receiver<Bytes>,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut waiting = lock(&self.shared);
        if let Some(waits) = waiting.of.get_mut(&self.key) {
            waits.retain(|(number, _)| *number != self.number);
            if waits.is_empty() {
                waiting.of.remove(&self.key);
            }
        }
    }
}

impl Answers {
    /// Listens for the answer to a message. Begun before the message is sent, nothing is missed.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn listen(&self, broker: &Broker, key: &MessageKey) -> Result<Answer, ApiError> {
        let mut senders = self.0.lock().await;
        while senders.tasks.try_join_next().is_some() {}
        let shared = match senders.waiting.get(&key.sender) {
            Some(shared) => Arc::clone(shared),
            None => {
                let subject = broker.subjects().done_for(&key.sender);
                let told = broker.subscribe(subject, None).await;
                let told = told.attempt("cannot listen for answers")?;
                let shared = Shared::default();
                let (me, sender) = (Arc::downgrade(&self.0), key.sender.clone());
                senders.tasks.spawn(give(me, broker.clone(), sender, told, Arc::clone(&shared)));
                senders.waiting.insert(key.sender.clone(), Arc::clone(&shared));
                shared
            }
        };
        // Still locked: the task ends only where nobody waits.
        Ok(Answer::shared(broker, key, wait(shared, key)))
    }
}

fn wait(shared: Shared, key: &MessageKey) -> Wait {
    let (tell, told) = oneshot::channel();
    let mut waiting = lock(&shared);
    let number = waiting.next;
    waiting.next += 1;
    waiting.of.entry(key.clone()).or_default().push((number, tell));
    drop(waiting);
    Wait { shared, key: key.clone(), number, told }
}

/// Gives a sender's answers to those who wait for them, as long as there are any.
async fn give(
    senders: Weak<AsyncMutex<Senders>>,
    broker: Broker,
    sender: SenderName,
    mut told: Subscription,
    shared: Shared,
) {
    let mut idle = tokio::time::interval(IDLE);
    idle.reset();
    loop {
        let is_closed = tokio::select! {
            message = told.next() => match message {
                Some(message) => {
                    let named = broker.subjects().parse_done(&message.subject);
                    let waits = named.and_then(|named| lock(&shared).of.remove(&named.key));
                    for (_, tell) in waits.into_iter().flatten() {
                        // One that has given up.
                        let _gone = tell.send(message.payload.clone());
                    }
                    continue;
                }
                // The client is closed. Those who wait look for themselves.
                None => true,
            },
            _ = idle.tick() => false,
        };
        let Some(senders) = senders.upgrade() else { return };
        let mut senders = senders.lock().await;
        let mut waiting = lock(&shared);
        if is_closed || waiting.of.is_empty() {
            waiting.of.clear();
            senders.waiting.remove(&sender);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gives_up_is_forgotten_and_the_others_wait_on() {
        let key = MessageKey {
            agent: "a".parse().expect("valid"),
            sender: "ana".parse().expect("valid"),
            message_id: "m1".parse().expect("valid"),
        };
        let shared = Shared::default();
        let (first, mut second) =
            (wait(Arc::clone(&shared), &key), wait(Arc::clone(&shared), &key));
        drop(first);
        let waits = lock(&shared).of.remove(&key).expect("one waits");
        assert_eq!(waits.len(), 1);
        for (_, tell) in waits {
            tell.send(Bytes::from_static(b"{}")).expect("it waits");
        }
        assert_eq!(second.told.try_recv().expect("told"), b"{}"[..]);
        let third = wait(Arc::clone(&shared), &key);
        drop((second, third));
        assert!(lock(&shared).of.is_empty(), "nothing is left of those who are gone");
    }
}
