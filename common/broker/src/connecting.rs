//! Making a connection, and what happens to it.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, Event};
use common::subject::Subjects;
use common::users::Scope;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::address::Address;
use crate::callout::AsUser;
use crate::connection::{ConnectOptions, Link};
use crate::error::{BrokerError, Result};
use crate::quiet::Quiet;
use crate::route::Route;
use crate::tls;
use crate::wire::{Wire, jitter};

/// The oldest server that has everything needed.
const OLDEST: (u32, u32) = (2, 12);

/// How often a server may refuse a connection before that counts: while it reloads its configuration, it refuses every client.
const REFUSALS: u32 = 3;

/// The pause after a refusal.
const REFUSED: Duration = Duration::from_millis(200);

/// Connects, trying until the deadline: the server may be about to start.
pub(crate) async fn open(options: &ConnectOptions, deadline: Instant) -> Result<Wire> {
    let address = Address::parse(&options.url)?;
    let (link_out, link) = watch::channel(Link { up: false, epoch: 0 });
    let link_out = Arc::new(link_out);
    let (forbidden_out, forbidden) = watch::channel(String::new());
    let forbidden_out = Arc::new(forbidden_out);
    let mut attempt = 0;
    let mut refusals = 0;
    let mut known = None;
    loop {
        attempt += 1;
        let route = Arc::new(Route::new());
        let told = Told { link: &link_out, forbidden: &forbidden_out, route: &route };
        let client = client_options(options, &address, told).await?;
        let connecting = client.connect(address.servers.as_slice());
        let cause = match timeout_at(deadline, connecting).await {
            Ok(Ok(client)) => {
                check_version(&client)?;
                let user = options.user();
                let polls = user.as_ref().is_some_and(|user| user.scope < Scope::Admin);
                let subjects = Subjects::new(options.namespace.clone(), 1);
                let user = user.map(|user| Arc::new((user, subjects)));
                let clock = Arc::default();
                let wire = Wire { client, link, clock, polls, forbidden, route, user };
                wire.up(deadline, options.timeout).await?;
                return Ok(wire);
            }
            Ok(Err(error)) => match error.kind() {
                ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
                    refusals += 1;
                    // A supervisor lets shims and nodes in, and may not be there yet.
                    let node = options.node();
                    let is_patient =
                        options.shim.is_some() || node.is_some() || refusals < REFUSALS;
                    let pause = REFUSED.max(connect_delay(attempt));
                    if is_patient && Instant::now() + pause < deadline {
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    if let Some(node) = node {
                        return Err(BrokerError::Other(format!(
                            "{} refuses the login of node {node}: no supervisor is there to answer for it, or it was revoked",
                            address.shown,
                        )));
                    }
                    return Err(BrokerError::Denied {
                        url: address.shown,
                        cause: error.to_string(),
                    });
                }
                ConnectErrorKind::ServerParse
                | ConnectErrorKind::Dns
                | ConnectErrorKind::TimedOut
                | ConnectErrorKind::Tls
                | ConnectErrorKind::Io
                | ConnectErrorKind::MaxReconnects => error.to_string(),
            },
            // The deadline cut this attempt off: what those before it ended with says more.
            Err(_) => known.take().unwrap_or_else(|| "no answer".to_owned()),
        };
        let delay = connect_delay(attempt);
        if Instant::now() + delay >= deadline {
            return Err(BrokerError::Unreachable { url: address.shown, cause });
        }
        tracing::debug!(url = address.shown, cause, "no connection yet");
        known = Some(cause);
        tokio::time::sleep(delay).await;
    }
}

/// How long one of several servers may take: one that accepts and then says nothing may not use up what the others need.
fn share(timeout: Duration, servers: usize) -> Duration {
    let most = Duration::from_secs(if servers > 1 { 3 } else { 5 });
    (timeout / u32::try_from(servers.max(1)).unwrap_or(u32::MAX)).min(most)
}

/// Who is told of what happens to a connection.
struct Told<'a> {
    link: &'a Arc<watch::Sender<Link>>,
    forbidden: &'a Arc<watch::Sender<String>>,
    route: &'a Arc<Route>,
}

