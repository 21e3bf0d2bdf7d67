//! Waiting for a message's final state.
//!
//! The broker announces a stored final state at most once, and not across an outage. So it is also looked up, periodically and
//! after every reconnect.

use std::time::Duration;

use broker::{Broker, Link, Subscription};
use bytes::Bytes;
use common::api::ApiError;
use common::message::{Final, MessageKey};
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior};

use crate::answers::Wait;
use broker::Attempt;

/// How often a final state is looked up while none was announced.
const LOOK: Duration = Duration::from_secs(2);

/// A wait for one message's final state.
#[derive(Debug)]
pub struct Answer {
    broker: Broker,
    key: MessageKey,
    told: Told,
    link: watch::Receiver<Link>,
    look: Interval,
}

/// Where it is announced.
#[derive(Debug)]
enum Told {
    Own(Subscription),
    /// None once it has been announced there.
    Shared(Option<Wait>),
}

impl Told {
    /// None: it is not announced here any more. Cancel safe.
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Own(told) => told.next().await.map(|message| message.payload),
            Self::Shared(shared) => {
                let told = (&mut shared.as_mut()?.told).await;
                *shared = None;
                told.ok()
            }
        }
    }
}

impl Answer {
    /// Listens. Begun before the message is sent, nothing is missed.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn listen(broker: &Broker, key: &MessageKey) -> Result<Self, ApiError> {
        let subject = broker.subjects().done(key);
        let told = broker.subscribe(subject, None).await.attempt("cannot listen for the answer")?;
        Ok(Self::told(broker, key, Told::Own(told)))
    }

    /// The same, where many are waited for.
    pub(crate) fn shared(broker: &Broker, key: &MessageKey, wait: Wait) -> Self {
        Self::told(broker, key, Told::Shared(Some(wait)))
    }

    fn told(broker: &Broker, key: &MessageKey, told: Told) -> Self {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is due at once, which is too early for a message that is only now being sent.
        look.reset();
        Self { broker: broker.clone(), key: key.clone(), told, link: broker.link(), look }
    }

    /// Looks up the final state.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn look(&self) -> Result<Option<Final>, ApiError> {
        let what = format!("cannot look up the answer to {}", self.key.message_id);
        let stored = self.broker.outcome_of(&self.key).await.attempt(what)?;
        Ok(stored.map(|stored| stored.value))
    }

    /// Waits for the final state, however long. Cancel safe.
    pub async fn final_(&mut self) -> Final {
        let mut listening = true;
        loop {
            tokio::select! {
                told = self.told.next(), if listening => match told {
                    Some(final_) => {
                        if let Ok(final_) = serde_json::from_slice(&final_) {
                            return final_;
                        }
                    }
                    None => {
                        listening = false;
                        continue;
                    }
                },
                changed = self.link.changed() => {
                    if changed.is_err() || !self.link.borrow_and_update().up {
                        // Without a connection there is nothing to look up; without its watch only time tells.
                        self.look.tick().await;
                    }
                }
                _ = self.look.tick() => {}
            }
            // An outage is no answer: it is asked again.
            if let Ok(Some(final_)) = self.look().await {
                return final_;
            }
        }
    }
}
