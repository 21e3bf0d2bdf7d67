//! The leader gives the streams of a cluster three replicas each as soon as it has three servers.

use std::time::Duration;

use broker::{Broker, Scaled};

/// How often it is looked for until all streams have them, and afterwards.
const GROWING: Duration = Duration::from_secs(3);
const GROWN: Duration = Duration::from_secs(60);
/// How long the broker may take for one stream.
const WITHIN: Duration = Duration::from_secs(10);

/// Looks after the number of replicas forever.
pub(super) async fn grow(broker: Broker) {
    if !broker.is_clustered() {
        return std::future::pending().await;
    }
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
        tokio::time::sleep(if is_grown { GROWN } else { GROWING }).await;
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
