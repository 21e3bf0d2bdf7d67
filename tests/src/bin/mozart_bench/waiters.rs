//! Who waits for which answer, over one subscription.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::outcome::{Result, fail};

/// An answer that has not come after this time is lost, and the run with it.
const LOST: Duration = Duration::from_secs(60);

/// When an answer came, and what it is.
type Answer = (Instant, Bytes);

/// Those who wait.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waiters {
    by_id: Arc<Mutex<HashMap<String, oneshot::Sender<Answer>>>>,
}

/// One who waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    id: String,
    answer: oneshot::Receiver<Answer>,
}

impl Waiters {
    fn map<T>(&self, work: impl FnOnce(&mut HashMap<String, oneshot::Sender<Answer>>) -> T) -> T {
        work(&mut self.by_id.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits from now on: before the question is asked.
    pub(crate) fn expect(&self, id: String) -> Waiter {
        let (sender, answer) = oneshot::channel();
        self.map(|map| map.insert(id.clone(), sender));
        Waiter { id, answer }
    }

    /// An answer came; in its subject its conversation follows its id.
    pub(crate) fn answered(&self, subject: &str, payload: Bytes) {
        let id = subject.rsplit('.').nth(1).unwrap_or_default();
        if let Some(waiter) = self.map(|map| map.remove(id)) {
            // It may have given up.
            drop(waiter.send((Instant::now(), payload)));
        }
    }
}

impl Waiter {
    /// Whether the answer has not come yet.
    pub(crate) fn is_open(&self) -> bool {
        self.answer.is_empty()
    }

    /// The answer.
    pub(crate) async fn answer(self) -> Result<Bytes> {
        Ok(self.wait().await?.1)
    }

    /// When the answer came.
    pub(crate) async fn answered(self) -> Result<Instant> {
        Ok(self.wait().await?.0)
    }

    async fn wait(self) -> Result<Answer> {
        match tokio::time::timeout(LOST, self.answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => fail(format!("nobody listens for the answer to {}", self.id)),
            Err(_) => fail(format!("no answer to {} within {LOST:?}", self.id)),
        }
    }
}
