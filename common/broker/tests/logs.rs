//! The workers' log lines.

use broker::Broker;
use common::log::LogLine;
use common::{AgentName, Timestamp};

use crate::support::{Server, agent, soon};

fn lines(incarnation: u64, from: u64, count: u64) -> Vec<LogLine> {
    let line = |n: u64| LogLine {
        at: Timestamp::from_millis(n),
        stream: "stderr".into(),
        text: format!("line {n}\nof {incarnation}"),
        message_id: None,
        incarnation,
    };
    (from..from + count).map(line).collect()
}

/// Waits for lines of the agent: what has passed the connection, a stream takes in its own time.
async fn stored(broker: &Broker, lines: usize) {
    let all = async {
        while broker.logs(&agent("a"), None, 1000).await.expect("an answer").len() < lines {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    soon(all).await;
}

#[tokio::test]
async fn the_last_lines_of_one_or_of_all_incarnations_are_read() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    for incarnation in [1, 2] {
        for from in [0, 5] {
            let lines = lines(incarnation, from, 5);
            let published = broker.publish_logs(&a, incarnation, &lines).await;
            published.expect("told");
        }
    }
    stored(&broker, 20).await;
    let all = broker.logs(&a, None, 1000).await.expect("an answer");
    assert_eq!(all, [lines(1, 0, 10), lines(2, 0, 10)].concat());
    let last = broker.logs(&a, Some(1), 3).await.expect("an answer");
    assert_eq!(last, lines(1, 7, 3));
    let last = broker.logs(&a, None, 12).await.expect("an answer");
    assert_eq!(last, [lines(1, 8, 2), lines(2, 0, 10)].concat(), "of several records, in order");
    assert!(broker.logs(&a, None, 0).await.expect("an answer").is_empty());
}

fn of(agent: &AgentName, lines: Vec<LogLine>) -> Vec<(AgentName, LogLine)> {
    lines.into_iter().map(|line| (agent.clone(), line)).collect()
}

#[tokio::test]
async fn a_follower_sees_what_comes_from_now_on_over_a_killed_server() {
    let mut server = Server::start().await;
    let broker = server.broker().await;
    let a = agent("a");
    let before = broker.publish_logs(&a, 1, &lines(1, 0, 5)).await;
    before.expect("told");
    stored(&broker, 5).await;
    let mut follower = broker.follow_logs(std::slice::from_ref(&a)).await.expect("following");
    let after = broker.publish_logs(&a, 1, &lines(1, 5, 1)).await;
    after.expect("told");
    assert_eq!(soon(follower.next()).await.expect("lines"), of(&a, lines(1, 5, 1)));

    server.kill_and_revive().await;
    let mut link = broker.link();
    soon(link.wait_for(|link| link.up && link.epoch == 2)).await.expect("open");
    let last = broker.publish_logs(&a, 2, &lines(2, 6, 2)).await;
    last.expect("told");
    assert_eq!(soon(follower.next()).await.expect("lines"), of(&a, lines(2, 6, 2)));
}
