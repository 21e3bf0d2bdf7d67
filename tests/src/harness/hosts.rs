//! Hosts of a test's own: network namespaces on a switch, with links that can be cut.

use std::env;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::Signal;

use super::fleet::Fleet;
use super::proc;

/// Where the servers of a cluster reach each other.
const ROUTES: &str = "6222";

/// Tests of one process.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Some hosts, each with a data folder of its own. Dropping them ends what runs there, and removes the networks.
#[derive(Debug)]
pub struct Hosts {
    /// Before the network goes.
    fleets: Vec<Fleet>,
    net: Net,
}

/// The namespaces: one for each host, and one for the switch. No packet leaves them. Dropping it removes them.
#[derive(Debug)]
pub struct Net {
    name: String,
    hosts: usize,
    /// Whether another process has made it, and removes it.
    borrowed: bool,
}

impl Hosts {
    /// So many hosts, with these souls in the first one's folder; none where only root could make them.
    ///
    /// # Panics
    /// When they cannot be made in CI.
    #[expect(clippy::print_stderr, reason = "a test that did not run says so")]
    #[must_use]
    pub fn new(hosts: usize, souls: &[(&str, &str)]) -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            let missing = "only root can make network namespaces";
            assert_ne!(env::var("CI").as_deref(), Ok("true"), "{missing}");
            eprintln!("SKIPPED, since it needs hosts of its own: {missing}");
            return None;
        }
        let net = Net::new(hosts);
        let fleets = (0..hosts).map(|host| {
            let souls = if host == 0 { souls } else { &[] };
            Fleet::new(souls).on(&net.host(host))
        });
        let fleets = fleets.collect();
        Some(Self { fleets, net })
    }

    /// A host's folder and command line; the first is 0.
    #[must_use]
    pub fn host(&self, host: usize) -> &Fleet {
        &self.fleets[host]
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, host: usize) -> String {
        address(host)
    }

    /// From now on nothing that `from` sends reaches `to`. The packets vanish: nobody is told.
    pub fn cut(&self, from: usize, to: usize) {
        self.net.cut(from, to);
    }

    /// Cuts a host off from all others, in both directions.
    pub fn isolate(&self, host: usize) {
        self.net.isolate(host);
    }

    /// Cuts a host's nats-server off from the others. Clients of all hosts still reach it.
    pub fn cut_server(&self, host: usize) {
        self.net.cut_server(host);
    }

    /// Restores all links.
    pub fn heal(&self) {
        self.net.heal();
    }

    /// Kills all that runs on a host, as when its power is cut.
    pub fn kill(&self, host: usize) {
        self.signal(host, Signal::KILL);
    }

    /// Sends a signal to all processes of a host.
    pub fn signal(&self, host: usize, signal: Signal) {
        for pid in self.processes(host) {
            proc::kill(pid, signal);
        }
    }

    /// What runs on a host.
    #[must_use]
    pub fn processes(&self, host: usize) -> Vec<u32> {
        self.net.processes(host)
    }
}

fn address(host: usize) -> String {
    format!("10.77.0.{}", host + 1)
}

impl Net {
    /// Makes the namespaces of so many hosts.
    ///
    /// # Panics
    /// When the system does not allow it.
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("mzt{}-{number}", std::process::id());
        let net = Self { name, hosts, borrowed: false };
        net.build();
        net
    }

    /// One that another process has made.
    #[must_use]
    pub fn of(name: &str, hosts: usize) -> Self {
        Self { name: name.to_owned(), hosts, borrowed: true }
    }

    /// What all its namespaces' names begin with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of a host's namespace.
    #[must_use]
    pub fn host(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// A host's address.
    #[must_use]
    pub fn address(&self, host: usize) -> String {
        address(host)
    }

    /// From now on nothing that `from` sends reaches `to`. The packets vanish: nobody is told.
    pub fn cut(&self, from: usize, to: usize) {
        self.rule("-A", from, to);
    }

    /// Cuts a host off from all others, in both directions.
    pub fn isolate(&self, host: usize) {
        for other in (0..self.hosts).filter(|other| *other != host) {
            self.cut(host, other);
            self.cut(other, host);
        }
    }

    /// Cuts a host's nats-server off from the others. Clients of all hosts still reach it.
    pub fn cut_server(&self, host: usize) {
        for end in ["--dport", "--sport"] {
            let rule = ["iptables", "-A", "INPUT", "-p", "tcp", end, ROUTES, "-j", "DROP"];
            run("ip", &[&["netns", "exec", &self.host(host)], &rule[..]].concat());
        }
    }

    /// Restores all links.
    pub fn heal(&self) {
        for host in 0..self.hosts {
            run("ip", &["netns", "exec", &self.host(host), "iptables", "-F"]);
        }
    }

    /// What runs on a host.
    #[must_use]
    pub fn processes(&self, host: usize) -> Vec<u32> {
        let listed = run("ip", &["netns", "pids", &self.host(host)]);
        listed.lines().filter_map(|pid| pid.trim().parse().ok()).collect()
    }

    fn switch(&self) -> String {
        format!("{}-sw", self.name)
    }

    fn build(&self) {
        let switch = self.switch();
        run("ip", &["netns", "add", &switch]);
        run("ip", &["-n", &switch, "link", "add", "br0", "type", "bridge"]);
        run("ip", &["-n", &switch, "link", "set", "br0", "up"]);
        for host in 0..self.hosts {
            let name = self.host(host);
            let port = format!("p{host}");
            run("ip", &["netns", "add", &name]);
            let peer = ["peer", "name", "eth0", "netns", &name];
            let link = ["-n", &switch, "link", "add", &port, "type", "veth"];
            run("ip", &[&link[..], &peer[..]].concat());
            run("ip", &["-n", &switch, "link", "set", &port, "master", "br0", "up"]);
            let inet = format!("{}/24", address(host));
            run("ip", &["-n", &name, "addr", "add", &inet, "dev", "eth0"]);
            run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
            run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        }
    }

    /// Where it arrives: a sender sees no error.
    fn rule(&self, what: &str, from: usize, to: usize) {
        let (host, from) = (self.host(to), address(from));
        let rule = ["INPUT", "-s", &from, "-j", "DROP"];
        run("ip", &[&["netns", "exec", &host, "iptables", what], &rule[..]].concat());
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        if self.borrowed {
            return;
        }
        for host in 0..self.hosts {
            // Also where it was never made.
            let _removed = Command::new("ip").args(["netns", "del", &self.host(host)]).output();
        }
        let _removed = Command::new("ip").args(["netns", "del", &self.switch()]).output();
    }
}

/// What a tool of the system says.
fn run(tool: &str, args: &[&str]) -> String {
    let output = Command::new(tool).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{tool}: {error}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{tool} {}: {complaint}", args.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
