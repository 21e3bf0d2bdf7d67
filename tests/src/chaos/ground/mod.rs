//! The ground of a campaign: a folder with souls, workers and data, and the fleet that runs in it: `mozart up`, or roles that are
//! processes of their own over a cluster.

mod apart;
mod cluster;
mod part;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::models::ContainerSummary;
use broker::{Broker, ConnectOptions};
use common::{AgentName, Namespace};
use serde::Deserialize;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::HOSTS;
use super::clocks::Clocks;
use super::schedule::Target;
use super::{Options, Problem};
use crate::harness::{Engine, Net, Process, Runtime, running};
pub(super) use apart::{Apart, node_name};
pub(super) use part::Part;

/// How long a command of ours may take before it is given up.
const COMMAND: Duration = Duration::from_secs(90);

/// How long a cluster and its roles may take to be there at first.
const FIRST: Duration = Duration::from_secs(60);

/// A fleet and its folder.
#[derive(Debug)]
pub(super) struct Ground {
    /// Everything is under it.
    pub(super) folder: PathBuf,
    mozart: PathBuf,
    agents: usize,
    runtime: Runtime,
    /// The longest freeze: everything may take that much longer.
    freeze: Duration,
    /// By what label the engine knows its containers, once one was seen.
    label: OnceLock<String>,
    /// The roles, where they are processes of their own; `mozart up`, otherwise.
    apart: Option<Apart>,
    /// Other clocks for everybody, if there are to be any.
    clocks: Option<Clocks>,
    /// How long finished messages stay in the journal, if not as usual.
    hot: Option<Duration>,
}

/// What `mozart up` says about itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    url: String,
    pid: u32,
    nats_pid: Option<u32>,
}

/// A line of `mozart ps`.
#[derive(Debug, Deserialize)]
struct Row {
    state: String,
}

/// What tells supervisors how long finished messages stay in the journal.
fn hot_env(hot: Option<Duration>) -> Option<(&'static str, String)> {
    hot.map(|hot| ("MOZART_HOT", format!("{}s", hot.as_secs())))
}

/// The name of an agent by its number.
pub(super) fn agent_name(number: usize) -> String {
    format!("agent-{number:02}")
}

/// An agent's ATTEMPTS.
fn attempts(number: usize) -> u32 {
    if number.is_multiple_of(4) { 5 } else { 3 }
}

/// What an agent answers to a message.
pub(super) fn answer(agent: &AgentName, text: &str) -> String {
    format!("{agent}: {}", text.chars().rev().collect::<String>())
}

impl Ground {
    /// Lays out a folder with souls.
    pub(super) fn prepare(options: &Options) -> Result<Self, Problem> {
        let Options { folder, agents, runtime, freezes, cluster, clocks, hot, .. } = options;
        let souls = folder.join("souls");
        fs::create_dir_all(souls.join("witness"))?;
        let place = match runtime {
            Runtime::Process => "ENV WITNESS=witness",
            Runtime::Docker(_) => {
                // A worker in a container is another user.
                fs::set_permissions(souls.join("witness"), fs::Permissions::from_mode(0o777))?;
                // With a writable folder, stop-first would be the default.
                "SANCTUM witness:/witness shared\nENV WITNESS=/witness\nREPLACE start-first"
            }
        };
        // Workers write there: it is none of their files.
        fs::write(souls.join(".mozartignore"), "/witness\n")?;
        fs::write(souls.join("chaos.py"), include_str!("../../../workers/chaos.py"))?;
        for number in 0..*agents {
            let concurrency = if number.is_multiple_of(3) { 2 } else { 1 };
            let attempts = attempts(number);
            // Hit as often as nothing in life is: patience that never ends, and short delays.
            let soul = format!(
                "MODEL test/chaos\n\
                 SOUL You turn around what you hear.\n\
                 WORKER [\"python3\", \"chaos.py\"]\n\
                 {place}\n\
                 CONCURRENCY {concurrency}\n\
                 ATTEMPTS {attempts}\n\
                 TIMEOUT turn=20s drain=5s\n\
                 RESTART always max=100000/10m backoff=200ms..2s\n"
            );
            fs::write(souls.join(format!("{}.soul", agent_name(number))), soul)?;
        }
        let mozart = find_mozart()?;
        let home = folder.join("home");
        let clocks = match clocks {
            true => Some(Clocks::prepare(folder, &mozart)?),
            false => None,
        };
        let worn = clocks.clone();
        let env = hot_env(*hot);
        let dress = move |command: &mut std::process::Command, place| {
            command.envs(env.clone());
            command.envs(worn.iter().flat_map(|clocks| clocks.env(place)));
        };
        let apart = match cluster {
            true => {
                let net = options.hosts.as_deref().map(|name| Net::of(name, HOSTS));
                Some(Apart::prepare(&home, &mozart, net, dress)?)
            }
            false => None,
        };
        Ok(Self {
            folder: folder.clone(),
            mozart,
            agents: *agents,
            runtime: runtime.clone(),
            freeze: freezes.iter().max().copied().unwrap_or_default(),
            label: OnceLock::new(),
            apart,
            clocks,
            hot: *hot,
        })
    }

