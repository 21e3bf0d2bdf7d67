//! The throwaway fleet: its folder, its supervisors and nodes with their relays, its agents. It signals only what it has started itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use broker::{Attempt as _, Broker, ConnectOptions, StreamOptions, by_way_of};
use common::api::{ApiError, Query};
use common::{AgentName, failure};
use runtime::processes::{ENDS_WITH, Process};
use runtime::{labels, log};
use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::left::Site;
use crate::part::Part;
use crate::relay::Relay;
use crate::schedule::{Cut, NODES, SUPERVISORS, Target, agent_name, node_name, supervisor_name};
use crate::{ATTEMPTS, Options};

/// The folder of the workers' notes, in that of a run.
pub(crate) const NOTES: &str = "notes";
/// Journal streams of a throwaway fleet.
const SHARDS: u32 = 2;
/// How long the streams may take to be created.
const CREATE: Duration = Duration::from_secs(30);
/// How long a command of the command line may take.
const COMMAND: Duration = Duration::from_secs(90);
/// How long it may take until a supervisor answers, and how long one answer; the pause before it is asked again.
const ANSWERS: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
/// How long agents may take to run, as `mozart apply` takes it.
const RUNNING: &str = "60s";
/// How long a killed process may take to be gone.
const GONE: Duration = Duration::from_secs(10);
/// How much of a log is read for its last words.
const TAIL: u64 = 16 << 10;

/// The fleet.
pub(crate) struct Ground {
    pub(crate) site: Site,
    pub(crate) agents: Vec<AgentName>,
    direct: ConnectOptions,
    mozart: PathBuf,
    supervisors: Vec<Part>,
    nodes: Vec<Part>,
    /// Of the supervisors, then of the nodes; empty where nothing can be cut.
    relays: Vec<Relay>,
    /// Ends the agents should this process be killed: it waits for the end of its stdin ([`crate::left::sweep_at_end`]).
    keeper: Option<Child>,
}

impl Ground {
    /// Lays it out. Nothing runs yet.
    ///
    /// # Errors
    /// When files or sockets cannot be made.
    pub(crate) async fn prepare(options: &Options, site: Site) -> Result<Self, ApiError> {
        let folder = site.folder.clone();
        let failed = |error: io::Error| {
            let what = format!("cannot prepare the throwaway fleet in {}", folder.display());
            failure::file(what, &error, "check the disk space and permissions there")
        };
        let direct =
            ConnectOptions { namespace: site.namespace.clone(), ..options.connect.clone() };
        let agents = (0..options.agents).map(|number| AgentName::new(agent_name(number)));
        let agents = agents.collect::<Result<Vec<_>, _>>().map_err(io::Error::other);
        let mut ground = Self {
            agents: agents.map_err(failed)?,
            direct,
            mozart: options.mozart.clone(),
            supervisors: Vec::new(),
            nodes: Vec::new(),
            relays: Vec::new(),
            keeper: None,
            site,
        };
        ground.lay_out(options).await.map_err(failed)?;
        Ok(ground)
    }

    async fn lay_out(&mut self, options: &Options) -> io::Result<()> {
        let folder = self.site.folder.clone();
        let (souls, notes) = (folder.join("souls"), self.notes());
        for made in [&souls, &notes] {
            fs::create_dir_all(made)?;
        }
        for (number, agent) in self.agents.iter().enumerate() {
            let soul = soul(number, &self.mozart, &notes)?;
            fs::write(souls.join(format!("{agent}.soul")), soul)?;
        }
        if let Some(ca) = &options.connect.ca {
            fs::write(folder.join("ca.pem"), ca)?;
        }
        let mut keeper = bare(&self.mozart);
        keeper.arg("chaos-keeper").arg(&folder).kill_on_drop(true).process_group(0);
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.keeper = Some(keeper.spawn()?);
        let urls = self.urls(options.can_cut).await?;
        let mut urls = urls.into_iter();
        let mut url = || urls.next().unwrap_or_else(|| options.connect.url.clone());
        for name in (0..SUPERVISORS).map(supervisor_name) {
            let words = ["supervisor", "--id", &name].map(OsString::from).to_vec();
            let mut env = self.env(&name, &url());
            if let Some(seed) = &options.login_seed {
                env.push(("MOZART_AUTH_SEED", seed.into()));
            }
            self.supervisors.push(self.role(name, words, env));
        }
        for name in (0..NODES).map(node_name) {
            let words = ["node", "--name", &name, "--runtime", "process"];
            let words = words.map(OsString::from).to_vec();
            let mut env = self.env(&name, &url());
            if options.login_seed.is_some() {
                env.push(("MOZART_AGENT_LOGINS", "true".into()));
            }
            self.nodes.push(self.role(name, words, env));
        }
        Ok(())
    }

