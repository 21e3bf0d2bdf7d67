//! Three hosts that are one cluster, each a network namespace, and a fourth from which this program reaches them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use broker::ConnectOptions;
use common::{AgentName, Namespace};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use system_tests::harness::Net;
use tempfile::TempDir;

use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process::{self, signal};
use crate::rig::Plan;
use crate::{cpu, fleet, server};

/// The hosts of the cluster.
pub(crate) const HOSTS: usize = 3;
/// A cluster that is not whole again by then is broken.
const WHOLE: Duration = Duration::from_secs(180);
/// Between two looks.
const AGAIN: Duration = Duration::from_millis(500);

/// A cluster that runs. Dropping it kills all of it.
#[derive(Debug)]
pub(crate) struct Site {
    net: Net,
    folder: TempDir,
    mozart: PathBuf,
    /// The network that this program came from.
    from: File,
}

impl Site {
    /// Starts a cluster without agents.
    pub(crate) async fn start(plan: &Plan) -> Result<Self> {
        if !rustix::process::getuid().is_root() {
            return fail("only root can make network namespaces");
        }
        let folder = tempfile::Builder::new().prefix("mozart-bench-").tempdir_in(&plan.data)?;
        let from = File::open("/proc/thread-self/ns/net")?;
        let site = Self { net: Net::new(HOSTS + 1), folder, mozart: process::mozart()?, from };
        enter(&File::open(Path::new("/run/netns").join(site.net.host(HOSTS)))?)?;
        let first = ["up", "-d", "--cluster", "bench", "--listen", &site.net.address(0)];
        let mut printed = site.run(0, &[&first[..], &["--name", "n0"]].concat()).await?;
        for host in 1..HOSTS {
            let Some(string) = printed.trim().strip_prefix("mozart up --join ") else {
                return fail(format!("no string to join with: {printed}"));
            };
            let join = ["join", string, "-d", "--name", &node(host)];
            printed = site.run(host, &join).await?;
        }
        site.whole(0).await?;
        Ok(site)
    }

    /// The links between the hosts.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Where everything of it is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A host's data folder.
    pub(crate) fn home(&self, host: usize) -> PathBuf {
        self.folder().join(format!("h{host}"))
    }

