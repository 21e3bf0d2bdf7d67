//! `mozart commit`: gives a new name to the image that an agent's container runs.

use clap::Args;
use common::AgentName;
use common::api::{AgentRow, ApiError};
use serde::Serialize;

use super::client::Client;
use super::output;
use crate::args::Global;
use broker::Attempt as _;
use common::failure;
use runtime::engine::{COMMITTED, Connection, Runs};
use runtime::home::Home;
use runtime::labels;

/// `mozart commit`.
#[derive(Debug, Args)]
pub struct CommitArgs {
    /// The agent; it must run in a container on this machine
    agent: AgentName,
    /// The image's name [default: mozart-commit/AGENT:GENERATION-INCARNATION]
    #[arg(long, value_name = "REF", value_parser = name)]
    image: Option<String>,
}

/// What was committed, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    agent: AgentName,
    image: String,
    image_id: String,
    generation: u64,
    incarnation: u64,
}

/// A name that an image can be given.
fn name(text: &str) -> Result<String, String> {
    let name = common::soul::image(text)?;
    if name.contains('@') {
        return Err("a digest refers to an existing image; expected `[registry/]name[:tag]`".into());
    }
    Ok(name)
}

/// Commits an agent's running container, and prints the image's reference.
///
/// A container's root is read-only from its start to its end, so what there is to keep of it is what it was made from: that very
/// image gets the name. The engines' own commit would add what is the container's and not the image's, and docker's cannot leave it
/// out: our labels, and the shim's argument as the command of an image that has none.
///
/// # Errors
/// 3 when there is no such agent, 4 when it does not run or is no container, 6 when no engine answers.
pub(crate) async fn run(global: &Global, args: &CommitArgs) -> Result<u8, ApiError> {
    let what = format!("cannot commit {}", args.agent);
    let client = Client::connect(global).await?;
    let row =
        client.brief_rows(Some(&args.agent)).await?.into_iter().find(|row| row.agent == args.agent);
    let Some(row) = row else { return Err(mozart_client::agents::unknown(&args.agent, &[])) };
    let fleet = client.broker.fleet_id().await.attempt("cannot tell which fleet this is")?;
    let engines = Connection::every().await;
    for engine in &engines {
        let found = engine.containers_of(&fleet, &args.agent).await.map_err(|cause| {
            let try_ = format!("`{} ps`", engine.kind.as_str());
            failure::error(failure::UNREACHABLE, &what, cause, try_)
        })?;
        if let Some(runs) = choose(found, row.running_incarnation) {
            let committed = commit(engine, &what, args, runs).await?;
            let written = match client.json() {
                true => output::json(&committed),
                false => output::line(&committed.image),
            };
            let done = || format!("the image of {} is now also {}", args.agent, committed.image);
            return output::result(written, done).map(|()| 0);
        }
    }
    Err(not_here(global, &what, &row, engines.is_empty()))
}

/// The one that takes messages; while one hands over to the next, there may be two.
fn choose(mut found: Vec<Runs>, running: Option<u64>) -> Option<Runs> {
    let taking = found.iter().position(|one| Some(one.incarnation) == running);
    match taking {
        Some(index) => Some(found.swap_remove(index)),
        None => found.pop(),
    }
}

async fn commit(
    engine: &Connection,
    what: &str,
    args: &CommitArgs,
    runs: Runs,
) -> Result<Committed, ApiError> {
    let Runs { generation, incarnation, image, root_is_read_only } = runs;
    if !root_is_read_only {
        let cause = "its root is writable, so its image is not all that it contains";
        return Err(failure::error(failure::CONFLICT, what, cause, ""));
    }
    let default = || format!("{COMMITTED}/{}:{generation}-{incarnation}", args.agent);
    let reference = args.image.clone().unwrap_or_else(default);
    let (repo, tag) = split(&reference);
    engine.name_image(&image, repo, tag).await.map_err(|cause| {
        failure::error(failure::FAILED, what, cause, format!("`{} images`", engine.kind.as_str()))
    })?;
    let agent = args.agent.clone();
    Ok(Committed {
        agent,
        image: format!("{repo}:{tag}"),
        image_id: image,
        generation,
        incarnation,
    })
}

/// Repository and tag.
fn split(reference: &str) -> (&str, &str) {
    let base = reference.rfind('/').map_or(0, |at| at + 1);
    match reference[base..].find(':') {
        Some(at) => (&reference[..base + at], &reference[base + at + 1..]),
        None => (reference, "latest"),
    }
}

/// Why no engine here has a container of the agent.
fn not_here(global: &Global, what: &str, row: &AgentRow, no_engine: bool) -> ApiError {
    let agent = &row.agent;
    let Some(node) = &row.node else {
        let cause = format!("it is not running: it is {}", row.state.as_str());
        let try_ = format!("`mozart start {agent}`, then `mozart wait {agent}`");
        return failure::error(failure::CONFLICT, what, cause, try_);
    };
    let is_its = |label: &str| label.split('/').nth(2) == Some(agent.as_str());
    let home = Home::locate(global.home.as_deref());
    let processes = home.map(|home| labels::find(&home.run())).unwrap_or_default();
    if processes.iter().any(|one| one.is_shim && is_its(&one.label)) {
        let cause = "it runs as a process, which has no image";
        let try_ = "set IMAGE in its soul, or use `mozart up --runtime docker`";
        return failure::error(failure::CONFLICT, what, cause, try_);
    }
    if no_engine {
        let cause = format!("no container engine answers here; it runs on node {node}");
        let try_ = "run the command there; or name the engine in DOCKER_HOST or CONTAINER_HOST";
        return failure::error(failure::UNREACHABLE, what, cause, try_);
    }
    let cause = format!("no engine here has its container: it runs on node {node}");
    failure::error(failure::CONFLICT, what, cause, "run the command there")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_tag() {
        assert_eq!(split("a"), ("a", "latest"));
        assert_eq!(split("a:1"), ("a", "1"));
        assert_eq!(split("r.io:5000/b/a"), ("r.io:5000/b/a", "latest"));
        assert_eq!(split("r.io:5000/b/a:1-2"), ("r.io:5000/b/a", "1-2"));
        assert!(name("a@sha256:0").is_err());
        assert_eq!(name("a:1"), Ok("a:1".to_owned()));
    }

    #[test]
    fn the_container_that_takes_messages_is_meant() {
        let runs = |incarnation| Runs {
            generation: 1,
            incarnation,
            image: String::new(),
            root_is_read_only: true,
        };
        let chosen = |running| choose(vec![runs(3), runs(4)], running).map(|one| one.incarnation);
        assert_eq!((chosen(Some(3)), chosen(Some(4)), chosen(None)), (Some(3), Some(4), Some(4)));
        assert_eq!(choose(Vec::new(), Some(1)), None);
    }
}
