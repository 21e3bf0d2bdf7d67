//! One check alone, quick: for health checks, which run every few seconds.

use broker::{Broker, BrokerError};
use clap::ValueEnum;
use common::api::ApiError;

use super::{Check, Health, broker as fleet, check};
use crate::args::Global;
use crate::client::{CONNECT, Client};

/// What can be checked alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Only {
    /// JetStream answers; the fleet may be new.
    Broker,
    /// A supervisor answers.
    Supervisor,
    /// There is a node.
    Nodes,
}

/// The given checks. A missing broker is always reported.
pub(super) async fn checks(global: &Global, only: &[Only]) -> Vec<Check> {
    let wants = |part| only.contains(&part);
    let options = match crate::connect::options(global, "mozart-cli", CONNECT) {
        Ok(options) => options,
        Err(error) => return vec![no_broker(&error)],
    };
    let mut checks = Vec::new();
    let mut disk = None;
    let hello = match Broker::connect(&options).await {
        Ok(broker) => {
            if wants(Only::Broker) {
                checks.extend(fleet::checks(&broker).await);
            }
            if !wants(Only::Supervisor) && !wants(Only::Nodes) {
                return checks;
            }
            let client = Client::over(broker, global.output);
            let hello = client.hello().await;
            if !hello.as_ref().is_ok_and(|hello| hello.holder.is_some()) {
                disk = client.broker.disk(fleet::TOLD).await;
            }
            hello
        }
        // The server does what it is there for; the first supervisor makes the streams.
        Err(error @ BrokerError::NoStreams(_)) => {
            if wants(Only::Broker) {
                let found = format!("answers, namespace {} is new", options.namespace);
                checks.push(check("broker", Health::Ok, found, ""));
            }
            Err(broker::failure("no supervisor answers", error))
        }
        Err(error) => return vec![no_broker(&broker::failure("cannot use the broker", error))],
    };
    if wants(Only::Supervisor) {
        checks.push(fleet::for_want_of_room(fleet::supervisors(hello.as_ref()), disk));
    }
    if wants(Only::Nodes) {
        checks.push(fleet::nodes(hello.as_ref()));
    }
    checks
}

fn no_broker(error: &ApiError) -> Check {
    check("broker", Health::Fail, format!("{}: {}", error.what, error.cause), &error.try_)
}