    /// Runs `mozart` on a host to its end; what it prints.
    pub(crate) async fn run(&self, host: usize, args: &[&str]) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.net.host(host)]).arg(&self.mozart);
        command.arg("--dir").arg(self.home(host)).args(args);
        command.env("MOZART_NATS_SERVER", server::binary()).env(cpu::MARK, self.folder());
        command.env_remove("NATS_URL").env_remove("MOZART_DIR").stdin(Stdio::null());
        let output = tokio::process::Command::from(command).output().await?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        fail(format!("mozart {} on host {host}: {}\n{said}", args.join(" "), output.status))
    }

    /// The same with `-o json`.
    pub(crate) async fn json(&self, host: usize, args: &[&str]) -> Result<Value> {
        let printed = self.run(host, &[&["-o", "json"], args].concat()).await?;
        Ok(serde_json::from_str(&printed)?)
    }

    /// Applies as many agents with the same soul, and waits until all are running.
    pub(crate) async fn apply(&self, agents: usize, soul: &str) -> Result<Vec<AgentName>> {
        let souls = self.folder().join("souls");
        std::fs::create_dir_all(&souls)?;
        let names = fleet::names(agents)?;
        for agent in &names {
            std::fs::write(souls.join(format!("{agent}.soul")), soul)?;
        }
        let souls = souls.to_string_lossy();
        self.run(0, &["apply", &souls, "--wait", "--timeout", "300s"]).await?;
        Ok(names)
    }

    /// How this program connects.
    pub(crate) fn options(&self) -> Result<ConnectOptions> {
        let note = std::fs::read(self.home(0).join("mozart.json"))?;
        let note: Value = serde_json::from_slice(&note)?;
        let word = |name: &str| note[name].as_str().map(str::to_owned);
        let (Some(url), Some(namespace)) = (word("url"), word("namespace")) else {
            return fail(format!("no address in {note}"));
        };
        let ca = Some(std::fs::read_to_string(self.home(0).join("nats/ca.pem"))?);
        let timeout = Duration::from_secs(60);
        let name = "mozart bench".to_owned();
        let namespace = Namespace::new(namespace)?;
        Ok(ConnectOptions { url, creds: None, ca, name, namespace, timeout, shim: None })
    }

    /// A client of these agents.
    pub(crate) async fn client(&self, agents: Vec<AgentName>) -> Result<Ours> {
        Ours::of(&self.options()?, agents).await
    }

    /// The agents of each host, as it is now.
    pub(crate) async fn placed(&self, ask: usize) -> Result<Vec<Vec<usize>>> {
        let rows = self.json(ask, &["ps"]).await?;
        let rows = rows.as_array().map(Vec::as_slice).unwrap_or_default();
        let mut placed = vec![Vec::new(); HOSTS];
        for row in rows {
            let number = row["agent"].as_str().and_then(|name| name.get(1..)?.parse().ok());
            let host = (0..HOSTS).find(|host| row["node"] == node(*host));
            match (number, host) {
                (Some(number), Some(host)) => placed[host].push(number),
                _ => return fail(format!("an agent that is nowhere: {row}")),
            }
        }
        Ok(placed)
    }

    /// Waits until all nodes are up, all streams have all their replicas, and all agents run.
    pub(crate) async fn whole(&self, ask: usize) -> Result<()> {
        let until = Instant::now() + WHOLE;
        loop {
            let lacks = match self.lacks(ask).await {
                Ok(None) => return Ok(()),
                Ok(Some(lacks)) => lacks,
                Err(error) => error.to_string(),
            };
            if Instant::now() > until {
                return fail(format!("the cluster is not whole after {WHOLE:?}: {lacks}"));
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn lacks(&self, ask: usize) -> Result<Option<String>> {
        let nodes = self.json(ask, &["node", "ls"]).await?;
        let up = nodes.as_array().into_iter().flatten().filter(|node| node["state"] == "up");
        if up.count() < HOSTS {
            return Ok(Some(nodes.to_string()));
        }
        let agents = self.json(ask, &["ps"]).await?;
        let mut agents = agents.as_array().into_iter().flatten();
        if let Some(agent) = agents.find(|agent| agent["state"] != "running") {
            return Ok(Some(agent.to_string()));
        }
        let doctor = self.run(ask, &["doctor"]).await?;
        let complete = format!("all streams have {HOSTS} replicas");
        Ok((!doctor.contains(&complete)).then_some(doctor))
    }

    /// Ends a host as when its power is cut: its packets stop, nobody is told.
    pub(crate) fn power_cut(&self, host: usize) {
        self.net.isolate(host);
        self.net.processes(host).into_iter().for_each(|pid| signal(pid, Signal::KILL));
    }

    /// The process of a host's nats-server.
    pub(crate) fn nats(&self, host: usize) -> Result<u32> {
        let name = server::binary();
        let is_it = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).next() == Some(name.as_os_str().as_encoded_bytes())
        };
        match self.net.processes(host).into_iter().find(is_it) {
            Some(pid) => Ok(pid),
            None => fail(format!("no nats-server runs on host {host}")),
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for host in 0..HOSTS {
            // What was killed may have started another in the same moment.
            for _ in 0..100 {
                let left = self.net.processes(host);
                if left.is_empty() {
                    break;
                }
                left.into_iter().for_each(|pid| signal(pid, Signal::KILL));
                std::thread::yield_now();
            }
        }
        drop(enter(&self.from));
        if std::env::var_os("MOZART_BENCH_KEEP").is_some() {
            self.folder.disable_cleanup(true);
        }
    }
}

/// The name of a host's node.
pub(crate) fn node(host: usize) -> String {
    format!("n{host}")
}

/// Takes this thread into a network: the only one that opens connections.
pub(crate) fn enter(network: &File) -> Result<()> {
    use std::os::fd::AsFd as _;
    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
}
