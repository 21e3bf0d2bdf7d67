//! What a member does for hosts that want to join: it checks their token, and gives them what all members have in common.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use broker::{Admit, Broker};
use common::subject;
use nkeys::XKey;
use runtime::home::Home;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use common::api::ApiError;

use super::join::{TOKEN, hash};
use super::{Member, Shared, is_member, read};

/// One member answers each.
const GROUP: &str = "members";

/// What a host asks.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) token: String,
    /// The id of its data folder.
    pub(super) folder: String,
    /// Its public key: what all members have in common is for nobody else, and whoever has had a join string hears the answers to others.
    pub(super) key: String,
    /// Where it will be reached.
    pub(super) address: SocketAddr,
}

/// What it is told.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub(super) enum Answer {
    /// It is a member.
    Welcome { members: Vec<SocketAddr>, shared: Box<Shared> },
    /// It is not.
    Refused {
        cause: String,
        #[serde(rename = "try")]
        try_: String,
    },
}

/// An answer that only one can read.
#[derive(Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The public key of the member that sealed it.
    key: String,
    sealed: String,
}

impl Sealed {
    /// Seals an answer to a host's key.
    fn to(key: &str, answer: &Answer) -> Result<Self, String> {
        let host = XKey::from_public_key(key).map_err(|error| error.to_string())?;
        let own = XKey::new();
        let plain = serde_json::to_vec(answer).map_err(|error| error.to_string())?;
        let sealed = own.seal(&plain, &host).map_err(|error| error.to_string())?;
        Ok(Self { key: own.public_key(), sealed: STANDARD.encode(sealed) })
    }

    /// Opens what was sealed to a key.
    ///
    /// # Errors
    /// When it was sealed to another one, or is damaged.
    pub(super) fn open(&self, own: &XKey) -> Result<Answer, String> {
        let member = XKey::from_public_key(&self.key).map_err(|error| error.to_string())?;
        let sealed = STANDARD.decode(&self.sealed).map_err(|error| error.to_string())?;
        let plain = own.open(&sealed, &member).map_err(|error| error.to_string())?;
        serde_json::from_slice(&plain).map_err(|error| error.to_string())
    }
}

/// Answers hosts that want to join until `stop`.
///
/// # Errors
/// None: what goes wrong is logged, and the host asks again.
pub(in crate::up) async fn serve(
    home: Home,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    // On a host of its own there is nothing to join, and on a NATS that others use, they are not ours to answer.
    if !is_member(&home) {
        stop.cancelled().await;
        return Ok(());
    }
    let Some(mut asked) = stop.run_until_cancelled(listen(&broker)).await else { return Ok(()) };
    while let Some(Some(question)) = stop.run_until_cancelled(asked.next()).await {
        if let Some(reply) = question.reply.clone() {
            let Ok(request) = serde_json::from_slice::<Request>(&question.payload) else {
                tracing::warn!("a request to join the cluster cannot be read");
                continue;
            };
            let answer = answer(&home, &broker, &request).await;
            let payload = match Sealed::to(&request.key, &answer) {
                Ok(sealed) => serde_json::to_vec(&sealed).unwrap_or_default(),
                Err(error) => {
                    tracing::warn!("a host that wants to join has no key: {error}");
                    continue;
                }
            };
            if let Err(error) = broker.tell(reply, payload.into()).await {
                tracing::warn!("cannot answer a host that wants to join: {error}");
            }
        }
    }
    stop.cancelled().await;
    Ok(())
}

async fn listen(broker: &Broker) -> broker::Subscription {
    loop {
        match broker.subscribe(subject::JOIN.to_owned(), Some(GROUP)).await {
            Ok(asked) => return asked,
            Err(error) => tracing::warn!("hosts cannot join: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
}

async fn answer(home: &Home, broker: &Broker, request: &Request) -> Answer {
    const TRY: &str = "`mozart join-token` on a member prints a new join string";
    let refused = |cause: &str, try_: &str| {
        tracing::warn!("a host was not admitted to the cluster: {cause}");
        Answer::Refused { cause: cause.to_owned(), try_: try_.to_owned() }
    };
    match broker.use_ticket(&hash(&request.token), &request.folder, TOKEN).await {
        Ok(Admit::Granted) => {}
        Ok(Admit::Unknown) => return refused("the join token is not valid, or has expired", TRY),
        Ok(Admit::Used) => return refused("the join token was used by another host", TRY),
        Err(error) => return refused(&error.to_string(), "run it again"),
    }
    let admitted = || -> Result<Member, ApiError> {
        let Some(mut member) = read(home)? else {
            return Err(common::failure::error(
                common::failure::FAILED,
                "this host is no member of a cluster",
                "its file is gone",
                "",
            ));
        };
        if member.members.insert(request.address) {
            member.keep(home)?;
        }
        Ok(member)
    };
    match admitted() {
        Ok(Member { members, shared, .. }) => {
            tracing::info!("admitted {} to the cluster", request.address);
            Answer::Welcome { members: members.into_iter().collect(), shared: Box::new(shared) }
        }
        Err(error) => refused(&format!("{}: {}", error.what, error.cause), &error.try_),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_host_is_told_only_that_host_can_read() {
        let (host, other) = (XKey::new(), XKey::new());
        let answer = Answer::Refused { cause: "c".to_owned(), try_: "t".to_owned() };
        let sealed = Sealed::to(&host.public_key(), &answer).expect("a key");
        let text = serde_json::to_string(&sealed).expect("plain");
        assert!(!text.contains("cause"), "{text}");
        let read: Sealed = serde_json::from_str(&text).expect("what was written");
        assert!(matches!(read.open(&host), Ok(Answer::Refused { cause, .. }) if cause == "c"));
        assert!(read.open(&other).is_err());
        assert!(Sealed::to("no key", &answer).is_err());
    }
}
