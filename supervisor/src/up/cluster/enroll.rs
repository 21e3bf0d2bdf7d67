//! What a member does for hosts that want to join: it checks their token, and gives them what all members have in common.

use std::net::SocketAddr;

use broker::{Admit, Broker, TransientMessage};
use common::subject;
use runtime::home::Home;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use common::api::ApiError;

use super::join::{TOKEN, hash};
use super::{Member, Shared, read};

/// One member answers each.
const GROUP: &str = "members";

/// What a host asks.
#[derive(Serialize, Deserialize)]
pub(super) struct Request {
    pub(super) token: String,
    /// The id of its data folder.
    pub(super) folder: String,
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

/// Answers hosts that want to join until `stop`.
///
/// # Errors
/// None: what goes wrong is logged, and the host asks again.
pub(in crate::up) async fn serve(
    home: Home,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let Some(mut asked) = stop.run_until_cancelled(listen(&broker)).await else { return Ok(()) };
    while let Some(Some(question)) = stop.run_until_cancelled(asked.next()).await {
        if let Some(reply) = question.reply.clone() {
            let answer = answer(&home, &broker, &question).await;
            let payload = serde_json::to_vec(&answer).unwrap_or_default();
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

async fn answer(home: &Home, broker: &Broker, question: &TransientMessage) -> Answer {
    const TRY: &str = "`mozart join-token` on a member prints a new join string";
    let refused = |cause: &str, try_: &str| {
        tracing::warn!("a host was not admitted to the cluster: {cause}");
        Answer::Refused { cause: cause.to_owned(), try_: try_.to_owned() }
    };
    let Ok(request) = serde_json::from_slice::<Request>(&question.payload) else {
        return refused(
            "the request cannot be read",
            "use the same version of mozart on all hosts",
        );
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
