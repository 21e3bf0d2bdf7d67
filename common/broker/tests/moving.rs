//! Lists that are read while messages move from the journal to HISTORY.

use std::collections::BTreeSet;
use std::time::Duration;

use broker::{Broker, BrokerError, Cursor, ListQuery};

use crate::history::{archive, finish, finished, send};
use crate::support::{Server, agent, envelope};

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
    let mut all = BTreeSet::new();
    loop {
        let (ids, next) = page(&broker, &query, 2).await;
        if ids.is_empty() {
            break;
        }
        all.extend(ids);
        query.after = Some(next);
        for sent in open.drain(..open.len().min(3)) {
            finish(&broker, &sent).await;
        }
        archive(&broker).await;
    }
    assert_eq!(all, expected);
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
