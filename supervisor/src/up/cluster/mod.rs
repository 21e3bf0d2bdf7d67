//! Several hosts, each with a nats-server of one cluster: what a member knows of it. Kept in the data folder, for this user only: whoever can
//! read it is a member.

mod alone;
mod belong;
mod certificates;
mod enroll;
mod growth;
mod join;

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use broker::{Accounts, AuthKey, User};
use common::NodeName;
use common::api::ApiError;
use common::failure;
use common::quote::nats_conf;
use runtime::home::Home;
use serde::{Deserialize, Serialize};

pub(super) use alone::Alone;
pub(super) use belong::{belong, was_removed};
pub(super) use enroll::serve;
pub(super) use growth::show_growth;
pub(crate) use join::invite;
pub(super) use join::join;

use super::nats::random;

/// Where it is kept.
const FILE: &str = "nats/cluster.json";
/// The port for clients where none is given, as NATS has it.
pub(crate) const PORT: u16 = 4222;
/// How far above the port for clients the one for other servers is: 6222 for 4222, as NATS has it.
const ROUTES: u16 = 2000;
/// The account of the fleet, the one of hosts that want to join, and the servers' own.
const ACCOUNTS: [&str; 3] = [broker::APP, "JOIN", "SYS"];
/// The user of the fleet, and the one of hosts that want to join.
pub(super) const USER: &str = "mozart";
const JOINER: &str = "join";

/// What a member of a cluster knows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Member {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The name of this member's server: no other one has it, also not one of the same host with another data folder.
    pub(crate) server: String,
    /// Where clients reach this member's server. Other servers reach it [`ROUTES`] ports above.
    pub(crate) address: SocketAddr,
    /// The same of all members that are known, this one included.
    pub(crate) members: BTreeSet<SocketAddr>,
    /// What all members have in common.
    pub(crate) shared: Shared,
}

/// The secrets of a cluster.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shared {
    /// The certificate of the cluster's CA, in PEM, and its key.
    pub(crate) ca: String,
    pub(crate) ca_key: String,
    /// The passwords of the fleet's user, between servers, of the system account, and of hosts that want to join.
    pub(crate) password: String,
    pub(crate) routes: String,
    pub(crate) system: String,
    pub(crate) join: String,
    /// The seed of the key with which supervisors answer for logins of agents; none in clusters of before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<String>,
}

/// What a folder belongs to; none if it is a host of its own.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(home: &Home) -> Result<Option<Member>, ApiError> {
    let file = home.dir.join(FILE);
    let what = || format!("cannot read {}", file.display());
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failure::file(what(), &error, "check the permissions there")),
    };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        let try_ = "restore it from a backup, or join with another data folder (--dir)";
        failure::error(failure::FAILED, what(), error, try_)
    })
}

/// Whether a folder is that of a member.
pub(super) fn is_member(home: &Home) -> bool {
    matches!(read(home), Ok(Some(_)))
}

/// A copy of a member's folder is no member: two servers of one name would each forget what the other has promised.
///
/// # Errors
/// If it is one.
pub(super) fn is_own(home: &Home) -> Result<(), ApiError> {
    let Some(member) = read(home)? else { return Ok(()) };
    if member.server.ends_with(&suffix(home)?) {
        return Ok(());
    }
    let what = format!("cannot use the data folder {}", home.dir.display());
    let cause = format!(
        "it is a copy of that of {}, a member of cluster {}",
        member.server, member.cluster
    );
    let try_ =
        "`mozart join` with a new data folder; `mozart join-token` on a member prints the string";
    Err(failure::error(failure::CONFLICT, what, cause, try_))
}

/// What tells the server of this folder from one of another folder with the same node name.
fn suffix(home: &Home) -> Result<String, ApiError> {
    let folder = home.claim()?;
    Ok(format!("-{}", folder.get(..8).unwrap_or(&folder)))
}

