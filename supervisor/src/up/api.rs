//! The API of `mozart up`: its address, and the token with which whoever owns the data folder uses it.

use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use api::{ApiOptions, Listening};
use broker::{Attempt as _, Broker};
use common::api::ApiError;
use common::users::Scope;
use common::{NodeName, SenderName, failure};
use mozart_client::tokens::{self, NewToken};
use runtime::home::{API_TOKEN, Home};

use crate::args::own_api;

/// How long the fleet may take to tell about it.
const WITHIN: Duration = Duration::from_secs(10);

/// Where the API is to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiAt {
    /// Nowhere.
    Off,
    /// There.
    At(SocketAddr),
}

impl FromStr for ApiAt {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| "expected ADDRESS:PORT, or off")
    }
}

impl std::fmt::Display for ApiAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// Takes the address. The default one may be taken, as by another `up`: then there is no API, which is said.
///
/// # Errors
/// When the address that was asked for is not to be had.
pub(super) async fn listen(
    asked: Option<ApiAt>,
) -> Result<Option<(ApiOptions, Listening)>, ApiError> {
    let at = match asked {
        Some(ApiAt::Off) => return Ok(None),
        Some(ApiAt::At(address)) => address,
        None => own_api(),
    };
    let options = ApiOptions::at(at);
    match api::listen(&options).await {
        Ok(listening) => Ok(Some((options, listening))),
        Err(ApiError { what, cause, .. }) if asked.is_none() => {
            tracing::warn!(
                "{what}: {cause}; everything else runs; try: --api ADDRESS:PORT for another address"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Makes the token of the data folder, unless its file has one that the fleet knows. The API serves others without it.
pub(super) async fn keep_token(home: &Home, broker: &Broker, node: &NodeName) {
    match tokio::time::timeout(WITHIN, keep(home, broker, node)).await {
        Ok(Ok(())) => {}
        Ok(Err(ApiError { what, cause, .. })) => {
            tracing::warn!("{what}: {cause}; try: `mozart token create NAME --scope operate`");
        }
        Err(_) => {
            tracing::warn!("the API has no token of its own yet: the broker has not answered")
        }
    }
}

async fn keep(home: &Home, broker: &Broker, node: &NodeName) -> Result<(), ApiError> {
    const WHAT: &str = "the API has no token of its own";
    let name: String = format!("up-{node}").chars().take(63).collect();
    let name = SenderName::new(name.trim_end_matches('-'));
    let name = name.map_err(|error| failure::error(failure::FAILED, WHAT, error, ""))?;
    let kept = std::fs::read_to_string(home.dir.join(API_TOKEN)).unwrap_or_default();
    let known = broker.token_named(&name).await.attempt(WHAT)?;
    if known.as_ref().is_some_and(|known| tokens::is_of(kept.trim(), known)) {
        return Ok(());
    }
    // Whoever has the data folder has the fleet: what was lost is made anew.
    if known.is_some() {
        let _revoked = broker.revoke_token(&name).await.attempt(WHAT)?;
    }
    let (agents, expires, by) = (Vec::new(), None, "mozart up".to_owned());
    let new = NewToken { name, scope: Scope::Operate, agents, expires, by };
    let (_, text) = tokens::create(broker, new, mozart_client::now()).await?;
    home.put(API_TOKEN, format!("{text}\n").as_bytes())
        .map_err(|error| failure::file(WHAT, &error, "check the disk space and permissions there"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_or_none_is_asked_for() {
        assert_eq!("off".parse(), Ok(ApiAt::Off));
        let at: ApiAt = "127.0.0.1:0".parse().expect("an address");
        assert_eq!(at.to_string(), "127.0.0.1:0");
        assert!("4141".parse::<ApiAt>().is_err());
    }

    #[tokio::test]
    async fn a_taken_default_is_no_error_and_a_taken_address_is() {
        let first = listen(Some(ApiAt::At("127.0.0.1:0".parse().expect("valid")))).await;
        let (_, first) = first.expect("it is free").expect("not off");
        let taken = ApiAt::At(first.address().expect("it has one"));
        let error = listen(Some(taken)).await.expect_err("taken");
        assert_eq!(error.code, failure::UNREACHABLE);
        assert!(listen(Some(ApiAt::Off)).await.expect("off").is_none());
        // Ours, or somebody else's.
        let _taken = std::net::TcpListener::bind(own_api());
        assert!(listen(None).await.expect("it goes on without").is_none());
    }
}
