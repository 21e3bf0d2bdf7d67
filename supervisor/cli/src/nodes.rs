//! `mozart node`: lists and shows nodes, and says what is to become of them.

use std::time::Duration;

use broker::BrokerError;
use clap::Subcommand;
use common::api::{ApiError, NodeRow, Query};
use common::cluster::{RemoveServer, ServerRemoved};
use common::{NodeName, failure, subject, words};

use super::client::Client;
use super::drain::{self, DrainArgs};
use super::lifecycle::Failures;
use super::{output, signals, table};
use crate::args::Global;

/// How long the removal of a server may take.
const SERVER: Duration = Duration::from_secs(30);
/// With so many servers, every stream has all its replicas.
const SERVERS: usize = 3;

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
    /// Move a node's agents to other nodes, and start none there any more
    ///
    /// Each agent is replaced as REPLACE in its soul says. The supervisors do it: the drain goes on if this command is interrupted, and the
    /// node stays drained, also when it is restarted, until `mozart node undrain`. Agents that cannot be moved stay, and go on; the command
    /// then ends with exit code 1.
    Drain(DrainArgs),
    /// Let a drained node take agents again; none is moved back
    Undrain {
        /// The nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<NodeName>,
    },
    /// Forget nodes that are lost
    ///
    /// The server of a node's host is removed from the cluster that `mozart up --cluster` made: other servers take over the replicas that it
    /// had. The host comes back with `mozart join` and a new data folder.
    Rm {
        /// The nodes
        #[arg(required = true, value_name = "NODE")]
        nodes: Vec<NodeName>,
        /// Although SANCTUMs are there: their agents start elsewhere, without their data
        #[arg(long)]
        force: bool,
    },
}

/// Lists and shows nodes, or changes what is to become of them.
///
/// # Errors
/// 3 no such node, 4 a node that is there cannot be removed, 6 no supervisor.
pub async fn run(global: &Global, command: &NodeCommand) -> Result<u8, ApiError> {
    if let NodeCommand::Drain(args) = command {
        return drain::run(global, args).await;
    }
    tokio::select! {
        result = dispatch(global, command) => result,
        stopped = signals::stopped() => stopped.map(|()| failure::INTERRUPTED),
    }
}

async fn dispatch(global: &Global, command: &NodeCommand) -> Result<u8, ApiError> {
    match command {
        NodeCommand::Ls => {
            let client = Client::connect(global).await?;
            let rows = client.nodes().await?;
            match client.json() {
                true => output::json(&rows)?,
                false => output::line(list(&rows))?,
            }
            Ok(0)
        }
        NodeCommand::Show { node } => {
            let client = Client::connect(global).await?;
            let row = client.node(node).await?;
            match client.json() {
                true => output::json(&row)?,
                false => output::line(show(&row))?,
            }
            Ok(0)
        }
        NodeCommand::Drain(args) => drain::run(global, args).await,
        NodeCommand::Undrain { nodes } => {
            change(global, nodes, |node| Query::Undrain { node }).await
        }
        NodeCommand::Rm { nodes, force } => remove(global, nodes, *force).await,
    }
}

/// Asks for a change of each node; prints the names of those that are changed.
async fn change(
    global: &Global,
    nodes: &[NodeName],
    query: impl Fn(NodeName) -> Query,
) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let mut failures = Failures::new(global.output);
    let mut changed = Vec::new();
    for node in nodes {
        match client.tell(&query(node.clone())).await {
            Ok(()) if client.json() => changed.push(node),
            Ok(()) => output::line(node.as_str())?,
            Err(error) => failures.add(error),
        }
    }
    if client.json() {
        output::json(&changed)?;
    }
    failures.end()
}

/// Forgets nodes, and has the servers of their hosts removed from the cluster, where Mozart runs it.
async fn remove(global: &Global, nodes: &[NodeName], force: bool) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    let mut failures = Failures::new(global.output);
    let mut changed = Vec::new();
    for node in nodes {
        let forgotten = client.tell(&Query::RemoveNode { node: node.clone(), force }).await;
        // An earlier try may have come so far.
        let is_unknown = matches!(&forgotten, Err(error) if error.code == failure::NOT_FOUND);
        if !is_unknown && let Err(error) = forgotten {
            failures.add(error);
            continue;
        }
        match (remove_server(&client, node).await, forgotten) {
            (Ok(0), Err(error)) | (Err(error), Ok(()) | Err(_)) => failures.add(error),
            (Ok(_), Ok(()) | Err(_)) if client.json() => changed.push(node),
            (Ok(_), Ok(()) | Err(_)) => output::line(node.as_str())?,
        }
    }
    if client.json() {
        output::json(&changed)?;
    }
    failures.end()
}

/// How many servers of a node's host were removed from the cluster.
async fn remove_server(client: &Client, node: &NodeName) -> Result<usize, ApiError> {
    let what = || format!("node {node} is forgotten, and its server still belongs to the cluster");
    let asked = serde_json::to_vec(&RemoveServer { node: node.clone() });
    let asked = asked.map_err(|error| failure::error(failure::FAILED, what(), error, ""))?;
    let answer = match client.broker.ask(subject::REMOVE.to_owned(), asked.into(), SERVER).await {
        Ok(answer) => answer,
        // A NATS that Mozart does not run.
        Err(BrokerError::Other(_)) => return Ok(0),
        Err(error) => {
            let mut error = broker::failure(what(), error);
            error.try_ = format!("`mozart node rm {node}` again");
            return Err(error);
        }
    };
    let answer = serde_json::from_slice(&answer);
    match answer.map_err(|error| failure::error(failure::FAILED, what(), error, ""))? {
        ServerRemoved::Removed { servers, left } => {
            for server in &servers {
                output::note(words_of(server, left));
            }
            Ok(servers.len())
        }
        ServerRemoved::Failed(error) => Err(error),
    }
}

