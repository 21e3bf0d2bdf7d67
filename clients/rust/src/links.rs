//! Links that sign a browser in: made with the fleet's credentials, and used up at the API.

use std::time::Duration;

use broker::{Attempt as _, Broker};
use common::api::ApiError;
use common::failure;
use common::tokens::{Link, Token};

use crate::client::now;
use crate::tokens::{hash, secret};

/// How long a link can be used.
pub const USABLE: Duration = Duration::from_secs(120);

/// Makes a link with the rights of a token; its secret is told this once, and stored nowhere.
///
/// # Errors
/// When the broker does not answer.
pub async fn create(broker: &Broker, token: &Token) -> Result<String, ApiError> {
    const WHAT: &str = "cannot make a link";
    let secret = secret().map_err(|error| failure::error(failure::FAILED, WHAT, error, ""))?;
    let (token, of, until) = (token.name.clone(), token.hash.clone(), now().after(USABLE));
    let link = Link { token, hash: of, until };
    broker.add_link(&hash(&secret), &link, USABLE).await.attempt(WHAT)?;
    Ok(secret)
}

/// Uses a link up; the token, if both are still good.
///
/// # Errors
/// When the broker does not answer.
pub async fn take(broker: &Broker, secret: &str) -> Result<Option<Token>, ApiError> {
    const WHAT: &str = "cannot use the link";
    let Some(link) = broker.take_link(&hash(secret)).await.attempt(WHAT)? else { return Ok(None) };
    let at = now();
    if link.until <= at {
        return Ok(None);
    }
    let token = broker.token_named(&link.token).await.attempt(WHAT)?;
    Ok(token.filter(|token| token.hash == link.hash && !token.has_expired(at)))
}

/// Whether a link can still be used. Where nobody can tell, it may be.
pub async fn is_open(broker: &Broker, secret: &str) -> bool {
    broker.has_link(&hash(secret)).await.unwrap_or(true)
}