    /// The roles, where they are processes of their own.
    pub(super) fn apart(&self) -> Option<&Apart> {
        self.apart.as_ref()
    }

    /// How long something may take that takes `calm` while nothing is frozen.
    pub(super) fn patience(&self, calm: Duration) -> Duration {
        calm + self.freeze
    }

    pub(super) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    fn souls(&self) -> PathBuf {
        self.folder.join("souls")
    }

    pub(super) fn witness(&self) -> PathBuf {
        self.souls().join("witness")
    }

    pub(super) fn agents(&self) -> Result<Vec<AgentName>, Problem> {
        (0..self.agents).map(|number| Ok(AgentName::new(agent_name(number))?)).collect()
    }

    pub(super) fn attempts(&self) -> Result<BTreeMap<AgentName, u32>, Problem> {
        Ok(self.agents()?.into_iter().zip((0..).map(attempts)).collect())
    }

    /// Runs the command line; its exit code and what it said.
    pub(super) async fn cli(&self, args: &[&str]) -> Result<(i32, String), Problem> {
        self.cli_in(&self.home(), args).await
    }

    /// Runs the command line with another data folder.
    pub(super) async fn cli_in(
        &self,
        home: &Path,
        args: &[&str],
    ) -> Result<(i32, String), Problem> {
        let mut command = Command::new(&self.mozart);
        command
            .args(args)
            .env("MOZART_DIR", home)
            .env_remove("MOZART_NETWORK")
            .envs(self.runtime.env())
            .env_remove("NATS_URL")
            .env_remove("NATS_CREDS")
            .env_remove("MOZART_NAMESPACE")
            .envs(self.clocks.iter().flat_map(Clocks::next_env))
            .envs(hot_env(self.hot))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if let Some(apart) = &self.apart {
            command.env("NATS_URL", apart.url());
        }
        let output = command.output();
        let within = self.patience(COMMAND);
        match timeout(within, output).await {
            Ok(output) => {
                let output = output?;
                let said = [output.stdout, output.stderr].concat();
                let said = String::from_utf8_lossy(&said).trim().to_owned();
                Ok((output.status.code().unwrap_or(-1), said))
            }
            Err(_) => Ok((-1, format!("not back after {within:?}"))),
        }
    }

    /// Starts the fleet, or what is missing of it, and waits until every agent runs.
    pub(super) async fn start(&self, within: Duration) -> Result<(), Problem> {
        let souls = self.souls();
        let souls = souls.to_str().ok_or("a folder that is not UTF-8")?;
        let Some(apart) = &self.apart else {
            let mut up = vec!["up", souls, "-d", "--wait"];
            if let Runtime::Docker(_) = self.runtime {
                up.push("--dev");
            }
            return self.say(&up, within).await;
        };
        let within = within.max(FIRST);
        apart.start(within).await?;
        self.say(&["apply", souls], within).await?;
        self.all_run(apart, within).await
    }

