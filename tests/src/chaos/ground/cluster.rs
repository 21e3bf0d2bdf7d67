//! Three nats-servers that are one cluster: each a process of the campaign's, with a port and a store of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use broker::{Accounts, AuthKey, User};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::part::Part;
use crate::chaos::Problem;
use crate::chaos::schedule::SERVERS;
use crate::harness::{Net, free_port};

/// How long a server may take to answer a question about itself.
const ANSWER: Duration = Duration::from_secs(3);
/// It is asked this often whether it is current, and has to be so twice in a row: what it has not heard of yet, it does not miss.
const EVERY: Duration = Duration::from_millis(500);

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    clients: u16,
    monitor: u16,
    routes: u16,
}

/// The servers.
#[derive(Debug)]
pub(in crate::chaos) struct Cluster {
    folder: PathBuf,
    ports: Vec<Ports>,
    password: String,
    /// With it, supervisors answer for the logins of shims.
    key: AuthKey,
    servers: Vec<Part>,
    /// Where each of them listens: a host of its own, or this machine.
    addresses: Vec<String>,
}

impl Cluster {
    /// Writes their configurations; nothing runs yet.
    pub(super) fn prepare(folder: PathBuf, net: Option<&Net>) -> Result<Self, Problem> {
        let binary = crate::harness::nats_server();
        let one = || Ports { clients: free_port(), monitor: free_port(), routes: free_port() };
        let ports = std::iter::repeat_with(one).take(SERVERS).collect();
        let password = uuid::Uuid::now_v7().simple().to_string();
        let address =
            |number| net.map_or_else(|| "127.0.0.1".to_owned(), |net| net.address(number));
        let addresses = (0..SERVERS).map(address).collect();
        let (key, servers) = (AuthKey::random(), Vec::new());
        let mut cluster = Self { folder, ports, password, key, servers, addresses };
        for number in 0..SERVERS {
            let folder = cluster.folder_of(number);
            fs::create_dir_all(&folder)?;
            fs::write(folder.join("nats.conf"), cluster.config(number))?;
            let (binary, log) = (binary.clone(), folder.join("nats.log"));
            let host = net.map(|net| net.host(number));
            cluster.servers.push(Part::new(format!("nats-server {number}"), move || {
                let mut command = on(host.as_deref(), &binary);
                command.arg("-c").arg(folder.join("nats.conf"));
                command.stderr(fs::OpenOptions::new().create(true).append(true).open(&log)?);
                command.stdin(Stdio::null()).stdout(Stdio::null());
                Ok(command)
            }));
        }
        Ok(cluster)
    }

    fn folder_of(&self, number: usize) -> PathBuf {
        self.folder.join(format!("nats-{number}"))
    }

