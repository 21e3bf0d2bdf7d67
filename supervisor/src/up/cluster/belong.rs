//! Which servers belong to the cluster: every member notes where its own is reached, learns of the others, and removes those of hosts that
//! are lost. One that was removed ends, and is told to join anew.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Attempt as _, Broker, ClusterMember, ConnectOptions, Removal};
use common::api::ApiError;
use common::cluster::{RemoveServer, ServerRemoved};
use common::{NodeName, failure, subject};
use runtime::home::Home;
use tokio::time::{Instant, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::{Member, read};

/// One member answers each.
const GROUP: &str = "members";
/// How often it is looked whether this member was removed, and who the others are.
const LOOKS: Duration = Duration::from_secs(10);
/// How often those that were removed are removed again: one that came back for a moment may have been taken into the group once more.
const AGAIN: Duration = Duration::from_secs(300);
/// How long a connection of the system account may take.
const SYSTEM: Duration = Duration::from_secs(5);
/// How long the other members may take before this one's server is started.
const OTHERS: Duration = Duration::from_secs(5);

/// Refuses the folder of a member that was removed while it was away, if another member can tell.
///
/// # Errors
/// If it was.
pub(in crate::up) async fn was_removed(home: &Home) -> Result<(), ApiError> {
    let Some(member) = read(home)? else { return Ok(()) };
    let Some(url) = member.others() else { return Ok(()) };
    let options = ConnectOptions {
        url,
        creds: None,
        ca: Some(member.shared.ca.clone()),
        name: format!("mozart up {}", member.server),
        namespace: cli::connect::default_namespace(),
        timeout: OTHERS,
        shim: None,
    };
    let asked = async { Broker::connect(&options).await?.members().await };
    // Hosts may start in any order: where nobody tells, it is looked at again later.
    match timeout(OTHERS, asked).await {
        Ok(Ok(members)) if is_removed(&members, &member.server) => Err(removed(&member)),
        Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
    }
}

fn is_removed(members: &[ClusterMember], server: &str) -> bool {
    members.iter().any(|one| one.removed && one.server == server)
}

fn removed(member: &Member) -> ApiError {
    let what = format!("this host no longer belongs to cluster {}", member.cluster);
    let cause = format!("its server {} was removed with `mozart node rm`", member.server);
    let try_ = "`mozart join-token` on a member, then `mozart join STRING --dir DIR` here with a new data folder";
    failure::error(failure::CONFLICT, what, cause, try_)
}

/// Looks after the membership until `stop`.
///
/// # Errors
/// When this member was removed.
pub(in crate::up) async fn belong(
    home: Home,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let Some(member) = read(&home)? else {
        stop.cancelled().await;
        return Ok(());
    };
    let Some(asked) = stop.run_until_cancelled(listen(&broker)).await else { return Ok(()) };
    let mut asked = asked;
    let (mut looks, mut again) = (interval(LOOKS), Instant::now() + AGAIN);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = looks.tick() => {
                let Some(known) = look(&home, &broker, &member).await? else { continue };
                if again <= Instant::now() {
                    again = Instant::now() + AGAIN;
                    remove_again(&member, &known).await;
                }
            }
            Some(question) = asked.next() => {
                let Some(reply) = question.reply else { continue };
                let Ok(request) = serde_json::from_slice(&question.payload) else { continue };
                let answer = match remove(&broker, &member, &request).await {
                    Ok(answer) => answer,
                    Err(error) => ServerRemoved::Failed(error),
                };
                let payload = serde_json::to_vec(&answer).unwrap_or_default();
                if let Err(error) = broker.tell(reply, payload.into()).await {
                    tracing::warn!("cannot answer who removes a server: {error}");
                }
            }
        }
    }
}

async fn listen(broker: &Broker) -> broker::Subscription {
    loop {
        match broker.subscribe(subject::REMOVE.to_owned(), Some(GROUP)).await {
            Ok(asked) => return asked,
            Err(error) => tracing::warn!("servers cannot be removed: {error}"),
        }
        tokio::time::sleep(LOOKS).await;
    }
}

/// Notes this member and takes over what is known of the others; none if the broker does not answer.
async fn look(
    home: &Home,
    broker: &Broker,
    member: &Member,
) -> Result<Option<Vec<ClusterMember>>, ApiError> {
    let noted = broker.note_member(&member.server, &member.address.to_string()).await;
    let known = match noted {
        Ok(_) => broker.members().await,
        Err(error) => Err(error),
    };
    let known = match known {
        Ok(known) => known,
        Err(error) => {
            tracing::debug!("cannot tell who belongs to the cluster: {error}");
            return Ok(None);
        }
    };
    if is_removed(&known, &member.server) {
        return Err(removed(member));
    }
    // The file may have been changed meanwhile, by a host that was admitted.
    if let Ok(Some(mut kept)) = read(home) {
        let before = kept.members.clone();
        kept.members = merge(&before, &known);
        if kept.members != before
            && let Err(error) = kept.keep(home)
        {
            tracing::warn!("{}: {}", error.what, error.cause);
        }
    }
    Ok(Some(known))
}

