//! The lease: one holder at a time, each for as long as it renews by its own clock.

use std::time::{Duration, Instant};

use broker::{Admission, Admitted, Lease, LeaseState, Moment};

use crate::support::{Server, agent, soon};

const TTL: Duration = Duration::from_secs(1);

fn tenure(state: &LeaseState) -> u64 {
    match state {
        LeaseState::Held { tenure, .. } => *tenure,
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
            if let Ok(LeaseState::Held { tenure, .. }) = lease.take_or_renew().await {
                return tenure;
            }
        }
    };
    soon(taken).await
}

#[tokio::test]
async fn of_two_that_compete_one_holds_it_for_as_long_as_it_renews() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (mut one, mut two) = (broker.lease("one", "run", TTL), broker.lease("two", "run", TTL));
    let (first, second) = tokio::join!(one.take_or_renew(), two.take_or_renew());
    let states = [first.expect("an answer"), second.expect("an answer")];
    let held = states.iter().filter(|state| matches!(state, LeaseState::Held { .. }));
    assert_eq!(held.count(), 1, "{states:?}");
    let (holder, loser, name) = match &states[0] {
        LeaseState::Held { .. } => (&mut one, &mut two, "one"),
        LeaseState::Other { .. } => (&mut two, &mut one, "two"),
    };
    let first_tenure = tenure(&turn(holder).await);
    let began = Instant::now();
    let mut tick = tokio::time::interval(TTL / 5);
    while began.elapsed() < TTL * 3 {
        tick.tick().await;
        assert_eq!(tenure(&turn(holder).await), first_tenure);
        assert_eq!(turn(loser).await, other(name));
    }
}

#[tokio::test]
async fn it_passes_on_after_its_holder_falls_silent() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (mut one, mut two) = (broker.lease("one", "run", TTL), broker.lease("two", "run", TTL));
    let first = tenure(&turn(&mut one).await);
    until_held(&mut two).await;
    // The first is back: it finds another one's, and renews nothing.
    assert_eq!(turn(&mut one).await, other("two"));
    two.release().await.expect("released");
    assert!(until_held(&mut one).await > first);
}

#[tokio::test]
async fn what_is_released_is_free_at_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let long = Duration::from_secs(600);
    let (mut one, mut two) = (broker.lease("one", "run", long), broker.lease("two", "run", long));
    tenure(&turn(&mut one).await);
    assert_eq!(turn(&mut two).await, other("one"));
    one.release().await.expect("released");
    one.release().await.expect("nothing to release");
    tenure(&turn(&mut two).await);
}

#[tokio::test]
async fn it_survives_the_servers_death_in_its_holders_hand() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let long = Duration::from_secs(60);
    let (mut one, mut two) = (broker.lease("one", "run", long), broker.lease("two", "run", long));
    let first = tenure(&turn(&mut one).await);
    server.kill_and_revive().await;
    assert_eq!(tenure(&turn(&mut one).await), first);
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
    let mut one = broker.lease("one", "run", TTL);
    assert_eq!(turn(&mut one).await, other("dead"));
    let began = Instant::now();
    until_held(&mut one).await;
    assert!(began.elapsed() >= TTL / 2);
}

#[tokio::test]
async fn two_processes_with_one_id_are_two_holders() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (mut one, mut two) = (broker.lease("s", "a", TTL), broker.lease("s", "b", TTL));
    let first = tenure(&turn(&mut one).await);
    let began = Instant::now();
    while began.elapsed() < TTL * 2 {
        assert_eq!(turn(&mut two).await, other("s"));
        assert_eq!(tenure(&turn(&mut one).await), first);
    }
}

#[tokio::test]
async fn what_is_held_is_held_for_less_than_the_time_to_live_from_before_it_was_asked_for() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut one = broker.lease("one", "run", TTL);
    for _ in 0..3 {
        let asked = Moment::now();
        let LeaseState::Held { until, .. } = turn(&mut one).await else {
            panic!("there is nobody else");
        };
        let answered = Moment::now();
        assert!(until >= asked.after(TTL / 2) && until < asked.after(TTL), "{until:?} {asked:?}");
        assert!(until > answered, "{until:?} {answered:?}");
    }
}

#[tokio::test]
async fn a_bucket_that_was_made_anew_is_taken_and_overwrites_nobody() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let long = Duration::from_secs(60);
    let (mut one, mut two) = (broker.lease("one", "run", long), broker.lease("two", "run", long));
    // Revisions of the old bucket and the new one meet.
    for _ in 0..3 {
        tenure(&turn(&mut one).await);
    }
    let client = server.client().await;
    let name = format!("KV_{}", broker.subjects().lease_bucket());
    let deleted = client.request(format!("$JS.API.STREAM.DELETE.{name}"), "".into()).await;
    deleted.expect("deleted");
    server.broker().await;
    for _ in 0..3 {
        tenure(&turn(&mut two).await);
    }
    assert_eq!(turn(&mut one).await, other("two"));
    two.release().await.expect("released");
    tenure(&turn(&mut one).await);
}

#[tokio::test]
async fn a_later_incarnation_is_admitted_and_an_earlier_one_is_not() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (a, b) = (agent("a"), agent("b"));
    let of = |incarnation: u64, consumer: &str| Admitted { incarnation, consumer: consumer.into() };
    let admit = async |wanted: &Admitted| broker.admit(&a, wanted).await.expect("an answer");
    assert_eq!(broker.admitted(&a).await.expect("an answer"), None);
    for wanted in [of(2, "a-2"), of(2, "a-2"), of(2, "a-2_x"), of(7, "a-7")] {
        assert_eq!(admit(&wanted).await, Admission::Won);
        assert_eq!(broker.admitted(&a).await.expect("an answer"), Some(wanted));
    }
    assert_eq!(admit(&of(6, "a-6")).await, Admission::Lost(of(7, "a-7")));
    assert_eq!(broker.admitted(&b).await.expect("an answer"), None);
    broker.forget_admitted(&a).await.expect("forgotten");
    assert_eq!(admit(&of(1, "a-1")).await, Admission::Won);
}

#[tokio::test]
async fn of_all_who_are_admitted_at_once_the_latest_incarnation_stays() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    let admitting = (1..=8).map(|incarnation| {
        let (broker, a) = (&broker, &a);
        async move {
            let wanted = Admitted { incarnation, consumer: format!("a-{incarnation}") };
            broker.admit(a, &wanted).await.expect("an answer")
        }
    });
    futures_util::future::join_all(admitting).await;
    let there = broker.admitted(&a).await.expect("an answer");
    assert_eq!(there.expect("somebody").incarnation, 8);
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

/// The data folder's lock says that the process before is dead: its lease need not run out.
#[tokio::test]
async fn whoever_succeeds_takes_over_at_once_and_nobody_else_does() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let long = Duration::from_secs(60);
    let mut before = broker.lease("up", "first", long);
    tenure(&turn(&mut before).await);
    let mut twin = broker.lease("up", "twin", long);
    assert_eq!(turn(&mut twin).await, other("up"));
    let mut stranger = broker.lease("stranger", "x", long).succeeding();
    assert_eq!(turn(&mut stranger).await, other("up"));
    let mut next = broker.lease("up", "second", long).succeeding();
    tenure(&turn(&mut next).await);
    assert_eq!(turn(&mut before).await, other("up"), "it is known to be over");
}
