//! The tools about agents: listing, explaining, logs.

use broker::Attempt as _;
use common::AgentName;
use common::api::AgentRow;
use mozart_client::reference::MessageRef;

use crate::shown::{Agent, AgentLogs, Agents, Explain, Explained, ListAgents, LogLine, Logs, time};
use crate::tools::{Refused, named};
use crate::who::Who;

/// The most log lines of a result.
const LINES: usize = 1_000;

/// Lists agents.
pub(crate) async fn list(who: &Who, asked: ListAgents) -> Result<Agents, Refused> {
    let rows = who.client.rows(None).await?;
    let filter = asked.filter.unwrap_or_default();
    let wanted = |row: &AgentRow| who.sees(&row.agent) && row.agent.as_str().contains(&filter);
    let agents = rows.into_iter().filter(wanted).map(agent).collect();
    Ok(Agents { agents })
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
pub(crate) async fn explain(who: &Who, asked: Explain) -> Result<Explained, Refused> {
    let subject = asked.subject;
    // An agent is looked up first, as `explain` does.
    let agent = AgentName::new(&subject).ok();
    let exists = match &agent {
        Some(agent) if who.sees(agent) => {
            mozart_client::agents::exists(&who.client.broker, agent).await?
        }
        Some(_) | None => false,
    };
    let target = if exists || who.agents.is_empty() {
        subject
    } else {
        let message: MessageRef = named(&subject)?;
        let found = message.resolve(&who.client.broker).await?.value;
        who.reach(&found.agent)?;
        // In full: an id may also be the name of an agent that this caller may not see.
        format!("{}/{}/{}", found.agent, found.sender, found.message_id)
    };
    let explained = mozart_client::explain::explain(&who.client, &target).await?;
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