/// What a removal means for the streams.
fn words_of(server: &str, left: usize) -> String {
    let replicas = if left < SERVERS {
        "the next host that joins (`mozart join-token`) takes over its replicas"
    } else {
        "the other servers take over its replicas; `mozart doctor` shows when they have"
    };
    let left = words::count(left as u64, "server is", "servers are");
    format!("removed {server} from the cluster: {left} left, and {replicas}")
}

fn labels(row: &NodeRow) -> String {
    let labels = row.labels.iter().map(|(key, value)| format!("{key}={value}"));
    some(labels.collect())
}

fn some(words: Vec<String>) -> String {
    table::or_none(Some(words.join(",")).filter(|words| !words.is_empty()))
}

/// Whether it is there, and whether it takes agents.
fn state(row: &NodeRow) -> String {
    let drained = if row.drain.is_some() { ",drained" } else { "" };
    format!("{}{drained}", row.state.as_str())
}

/// What is taken of what there is.
fn of(used: u64, all: Option<u64>, words: impl Fn(u64) -> String) -> String {
    match all {
        Some(all) => format!("{}/{}", words(used), words(all)),
        None => words(used),
    }
}

fn list(rows: &[NodeRow]) -> String {
    let cells = rows.iter().map(|row| {
        vec![
            row.node.to_string(),
            state(row),
            row.incarnations.to_string(),
            of(row.used.agents.into(), row.capacity.agents.map(u64::from), |count| {
                count.to_string()
            }),
            of(row.used.memory, row.capacity.memory, words::bytes),
            of(row.used.milli_cpus, row.capacity.milli_cpus, words::thousandths),
            some(row.runtimes.clone()),
            labels(row),
        ]
    });
    let headers =
        ["NODE", "STATE", "INCARNATIONS", "AGENTS", "MEMORY", "CPUS", "RUNTIMES", "LABELS"];
    table::table(&headers, cells)
}

fn show(row: &NodeRow) -> String {
    let names =
        |agents: &[common::AgentName]| some(agents.iter().map(ToString::to_string).collect());
    let mut pairs = vec![("node", row.node.to_string()), ("state", state(row))];
    pairs.extend(row.lost_at.map(|at| ("lost since", at.to_string())));
    pairs.extend([
        ("incarnations", row.incarnations.to_string()),
        ("capacity", capacity(row)),
        ("runtimes", some(row.runtimes.clone())),
        ("labels", labels(row)),
        ("agents", names(row.agents.as_deref().unwrap_or_default())),
        ("pinned", names(&row.pinned)),
        ("failed starts", names(&row.failed)),
    ]);
    pairs.extend(row.unusable.iter().map(|engine| ("unusable", engine.clone())));
    if let Some(drain) = &row.drain {
        pairs.push(("drain", drain::stand(drain)));
        let stays = drain.staying.iter();
        pairs.extend(stays.map(|one| ("stays", format!("{}: {}", one.agent, one.reason))));
    }
    let lines = pairs.iter().map(|(name, value)| format!("{name:<14}{value}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// What is taken of what there is, in words.
fn capacity(row: &NodeRow) -> String {
    let parts = [
        (
            "agents",
            of(row.used.agents.into(), row.capacity.agents.map(u64::from), |n| n.to_string()),
        ),
        ("memory", of(row.used.memory, row.capacity.memory, words::bytes)),
        ("CPUs", of(row.used.milli_cpus, row.capacity.milli_cpus, words::thousandths)),
    ];
    parts.map(|(what, taken)| format!("{taken} {what}")).join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::api::{DrainRow, NodeState, StayRow};
    use common::{AgentName, Load};

    #[test]
    fn nodes_are_listed_and_shown() {
        let agent = |name| AgentName::new(name).expect("valid");
        let mut row = NodeRow {
            node: NodeName::new("n1").expect("valid"),
            state: NodeState::Up,
            incarnations: 2,
            runtimes: vec!["docker".to_owned(), "process".to_owned()],
            unusable: Vec::new(),
            labels: [("zone".to_owned(), "eu".to_owned())].into(),
            failed: vec![agent("c")],
            agents: None,
            capacity: "memory=4g,cpus=2".parse().expect("a capacity"),
            used: Load { agents: 2, memory: 3 << 29, milli_cpus: 500 },
            lost_at: None,
            drain: None,
            pinned: Vec::new(),
        };
        let listed = list(&[row.clone()]);
        let lines: Vec<_> = listed.lines().map(str::trim_end).collect();
        let expected = [
            "NODE  STATE  INCARNATIONS  AGENTS  MEMORY         CPUS   RUNTIMES        LABELS",
            "n1    up     2             2       1.5 GiB/4 GiB  0.5/2  docker,process  zone=eu",
        ];
        assert_eq!(lines, expected);
        row.agents = Some(vec![agent("a"), agent("b")]);
        row.labels.clear();
        row.pinned = vec![agent("a")];
        let stays = StayRow { agent: agent("a"), reason: "its SANCTUM is there".to_owned() };
        row.drain = Some(DrainRow {
            parallel: 1,
            moving: vec![agent("b")],
            waiting: Vec::new(),
            staying: vec![stays],
        });
        let shown = show(&row);
        for line in [
            "state         up,drained",
            "capacity      2 agents, 1.5 GiB/4 GiB memory, 0.5/2 CPUs",
            "drain         1 moving (b), 1 staying",
            "stays         a: its SANCTUM is there",
            "pinned        a",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        for line in ["labels        <none>", "agents        a,b", "failed starts c"] {
            assert!(shown.contains(line), "{shown}");
        }
    }
}