    /// The addresses through which the roles connect, each by a relay of its own; none where nothing is cut.
    async fn urls(&mut self, can_cut: bool) -> io::Result<Vec<String>> {
        let mut urls = Vec::new();
        for _ in 0..SUPERVISORS + NODES {
            let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
            let Some((to, _)) = by_way_of(&self.direct.url, any).filter(|_| can_cut) else {
                return Ok(Vec::new());
            };
            let relay = Relay::open(to).await?;
            urls.extend(by_way_of(&self.direct.url, relay.address).map(|(_, url)| url));
            self.relays.push(relay);
        }
        Ok(urls)
    }

    /// What a process of ours finds in its environment: nothing that the user's own fleet is told by it.
    fn env(&self, name: &str, url: &str) -> Vec<(&'static str, OsString)> {
        let folder = &self.site.folder;
        let mut env: Vec<(&'static str, OsString)> = vec![
            ("NATS_URL", url.into()),
            ("MOZART_DIR", folder.join(name).into()),
            ("MOZART_NAMESPACE", self.site.namespace.as_str().into()),
            ("NO_COLOR", "1".into()),
            (ENDS_WITH, std::process::id().to_string().into()),
        ];
        if let Some(creds) = &self.direct.creds {
            env.push(("NATS_CREDS", creds.into()));
        }
        if self.direct.ca.is_some() {
            env.push(("NATS_CA", folder.join("ca.pem").into()));
        }
        env
    }

