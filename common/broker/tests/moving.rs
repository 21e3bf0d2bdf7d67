//! Lists that are read while messages move from the journal to HISTORY.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Archiver, Broker, BrokerError, Cursor, ListQuery};

use crate::history::{AT_ONCE, archive, finish, finished, send, stop_after};
use crate::support::{Server, agent, drop_namespace, envelope, soon};

/// A page of so many ids, and where to go on.
async fn page(broker: &Broker, query: &ListQuery, limit: usize) -> (Vec<String>, Cursor) {
    let mut listing = broker.list(query).await.expect("a list");
    let mut ids = Vec::new();
    while ids.len() < limit
        && let Some(listed) = listing.next().await.expect("a message")
    {
        ids.push(listed.request.value.message_id.to_string());
    }
    // As text, as people pass it on.
    (ids, listing.place().to_string().parse().expect("a place"))
}

/// What is being archived is in the journal and in HISTORY for a moment, and a page may end at it.
#[tokio::test]
async fn what_is_archived_while_a_page_is_read_is_not_on_the_next_one_as_well() {
    let server = Server::start().await;
    let mut came_to_its_end = false;
    for steps in 1..400 {
        let broker = server.broker_in(&format!("n{steps}"), 1).await;
        for id in ["m1", "m2", "m3"] {
            finished(&broker, "a", &[id]).await;
            later().await;
        }
        let mut query = ListQuery { about: 2, ..ListQuery::default() };
        let mut archiver = Archiver::new(broker.clone(), AT_ONCE);
        let first = {
            let mut round = std::pin::pin!(archiver.round());
            came_to_its_end = stop_after(steps, round.as_mut()).await;
            let (ids, next) = page(&broker, &query, 2).await;
            query.after = Some(next);
            if !came_to_its_end {
                let _round = soon(round).await;
            }
            ids
        };
        assert_eq!(first, ["m3", "m2"], "after {steps} steps");
        let _more = archive(&broker).await;
        assert_eq!(page(&broker, &query, 9).await.0, ["m1"], "after {steps} steps");
        drop_namespace(&broker).await;
        if came_to_its_end {
            break;
        }
    }
    assert!(came_to_its_end, "a round has an end");
}

/// The broker's times are in milliseconds, and decide the order over shards.
async fn later() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

#[tokio::test]
async fn what_moves_between_two_pages_is_neither_missed_nor_given_again() {
    let server = Server::start().await;
    let cases = [(1, None, 1), (1, None, 3), (3, None, 1), (3, None, 2), (3, Some("b"), 2)];
    for (shards, only, after) in cases {
        let name = format!("n{shards}-{}-{after}", only.unwrap_or("all"));
        let broker = server.broker_in(&name, shards).await;
        let mut expected = Vec::new();
        for n in 0..24 {
            let of = ["a", "b", "c"][n % 3];
            let id = format!("{of}-{n}");
            finished(&broker, of, &[id.as_str()]).await;
            if only.is_none_or(|only| only == of) {
                expected.push(id);
            }
            if n == 5 {
                archive(&broker).await;
            }
            later().await;
        }
        expected.reverse();
        // Then all that is left moves at once, after so many pages.
        let mut query = ListQuery { agent: only.map(agent), about: 10, ..ListQuery::default() };
        let (mut all, mut pages) = (Vec::new(), 0);
        loop {
            let (ids, next) = page(&broker, &query, 2).await;
            if ids.is_empty() {
                break;
            }
            all.extend(ids);
            query.after = Some(next);
            pages += 1;
            if pages == after {
                assert!(archive(&broker).await > 0, "something moves");
            }
        }
        assert_eq!(all, expected, "{name}");
    }
}

#[tokio::test]
async fn what_moves_again_and_again_is_not_missed() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let mut open = Vec::new();
    let mut expected = BTreeSet::new();
    for n in 0..20 {
        let id = format!("m{n}");
        let sent = send(&broker, "a", &id).await;
        // The older half is finished, the others later.
        match n < 10 {
            true => finish(&broker, &sent).await,
            false => open.push(sent),
        }
        expected.insert(id);
    }
    let mut query = ListQuery { about: 10, ..ListQuery::default() };
    let (mut all, mut count) = (BTreeSet::new(), 0);
    loop {
        let (ids, next) = page(&broker, &query, 2).await;
        if ids.is_empty() {
            break;
        }
        count += ids.len();
        all.extend(ids);
        query.after = Some(next);
        for sent in open.drain(..open.len().min(3)) {
            finish(&broker, &sent).await;
        }
        archive(&broker).await;
    }
    assert_eq!(all, expected);
    assert_eq!(count, expected.len(), "none twice");
}

