//! A fleet whose roles are processes of their own: two supervisors and two nodes over a cluster of three nats-servers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, on};
use super::part::Part;
use crate::chaos::Problem;
use crate::chaos::schedule::{NODES, SUPERVISORS, Target, host_of};
use crate::harness::{Net, Signal, kill};

/// Whoever ends by itself is started again after this time, as a service manager does.
const AGAIN: Duration = Duration::from_millis(500);
/// How long the roles may take to end in order: the longest drain, and a margin.
const DOWN: Duration = Duration::from_secs(60);

/// The roles and their servers.
#[derive(Debug)]
pub(in crate::chaos) struct Apart {
    pub(in crate::chaos) cluster: Cluster,
    /// The hosts that they are on; all on this machine, otherwise.
    pub(in crate::chaos) net: Option<Net>,
    supervisors: Vec<Part>,
    nodes: Vec<Part>,
}

/// The name of a node by its number.
pub(in crate::chaos) fn node_name(number: usize) -> String {
    format!("n{number}")
}

impl Apart {
    /// Lays out the folders of everybody. `dress` gives a role's process what else it needs.
    pub(super) fn prepare(
        home: &Path,
        mozart: &Path,
        net: Option<Net>,
        dress: impl Fn(&mut Command, usize) + Clone + Send + Sync + 'static,
    ) -> Result<Self, Problem> {
        let cluster = Cluster::prepare(home.to_owned(), net.as_ref())?;
        let (url, seed) = (cluster.url(), cluster.seed()?);
        let on_host = |target| Some(net.as_ref()?.host(host_of(target)?));
        let role =
            |target, name: String, place: usize, args: Vec<String>| -> Result<Part, Problem> {
                let host = on_host(target);
                let folder = home.join(&name);
                fs::create_dir_all(&folder)?;
                let (mozart, url, dress) = (mozart.to_owned(), url.clone(), dress.clone());
                let login = if matches!(target, Target::Supervisor(_)) {
                    ("MOZART_AUTH_SEED", seed.clone())
                } else {
                    ("MOZART_AGENT_LOGINS", "true".to_owned())
                };
                let named = format!("{} {name}", args[0]);
                Ok(Part::new(named, move || {
                    let log = folder.join("mozart.log");
                    let mut command = on(host.as_deref(), &mozart);
                    command.args(&args).env("NATS_URL", &url).env("MOZART_DIR", &folder);
                    command.env_remove("MOZART_NAMESPACE").env_remove("NATS_CREDS");
                    command.env(login.0, &login.1);
                    command.stderr(fs::OpenOptions::new().create(true).append(true).open(log)?);
                    command.stdin(Stdio::null()).stdout(Stdio::null());
                    dress(&mut command, place);
                    Ok(command)
                }))
            };
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let supervisors = (0..SUPERVISORS).map(|number| {
            let name = format!("s{number}");
            role(
                Target::Supervisor(number),
                name.clone(),
                number,
                words(&["supervisor", "--id", &name]),
            )
        });
        let supervisors = supervisors.collect::<Result<_, _>>()?;
        let nodes = (0..NODES).map(|number| {
            let name = node_name(number);
            let args = words(&["node", "--name", &name, "--runtime", "process"]);
            role(Target::Node(number), name, SUPERVISORS + number, args)
        });
        let nodes = nodes.collect::<Result<_, _>>()?;
        Ok(Self { cluster, net, supervisors, nodes })
    }

    pub(super) fn url(&self) -> String {
        self.cluster.url()
    }

    pub(in crate::chaos) fn supervisor(&self, number: usize) -> &Part {
        &self.supervisors[number]
    }

    pub(in crate::chaos) fn node(&self, number: usize) -> &Part {
        &self.nodes[number]
    }

    /// Cuts the power of a host. What is ours of it stays down until [`Apart::power_up`].
    pub(in crate::chaos) fn power_cut(&self, host: usize) -> Result<(), Problem> {
        for part in self.at(host) {
            part.kill()?;
        }
        let net = self.net.as_ref().ok_or("there are no hosts")?;
        net.processes(host).into_iter().for_each(|pid| kill(pid, Signal::KILL));
        Ok(())
    }

    /// Starts what runs on a host by itself.
    pub(in crate::chaos) fn power_up(&self, host: usize) -> Result<(), Problem> {
        self.at(host).try_for_each(|part| Ok(part.start()?))
    }

    /// What is ours of a host.
    fn at(&self, host: usize) -> impl Iterator<Item = &Part> {
        let supervisors = self.supervisors.iter().enumerate();
        let nodes = self.nodes.iter().enumerate();
        let supervisors = supervisors
            .filter(move |(number, _)| host_of(Target::Supervisor(*number)) == Some(host))
            .map(|(_, part)| part);
        let nodes = nodes
            .filter(move |(number, _)| host_of(Target::Node(*number)) == Some(host))
            .map(|(_, part)| part);
        std::iter::once(self.cluster.part(host)).chain(supervisors).chain(nodes)
    }

    fn roles(&self) -> impl Iterator<Item = &Part> {
        self.supervisors.iter().chain(&self.nodes)
    }

    /// Starts whoever does not run, and waits until the cluster is current.
    pub(super) async fn start(&self, within: Duration) -> Result<(), Problem> {
        for server in self.cluster.parts() {
            server.start()?;
        }
        self.cluster.current(within).await?;
        for role in self.roles() {
            role.start()?;
        }
        Ok(())
    }

    /// Starts again whoever ends by itself, until `stop`; who did so.
    pub(in crate::chaos) async fn keep(
        &self,
        mut stop: watch::Receiver<bool>,
    ) -> Result<Vec<String>, Problem> {
        let mut ended = Vec::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(ended),
                () = sleep(AGAIN) => {}
            }
            ended.extend(self.revive()?);
        }
    }

    /// Starts again whoever has ended by itself; who has.
    pub(super) fn revive(&self) -> Result<Vec<String>, Problem> {
        let mut ended = Vec::new();
        for part in self.roles().chain(self.cluster.parts()).filter(|part| part.has_ended()) {
            ended.push(part.name.clone());
            part.start()?;
        }
        Ok(ended)
    }

    /// Takes everything down: nodes drain what they run, then the supervisors go, then the servers.
    pub(super) async fn down(&self) -> Result<(), Problem> {
        for group in [&self.nodes, &self.supervisors] {
            group.iter().for_each(Part::ask_to_end);
            let until = Instant::now() + DOWN;
            while let Some(part) = group.iter().find(|part| part.pid().is_some()) {
                if Instant::now() > until {
                    return Err(format!("{} has not ended within {DOWN:?}", part.name).into());
                }
                sleep(AGAIN / 5).await;
            }
        }
        for server in self.cluster.parts() {
            server.kill()?;
        }
        Ok(())
    }
}
