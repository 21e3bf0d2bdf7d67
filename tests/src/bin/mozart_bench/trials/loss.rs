//! How long agents are without answers when a host loses its power, and when the server is killed that leads a journal stream.

use std::time::Instant;

use broker::reference::client::{self, jetstream};
use futures_util::future::try_join_all;
use rustix::process::Signal;

use super::site::{HOSTS, Site, node};
use crate::figure::{Report, note};
use crate::fleet::ECHO;
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::signal;
use crate::rig::Plan;

const AGENTS: usize = 6;
/// A host that was lost: its agents answer again.
const HOST_LOST: f64 = 20.0;
/// A server that led: messages are accepted again.
const LEADER_LOST: f64 = 10.0;

/// Power cuts: the host with most agents, each time.
pub(crate) async fn of_hosts(plan: &Plan, report: &mut Report) -> Result<()> {
    let site = Site::start(plan).await?;
    let agents = site.apply(AGENTS, ECHO).await?;
    let (mut moved, mut stayed) = (Vec::new(), Vec::new());
    for trial in 0..plan.trials {
        let placed = site.placed(0).await?;
        let most = (0..HOSTS).max_by_key(|host| placed[*host].len()).unwrap_or_default();
        let from = Instant::now();
        site.power_cut(most);
        // As people do: one who waits at a connection that is lost meanwhile has to look for the answer.
        let ask = async |agent: usize| {
            let send = ["send", agents[agent].as_str(), "next", "--wait", "--timeout", "120s"];
            site.run((most + 1) % HOSTS, &send).await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((agent, from.elapsed().as_secs_f64()))
        };
        let times = try_join_all((0..AGENTS).map(ask)).await?;
        for (agent, time) in &times {
            let there = placed[most].contains(agent);
            if there { &mut moved } else { &mut stayed }.push(*time);
        }
        let last = times.iter().map(|(_, time)| *time).fold(0.0, f64::max);
        note(&format!("  trial {trial}: {} lost, all answer after {last:.1} s", node(most)));
        site.net().heal();
        site.run(most, &["up", "-d"]).await?;
        site.whole(most).await?;
    }
    report.times("host lost to the next turn of its agents", &moved, "s", HOST_LOST)?;
    report.times("host lost to the next turn of the others' agents", &stayed, "s", HOST_LOST)
}

/// Kills of the server that leads the journal of an agent.
pub(crate) async fn of_servers(plan: &Plan, report: &mut Report) -> Result<()> {
    let site = Site::start(plan).await?;
    let ours = site.client(site.apply(AGENTS, ECHO).await?).await?;
    let (mut accepted, mut answered) = (Vec::new(), Vec::new());
    for trial in 0..plan.trials {
        let agent = usize::try_from(trial)? % AGENTS;
        let leader = leader(&site, &ours, agent).await?;
        let from = Instant::now();
        signal(site.nats(leader)?, Signal::KILL);
        let waiter = ours.send(&ours.envelope(agent, "next")?).await?;
        let stored = from.elapsed().as_secs_f64();
        accepted.push(stored);
        waiter.answer().await?;
        answered.push(from.elapsed().as_secs_f64());
        note(&format!("  trial {trial}: {}'s server, accepted after {stored:.2} s", node(leader)));
        site.whole((leader + 1) % HOSTS).await?;
    }
    let what = "leading server killed to the next message that is accepted";
    report.times(what, &accepted, "s", LEADER_LOST)?;
    report.times("  to its answer", &answered, "s", f64::INFINITY)
}

/// The host whose server leads the journal stream of an agent.
async fn leader(site: &Site, ours: &Ours, agent: usize) -> Result<usize> {
    let options = site.options()?;
    let servers: Vec<client::ServerAddr> =
        options.url.split(',').map(str::parse).collect::<std::result::Result<_, _>>()?;
    let login = servers.iter().find_map(|one| Some((one.username()?, one.password()?)));
    let Some((user, password)) = login else { return fail("an address without a password") };
    let raw = client::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        .require_tls(true)
        .add_root_certificates(site.home(0).join("nats/ca.pem"));
    let jetstream = jetstream::new(raw.connect(servers).await?);
    let subjects = ours.broker.subjects();
    let stream = subjects.journal_stream(subjects.shard(&ours.agents[agent]));
    let stream = jetstream.get_stream(stream).await?;
    let leader = stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone());
    let leads = |host: &usize| {
        leader.as_ref().is_some_and(|leader| leader.starts_with(&format!("{}-", node(*host))))
    };
    match (0..HOSTS).find(leads) {
        Some(host) => Ok(host),
        None => fail(format!("{leader:?} leads, which is none of the hosts")),
    }
}