/// What was finished first is read from HISTORY before what is older and open; then that moves, too.
#[tokio::test]
async fn what_is_open_is_not_missed_behind_what_is_newer_and_archived() {
    let server = Server::start().await;
    for shards in [1, 3] {
        let broker = server.broker_in(&format!("n{shards}"), shards).await;
        let mut open = Vec::new();
        for n in 0..6 {
            open.push(send(&broker, ["a", "b", "c"][n % 3], &format!("m{n}")).await);
            later().await;
        }
        let newest = open.pop().expect("six");
        finish(&broker, &newest).await;
        assert_eq!(archive(&broker).await, 1);
        let mut query = ListQuery { about: 10, ..ListQuery::default() };
        let (ids, next) = page(&broker, &query, 1).await;
        assert_eq!(ids, ["m5"]);
        for sent in &open {
            finish(&broker, sent).await;
        }
        assert_eq!(archive(&broker).await, 5);
        query.after = Some(next);
        let (ids, next) = page(&broker, &query, 2).await;
        assert_eq!(ids, ["m4", "m3"]);
        query.after = Some(next);
        assert_eq!(page(&broker, &query, 9).await.0, ["m2", "m1", "m0"]);
    }
}

/// Numbers below a bound, as a seed has them.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |bound| {
        // Knuth's multiplier of MMIX; its low bits are poor.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % bound
    }
}

/// More parts of HISTORY than a place names: whatever happens between the pages, each message that was there is listed once.
#[tokio::test]
async fn whatever_moves_between_pages_each_message_is_listed_once() {
    let server = Server::start().await;
    for (seed, shards) in [(1, 1), (2, 3), (3, 1), (4, 3), (5, 2)] {
        let mut below = numbers(seed);
        let broker = server.broker_in(&format!("n{seed}"), shards).await;
        let (mut open, mut expected) = (Vec::new(), BTreeSet::new());
        let store = async |n: usize| send(&broker, ["a", "b", "c"][n % 3], &format!("m{n}")).await;
        for n in 0..150 {
            open.push(store(n).await);
            expected.insert(format!("m{n}"));
            if below(3) == 0 {
                let at = below(open.len());
                finish(&broker, &open.swap_remove(at)).await;
            }
            if below(20) == 0 {
                archive(&broker).await;
            }
        }
        let mut query = ListQuery { about: 10, ..ListQuery::default() };
        let (mut all, mut most) = (Vec::new(), 0);
        for n in 150.. {
            let wanted = 1 + below(3);
            let (ids, next) = page(&broker, &query, wanted).await;
            if ids.is_empty() {
                break;
            }
            all.extend(ids);
            most = most.max(next.to_string().len());
            query.after = Some(next);
            // What comes while it is read is newer, and not listed.
            open.push(store(n).await);
            for _ in 0..below(5) {
                let at = below(open.len());
                finish(&broker, &open.swap_remove(at)).await;
            }
            if below(3) > 0 {
                archive(&broker).await;
            }
        }
        let listed: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(listed, expected, "seed {seed}");
        assert_eq!(all.len(), expected.len(), "seed {seed}: none twice");
        assert!(most < 600, "a place of {most} characters");
    }
}

#[tokio::test]
async fn a_place_of_another_list_is_refused() {
    let server = Server::start().await;
    let broker = server.broker().await;
    finished(&broker, "a", &["m1", "m2", "m3"]).await;
    let all = ListQuery { about: 10, ..ListQuery::default() };
    let (_, place) = page(&broker, &all, 1).await;
    let of_a = ListQuery { agent: Some(agent("a")), ..all.clone() };
    let (_, of_a_place) = page(&broker, &of_a, 1).await;
    let talk = Some(envelope("a", "m1").tag());
    for (query, place) in [
        (of_a.clone(), place.clone()),
        (all.clone(), of_a_place.clone()),
        (ListQuery { agent: Some(agent("b")), ..all.clone() }, of_a_place.clone()),
        (ListQuery { conversation: talk, ..of_a.clone() }, of_a_place.clone()),
        (ListQuery { hot: true, ..of_a.clone() }, of_a_place.clone()),
    ] {
        let refused = broker.list(&ListQuery { after: Some(place), ..query.clone() }).await;
        assert!(matches!(refused, Err(BrokerError::OtherList)), "{query:?}");
    }
    let (rest, _) = page(&broker, &ListQuery { after: Some(of_a_place), ..of_a }, 9).await;
    assert_eq!(rest, ["m2", "m1"]);
}