/// Makes this folder the first member of a new cluster; it may be one already.
///
/// # Errors
/// When it belongs to another cluster, or holds a fleet of its own.
pub(super) fn found(
    home: &Home,
    name: &str,
    listen: Option<SocketAddr>,
    node: &NodeName,
) -> Result<Member, ApiError> {
    if let Some(member) = read(home)? {
        return is_same(home, member, name, listen);
    }
    let Some(address) = listen else {
        let what = "a cluster needs an address that its other hosts can reach";
        return Err(failure::error(
            failure::USAGE,
            what,
            "--listen is missing",
            "--listen ADDRESS",
        ));
    };
    is_unused(home)?;
    let (ca, ca_key) = certificates::authority(name)?;
    let shared = Shared {
        ca,
        ca_key,
        password: random(),
        routes: random(),
        system: random(),
        join: random(),
        seed: AuthKey::random().seed().ok(),
    };
    let member = Member::new(home, name, node, address, BTreeSet::new(), shared)?;
    bootstrap(home, &member)?;
    // Last: a folder that has it is one of a member.
    member.keep(home)?;
    Ok(member)
}

fn bootstrap(home: &Home, member: &Member) -> Result<(), ApiError> {
    alone::bootstrap(&home.nats().join("data"), &member.server).map_err(|error| {
        let what = format!("cannot prepare {}", home.nats().display());
        failure::file(what, &error, "check the disk space and permissions there")
    })
}

/// The data of this host was removed on purpose. A member without others begins as at first; one that knows of others gets from them what they
/// have.
///
/// # Errors
/// When it cannot be written.
pub(super) fn begin_anew(home: &Home) -> Result<(), ApiError> {
    match read(home)? {
        Some(member) if member.members.len() <= 1 => bootstrap(home, &member),
        Some(_) | None => Ok(()),
    }
}

fn is_same(
    home: &Home,
    member: Member,
    name: &str,
    listen: Option<SocketAddr>,
) -> Result<Member, ApiError> {
    let other = |cause: String| {
        let what = format!("{} belongs to another cluster", home.dir.display());
        Err(failure::error(failure::CONFLICT, what, cause, "--dir DIR for another data folder"))
    };
    if member.cluster != name {
        return other(format!("it is a member of {}, not of {name}", member.cluster));
    }
    match listen {
        Some(listen) if listen != member.address => {
            let what = format!("cannot listen on {listen}");
            let cause = format!("the other members know this host as {}", member.address);
            let try_ =
                format!("--listen {}, or `mozart join` with a new data folder", member.address);
            Err(failure::error(failure::CONFLICT, what, cause, try_))
        }
        _ => Ok(member),
    }
}

/// A server that was alone until now does not take its streams into a cluster.
fn is_unused(home: &Home) -> Result<(), ApiError> {
    if !home.nats().join("data/jetstream").exists() {
        return Ok(());
    }
    let what = "cannot make this a member of a cluster";
    let cause = format!("{} holds the fleet of a single host", home.dir.display());
    let try_ =
        "--dir DIR for a new data folder; `mozart export` and `mozart import` carry agents over";
    Err(failure::error(failure::CONFLICT, what, cause, try_))
}

impl Member {
    fn new(
        home: &Home,
        cluster: &str,
        node: &NodeName,
        address: SocketAddr,
        mut members: BTreeSet<SocketAddr>,
        shared: Shared,
    ) -> Result<Self, ApiError> {
        let server = format!("{node}{}", suffix(home)?);
        members.insert(address);
        Ok(Self { cluster: cluster.to_owned(), server, address, members, shared })
    }

    pub(super) fn keep(&self, home: &Home) -> Result<(), ApiError> {
        let written =
            serde_json::to_vec_pretty(self).map_err(std::io::Error::from).and_then(|json| {
                fs::create_dir_all(home.nats())?;
                home.put(FILE, &json)
            });
        written.map_err(|error| {
            let what = format!("cannot write {}", home.dir.join(FILE).display());
            failure::file(what, &error, "check the disk space and permissions there")
        })
    }

    /// Its servers, with the fleet's user: its own first, since that is the nearest.
    pub(super) fn url(&self) -> String {
        self.url_of(USER, &self.shared.password)
    }

    /// The same with another user.
    fn url_of(&self, user: &str, password: &str) -> String {
        let others = self.members.iter().filter(|member| **member != self.address);
        let others: String = others.map(|other| format!(",tls://{other}")).collect();
        format!("tls://{user}:{password}@{}{others}", self.address)
    }