/// The addresses of the members: those that were known or are noted, without those of servers that were removed.
fn merge(
    before: &BTreeSet<std::net::SocketAddr>,
    known: &[ClusterMember],
) -> BTreeSet<std::net::SocketAddr> {
    let of = |removed: bool| {
        let those = known.iter().filter(move |one| one.removed == removed);
        those.filter_map(|one| one.address.parse().ok()).collect::<BTreeSet<_>>()
    };
    // A host that joined anew has the address of before.
    let (there, gone) = (of(false), of(true));
    let rest = before.iter().filter(|address| !gone.contains(*address)).copied();
    rest.chain(there.iter().copied()).collect()
}

/// Removes the servers of a node's host.
async fn remove(
    broker: &Broker,
    member: &Member,
    request: &RemoveServer,
) -> Result<ServerRemoved, ApiError> {
    let what = format!("cannot remove the server of {} from the cluster", request.node);
    let known = broker.members().await.attempt(what.clone())?;
    let (its, others): (Vec<_>, Vec<_>) =
        known.into_iter().partition(|one| is_of(&one.server, &request.node));
    let mut servers = Vec::new();
    for ClusterMember { server, .. } in its.into_iter().filter(|one| !one.removed) {
        let removal = broker::remove_server(&system(member), &server).await;
        match removal.attempt(what.clone())? {
            Removal::Done => {}
            Removal::IsThere => {
                let cause = format!("nats-server {server} is running");
                let try_ =
                    format!("`mozart down` on its host, then `mozart node rm {}`", request.node);
                return Err(failure::error(failure::CONFLICT, what, cause, try_));
            }
        }
        // Afterwards: what failed is done by the next try.
        broker.note_removed_member(&server).await.attempt(what.clone())?;
        tracing::info!("removed {server} from the cluster");
        servers.push(server);
    }
    let left = others.iter().filter(|one| !one.removed).count();
    Ok(ServerRemoved::Removed { servers, left })
}

async fn remove_again(member: &Member, known: &[ClusterMember]) {
    for one in known.iter().filter(|one| one.removed) {
        if let Err(error) = broker::remove_server(&system(member), &one.server).await {
            tracing::debug!("cannot remove {} again: {error}", one.server);
        }
    }
}

/// Whether a server is that of a node: its name is the node's and the beginning of its data folder's id.
fn is_of(server: &str, node: &NodeName) -> bool {
    server.rsplit_once('-').is_some_and(|(name, _)| name == node.as_str())
}

/// The way to the servers' own account.
fn system(member: &Member) -> ConnectOptions {
    ConnectOptions {
        url: member.url_of("system", &member.shared.system),
        creds: None,
        ca: Some(member.shared.ca.clone()),
        name: format!("mozart {}", member.server),
        namespace: cli::connect::default_namespace(),
        timeout: SYSTEM,
        shim: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(server: &str, address: &str, removed: bool) -> ClusterMember {
        ClusterMember { server: server.to_owned(), address: address.to_owned(), removed }
    }

    #[test]
    fn the_address_of_a_removed_server_is_forgotten_unless_another_has_it() {
        let set = |addresses: &[&str]| {
            addresses.iter().map(|one| one.parse().expect("valid")).collect::<BTreeSet<_>>()
        };
        let before = set(&["10.0.0.1:4222", "10.0.0.2:4222"]);
        let known = [member("n2-a", "10.0.0.2:4222", true), member("n3-a", "10.0.0.3:4222", false)];
        assert_eq!(merge(&before, &known), set(&["10.0.0.1:4222", "10.0.0.3:4222"]));
        let anew = [member("n2-a", "10.0.0.2:4222", true), member("n2-b", "10.0.0.2:4222", false)];
        assert_eq!(merge(&before, &anew), before);
    }

    #[test]
    fn a_server_is_of_the_node_that_it_is_named_after() {
        let node = |name| NodeName::new(name).expect("valid");
        assert!(is_of("n2-0123abcd", &node("n2")));
        assert!(!is_of("n2-x-0123abcd", &node("n2")));
        assert!(is_of("n2-x-0123abcd", &node("n2-x")));
    }
}
