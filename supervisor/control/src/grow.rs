//! The leader gives the streams of a cluster three replicas each as soon as it has three servers, and makes EVENTS anew that cannot elect a
//! leader.

use std::time::Duration;

use broker::{Broker, EventsAre, Scaled};
use tokio::time::{Instant, sleep};

/// How often it is looked for until all streams have them, and afterwards.
const GROWING: Duration = Duration::from_secs(3);
const GROWN: Duration = Duration::from_secs(60);
/// How long the broker may take for one stream.
const WITHIN: Duration = Duration::from_secs(10);

/// How often EVENTS is looked at, and how long it may take to answer.
const LOOK: Duration = Duration::from_secs(3);
const ANSWERS: Duration = Duration::from_secs(2);
/// An election takes 4 to 9 s: after so long without a leader there is none to come before all servers are back.
const LEADERLESS: Duration = Duration::from_secs(15);

/// Looks after the streams of a cluster forever.
pub(super) async fn grow(broker: Broker) {
    if !broker.is_clustered() {
        return std::future::pending().await;
    }
    tokio::join!(replicas(&broker), events(&broker));
}

/// Makes EVENTS anew if it has been without a leader for too long.
async fn events(broker: &Broker) {
    let mut since = None;
    loop {
        sleep(LOOK).await;
        match broker.events_are(ANSWERS).await {
            Ok(EventsAre::Led) => {
                since = None;
                continue;
            }
            Ok(EventsAre::Missing) => {}
            Ok(EventsAre::Leaderless) => {
                if since.get_or_insert_with(Instant::now).elapsed() < LEADERLESS {
                    continue;
                }
            }
            Err(error) => {
                tracing::debug!("cannot tell whether EVENTS has a leader: {error}");
                continue;
            }
        }
        match broker.renew_events(WITHIN).await {
            Ok(()) => {
                tracing::warn!(
                    "EVENTS was made anew: most of its servers came back without it, and it had no leader; what was streamed before is gone"
                );
                since = None;
            }
            Err(error) => tracing::warn!("cannot make EVENTS anew: {error}"),
        }
    }
}

/// Looks after the number of replicas.
async fn replicas(broker: &Broker) {
    let mut known = Scaled::default();
    loop {
        match broker.scale(WITHIN).await {
            Ok(scaled) => {
                say(&scaled, &known);
                known = scaled;
            }
            Err(error) => {
                tracing::warn!("cannot change the number of the streams' replicas: {error}")
            }
        }
        let is_grown = known.of > 0 && known.ready == known.of;
        sleep(if is_grown { GROWN } else { GROWING }).await;
    }
}

fn say(scaled: &Scaled, known: &Scaled) {
    let Scaled { changed, ready, of, lacks_servers } = *scaled;
    if lacks_servers && !known.lacks_servers {
        tracing::info!(
            "fewer than three servers: the streams have one replica each, and are lost with its server"
        );
    }
    if changed > 0 {
        tracing::info!("three servers: {changed} streams get three replicas each");
    }
    if (changed > 0 || ready != known.ready) && !lacks_servers {
        tracing::info!("{ready} of {of} streams have all their replicas");
    }
}
