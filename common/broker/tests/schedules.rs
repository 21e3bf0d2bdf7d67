//! What becomes of the occurrences of schedules.

use common::schedule::{Fate, Occurrences};
use common::{ScheduleId, Timestamp};

use crate::support::{Server, agent, message};

fn record(minute: u64, author: &str) -> Occurrences {
    let id = message(&format!("s-{minute}"));
    Occurrences {
        nominal: Some(Timestamp::from_millis(minute * 60_000)),
        from: None,
        count: 1,
        more: false,
        fate: Fate::Ran { message_id: id.clone() },
        last: Some(id),
        stored: false,
        at: Timestamp::from_millis(minute * 60_000 + 5),
        term: Some(1),
        author: author.to_owned(),
    }
}

#[tokio::test]
async fn of_two_that_decide_about_an_occurrence_one_does() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (agent, id) = (agent("a"), ScheduleId::new("abc").expect("valid"));
    let key = (&agent, &id);
    assert_eq!(broker.last_occurrences(&agent, &id).await.expect("an answer"), None);
    let first = broker.store_occurrences(key, &record(1, "one"), 0).await.expect("an answer");
    let first = first.expect("there was none");
    // Another one, who knows of none; and the same one, whose answer was lost.
    let other = broker.store_occurrences(key, &record(1, "two"), 0).await.expect("an answer");
    assert_eq!(other, None);
    let again = broker.store_occurrences(key, &record(1, "one"), 0).await.expect("an answer");
    assert_eq!(again, Some(first));
    let second = broker.store_occurrences(key, &record(2, "two"), first).await;
    let second = second.expect("an answer").expect("it is the next");
    // One that was deposed.
    let late = broker.store_occurrences(key, &record(2, "one"), first).await.expect("an answer");
    assert_eq!(late, None);
    let last = broker.last_occurrences(&agent, &id).await.expect("an answer").expect("it is there");
    assert_eq!((last.seq, last.value), (second, record(2, "two")));
    let all = broker.occurrences(&agent, &id, 10).await.expect("an answer");
    let all: Vec<Occurrences> = all.into_iter().map(|one| one.value).collect();
    assert_eq!(all, [record(1, "one"), record(2, "two")]);
}

#[tokio::test]
async fn the_last_records_of_many_schedules_are_read_in_batches() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let key = |n: u64| (agent(&format!("a{n}")), ScheduleId::new("abc").expect("valid"));
    // More than one request, and some without a record.
    for n in (0..450).filter(|n| n % 3 > 0) {
        let (agent, id) = key(n);
        let one = broker.store_occurrences((&agent, &id), &record(n + 1, "s"), 0).await;
        let seq = one.expect("an answer").expect("it is new");
        let two = broker.store_occurrences((&agent, &id), &record(n + 2, "s"), seq).await;
        two.expect("an answer").expect("it is the next");
    }
    let keys: Vec<_> = (0..450).map(key).collect();
    let last = broker.schedules_last(&keys).await.expect("an answer");
    assert_eq!(last.len(), keys.len());
    for (n, last) in (0..450).zip(last) {
        let last = last.expect("readable").map(|last| last.value);
        assert_eq!(last, (n % 3 > 0).then(|| record(n + 2, "s")), "{n}");
    }
    let (gone, id) = key(1);
    assert_eq!(broker.known_schedules().await.expect("an answer").len(), 300);
    broker.drop_schedule(&gone, &id).await.expect("an answer");
    assert_eq!(broker.known_schedules().await.expect("an answer").len(), 299);
    assert_eq!(broker.last_occurrences(&gone, &id).await.expect("an answer"), None);
}
