//! A cluster of one server. JetStream does not form one: it waits for a second server to elect a leader with. So the first member is told from
//! the start that it is all of the group, and as long as it is, it has the company of a server without JetStream, since it elects nobody before
//! it has seen a route (nats-server 2.15, `bootstrapRaftNode` and `raft.run`). A version that does not take this waits for the second host.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::quote::nats_conf;
use runtime::home::Home;
use runtime::processes;
use rustix::process::Signal;
use sha2::{Digest as _, Sha256};

use super::{ACCOUNTS, Member};
use crate::up::nats::{free_port, running_with};

const CONF: &str = "alone.conf";
/// The length of a server's id in its group.
const ID: usize = 8;

/// The group's file that says who belongs to it, in the data of a server.
fn peers(data: &Path) -> PathBuf {
    let [_, _, system] = ACCOUNTS;
    data.join("jetstream").join(system).join("_js_/_meta_/peers.idx")
}

/// Tells a server that has no data yet that it is all of its group.
pub(super) fn bootstrap(data: &Path, server: &str) -> io::Result<()> {
    let file = peers(data);
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    // Size of the group, number of members, their ids, and that it extends no other domain.
    let mut content = Vec::new();
    content.extend(1_u32.to_le_bytes());
    content.extend(1_u32.to_le_bytes());
    content.extend(id(server));
    content.extend(0_u16.to_le_bytes());
    fs::write(file, content)
}

/// How a server calls itself in a group: the beginning of its name's hash.
fn id(server: &str) -> [u8; ID] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let hash = Sha256::digest(server);
    std::array::from_fn(|at| {
        let byte = hash.get(at).copied().unwrap_or_default();
        DIGITS.get(usize::from(byte) % DIGITS.len()).copied().unwrap_or(b'0')
    })
}

/// Whether the group of a server has no other member.
fn is_alone(data: &Path) -> bool {
    let size = fs::read(peers(data)).ok();
    size.is_some_and(|size| size.first_chunk() == Some(&1_u32.to_le_bytes()))
}

/// The company of a server that is alone.
#[derive(Debug)]
pub(in crate::up) struct Alone {
    home: Home,
    pid: Option<u32>,
}

impl Alone {
    pub(in crate::up) fn new(home: &Home) -> Self {
        Self { home: home.clone(), pid: running_with(&home.nats().join(CONF)) }
    }

    /// Starts it where it is needed, and ends it where it is no longer.
    pub(in crate::up) fn tend(&mut self, member: &Member, binary: &Path) {
        let is_needed = is_alone(&self.home.nats().join("data"));
        let runs = self
            .pid
            .is_some_and(|pid| processes::started_at(pid).is_some() && !processes::is_zombie(pid));
        if is_needed && !runs {
            match self.spawn(member, binary) {
                Ok(pid) => self.pid = Some(pid),
                Err(error) => {
                    tracing::warn!("cannot start the cluster's first server alone: {error}")
                }
            }
        } else if !is_needed && runs {
            tracing::info!("the cluster has a second server");
            self.end();
        }
    }

    pub(in crate::up) fn is_left(&self) -> bool {
        self.pid.is_some()
    }

    pub(in crate::up) fn end(&mut self) {
        if let Some(pid) = self.pid.take() {
            processes::kill(pid, Signal::TERM);
        }
    }

    fn spawn(&self, member: &Member, binary: &Path) -> io::Result<u32> {
        let folder = self.home.nats();
        let quoted = |file: &str| nats_conf(&folder.join(file).to_string_lossy());
        let (cert, key, ca) = (quoted("server.pem"), quoted("server-key.pem"), quoted("ca.pem"));
        let tls = format!("cert_file: {cert}, key_file: {key}, ca_file: {ca}, timeout: 5");
        let local = |port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port);
        let password = &member.shared.routes;
        let accounts = ACCOUNTS.map(|name| format!("{name} {{}}")).join(", ");
        let content = format!(
            "# Written by `mozart up`; changes are lost.
server_name: {server}
listen: \"{listen}\"
log_file: {log}
accounts {{ {accounts} }}
system_account: {system}
{routes}
",
            server = nats_conf(&format!("{}-alone", member.server)),
            listen = local(free_port("127.0.0.1")?),
            log = quoted("alone.log"),
            system = ACCOUNTS[2],
            routes = member.routes(
                local(free_port("127.0.0.1")?),
                &tls,
                password,
                "no_advertise: true\n  "
            ),
        );
        self.home.put(&format!("nats/{CONF}"), content.as_bytes())?;
        // Before it has a log, it complains there.
        let errors = fs::File::create(folder.join("alone.err"))?;
        let child = Command::new(binary)
            .arg("-c")
            .arg(folder.join(CONF))
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()?;
        Ok(child.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_id_is_the_one_that_nats_server_gives_it() {
        // As a nats-server 2.15.1 of this name says in its log.
        assert_eq!(&id("n1"), b"fjFyEjc1");
    }

    #[test]
    fn a_group_of_one_is_known_by_its_file() {
        let data = tempfile::tempdir().expect("a temporary folder");
        assert!(!is_alone(data.path()), "nothing is there");
        bootstrap(data.path(), "n1").expect("written");
        assert!(is_alone(data.path()));
        let mut content = fs::read(peers(data.path())).expect("it is there");
        content[0] = 2;
        fs::write(peers(data.path()), content).expect("written");
        assert!(!is_alone(data.path()));
    }
}
