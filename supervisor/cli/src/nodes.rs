//! `mozart node ls` and `mozart node show`.

use clap::Subcommand;
use common::NodeName;
use common::api::{ApiError, NodeRow, Query, Reply};

use super::client::{Client, unexpected};
use super::{output, table};
use crate::args::Global;

/// Commands about nodes.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes
    Ls,
    /// Show a node, and the agents that run there
    Show {
        /// The node
        node: NodeName,
    },
}

/// Lists nodes, or shows one.
///
/// # Errors
/// 3 no such node, 6 no supervisor.
pub async fn run(global: &Global, command: &NodeCommand) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let node = match command {
        NodeCommand::Ls => None,
        NodeCommand::Show { node } => Some(node.clone()),
    };
    let reply = client.ask(&Query::Nodes { node }).await?;
    let Reply::Nodes(rows) = reply else {
        return Err(unexpected(&reply));
    };
    match (command, rows.as_slice()) {
        (NodeCommand::Show { .. }, [row]) if client.json() => output::json(row)?,
        (NodeCommand::Show { .. }, [row]) => output::line(show(row))?,
        _ if client.json() => output::json(&rows)?,
        _ => output::line(list(&rows))?,
    }
    Ok(0)
}

fn labels(row: &NodeRow) -> String {
    let labels = row.labels.iter().map(|(key, value)| format!("{key}={value}"));
    some(labels.collect())
}

fn some(words: Vec<String>) -> String {
    table::or_none(Some(words.join(",")).filter(|words| !words.is_empty()))
}

fn list(rows: &[NodeRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.node.to_string(),
            row.state.as_str().to_owned(),
            row.incarnations.to_string(),
            some(row.runtimes.clone()),
            labels(row),
        ]
    });
    table::table(&["NODE", "STATE", "INCARNATIONS", "RUNTIMES", "LABELS"], cells)
}

fn show(row: &NodeRow) -> String {
    let names =
        |agents: &[common::AgentName]| some(agents.iter().map(ToString::to_string).collect());
    let pairs = [
        ("node", row.node.to_string()),
        ("state", row.state.as_str().to_owned()),
        ("incarnations", row.incarnations.to_string()),
        ("runtimes", some(row.runtimes.clone())),
        ("labels", labels(row)),
        ("agents", names(row.agents.as_deref().unwrap_or_default())),
        ("failed starts", names(&row.failed)),
    ];
    let lines = pairs.map(|(name, value)| format!("{name:<14}{value}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::AgentName;
    use common::api::NodeState;

    #[test]
    fn nodes_are_listed_and_shown() {
        let agent = |name| AgentName::new(name).expect("valid");
        let mut row = NodeRow {
            node: NodeName::new("n1").expect("valid"),
            state: NodeState::Up,
            incarnations: 2,
            runtimes: vec!["docker".to_owned(), "process".to_owned()],
            labels: [("zone".to_owned(), "eu".to_owned())].into(),
            failed: vec![agent("c")],
            agents: None,
        };
        let listed = list(&[row.clone()]);
        let lines: Vec<_> = listed.lines().map(str::trim_end).collect();
        let expected = [
            "NODE  STATE  INCARNATIONS  RUNTIMES        LABELS",
            "n1    up     2             docker,process  zone=eu",
        ];
        assert_eq!(lines, expected);
        row.agents = Some(vec![agent("a"), agent("b")]);
        row.labels.clear();
        let shown = show(&row);
        for line in ["labels        <none>", "agents        a,b", "failed starts c"] {
            assert!(shown.contains(line), "{shown}");
        }
    }
}