async fn client_options(
    options: &ConnectOptions,
    address: &Address,
    told: Told<'_>,
) -> Result<async_nats::ConnectOptions> {
    let (link, forbidden) = (Arc::clone(told.link), Arc::clone(told.forbidden));
    let route = Arc::clone(told.route);
    let complaints = Quiet::new();
    let (is_alone, seen) = (address.servers.len() == 1, Arc::clone(&link));
    let mut client = async_nats::ConnectOptions::new()
        .name(&options.name)
        .ping_interval(Duration::from_secs(10))
        .connection_timeout(share(options.timeout, address.servers.len()))
        .reconnect_delay_callback(move |attempt| {
            let is_lost = seen.borrow().epoch > 0;
            reconnect_delay(attempt, is_lost, is_alone)
        })
        .reconnect_to_server_callback(move |servers, _| {
            let next = route.next(&servers);
            std::future::ready(next)
        })
        .event_callback(move |event| {
            if let Some(subject) = refused(&event) {
                forbidden.send_replace(subject);
            }
            note(&link, &complaints, &event);
            std::future::ready(())
        });
    if address.begins_here() {
        client = client.retain_servers_order();
    }
    match (&options.shim, &address.login) {
        (Some(shim), _) => {
            let (user, password) = shim.login.clone();
            let inbox = Subjects::new(options.namespace.clone(), shim.shards)
                .shim_inbox(&shim.agent, shim.incarnation);
            client = client.user_and_password(user, password).custom_inbox_prefix(inbox);
        }
        (None, Some((user, Some(password)))) => {
            client = client.user_and_password(user.clone(), password.clone());
        }
        (None, Some((token, None))) => client = client.token(token.clone()),
        (None, None) => {}
    }
    if let Some(ca) = &options.ca {
        let config = tls::trusting(ca).map_err(BrokerError::BadCertificate)?;
        client = client.require_tls(true).tls_client_config(config);
    }
    if let Some(creds) = &options.creds {
        let unusable = |error: std::io::Error| BrokerError::BadCredentials {
            file: creds.clone(),
            cause: error.to_string(),
        };
        client = match options.user() {
            Some(AsUser { name, seed, .. }) => {
                let subjects = Subjects::new(options.namespace.clone(), 1);
                let (login, inbox) = match options.node() {
                    Some(node) => (subjects.node_user(&node), subjects.node_inbox(&node)),
                    None => (subjects.user(&name), subjects.user_inbox(&name)),
                };
                client.user_and_password(login, String::new()).nkey(seed).custom_inbox_prefix(inbox)
            }
            None => client.credentials_file(creds).await.map_err(unusable)?,
        };
    }
    Ok(client)
}

/// The delay after a failed attempt (from 1) to connect at first: soon, since the server may be about to start, and then ever more
/// patiently up to a second.
fn connect_delay(attempt: usize) -> Duration {
    let millis = match attempt {
        0 | 1 => 20,
        2 => 50,
        3 => 100,
        4 => 200,
        5 => 500,
        _ => 1000,
    };
    jitter(Duration::from_millis(millis))
}

/// The delay before an attempt (from 1) of the client. A first connection is not one that was `is_lost`: whoever starts does not wait.
/// Another server is tried at once. Where one `is_alone`, it is the same that starts again, as a rule, and all of a fleet comes: few
/// attempts are made until it is there, or they would be what it waits for.
fn reconnect_delay(attempt: usize, is_lost: bool, is_alone: bool) -> Duration {
    let millis = match attempt {
        _ if !is_lost => return Duration::ZERO,
        0 | 1 if !is_alone => return Duration::ZERO,
        _ if !is_alone => return connect_delay(attempt - 1),
        0 | 1 => 60,
        2 => 150,
        3 => 400,
        _ => 1000,
    };
    jitter(Duration::from_millis(millis))
}

/// The subject that a server refuses to take something for.
fn refused(event: &Event) -> Option<String> {
    let Event::ServerError(error) = event else { return None };
    let error = error.to_string();
    let (_, rest) = error
        .split_once("ermissions violation for publish to \"")
        .or_else(|| error.split_once("ermissions Violation for Publish to \""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

fn note(link: &watch::Sender<Link>, complaints: &Quiet, event: &Event) {
    match event {
        Event::Connected => {
            link.send_modify(|link| {
                link.up = true;
                link.epoch += 1;
            });
            tracing::debug!("connected to the broker");
        }
        Event::Disconnected => {
            link.send_modify(|link| link.up = false);
            tracing::warn!("disconnected from the broker");
        }
        // Our own doing, as at the end of a command.
        Event::Closed => {
            link.send_modify(|link| link.up = false);
        }
        Event::SlowConsumer(_) | Event::ServerError(_) => {
            // A forbidden publish has one each.
            if let Some(others) = complaints.count() {
                tracing::warn!("error reported by the broker: {event}{others}");
            }
        }
        Event::LameDuckMode | Event::Draining | Event::ClientError(_) => {
            tracing::debug!(%event, "broker");
        }
    }
}

fn check_version(client: &Client) -> Result<()> {
    let found = client.server_info().version;
    let mut numbers = found.split(['.', '-']).map_while(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if version < OLDEST {
        return Err(BrokerError::TooOld { found });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_starts_or_has_another_server_connects_at_once() {
        for attempt in 0..9 {
            assert_eq!(reconnect_delay(attempt, false, true), Duration::ZERO);
        }
        assert_eq!(reconnect_delay(1, true, false), Duration::ZERO);
        assert!(reconnect_delay(2, true, false) < Duration::from_millis(26));
    }

    #[test]
    fn a_server_alone_that_starts_again_is_asked_a_few_times_and_found_within_a_second() {
        let delays = (1..9).map(|attempt| reconnect_delay(attempt, true, true));
        let tries: Vec<_> = delays
            .scan(Duration::ZERO, |at, delay| {
                *at += delay;
                Some(*at)
            })
            .collect();
        let within = |time| tries.iter().filter(|at| **at < time).count();
        assert!(within(Duration::from_millis(700)) <= 3, "{tries:?}");
        let gaps = tries.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().is_some_and(|gap| gap <= Duration::from_millis(1250)), "{tries:?}");
    }
}
