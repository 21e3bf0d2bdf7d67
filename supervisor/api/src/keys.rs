//! Which token a request shows.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use broker::{Attempt as _, Broker};
use common::SenderName;
use common::api::ApiError;
use common::security::{Refusal, SecurityEvent};
use common::tokens::{self, Token};
use mozart_client::now;

/// How long it is believed what was read of a token: revoked, it is good for that much longer.
const BELIEVED: Duration = Duration::from_secs(1);
/// Names that are remembered.
const MOST: usize = 10_000;
/// How often refusals are put on record; those in between are counted.
const RECORDED: Duration = Duration::from_secs(5);

/// What was last read of a name.
type Seen = (Instant, Option<Token>);

/// The tokens of the fleet, as this process knows them.
#[derive(Debug)]
pub(crate) struct Keys {
    broker: Broker,
    seen: Mutex<BTreeMap<SenderName, Seen>>,
    /// When a refusal was last put on record, and how many came since.
    refused: Mutex<(Option<Instant>, u64)>,
}

/// Why a text opens no door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// It is no token, or none that there is.
    Unknown,
    /// It has expired.
    Expired,
}

impl Keys {
    pub(crate) fn new(broker: Broker) -> Self {
        Self { broker, seen: Mutex::default(), refused: Mutex::default() }
    }

    /// The token of a text.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn token(&self, text: &str) -> Result<Result<Token, Wrong>, ApiError> {
        let Some(name) = tokens::name_in(text) else { return Ok(Err(Wrong::Unknown)) };
        let token = self.named(&name).await?;
        let token = token.filter(|token| mozart_client::tokens::is_of(text, token));
        Ok(match token {
            None => Err(Wrong::Unknown),
            Some(token) if token.has_expired(now()) => Err(Wrong::Expired),
            Some(token) => Ok(token),
        })
    }

    /// The token of a name, if it is good.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn of(&self, name: &SenderName) -> Result<Option<Token>, ApiError> {
        Ok(self.named(name).await?.filter(|token| !token.has_expired(now())))
    }

    /// Whether a token is still good.
    pub(crate) async fn holds(&self, token: &Token) -> bool {
        match self.named(&token.name).await {
            Ok(Some(known)) => known == *token && !token.has_expired(now()),
            Ok(None) => false,
            // Nobody can tell: what was opened stays open, as long as the broker answers nobody else either.
            Err(_) => !token.has_expired(now()),
        }
    }

    async fn named(&self, name: &SenderName) -> Result<Option<Token>, ApiError> {
        let asked = Instant::now();
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((at, token)) = seen.get(name)
                && asked.saturating_duration_since(*at) < BELIEVED
            {
                return Ok(token.clone());
            }
        }
        let token = self.broker.token_named(name).await.attempt("cannot look up the token")?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST {
            seen.clear();
        }
        seen.insert(name.clone(), (asked, token.clone()));
        Ok(token)
    }

    /// Puts a refusal on record, unless one was just before.
    pub(crate) async fn refused(&self, user: Option<SenderName>, kind: Refusal, detail: &str) {
        let others = {
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            let at = Instant::now();
            if refused.0.is_some_and(|last| at.saturating_duration_since(last) < RECORDED) {
                refused.1 += 1;
                return;
            }
            refused.0 = Some(at);
            std::mem::take(&mut refused.1)
        };
        let detail = detail.to_owned();
        let (agent, incarnation, node, by) = (None, None, None, "api".to_owned());
        let event =
            SecurityEvent { at: now(), kind, agent, incarnation, user, node, detail, by, others };
        if let Err(error) = self.broker.record_refusal(&event).await {
            tracing::debug!("cannot record a refusal: {error}");
        }
    }
}
