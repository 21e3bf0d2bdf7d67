//! `mozart events --security`: what was refused to agents.

use broker::Attempt as _;
use common::AgentName;
use common::api::ApiError;
use common::security::SecurityEvent;

use super::client::Client;
use super::output;

/// Shows the last refusals, of an agent or of all.
pub(super) async fn show(
    client: &Client,
    agent: Option<&AgentName>,
    limit: usize,
) -> Result<u8, ApiError> {
    let refusals = client.broker.refusals(agent, limit).await;
    let refusals = refusals.attempt("cannot read what was refused")?;
    if client.json() {
        return output::json(&refusals).map(|()| 0);
    }
    for event in &refusals {
        output::line(render(event))?;
    }
    if refusals.is_empty() {
        output::note("nothing was refused in the last 30 days");
    }
    Ok(0)
}

fn render(event: &SecurityEvent) -> String {
    let SecurityEvent { at, kind, agent, incarnation, user, node, detail, by, others } = event;
    let who = match (agent, incarnation, user, node) {
        (_, _, _, Some(node)) => format!("node {node}"),
        (_, _, Some(user), None) => format!("user {user}"),
        (Some(agent), Some(incarnation), None, None) => format!("{agent}-{incarnation}"),
        (Some(agent), None, None, None) => agent.to_string(),
        (None, _, None, None) => "unknown".to_owned(),
    };
    let others = if *others > 0 { format!(" (and {others} others)") } else { String::new() };
    format!("{at}  {who:<16} {} refused by {by}: {detail}{others}", kind.as_str())
}

#[cfg(test)]
mod tests {
    use common::Timestamp;
    use common::security::Refusal;

    use super::*;

    #[test]
    fn a_refusal_is_one_line() {
        let event = SecurityEvent {
            at: Timestamp::from_millis(0),
            kind: Refusal::Publish,
            agent: Some(AgentName::new("writer").expect("valid")),
            incarnation: Some(3),
            user: None,
            node: None,
            detail: "$JS.API.INFO".to_owned(),
            by: "nats-server of n1".to_owned(),
            others: 41,
        };
        assert_eq!(
            render(&event),
            "1970-01-01T00:00:00.000Z  writer-3         publish refused by nats-server of n1: $JS.API.INFO (and 41 others)"
        );
    }
}