    /// As `mozart up` writes it, and with routes.
    fn config(&self, number: usize) -> String {
        let Ports { clients, monitor, routes } = self.ports[number];
        let folder = self.folder_of(number);
        let (data, log) = (folder.join("data"), folder.join("nats.log"));
        let all = self.ports.iter().zip(&self.addresses);
        let all = all.map(|(ports, address)| format!("\"nats://{address}:{}\"", ports.routes));
        let all = all.collect::<Vec<_>>().join(", ");
        let address = &self.addresses[number];
        // As `mozart up --cluster` has it: a link that was cut is noticed.
        let (pings, of_routes) = match address.as_str() {
            "127.0.0.1" => ("", ""),
            _ => (
                "ping_interval: \"10s\"\nping_max: 2\n",
                ", ping_interval: \"2s\", write_deadline: \"3s\"",
            ),
        };
        let name = name_of(number);
        let fleet = User { name: "mozart".to_owned(), password: format!("{:?}", self.password) };
        let (issuer, xkey, nobody) = (self.key.issuer(), self.key.xkey(), self.key.nobody());
        let (system, exports, others, known) = (None, &[][..], "", &[][..]);
        let accounts = Accounts { fleet, system, issuer, xkey, nobody, exports, others, known };
        let accounts = accounts.conf();
        format!(
            "server_name: {name}
listen: \"{address}:{clients}\"
http: \"{address}:{monitor}\"
{pings}max_payload: 1MB
max_connections: 20000
log_file: {log:?}
jetstream {{
  store_dir: {data:?}
  sync_interval: always
  max_memory_store: 1GB
  limits {{ default_max_consumers: 20000 }}
}}
cluster {{ name: chaos, listen: \"{address}:{routes}\", routes: [{all}]{of_routes} }}
{accounts}
"
        )
    }

    /// All servers, for clients.
    pub(super) fn url(&self) -> String {
        let urls = self.ports.iter().zip(&self.addresses).map(|(ports, address)| {
            format!("nats://mozart:{}@{address}:{}", self.password, ports.clients)
        });
        urls.collect::<Vec<_>>().join(",")
    }

    /// The seed of the supervisors' key.
    pub(super) fn seed(&self) -> Result<String, Problem> {
        Ok(self.key.seed()?)
    }

    /// The server's process.
    pub(in crate::chaos) fn part(&self, number: usize) -> &Part {
        &self.servers[number]
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.servers
    }

    /// Removes what a server that does not run has on its disk.
    pub(in crate::chaos) fn wipe(&self, number: usize) -> Result<(), Problem> {
        let store = self.folder_of(number).join("data/jetstream");
        Ok(fs::remove_dir_all(&store).map_err(|error| format!("{}: {error}", store.display()))?)
    }

    /// The names of the clients that are connected to a server.
    pub(in crate::chaos) async fn clients(&self, number: usize) -> Result<Vec<String>, String> {
        let answer = self.ask(number, "/connz?limit=4096").await?;
        let connections = answer["connections"].as_array().ok_or("no connections")?;
        Ok(connections.iter().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect())
    }

    /// The names of the clients that are connected to a host's server, or are on that host.
    pub(in crate::chaos) async fn clients_at(&self, host: usize) -> Result<Vec<String>, String> {
        let mut clients = self.clients(host).await?;
        for server in (0..SERVERS).filter(|server| *server != host) {
            let answer = self.ask(server, "/connz?limit=4096").await?;
            let connections = answer["connections"].as_array().ok_or("no connections")?;
            let there = connections.iter().filter(|one| one["ip"] == self.addresses[host].as_str());
            clients.extend(there.filter_map(|one| one["name"].as_str().map(str::to_owned)));
        }
        Ok(clients)
    }

    /// Waits until every server has all that the others have.
    pub(in crate::chaos) async fn current(&self, within: Duration) -> Result<(), String> {
        let until = Instant::now() + within;
        let mut good = 0;
        loop {
            match self.is_current().await {
                Ok(()) if good == 1 => return Ok(()),
                Ok(()) => good += 1,
                Err(lacks) if Instant::now() > until => {
                    return Err(format!("the cluster is not current after {within:?}: {lacks}"));
                }
                Err(_) => good = 0,
            }
            sleep(EVERY).await;
        }
    }

    async fn is_current(&self) -> Result<(), String> {
        let mut reports = Vec::new();
        for number in 0..SERVERS {
            self.ask(number, "/healthz").await?;
            reports.push(self.ask(number, "/jsz?accounts=true&streams=true").await?);
        }
        all_current(&reports)
    }

    async fn ask(&self, number: usize, path: &str) -> Result<Value, String> {
        let asked = get(&self.addresses[number], self.ports[number].monitor, path);
        let answer = timeout(ANSWER, asked).await.map_err(|_| "no answer".to_owned());
        let answer = answer.and_then(|answer| answer.map_err(|error| error.to_string()));
        answer.map_err(|error| format!("nats-server {number}: {path}: {error}"))
    }
}

/// Whether every stream has a leader that finds all its other replicas current; what is lacking, otherwise. The reports are in the
/// servers' order.
fn all_current(reports: &[Value]) -> Result<(), String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let is_complete = |cluster: &Value, server: &str| {
        let replicas = list(&cluster["replicas"]);
        let current = |one: &Value| one["current"] == true && one["lag"].as_u64().is_none();
        // Only the leader knows what the others have.
        cluster["leader"] == server && replicas.len() == SERVERS - 1 && replicas.iter().all(current)
    };
    let (mut known, mut led) = (BTreeSet::from(["the cluster".to_owned()]), BTreeSet::new());
    for (number, report) in reports.iter().enumerate() {
        let server = name_of(number);
        if is_complete(&report["meta_cluster"], &server) {
            led.insert("the cluster".to_owned());
        }
        for account in list(&report["account_details"]) {
            for stream in list(&account["stream_detail"]) {
                let name = stream["name"].as_str().unwrap_or_default().to_owned();
                if is_complete(&stream["cluster"], &server) {
                    led.insert(name.clone());
                }
                known.insert(name);
            }
        }
    }
    let lacking: Vec<_> = known.difference(&led).cloned().collect();
    match lacking.is_empty() {
        true => Ok(()),
        false => Err(format!("replicas of {} lag", lacking.join(", "))),
    }
}

/// A program, on a host if one is given.
pub(super) fn on(host: Option<&str>, program: &Path) -> Command {
    match host {
        None => Command::new(program),
        Some(host) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", host]).arg(program);
            command
        }
    }
}

/// A server's name in its cluster.
fn name_of(number: usize) -> String {
    format!("s{number}")
}

/// GET of a page of this machine's, as JSON.
async fn get(host: &str, port: u16, path: &str) -> Result<Value, Problem> {
    let mut stream = TcpStream::connect((host, port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("{status}: {}", body.trim()).into());
    }
    Ok(serde_json::from_str(body)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A report of a server, with a stream that this one leads.
    fn report(leader: &str, others: &Value) -> Value {
        let cluster = json!({ "leader": leader, "replicas": others });
        let stream = json!({ "name": "JOURNAL", "cluster": cluster });
        json!({ "meta_cluster": cluster, "account_details": [{ "stream_detail": [stream] }] })
    }

    #[test]
    fn a_cluster_is_current_when_the_leaders_find_all_others_so() {
        let good = json!([{ "current": true }, { "current": true }]);
        let unknown = json!([{ "current": true }, { "current": false }]);
        let seen = |leaders: &Value| {
            let of = |number: usize| match number {
                1 => report("s1", leaders),
                _ => report("s1", &unknown),
            };
            all_current(&[of(0), of(1), of(2)])
        };
        assert_eq!(seen(&good), Ok(()));
        let lags = json!([{ "current": true }, { "current": true, "lag": 3 }]);
        for bad in [&unknown, &lags, &json!([{ "current": true }]), &json!([])] {
            assert!(seen(bad).is_err(), "{bad}");
        }
        let leaderless = report("", &good);
        assert!(all_current(&[leaderless.clone(), leaderless.clone(), leaderless]).is_err());
    }
}
