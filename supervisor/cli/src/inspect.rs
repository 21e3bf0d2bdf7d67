//! `mozart inspect`.

use clap::Args;
use common::AgentName;
use common::api::{AgentDetail, ApiError, Query, Reply};

use super::client::{Client, unexpected};
use super::{output, table};
use crate::args::Global;

/// `mozart inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The agent
    agent: AgentName,
}

/// Shows everything known about an agent.
///
/// # Errors
/// 3 no such agent, 6 no supervisor.
pub(crate) async fn run(global: &Global, args: &InspectArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let reply = client.ask(&Query::Inspect { agent: args.agent.clone() }).await?;
    let Reply::Inspect(detail) = reply else {
        return Err(unexpected(&reply));
    };
    if client.json() {
        output::json(&detail)?;
    } else {
        output::line(render(&detail))?;
    }
    Ok(0)
}

fn render(detail: &AgentDetail) -> String {
    let AgentDetail { row, config, .. } = detail;
    let wanted = if detail.desired_running { "running" } else { "stopped" };
    let worker = config.worker.as_ref().map(|words| words.join(" "));
    let mut pairs = vec![
        ("agent", detail.id.to_string()),
        ("state", row.state.as_str().to_owned()),
        ("reason", table::or_none(row.reason.as_deref())),
        ("wanted", wanted.to_owned()),
        ("generation", row.generation.to_string()),
        ("incarnation", row.incarnation.to_string()),
        ("node", table::or_none(row.node.as_deref())),
        ("started", table::or_none(row.started_at)),
        ("restarts", row.restart_count.to_string()),
        ("last exit", table::or_none(row.last_exit.as_deref())),
        ("next try", table::or_none(row.next_try)),
        ("messages", format!("{} in the journal", row.message_count)),
        ("inbox", super::ps::busy(row)),
        ("oldest", table::or_none(row.oldest)),
        ("model", config.model.clone()),
        ("identity", table::one_line(&config.identity, 80)),
        ("worker", worker.unwrap_or_else(|| "built-in echo".to_owned())),
        ("concurrency", config.concurrency.to_string()),
        ("attempts", config.attempts.to_string()),
        ("turn timeout", table::short(config.timeout.turn)),
        ("drain timeout", table::short(config.timeout.drain)),
        ("soul", config.source_path.clone()),
    ];
    pairs.extend(config.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    let line = |(name, value): &(&str, String)| format!("{name:<14}{value}");
    pairs.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::ps::tests::row;
    use super::*;
    use common::api::AgentState;
    use common::spec::AgentSpec;

    #[test]
    fn nothing_is_shown_as_nothing_and_the_echo_worker_by_name() {
        let id = AgentName::new("a").expect("valid");
        let shown = render(&AgentDetail {
            row: row("a", AgentState::Running),
            config: AgentSpec::new(id.clone(), "test/model", "test agent"),
            desired_running: true,
            exit: None,
            id,
        });
        assert!(shown.contains("worker        built-in echo"), "{shown}");
        assert!(shown.contains("last exit     <none>"), "{shown}");
    }
}
