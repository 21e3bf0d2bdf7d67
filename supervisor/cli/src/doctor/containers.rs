//! Containers of this fleet that no node manages any more, and leftovers of their creation.

use std::path::Path;
use std::time::Duration;

use broker::Attempt as _;
use common::Timestamp;
use common::api::{AgentRow, Hello};
use futures_util::StreamExt as _;

use super::engine::{answer, answer_within};
use super::{Check, Health, check};
use crate::client::{Client, now};
use runtime::engine::{Connection, Label, Owned, ShimVolume, volume_name};
use runtime::home::Home;
use runtime::lock;

const NAME: &str = "containers";
/// What is younger may just be being made.
const FRESH: Duration = Duration::from_secs(5 * 60);
/// The longest time that a container may take to stop.
const END: Duration = Duration::from_secs(45);
/// Containers that are ended side by side.
const AT_ONCE: usize = 6;

/// Whom to ask about containers.
pub(super) struct Fleet<'a> {
    pub(super) client: &'a Client,
    /// Whether a supervisor answers.
    pub(super) is_supervised: bool,
    pub(super) home: Option<&'a Home>,
}

/// What the supervisors say.
struct View {
    /// The nodes that are there.
    nodes: Vec<String>,
    /// The agents; none where nobody told.
    agents: Option<Vec<AgentRow>>,
}

/// What a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// In use, or unrelated.
    Fine,
    /// No node watches it, and the supervisors no longer use it.
    NodeGone,
    /// Its node runs, and ends the container itself after its last turn.
    Forgotten,
    /// It was created to copy a shim, and its creator died in the middle of that.
    HalfMade,
}

/// Something to remove.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Leftover {
    Container {
        id: String,
        name: String,
        why: String,
        /// Who would take it over.
        node: Option<String>,
    },
    Volume {
        name: String,
    },
}

impl Leftover {
    fn name(&self) -> String {
        match self {
            Self::Container { name, .. } => name.clone(),
            Self::Volume { name } => format!("volume {name}"),
        }
    }

    fn say(&self) -> String {
        match self {
            Self::Container { name, why, .. } => format!("{name} ({why})"),
            Self::Volume { name } => format!("volume {name} (an old shim)"),
        }
    }

    async fn remove(&self, engine: &Connection) -> Result<(), String> {
        match self {
            Self::Container { id, .. } => answer_within(END, engine.end(id)).await,
            Self::Volume { name } => answer(engine.remove_volume(name)).await,
        }
    }
}

/// Looks for them; removes them with `fix`. Nothing of another fleet or of strangers is even looked at.
pub(super) async fn leftovers(
    fleet: Fleet<'_>,
    engine: &Connection,
    shim: Option<&Path>,
    fix: bool,
) -> Vec<Check> {
    match look(fleet, engine, shim, fix).await {
        Ok(checks) => checks,
        Err(error) => vec![check(NAME, Health::Warn, error, "")],
    }
}

async fn look(
    fleet: Fleet<'_>,
    engine: &Connection,
    shim: Option<&Path>,
    fix: bool,
) -> Result<Vec<Check>, String> {
    let id = fleet.client.broker.fleet_id().await.attempt("cannot tell which fleet this is");
    let id = id.map_err(|error| format!("{}: {}", error.what, error.cause))?;
    // Before the nodes are asked for: a container of one that comes only now is not taken for nobody's.
    let containers = answer(engine.of_fleet(&id)).await?;
    let volumes = answer(engine.idle_shims()).await?;
    let now = answer(engine.about()).await?.time.unwrap_or_else(now);
    let current = shim.and_then(|path| std::fs::read(path).ok()).map(|bytes| volume_name(&bytes));
    let view = view(fleet).await;
    let judged: Vec<_> =
        containers.iter().map(|one| (one, judge(one, view.as_ref(), now))).collect();
    let mut left: Vec<_> =
        judged.iter().filter_map(|(one, verdict)| leftover(one, *verdict)).collect();
    left.extend(old_shims(volumes, current.as_deref(), now));

    let agents = containers.iter().filter(|one| one.label.is_some()).count();
    let mut checks = Vec::new();
    let forgotten = judged.iter().filter(|(_, verdict)| *verdict == Verdict::Forgotten);
    let forgotten: Vec<_> = forgotten.map(|(one, _)| one.name.as_str()).collect();
    if !forgotten.is_empty() {
        let found = format!(
            "not used by the supervisors any more: {}; their node ends them after a last turn",
            forgotten.join(", ")
        );
        checks.push(check(NAME, Health::Warn, found, "wait, and check again"));
    }
    if !left.is_empty() {
        checks.push(if fix { remove(engine, &left).await } else { say(&left) });
    }
    if view.is_none() && agents > 0 {
        let found = format!(
            "{agents} containers of this fleet are running, and no supervisor says which are needed"
        );
        let try_ = "`mozart up` takes them over, `mozart down` ends them";
        checks.push(check(NAME, Health::Warn, found, try_));
    }
    if checks.is_empty() {
        let found = format!("{agents} of this fleet are running, none is left over");
        checks.push(check(NAME, Health::Ok, found, ""));
    }
    Ok(checks)
}

