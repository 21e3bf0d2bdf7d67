//! How containers reach the broker.

use std::net::Ipv4Addr;

use bollard::models::IpamConfig;
use bollard::query_parameters::InspectNetworkOptions;

use super::{Connection, EngineOptions, Kind, say};

/// The broker's address as containers reach it: what the node uses, unless that is this host's loopback.
///
/// # Errors
/// When the network does not exist, or the broker cannot be reached from it: why, and what to try.
pub(super) async fn url_for_containers(
    connection: &Connection,
    options: &EngineOptions,
) -> Result<String, (String, &'static str)> {
    let name = name_of(connection.kind, options.network.as_deref());
    if name == "host" {
        return Ok(options.url.clone());
    }
    let gateway = gateway(connection, name).await.map_err(|cause| {
        (cause, "create it with the engine's `network create`, or name another one with --network")
    })?;
    let Some(gateway) = gateway else {
        return Ok(options.url.clone());
    };
    let url = without_loopback(&options.url, &gateway);
    if url != options.url {
        let place = place(&url);
        if !answers(place).await {
            let cause = format!(
                "the broker listens on loopback only: nothing answers at {place}, where containers would connect"
            );
            let try_ = "`mozart down` and `mozart up`, or use a broker that listens there, or --network NAME";
            return Err((cause, try_));
        }
    }
    Ok(url)
}

/// Host and port of the first address of a broker.
fn place(url: &str) -> &str {
    let first = url.split(',').next().unwrap_or(url);
    let rest = first.split_once("://").map_or(first, |(_, rest)| rest);
    rest.rsplit_once('@').map_or(rest, |(_, place)| place).trim_end_matches('/')
}

/// Whether anything listens there: what this host reaches by that address, containers reach, too.
async fn answers(place: &str) -> bool {
    let place = if place.contains(':') { place.to_owned() } else { format!("{place}:4222") };
    let connect = tokio::net::TcpStream::connect(place);
    tokio::time::timeout(super::HELLO, connect).await.is_ok_and(|connected| connected.is_ok())
}

/// The network's gateway is this host, where the engine runs on it.
pub(super) async fn host_address(connection: &Connection, network: Option<&str>) -> Option<String> {
    let name = name_of(connection.kind, network);
    if name == "host" {
        return None;
    }
    match gateway(connection, name).await {
        Ok(gateway) => gateway,
        // Whatever network there will be by that name: its containers reach this host at the address of the engine's own, too.
        Err(_) => match name_of(connection.kind, None) {
            "host" => None,
            own => gateway(connection, own).await.ok().flatten(),
        },
    }
}

async fn gateway(connection: &Connection, name: &str) -> Result<Option<String>, String> {
    let network = connection.docker.inspect_network(name, None::<InspectNetworkOptions>).await;
    let network = network.map_err(|error| match say(error) {
        // Most often it is the engine that names it.
        cause if cause.contains(name) => cause,
        cause => format!("network {name}: {cause}"),
    })?;
    let configs = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let given = |config: &IpamConfig| config.gateway.clone().filter(|address| !address.is_empty());
    let first = |config: &IpamConfig| first_address(config.subnet.as_deref()?);
    Ok(configs.iter().find_map(given).or_else(|| configs.iter().find_map(first)))
}

/// A bridge that was not told its address takes the first of its subnet.
fn first_address(subnet: &str) -> Option<String> {
    let address: Ipv4Addr = subnet.split('/').next()?.parse().ok()?;
    Some(Ipv4Addr::from_bits(address.to_bits().checked_add(1)?).to_string())
}

/// The engine's own network: docker's bridge. Podman's has no address before its first container runs, so there a broker cannot
/// listen on it, and containers share the host's network.
pub(super) fn name_of(kind: Kind, given: Option<&str>) -> &str {
    given.unwrap_or(match kind {
        Kind::Docker => "bridge",
        Kind::Podman => "host",
    })
}

/// Every host of a broker's address that is the loopback, replaced.
fn without_loopback(url: &str, host: &str) -> String {
    let parts = url.split(',').map(|one| {
        let (scheme, rest) =
            one.split_once("://").map_or(("", one), |(scheme, rest)| (scheme, rest));
        let (user, place) = rest.rsplit_once('@').map_or(("", rest), |(user, place)| (user, place));
        let (name, port) = match place.strip_prefix("[::1]") {
            Some(port) => ("::1", port),
            None => place.split_at(place.find([':', '/']).unwrap_or(place.len())),
        };
        let is_loopback = name == "localhost" || name == "::1" || name.starts_with("127.");
        let name = if is_loopback { host } else { name };
        let scheme = if scheme.is_empty() { String::new() } else { format!("{scheme}://") };
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        format!("{scheme}{user}{name}{port}")
    });
    parts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_of_a_subnet_is_the_bridges() {
        assert_eq!(first_address("172.17.0.0/16").as_deref(), Some("172.17.0.1"));
        assert_eq!(first_address("fd00::/64"), None);
    }

    #[test]
    fn the_place_of_a_broker_is_without_its_credentials() {
        for (url, expected) in [
            ("nats://u:p@172.17.0.1:4222", "172.17.0.1:4222"),
            ("172.17.0.1,nats://other:1", "172.17.0.1"),
            ("tls://n1:1/", "n1:1"),
        ] {
            assert_eq!(place(url), expected);
        }
    }

    #[test]
    fn only_the_loopback_is_replaced() {
        for (url, expected) in [
            ("nats://u:p@127.0.0.1:4222", "nats://u:p@172.17.0.1:4222"),
            ("localhost:4222", "172.17.0.1:4222"),
            ("nats://[::1]:4222", "nats://172.17.0.1:4222"),
            ("nats://nats:4222", "nats://nats:4222"),
            ("tls://u:p%40x@n1:1,nats://127.0.0.1", "tls://u:p%40x@n1:1,nats://172.17.0.1"),
        ] {
            assert_eq!(without_loopback(url, "172.17.0.1"), expected);
        }
    }
}