    /// Says a command again until it works: nats-server may be stopped just now.
    async fn say(&self, args: &[&str], within: Duration) -> Result<(), Problem> {
        let until = Instant::now() + within;
        loop {
            match self.cli(args).await? {
                (0, _) => return Ok(()),
                (code, said) if Instant::now() > until => {
                    return Err(format!("`mozart {}` ends with {code}: {said}", args[0]).into());
                }
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }

    /// Waits until every agent runs.
    async fn all_run(&self, apart: &Apart, within: Duration) -> Result<(), Problem> {
        let until = Instant::now() + within;
        loop {
            apart.revive()?;
            let (code, said) = self.cli(&["ps", "-o", "json"]).await?;
            // What it said on stderr may stand behind.
            let rows = serde_json::Deserializer::from_str(&said).into_iter::<Vec<Row>>().next();
            let rows = rows.and_then(Result::ok).unwrap_or_default();
            let running = rows.iter().filter(|row| row.state == "running").count();
            if running == self.agents {
                return Ok(());
            }
            if Instant::now() > until {
                return Err(format!(
                    "{running} of {} agents run after {within:?}; `mozart ps` ends with {code}: {said}",
                    self.agents
                )
                .into());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    fn running(&self) -> Result<Running, Problem> {
        Ok(serde_json::from_slice(&fs::read(self.home().join("mozart.json"))?)?)
    }

    /// Connects as a client.
    pub(super) async fn connect(&self) -> Result<Broker, Problem> {
        let url = match &self.apart {
            Some(apart) => apart.url(),
            None => self.running()?.url,
        };
        let options = ConnectOptions {
            url,
            creds: None,
            ca: None,
            name: "chaos".to_owned(),
            namespace: Namespace::new("default")?,
            timeout: Duration::from_secs(20),
            shim: None,
        };
        Ok(Broker::connect(&options).await?)
    }

    /// The process that a blow is meant for, and the incarnation that it is, or 0.
    pub(super) fn process(&self, target: Target) -> Option<(u64, u32)> {
        let up = |pid: fn(Running) -> Option<u32>| self.own(pid(self.running().ok()?)?);
        let role =
            |part: fn(&Apart, usize) -> &Part, number| part(self.apart.as_ref()?, number).pid();
        let pid = match target {
            Target::Worker(agent) => return self.newest(agent, false),
            Target::Shim(agent) => return self.newest(agent, true),
            Target::Agent(_) | Target::Container(_) | Target::Host(_) => None,
            Target::Up => up(|running| Some(running.pid)),
            Target::Server(number) => match &self.apart {
                Some(apart) => apart.cluster.part(number).pid(),
                None => up(|running| running.nats_pid),
            },
            Target::Supervisor(number) => role(Apart::supervisor, number),
            Target::Node(number) => role(Apart::node, number),
        };
        pid.map(|pid| (0, pid))
    }

    /// A process id by which somebody else runs meanwhile is nobody.
    fn own(&self, pid: u32) -> Option<u32> {
        Process::read(pid).filter(|process| process.is_of(&self.home())).map(|process| process.pid)
    }

    /// Whether the processes that are to have other clocks do: a campaign with the machine's own would prove nothing about them.
    pub(super) fn clocks_differ(&self) -> Result<(), Problem> {
        let Some(clocks) = &self.clocks else { return Ok(()) };
        let roles = [Target::Up, Target::Supervisor(0), Target::Node(0)];
        let agents =
            (0..self.agents).flat_map(|agent| [Target::Shim(agent), Target::Worker(agent)]);
        for target in roles.into_iter().chain(agents) {
            if let Some((_, pid)) = self.process(target)
                && !clocks.are_in(pid)
            {
                return Err(format!("{target:?}, process {pid}, has the machine's clock").into());
            }
        }
        Ok(())
    }

    /// The newest shim or worker of an agent: its incarnation, and its process id.
    fn newest(&self, number: usize, is_shim: bool) -> Option<(u64, u32)> {
        let prefix = format!("{}-", agent_name(number));
        let containers = self.containers_of(number);
        let found = running::running(&self.home()).into_iter().filter_map(|process| {
            let incarnation = match &process.container {
                Some(id) if containers.contains_key(id) => *containers.get(id)?,
                Some(_) | None => {
                    let run = Path::new(process.var("MOZART_RUN")).file_name()?.to_str()?;
                    run.strip_prefix(&prefix)?.parse().ok()?
                }
            };
            (process.is_shim() == is_shim).then_some((incarnation, process.pid))
        });
        found.max()
    }

    /// The containers of an agent that its node has noted, by their ids.
    fn containers_of(&self, number: usize) -> BTreeMap<String, u64> {
        let name = agent_name(number);
        let all = running::noted(&self.home()).into_iter().filter(|one| one.agent == name);
        all.map(|one| (one.id, one.incarnation)).collect()
    }

    /// The newest container of an agent: its incarnation, and its id.
    pub(super) fn container(&self, number: usize) -> Option<(u64, String)> {
        let all = self.containers_of(number).into_iter();
        all.map(|(id, incarnation)| (incarnation, id)).max()
    }

    /// The engine; none where agents are processes.
    pub(super) fn engine(&self) -> Option<&Engine> {
        match &self.runtime {
            Runtime::Docker(engine) => Some(engine),
            Runtime::Process => None,
        }
    }

    /// The containers of this fleet that the engine knows, in whatever state.
    pub(super) async fn containers(&self) -> Vec<ContainerSummary> {
        let Some(engine) = self.engine() else { return Vec::new() };
        let mut known = self.label.get().cloned();
        let all = running::of(engine.docker(), &self.home(), &mut known).await;
        if let Some(known) = known {
            self.label.get_or_init(|| known);
        }
        all
    }

    /// Takes everything down: in order, and what is left then by force.
    pub(super) async fn down(&self) -> Result<(), Problem> {
        let (code, said) = match &self.apart {
            Some(apart) => (0, apart.down().await.map(|()| String::new())?),
            None => self.cli(&["down"]).await?,
        };
        let left = running::running(&self.home());
        let containers = self.containers().await;
        self.end();
        if code != 0 {
            return Err(format!("`mozart down` ends with {code}: {said}").into());
        }
        if !left.is_empty() || !containers.is_empty() {
            return Err(format!("`mozart down` left {left:?} and {containers:?}").into());
        }
        Ok(())
    }

    fn end(&self) {
        running::end(&self.home(), &self.runtime, self.label.get().cloned());
    }

    /// Ends what is left of another data folder.
    pub(super) fn end_in(&self, home: &Path) {
        running::end(home, &self.runtime, None);
    }
}

impl Drop for Ground {
    /// However the campaign ends, nothing of it goes on.
    fn drop(&mut self) {
        self.end();
    }
}

/// The binary beside ours; a test's own is in a folder below.
fn find_mozart() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("mozart"));
    beside.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::NotFound, "no `mozart` is beside this binary: `make build`")
    })
}