fn say(left: &[Leftover]) -> Check {
    let all: Vec<_> = left.iter().map(Leftover::say).collect();
    let found = format!("left over: {}", all.join(", "));
    // Its messages may still be answered there, as long as no other node has taken the agent.
    let node = left.iter().find_map(|one| match one {
        Leftover::Container { node, .. } => node.as_ref(),
        Leftover::Volume { .. } => None,
    });
    let try_ = match node {
        Some(node) => format!(
            "start `mozart node --name {node}` with its data folder, which adopts its containers, or run `mozart doctor --fix`"
        ),
        None => "`mozart doctor --fix`".to_owned(),
    };
    check(NAME, Health::Warn, found, &try_)
}

async fn remove(engine: &Connection, left: &[Leftover]) -> Check {
    let removing = left.iter().map(async |one| (one.name(), one.remove(engine).await));
    let removed: Vec<_> = futures_util::stream::iter(removing).buffered(AT_ONCE).collect().await;
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (name, result) in removed {
        match result {
            Ok(()) => done.push(name),
            Err(error) => failed.push(format!("cannot remove {name}: {error}")),
        }
    }
    let health = if failed.is_empty() { Health::Ok } else { Health::Warn };
    if !done.is_empty() {
        failed.insert(0, format!("removed {}", done.join(", ")));
    }
    check(NAME, health, failed.join("; "), "")
}

/// None where no supervisor tells, or one that does not follow a leader yet.
async fn view(fleet: Fleet<'_>) -> Option<View> {
    if !fleet.is_supervised {
        return None;
    }
    let Hello { mut nodes, draining, leader, .. } = fleet.client.hello().await.ok()?;
    leader?;
    nodes.extend(draining);
    if let Some(home) = fleet.home {
        nodes.extend(served(home, &fleet.client.broker.fleet_id().await.ok()?));
    }
    Some(View { nodes, agents: fleet.client.brief_rows(None).await.ok() })
}

/// The nodes that serve a data folder, however long they have not been heard of.
fn served(home: &Home, fleet: &str) -> Vec<String> {
    let nodes = std::fs::read_dir(home.run().join(fleet)).into_iter().flatten().flatten();
    let served = nodes.filter(|node| lock::is_held(&node.path()));
    served.filter_map(|node| node.file_name().into_string().ok()).collect()
}

fn judge(one: &Owned, view: Option<&View>, now: Timestamp) -> Verdict {
    if one.is_carrier {
        let is_old = now.since(one.created) > FRESH;
        return if is_old { Verdict::HalfMade } else { Verdict::Fine };
    }
    let (Some(label), Some(view)) = (&one.label, view) else { return Verdict::Fine };
    if !view.nodes.contains(&one.node) {
        return Verdict::NodeGone;
    }
    let Some(agents) = &view.agents else { return Verdict::Fine };
    if is_known(label, agents) { Verdict::Fine } else { Verdict::Forgotten }
}

/// Whether it is the newest incarnation of its agent, or the one that takes its messages.
fn is_known(label: &Label, agents: &[AgentRow]) -> bool {
    agents.iter().filter(|row| row.agent == label.agent).any(|row| {
        let known = [Some(row.incarnation), row.running_incarnation];
        known.contains(&Some(label.incarnation))
    })
}

fn leftover(one: &Owned, verdict: Verdict) -> Option<Leftover> {
    let (why, node) = match verdict {
        Verdict::Fine | Verdict::Forgotten => return None,
        Verdict::NodeGone => (format!("node {} is gone", one.node), Some(one.node.clone())),
        Verdict::HalfMade => ("half made".to_owned(), None),
    };
    Some(Leftover::Container { id: one.id.clone(), name: one.name.clone(), why, node })
}

