//! What nats-server has refused to agents, nodes and users, by what its log says: a forbidden publish is told to the one who tried it, and to nobody else.

use std::path::PathBuf;
use std::time::Duration;

use broker::{Broker, Who};
use common::api::ApiError;
use common::security::Refusal;
use control::{Refusals, Refused};
use tokio_util::sync::CancellationToken;

use super::tail::Tail;

/// How often the log is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The longest part of a subject that is told.
const SHOWN: usize = 200;

/// Records what is refused until `stop`.
///
/// # Errors
/// None: what cannot be read or recorded is logged.
pub(super) async fn watch(
    log: PathBuf,
    mut refusals: Refusals,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    let mut tail = Tail::new(log);
    let subjects = broker.subjects().clone();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let news = tail.news();
                for Violation { user, kind, subject } in news.lines().filter_map(parse) {
                    let detail = subject.chars().take(SHOWN).collect();
                    // Those of another fleet are for the operator of that one.
                    match Who::of(&subjects, user) {
                        Some(Who::Shim(agent, incarnation)) => {
                            refusals.note(Refused::to_agent(kind, agent, incarnation, detail));
                        }
                        Some(Who::User(user)) => refusals.note(Refused::to_user(kind, user, detail)),
                        Some(Who::Node(node)) => refusals.note(Refused::to_node(kind, node, detail)),
                        None => {}
                    }
                }
            }
            () = refusals.record() => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// A line about something that was refused.
#[derive(Debug, PartialEq, Eq)]
struct Violation<'a> {
    user: &'a str,
    kind: Refusal,
    subject: &'a str,
}

/// Reads `… - cid:1 - "<what the client says of itself>" - "<account>/user:<user>" - Publish Violation - Subject "<subject>"`. What a client says
/// of itself is quoted, and may hold anything, also what looks like the rest of a line: so it is read from the front.
fn parse(line: &str) -> Option<Violation<'_>> {
    let (_, rest) = line.split_once(" - cid:")?;
    let (_, rest) = rest.split_once(" - ")?;
    let (_, rest) = quoted(rest)?;
    let (account, rest) = quoted(rest.strip_prefix(" - ")?)?;
    let user = account.split_once("/user:")?.1;
    let rest = rest.strip_prefix(" - ")?;
    let (kind, rest) = match rest.strip_prefix("Publish Violation - ") {
        Some(rest) => (Refusal::Publish, rest),
        None => (Refusal::Subscribe, rest.strip_prefix("Subscription Violation - ")?),
    };
    let subject = rest.strip_prefix("Subject ")?;
    let (subject, _) = quoted(subject)?;
    Some(Violation { user, kind, subject })
}

/// What is between quotes, as Go writes them, and what follows.
fn quoted(text: &str) -> Option<(&str, &str)> {
    let text = text.strip_prefix('"')?;
    let mut is_escaped = false;
    let end = text.find(|char| {
        let ends = char == '"' && !is_escaped;
        is_escaped = char == '\\' && !is_escaped;
        ends
    })?;
    Some((text.get(..end)?, text.get(end + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISH: &str = r#"[25] 2026/11/30 09:02:22.9 [ERR] 192.0.2.2:3 - cid:66 - "v1:py:me" - "AGENTS/user:fleet.d.shim.a.1" - Publish Violation - Subject "$JS.API.INFO""#;

    #[test]
    fn a_refused_subject_is_read_with_its_user() {
        let (user, subject) = ("fleet.d.shim.a.1", "$JS.API.INFO");
        assert_eq!(parse(PUBLISH), Some(Violation { user, kind: Refusal::Publish, subject }));
        let subscribe =
            PUBLISH.replace("Publish", "Subscription").replace("\"$JS.API.INFO\"", "\">\", SID 1");
        let subject = ">";
        assert_eq!(parse(&subscribe), Some(Violation { user, kind: Refusal::Subscribe, subject }));
    }

    #[test]
    fn what_a_client_calls_itself_is_nothing_that_was_refused() {
        let name =
            r#"v1:py:x\" - \"AGENTS/user:fleet.d.shim.b.1\" - Publish Violation - Subject \"y"#;
        let line = PUBLISH.replace("v1:py:me", name);
        assert_eq!(parse(&line).map(|it| it.user), Some("fleet.d.shim.a.1"));
        let connects =
            format!(r#"[25] x [INF] 1.1.1.1:3 - cid:66 - "{name}" - Client connection closed"#);
        assert_eq!(parse(&connects), None);
        for other in [
            "",
            "[ERR] x",
            r#" - cid:1 - ""#,
            r#" - cid:1 - "x" - "A/user:u" - Publish Violation - "#,
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
