//! Shows how far a cluster is that hosts are being added to.

use std::time::{Duration, Instant};

use broker::Broker;
use cli::output;
use common::words::count;

/// So many servers make a cluster that survives the loss of one.
const SERVERS: usize = 3;
/// How long it is shown: the leader goes on without anybody who looks.
const WITHIN: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(500);

/// Shows it until all streams have their replicas, if there are the servers for that.
pub(in crate::up) async fn show_growth(broker: &Broker) {
    // A server that is alone lists none.
    let servers = broker.addresses().len().max(1);
    if servers < SERVERS {
        output::note(format!(
            "{} of {SERVERS}: until then each stream has one replica, and is lost with its server",
            count(servers as u64, "server", "servers"),
        ));
        return;
    }
    let until = Instant::now() + WITHIN;
    let mut shown = None;
    while Instant::now() < until {
        match broker.scaled(EVERY * 10).await {
            Ok(scaled) => {
                if shown.replace(scaled.ready) != Some(scaled.ready) {
                    output::note(format!(
                        "{} of {} streams have three replicas",
                        scaled.ready, scaled.of
                    ));
                }
                if scaled.ready == scaled.of {
                    return;
                }
            }
            Err(error) => tracing::debug!("cannot tell how far the cluster is: {error}"),
        }
        tokio::time::sleep(EVERY).await;
    }
    output::note("the supervisor that leads goes on with it; `mozart doctor` shows the streams");
}
