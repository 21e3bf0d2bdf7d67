//! Join tokens: for one host, and for a time.

use std::time::Duration;

use broker::Admit;

use crate::support::Server;

const LONG: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_ticket_is_for_the_first_host_that_uses_it() {
    let server = Server::start().await;
    let broker = server.broker().await;
    broker.issue_ticket("t", LONG).await.expect("stored");
    let (one, two) =
        tokio::join!(broker.use_ticket("t", "one", LONG), broker.use_ticket("t", "two", LONG));
    let admitted = [one.expect("an answer"), two.expect("an answer")];
    let (winner, loser) = match admitted {
        [Admit::Granted, Admit::Used] => ("one", "two"),
        [Admit::Used, Admit::Granted] => ("two", "one"),
        other => panic!("{other:?}"),
    };
    for (host, admit) in [(winner, Admit::Granted), (loser, Admit::Used)] {
        assert_eq!(broker.use_ticket("t", host, LONG).await.expect("an answer"), admit, "{host}");
    }
    assert_eq!(broker.use_ticket("u", "one", LONG).await.expect("an answer"), Admit::Unknown);
}

#[tokio::test]
async fn a_ticket_expires() {
    let server = Server::start().await;
    let broker = server.broker().await;
    broker.issue_ticket("t", Duration::from_secs(1)).await.expect("stored");
    // Whoever asks before has it, and keeps it. Servers remove what has expired once a second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(broker.use_ticket("t", "one", LONG).await.expect("an answer"), Admit::Unknown);
}