    /// The servers of the other members, with the fleet's user; none if there are no others.
    fn others(&self) -> Option<String> {
        let others = self.members.iter().filter(|member| **member != self.address);
        let others: Vec<_> = others.map(|other| format!("tls://{other}")).collect();
        let user = format!("://{USER}:{}@", self.shared.password);
        (!others.is_empty()).then(|| others.join(",").replacen("://", &user, 1))
    }

    /// Writes a certificate of this member for its address, with its key, and the cluster's CA.
    pub(super) fn write_certificates(&self, home: &Home) -> Result<(), ApiError> {
        certificates::write(self, home)
    }

    /// The part of nats-server's configuration that makes it a member.
    pub(super) fn conf(&self, folder: &Path) -> String {
        let [app, join, system] = ACCOUNTS;
        let quoted = |file: &str| nats_conf(&folder.join(file).to_string_lossy());
        let (cert, key, ca) = (quoted("server.pem"), quoted("server-key.pem"), quoted("ca.pem"));
        let tls = format!("cert_file: {cert}, key_file: {key}, ca_file: {ca}, timeout: 5");
        let Shared { password, routes: routes_password, system: system_password, .. } =
            &self.shared;
        let join_password = &self.shared.join;
        let subject = common::subject::JOIN;
        let exports = [format!("{{ service: \"{subject}\", accounts: [{join}] }}")];
        let joiner = format!(
            "  # A host that joins asks one question, and gets one answer.
  {join} {{
    users: [{{
      user: {JOINER}, password: {join_password}
      permissions: {{ publish: \"{subject}\", subscribe: \"_INBOX.>\" }}
    }}]
    imports: [{{ service: {{ account: {app}, subject: \"{subject}\" }} }}]
  }}
",
            join_password = nats_conf(join_password),
        );
        let key = self.shared.seed.as_deref().and_then(|seed| AuthKey::from_seed(seed).ok());
        let accounts = match key {
            Some(key) => Accounts {
                fleet: User { name: USER.to_owned(), password: nats_conf(password) },
                system: Some(User {
                    name: "system".to_owned(),
                    password: nats_conf(system_password),
                }),
                issuer: key.issuer(),
                xkey: key.xkey(),
                nobody: key.nobody(),
                exports: &exports,
                others: &joiner,
                known: &[JOINER],
            }
            .conf(),
            None => format!(
                "accounts {{
  {app} {{
    jetstream: enabled
    users: [{{ user: {USER}, password: {password} }}]
    exports: [{export}]
  }}
{joiner}  {system} {{ users: [{{ user: system, password: {system_password} }}] }}
}}
system_account: {system}
",
                export = exports[0],
                password = nats_conf(password),
                system_password = nats_conf(system_password),
            ),
        };
        format!(
            "ping_interval: \"10s\"
ping_max: 2
tls {{ {tls} }}
{routes}
{accounts}",
            routes = self.routes(route(self.address), &tls, routes_password, ""),
        )
    }

    /// The `cluster` block of a server that listens on `listen` for others.
    fn routes(&self, listen: SocketAddr, tls: &str, password: &str, rest: &str) -> String {
        // One to itself does no harm, and without any the server does not take itself for one of a cluster.
        let routes: Vec<String> = self
            .members
            .iter()
            .map(|member| format!("\"tls://routes:{password}@{}\"", route(*member)))
            .collect();
        // A host that has lost its power says nothing: what is written to its route blocks whoever writes, up to the deadline, and requests to
        // a group of subscribers may go there until the route is closed. As a server has them, these are 10 s and 25 s.
        format!(
            "cluster {{
  name: {name}
  listen: \"{listen}\"
  ping_interval: \"2s\"
  write_deadline: \"3s\"
  {rest}authorization {{ user: routes, password: {password}, timeout: 5 }}
  tls {{ {tls}, verify: true }}
  routes: [{routes}]
}}",
            name = nats_conf(&self.cluster),
            password = nats_conf(password),
            routes = routes.join(", "),
        )
    }
}

/// Where other servers reach a member.
fn route(member: SocketAddr) -> SocketAddr {
    SocketAddr::new(member.ip(), member.port().saturating_add(ROUTES))
}
