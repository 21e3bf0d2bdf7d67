//! Whether agents wait for people.

use std::time::Duration;

use common::Timestamp;
use common::question::OpenQuestion;
use common::words::count;

use super::{Check, Health, check};
use crate::client::Client;
use crate::table;

/// A question that is open for longer is worth a word.
const LONG: Duration = Duration::from_secs(600);
/// So many pages are looked at, and so many questions named.
const PAGES: usize = 10;
const NAMED: usize = 5;

/// None if nobody waits for long, or no supervisor answers.
pub(super) async fn open(client: &Client) -> Option<Check> {
    let mut pages = client.questions(None);
    let mut open = Vec::new();
    for _ in 0..PAGES {
        let Ok(Some(rows)) = pages.next().await else { break };
        open.extend(rows);
    }
    found(&open, client.broker.now())
}

fn found(open: &[OpenQuestion], now: Timestamp) -> Option<Check> {
    let long: Vec<_> = open.iter().filter(|open| now.since(open.asked) > LONG).collect();
    let first = long.first()?;
    let name =
        |open: &&OpenQuestion| format!("{}/{}", open.agent, table::one_line(&open.request_id, 40));
    let mut names: Vec<String> = long.iter().take(NAMED).map(name).collect();
    if long.len() > NAMED {
        names.push(format!("{} more", long.len() - NAMED));
    }
    let found = format!(
        "{} for more than {}, the oldest for {}: {}",
        count(long.len() as u64, "question is open", "questions are open"),
        table::short(LONG),
        table::short(now.since(first.asked)),
        names.join(", ")
    );
    let try_ = "`mozart questions`, `mozart answer REQUEST TEXT`";
    Some(check("questions", Health::Warn, found, try_))
}

#[cfg(test)]
mod tests {
    use common::{AgentName, ConversationId, MessageId, SenderName};

    use super::*;

    #[test]
    fn what_is_open_for_long_is_named() {
        let open = |asked: u64| OpenQuestion {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new("m").expect("valid"),
            conversation_id: ConversationId::new("c").expect("valid"),
            request_id: "q".to_owned(),
            text: "Go?".to_owned(),
            options: Vec::new(),
            default: None,
            asked: Timestamp::from_millis(asked),
            until: Timestamp::from_millis(9_000_000),
        };
        let now = Timestamp::from_millis(700_000);
        assert!(found(&[], now).is_none());
        assert!(found(&[open(100_000)], now).is_none());
        let check = found(&[open(40_000), open(99_999), open(600_000)], now).expect("two");
        assert_eq!(check.health, Health::Warn);
        let expected = "2 questions are open for more than 10m, the oldest for 11m: a/q, a/q";
        assert_eq!(check.found, expected);
    }
}
