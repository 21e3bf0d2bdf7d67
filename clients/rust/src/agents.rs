//! Whether an agent exists, according to the control log alone, so that messages can be sent while no supervisor runs.

use std::time::Duration;

use broker::Broker;
use common::api::ApiError;
use common::control::{ControlEvent, ControlRecord};
use common::{AgentName, Timestamp};
use tokio::time::Instant;

use crate::client::Client;
use broker::Attempt;
use common::failure;

/// For how long the broker may give no answer: a cluster that has just lost a server elects leaders for some seconds.
const PATIENCE: Duration = Duration::from_secs(20);
/// Names of a page that are compared with one that is not known.
const NEAR: usize = 100;

/// Whether the agent is registered.
///
/// # Errors
/// When the broker does not answer.
pub async fn exists(broker: &Broker, agent: &AgentName) -> Result<bool, ApiError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = broker.is_registered(agent).await;
        match found.attempt(format!("cannot look up agent {agent}")) {
            // Each of these has taken some seconds.
            Err(error) if error.code == failure::TIMEOUT && Instant::now() < until => {}
            found => return found,
        }
    }
}

/// Demands that the agent is registered.
///
/// # Errors
/// Exit 3, with the name that was probably meant if a supervisor answers.
pub async fn require(client: &Client, agent: &AgentName) -> Result<(), ApiError> {
    if exists(&client.broker, agent).await? {
        return Ok(());
    }
    Err(meant(client, agent).await)
}

/// The error for an unknown agent, with the name that was probably meant if a supervisor answers.
pub async fn meant(client: &Client, agent: &AgentName) -> ApiError {
    let near = near(client, agent).await;
    let names: Vec<&str> = near.iter().map(AgentName::as_str).collect();
    let removed = |_, at: Timestamp, record: &ControlRecord| {
        matches!(record.event, ControlEvent::AgentRemoved { .. }).then_some(at)
    };
    match client.broker.look_back(agent, 1, removed).await {
        Ok(Some(at)) => {
            let what = format!("no agent {:?}", agent.as_str());
            let cause = format!("it was removed at {at}; its messages are still in the journal");
            failure::error(failure::NOT_FOUND, what, cause, "`mozart apply SOUL` brings it back")
        }
        // What the broker does not tell is left out.
        Ok(None) | Err(_) => unknown(agent, &names),
    }
}

/// The names among which the one that was meant probably is. However many agents there are, two pages of them are asked for: the first,
/// which in a small fleet is all of them, and the one in which the name would be.
async fn near(client: &Client, agent: &AgentName) -> Vec<AgentName> {
    if !client.agents().is_empty() {
        return client.agents().iter().filter(|one| *one != agent).cloned().collect();
    }
    let mut names = Vec::new();
    for after in [None, beginning(agent)] {
        let mut pages = client.pages(after, true);
        let rows = pages.next(NEAR).await.ok().flatten().unwrap_or_default();
        names.extend(rows.into_iter().map(|row| row.agent));
        if !pages.has_more() {
            break;
        }
    }
    names
}

/// What a name begins with when its end is mistyped; none of one that is short.
fn beginning(agent: &AgentName) -> Option<AgentName> {
    const END: usize = 2;
    let name = agent.as_str();
    name.get(..name.len().checked_sub(END)?).and_then(|name| AgentName::new(name).ok())
}

/// The error for an unknown agent, with the name that was probably meant.
pub fn unknown(agent: &AgentName, names: &[&str]) -> ApiError {
    let cause = match did_you_mean(agent.as_str(), names) {
        Some(name) => format!("no soul with that name was applied; did you mean {name:?}?"),
        None => "no soul with that name was applied".to_owned(),
    };
    let what = format!("no agent {:?}", agent.as_str());
    failure::error(failure::NOT_FOUND, what, cause, "`mozart ps -a` lists the agents")
}

/// The candidate nearest to a name, if it is near enough to be a slip of the keyboard.
pub fn did_you_mean<'a>(name: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let near = |candidate: &&&str| strsim::jaro_winkler(name, candidate) > 0.8;
    candidates
        .iter()
        .filter(near)
        .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))
        .copied()
}

#[cfg(test)]
mod tests {
    use common::control::ControlEvent;

    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognised() {
        assert_eq!(did_you_mean("writr", &["reader", "writer"]), Some("writer"));
        assert_eq!(did_you_mean("billing", &["reader", "writer"]), None);
        assert_eq!(did_you_mean("x", &[]), None);
    }

    #[test]
    fn the_page_of_a_name_begins_before_its_end() {
        let name = |name: &str| AgentName::new(name).expect("valid");
        assert_eq!(beginning(&name("writr")), Some(name("wri")));
        assert_eq!(beginning(&name("ab")), None);
    }

    #[test]
    fn an_unknown_agent_is_exit_3() {
        let agent = AgentName::new("writr").expect("valid");
        let error = unknown(&agent, &["writer"]);
        assert_eq!(error.code, 3);
        assert!(error.cause.ends_with("did you mean \"writer\"?"), "{}", error.cause);
    }

    #[test]
    fn an_exit_after_a_removal_does_not_bring_the_agent_back() {
        let agent = AgentName::new("a").expect("valid");
        let exited = ControlEvent::IncarnationExited {
            agent: agent.clone(),
            incarnation: 1,
            exit: common::shim::Exit::default(),
            clean: true,
        };
        assert_eq!(exited.is_registered(), None);
        assert_eq!(ControlEvent::AgentRemoved { agent }.is_registered(), Some(false));
    }
}
