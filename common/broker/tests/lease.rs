//! The lease: one holder at a time, and a term that rises with each.

use std::time::{Duration, Instant};

use broker::{Lease, LeaseState};

use crate::support::{Server, soon};

const TTL: Duration = Duration::from_secs(1);

fn term(state: &LeaseState) -> u64 {
    match state {
        LeaseState::Held { term } => *term,
        LeaseState::Other { holder } => panic!("held by {holder}"),
    }
}

fn other(holder: &str) -> LeaseState {
    LeaseState::Other { holder: holder.into() }
}

async fn turn(lease: &mut Lease) -> LeaseState {
    soon(lease.take_or_renew()).await.expect("an answer")
}

async fn until_held(lease: &mut Lease) -> u64 {
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    let taken = async {
        loop {
            tick.tick().await;
            if let Ok(LeaseState::Held { term }) = lease.take_or_renew().await {
                return term;
            }
        }
    };
    soon(taken).await
}

#[tokio::test]
async fn of_two_that_compete_one_holds_it_for_as_long_as_it_renews() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (mut one, mut two) = (broker.lease("one", TTL), broker.lease("two", TTL));
    let (first, second) = tokio::join!(one.take_or_renew(), two.take_or_renew());
    let states = [first.expect("an answer"), second.expect("an answer")];
    let held = states.iter().filter(|state| matches!(state, LeaseState::Held { .. }));
    assert_eq!(held.count(), 1, "{states:?}");
    let (holder, loser, name) = match &states[0] {
        LeaseState::Held { .. } => (&mut one, &mut two, "one"),
        LeaseState::Other { .. } => (&mut two, &mut one, "two"),
    };
    let first_term = term(&turn(holder).await);
    let began = Instant::now();
    let mut tick = tokio::time::interval(TTL / 5);
    while began.elapsed() < TTL * 3 {
        tick.tick().await;
        assert_eq!(term(&turn(holder).await), first_term);
        assert_eq!(turn(loser).await, other(name));
    }
}

#[tokio::test]
async fn it_passes_on_after_its_holder_falls_silent_with_a_higher_term() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (mut one, mut two) = (broker.lease("one", TTL), broker.lease("two", TTL));
    let first = term(&turn(&mut one).await);
    let second = until_held(&mut two).await;
    assert!(second > first);
    // The first is back: it finds another one's, and renews nothing.
    assert_eq!(turn(&mut one).await, other("two"));
    two.release().await.expect("released");
    assert!(until_held(&mut one).await > second);
}

#[tokio::test]
async fn what_is_released_is_free_at_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let long = Duration::from_secs(600);
    let (mut one, mut two) = (broker.lease("one", long), broker.lease("two", long));
    let first = term(&turn(&mut one).await);
    assert_eq!(turn(&mut two).await, other("one"));
    one.release().await.expect("released");
    one.release().await.expect("nothing to release");
    assert!(term(&turn(&mut two).await) > first);
}

#[tokio::test]
async fn it_survives_the_servers_death_in_its_holders_hand() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let long = Duration::from_secs(60);
    let (mut one, mut two) = (broker.lease("one", long), broker.lease("two", long));
    let first = term(&turn(&mut one).await);
    server.kill_and_revive().await;
    assert_eq!(term(&turn(&mut one).await), first);
    assert_eq!(turn(&mut two).await, other("one"));
}

#[tokio::test]
async fn a_lease_that_never_expires_by_itself_is_taken_over_by_the_own_clock() {
    let server = Server::start().await;
    let broker = server.broker().await;
    // As a writer without a time to live leaves it.
    let subject = format!("$KV.{}.leader", broker.subjects().lease_bucket());
    let client = server.client().await;
    let stored = client.request(subject, "{\"holder\":\"dead\"}".into()).await;
    stored.expect("stored");
    let mut one = broker.lease("one", TTL);
    assert_eq!(turn(&mut one).await, other("dead"));
    let began = Instant::now();
    until_held(&mut one).await;
    assert!(began.elapsed() >= TTL / 2);
}

#[tokio::test]
async fn the_fleet_has_one_secret_for_all_who_ask_at_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let asking = (0..8).map(|_| broker.fleet_secret());
    let secrets = futures_util::future::join_all(asking).await;
    let secrets: std::collections::BTreeSet<_> =
        secrets.into_iter().map(|secret| secret.expect("a secret")).collect();
    assert_eq!(secrets.len(), 1);
    let secret = secrets.first().expect("one");
    assert_eq!(secret.len(), 64);
    assert!(secret.bytes().all(|byte| byte.is_ascii_hexdigit()));
}