/// Those of other shims than the one that is used from now on. Where it is not known which that is: none.
fn old_shims(
    idle: Vec<ShimVolume>,
    current: Option<&str>,
    now: Timestamp,
) -> impl Iterator<Item = Leftover> {
    let is_old = move |one: &ShimVolume| {
        let is_fresh = one.created.is_none_or(|created| now.since(created) <= FRESH);
        current.is_some_and(|current| current != one.name) && !is_fresh
    };
    let old: Vec<_> = idle.into_iter().filter(is_old).collect();
    old.into_iter().map(|one| Leftover::Volume { name: one.name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::api::AgentState;

    const NOW: Timestamp = Timestamp::from_millis(10_000_000);

    fn agent(name: &str) -> common::AgentName {
        common::AgentName::new(name).expect("valid")
    }

    fn container(node: &str, incarnation: u64) -> Owned {
        Owned {
            id: "1".into(),
            name: format!("mozart-a-{incarnation}-f"),
            node: node.into(),
            label: Some(Label { agent: agent("a"), generation: 1, incarnation }),
            is_carrier: false,
            created: NOW,
        }
    }

    fn row(incarnation: u64, running_incarnation: Option<u64>) -> AgentRow {
        AgentRow {
            agent: agent("a"),
            state: AgentState::Running,
            reason: None,
            generation: 1,
            incarnation,
            restart_count: 0,
            message_count: 0,
            node: None,
            started_at: None,
            inbox: 0,
            inflight: 0,
            oldest: None,
            last_exit: None,
            last_exit_at: None,
            next_try: None,
            reported: true,
            running_incarnation,
            running_generation: None,
            given_up: None,
            target_generation: 2,
            quarantined: false,
            asks: 0,
            counts: common::api::Counts::Current,
        }
    }

    #[test]
    fn a_container_is_left_over_when_its_node_is_gone() {
        let view = View { nodes: vec!["n".into()], agents: Some(vec![row(3, Some(2))]) };
        for (node, incarnation, expected) in [
            ("n", 3, Verdict::Fine),
            ("n", 2, Verdict::Fine),
            ("n", 1, Verdict::Forgotten),
            ("gone", 3, Verdict::NodeGone),
            ("gone", 1, Verdict::NodeGone),
        ] {
            let found = judge(&container(node, incarnation), Some(&view), NOW);
            assert_eq!(found, expected, "{node} {incarnation}");
        }
        let untold = View { nodes: vec!["n".into()], agents: None };
        assert_eq!(judge(&container("n", 1), Some(&untold), NOW), Verdict::Fine);
        // They serve on while there is no supervisor.
        assert_eq!(judge(&container("gone", 3), None, NOW), Verdict::Fine);
        // No incarnation's, whatever it is.
        let other = Owned { label: None, ..container("gone", 3) };
        assert_eq!(judge(&other, Some(&view), NOW), Verdict::Fine);
    }

    #[test]
    fn a_carrier_is_left_over_when_it_is_old() {
        let carrier =
            |created| Owned { label: None, is_carrier: true, created, ..container("n", 1) };
        let old = Timestamp::from_millis(NOW.as_millis() - 301_000);
        assert_eq!(judge(&carrier(old), None, NOW), Verdict::HalfMade);
        assert_eq!(judge(&carrier(NOW), None, NOW), Verdict::Fine);
    }

    #[test]
    fn an_old_shim_is_left_over_and_the_current_one_is_not() {
        let old = Timestamp::from_millis(NOW.as_millis() - 301_000);
        let volume = |name: &str, created| ShimVolume { name: name.into(), created };
        let idle = vec![
            volume("mozart-shim-new", Some(old)),
            volume("mozart-shim-old", Some(old)),
            volume("mozart-shim-fresh", Some(NOW)),
            volume("mozart-shim-untold", None),
        ];
        let left: Vec<_> = old_shims(idle.clone(), Some("mozart-shim-new"), NOW).collect();
        assert_eq!(left, [Leftover::Volume { name: "mozart-shim-old".into() }]);
        assert_eq!(old_shims(idle, None, NOW).count(), 0);
    }

    #[test]
    fn only_what_is_left_over_is_removed() {
        let one = container("gone", 1);
        assert_eq!(leftover(&one, Verdict::Fine), None);
        assert_eq!(leftover(&one, Verdict::Forgotten), None);
        let left = leftover(&one, Verdict::NodeGone).expect("it is");
        assert_eq!(left.say(), "mozart-a-1-f (node gone is gone)");
        let said = say(&[left]);
        assert_eq!(said.health, Health::Warn);
        assert!(said.try_.starts_with("start `mozart node --name gone`"), "{}", said.try_);
        let half_made = leftover(&one, Verdict::HalfMade).expect("it is");
        assert_eq!(say(&[half_made]).try_, "`mozart doctor --fix`");
    }
}