    fn role(&self, name: String, words: Vec<OsString>, env: Vec<(&'static str, OsString)>) -> Part {
        let (mozart, log) = (self.mozart.clone(), self.log_of(&name));
        Part::new(name, move || {
            let mut command = bare(&mozart);
            let log = fs::OpenOptions::new().create(true).append(true).open(&log)?;
            command.args(&words).envs(env.iter().map(|(name, value)| (name, value)));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
            Ok(command)
        })
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.site.folder.join(format!("{name}.log"))
    }

    /// Where the workers write down their turns.
    pub(crate) fn notes(&self) -> PathBuf {
        self.site.folder.join(NOTES)
    }

    /// How often each agent may try a message.
    pub(crate) fn attempts(&self) -> BTreeMap<AgentName, u32> {
        self.agents.iter().map(|agent| (agent.clone(), ATTEMPTS)).collect()
    }

    /// Starts everything, and returns when all agents run.
    ///
    /// # Errors
    /// When the broker does not take the streams; when something does not start.
    pub(crate) async fn start(&self) -> Result<Broker, ApiError> {
        let streams = StreamOptions { journal_shards: SHARDS, replicas: None };
        let options = ConnectOptions { timeout: CREATE, ..self.direct.clone() };
        let broker = Broker::connect_and_create(&options, &streams).await;
        let broker = broker.attempt("cannot create the streams of the throwaway namespace")?;
        self.start_roles().map_err(|error| {
            let what = "cannot start the throwaway fleet";
            failure::file(what, &error, "check the limits on processes (`ulimit -a`)")
        })?;
        self.answers(&broker).await.map_err(|cause| self.does_not_start(cause))?;
        let souls = self.site.folder.join("souls");
        let words = ["apply".into(), souls.into(), "--wait".into(), "--timeout".into()];
        let applied = self.cli(words.into_iter().chain([RUNNING.into()])).await;
        applied.map_err(|said| self.does_not_start(said))?;
        Ok(broker)
    }

    /// Waits until a supervisor answers.
    async fn answers(&self, broker: &Broker) -> Result<(), String> {
        let hello = serde_json::to_vec(&Query::Hello).map_err(|error| error.to_string())?;
        let until = Instant::now() + ANSWERS;
        loop {
            let asked = broker.ask(broker.query(), hello.clone().into(), ANSWER).await;
            let Err(error) = asked else { return Ok(()) };
            let ended = self.roles().find_map(|role| Some((&role.name, role.has_ended()?)));
            if let Some((name, how)) = ended {
                return Err(format!("{name} ended with {how}"));
            }
            if Instant::now() > until {
                return Err(format!("no supervisor answers: {error}"));
            }
            sleep(LOOK).await;
        }
    }

    /// With the last errors in the logs: why it does not start.
    fn does_not_start(&self, cause: String) -> ApiError {
        let last = self.roles().filter_map(|role| {
            let log = log::tail(&self.log_of(&role.name), TAIL).ok()?;
            let is_bad = |line: &&str| line.contains("ERROR") || line.contains("error:");
            Some(format!("{}: {}", role.name, log.lines().rev().find(is_bad)?))
        });
        let cause: Vec<_> = std::iter::once(cause).chain(last).collect();
        let what = "the throwaway fleet does not start";
        failure::error(failure::FAILED, what, cause.join("\n"), "`mozart doctor`")
    }

    /// Starts the roles that do not run.
    pub(crate) fn start_roles(&self) -> io::Result<()> {
        self.roles().try_for_each(Part::start)
    }

    pub(crate) fn roles(&self) -> impl Iterator<Item = &Part> {
        self.supervisors.iter().chain(&self.nodes)
    }

    /// The supervisor or node; none for what runs in an agent.
    pub(crate) fn role_of(&self, target: Target) -> Option<&Part> {
        match target {
            Target::Supervisor(number) => self.supervisors.get(number),
            Target::Node(number) => self.nodes.get(number),
            Target::Shim(_) | Target::Worker(_) => None,
        }
    }

    /// The supervisor with this id.
    pub(crate) fn supervisor(&self, id: &str) -> Option<&Part> {
        self.supervisors.iter().find(|part| part.name == id)
    }

    /// Cuts a supervisor or a node off, or ends that.
    pub(crate) fn cut(&self, target: Target, cut: Option<Cut>) -> bool {
        let relay = match target {
            Target::Supervisor(number) => self.relays.get(number),
            Target::Node(number) => self.relays.get(SUPERVISORS + number),
            Target::Shim(_) | Target::Worker(_) => None,
        };
        relay.inspect(|relay| relay.cut(cut)).is_some()
    }

    /// The newest shim or worker of an agent, and its process id. It is one that a node of ours has started: its environment names a run
    /// folder below ours.
    pub(crate) fn process(&self, target: Target) -> Option<(u32, Process)> {
        let (number, is_shim) = match target {
            Target::Shim(number) => (number, true),
            Target::Worker(number) => (number, false),
            Target::Supervisor(_) | Target::Node(_) => return None,
        };
        let agent = agent_name(number);
        let incarnation = |label: &str| {
            let mut parts = label.rsplit('/');
            let incarnation: u64 = parts.next()?.parse().ok()?;
            (parts.nth(1) == Some(&agent)).then_some(incarnation)
        };
        let all = labels::find(&self.site.folder).into_iter();
        let of_agent = all.filter(|one| one.is_shim == is_shim);
        let of_agent = of_agent.filter_map(|one| Some((incarnation(&one.label)?, one.pid)));
        let (_, pid) = of_agent.max()?;
        let is_ours = || labels::is_in(pid, &self.site.folder);
        Process::open(pid, is_ours).map(|process| (pid, process))
    }

    /// Runs a command of the command line, on the throwaway namespace.
    ///
    /// # Errors
    /// What it has said, where it does not succeed.
    pub(crate) async fn cli(
        &self,
        words: impl IntoIterator<Item = OsString>,
    ) -> Result<(), String> {
        let words: Vec<OsString> = words.into_iter().collect();
        let shown = words.first().map(|word| word.to_string_lossy().into_owned());
        let shown = shown.unwrap_or_default();
        let mut command = bare(&self.mozart);
        command.args(&words).envs(self.env("cli", &self.direct.url)).stdin(Stdio::null());
        command.process_group(0).kill_on_drop(true);
        match timeout(COMMAND, command.output()).await {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(format!("`mozart {shown}` ended with {}: {}", output.status, said.trim()))
            }
            Ok(Err(error)) => Err(format!("cannot run {}: {error}", self.mozart.display())),
            Err(_) => Err(format!("`mozart {shown}` did not end within {COMMAND:?}")),
        }
    }

    /// Ends every process of the fleet, at once.
    pub(crate) async fn end(&self) {
        for role in self.roles() {
            role.signal(Signal::KILL);
        }
        for role in self.roles() {
            role.ended(GONE).await;
        }
        self.site.sweep().await;
    }
}

/// A `mozart` that is told nothing yet.
fn bare(mozart: &Path) -> Command {
    let mut command = Command::new(mozart);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let is_ours = text.starts_with("MOZART_") || text.starts_with("NATS_");
        if is_ours && text != "MOZART_SHIM" {
            command.env_remove(&name);
        }
    }
    command
}

/// The soul of an agent. Hit as often as nothing in use is: it is restarted for as long as the run takes.
fn soul(number: usize, mozart: &Path, notes: &Path) -> io::Result<String> {
    let words = [&mozart.to_string_lossy(), "chaos-worker", &notes.to_string_lossy()];
    let worker = serde_json::to_string(&words.map(str::to_owned))?;
    let concurrency = 1 + number % 2;
    Ok(format!(
        "MODEL mozart/chaos\n\
         SOUL You answer what `mozart chaos` sends.\n\
         WORKER {worker}\n\
         CONCURRENCY {concurrency}\n\
         ATTEMPTS {ATTEMPTS}\n\
         TIMEOUT turn=20s drain=5s\n\
         RESTART always max=100000/10m backoff=200ms..2s\n"
    ))
}
