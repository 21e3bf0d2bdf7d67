//! The tools about agents: listing, explaining, logs.

use broker::Attempt as _;
use common::api::{AgentRow, ApiError};
use common::{AgentName, failure};
use mozart_client::{Client, explain};

use crate::ask::found;
use crate::shown::{Agent, AgentLogs, Agents, Explain, Explained, ListAgents, LogLine, Logs, time};
use crate::tools::{Refused, named};
use crate::who::Who;

/// The most log lines of a result.
const LINES: usize = 1_000;

/// Lists agents.
pub(crate) async fn list(who: &Who, asked: ListAgents) -> Result<Agents, Refused> {
    let rows = match asked.filter.as_deref().filter(|filter| !filter.is_empty()) {
        None => who.client.seen_rows(false).await?,
        Some(filter) => filtered(&who.client, filter).await?,
    };
    Ok(Agents { agents: rows.into_iter().map(agent).collect() })
}

/// The rows of the agents whose names contain a text. Names are read from what supervisors have in memory; what waits for an agent, from the
/// journal, and of these agents alone if they are few.
async fn filtered(client: &Client, filter: &str) -> Result<Vec<AgentRow>, ApiError> {
    let is_wanted = |row: &AgentRow| row.agent.as_str().contains(filter);
    let mut brief = client.seen_rows(true).await?;
    brief.retain(is_wanted);
    let agents: Vec<AgentName> = brief.into_iter().map(|row| row.agent).collect();
    if agents.is_empty() {
        return Ok(Vec::new());
    }
    client.clone().only(agents).seen_rows(false).await
}

fn agent(row: AgentRow) -> Agent {
    Agent {
        name: row.agent.to_string(),
        state: row.state.as_str().to_owned(),
        reason: row.reason,
        queue: row.inbox,
        in_progress: row.inflight,
        running_since: row.started_at.map(time),
    }
}

/// Explains an agent or a message.
pub(crate) async fn why(who: &Who, asked: Explain) -> Result<Explained, Refused> {
    let subject = asked.subject;
    // An agent is looked up first, as `explain` does. An id may also be the name of one that this caller may not see.
    let agent = AgentName::new(&subject).ok().filter(|agent| who.sees(agent));
    let exists = match &agent {
        Some(agent) => mozart_client::agents::exists(&who.client.broker, agent).await?,
        None => false,
    };
    let message = if exists { None } else { Some(found(who, &subject).await) };
    let explained = match (message, agent) {
        (Some(Ok(message)), _) => explain::of_message(&who.client, message).await?,
        // One that was removed, or whose name is not quite that.
        (Some(Err(Refused::Failed(error))), Some(agent)) if error.code == failure::NOT_FOUND => {
            explain::of_agent(&who.client, &agent).await?
        }
        (Some(Err(refused)), _) => return Err(refused),
        (None, Some(agent)) => explain::of_agent(&who.client, &agent).await?,
        (None, None) => return Err(Refused::Arguments("subject: expected a name".to_owned())),
    };
    Ok(Explained {
        subject: explained.subject,
        explanation: explained.explanation,
        log: explained.log.unwrap_or_default(),
        recent: explained.recent.unwrap_or_default(),
    })
}

/// Reads what an agent's workers wrote.
pub(crate) async fn logs(who: &Who, asked: AgentLogs) -> Result<Logs, Refused> {
    let agent: AgentName = named(&asked.agent)?;
    who.reach(&agent)?;
    let limit = asked.lines.clamp(1, LINES);
    let what = format!("cannot read the log of {agent}");
    let lines = who.client.broker.logs(&agent, asked.incarnation, limit).await.attempt(what)?;
    if lines.is_empty() {
        mozart_client::agents::require(&who.client, &agent).await?;
    }
    let lines = lines.into_iter().filter(|line| !line.is_trimmed()).map(|line| LogLine {
        at: time(line.at),
        incarnation: line.incarnation,
        stream: line.stream,
        text: line.text,
    });
    Ok(Logs { agent: agent.to_string(), lines: lines.collect() })
}
