//! Joining a cluster: the string that a member gives out, and what a host does with one.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read as _;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::{Attempt as _, Broker, ConnectOptions};
use common::NodeName;
use common::api::ApiError;
use common::failure;
use common::subject;
use nkeys::XKey;
use runtime::home::Home;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::enroll::{Answer, Request, Sealed};
use super::{JOINER, Member, PORT, is_unused, read};
use crate::up::nats::random;

/// What such a string begins with: its format's version.
const MARK: &str = "mozart-join-1.";
/// How long a token is good for.
pub(super) const TOKEN: Duration = Duration::from_secs(3600);
/// How long a host waits for the answer of a member.
const WITHIN: Duration = Duration::from_secs(20);
/// The longest string that is read.
const LONGEST: u64 = 64 << 10;

/// What a host needs to ask a cluster for admission.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JoinString {
    cluster: String,
    /// Where its members are reached.
    addresses: Vec<SocketAddr>,
    /// The CA's certificate in PEM: the host gives its token to no one else.
    ca: String,
    /// The password of [`JOINER`].
    password: String,
    /// Works once.
    token: String,
}

/// A token is in no log.
impl fmt::Debug for JoinString {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinString({})", self.cluster)
    }
}

impl fmt::Display for JoinString {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(out, "{MARK}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for JoinString {
    type Err = String;

    /// The string, `@FILE` for a file that holds it, or `-` for stdin.
    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.strip_prefix('@') {
            Some(file) => {
                let file = std::fs::File::open(file).map_err(|error| format!("{file}: {error}"))?;
                Some(read_all(file).map_err(|error| error.to_string())?)
            }
            None if text == "-" => {
                Some(read_all(std::io::stdin()).map_err(|error| error.to_string())?)
            }
            None => None,
        };
        let text = read.as_deref().unwrap_or(text);
        // A terminal that wraps a long line may break it.
        let text: String = text.chars().filter(|char| !char.is_whitespace()).collect();
        let expected = || {
            format!("expected a string that begins with {MARK}, as `mozart join-token` prints it")
        };
        let encoded = text.strip_prefix(MARK).ok_or_else(expected)?;
        let json = URL_SAFE_NO_PAD
            .decode(encoded)
            .map_err(|_| "it is damaged: copy all of it".to_owned())?;
        serde_json::from_slice(&json).map_err(|_| "it is damaged: copy all of it".to_owned())
    }
}

fn read_all(from: impl std::io::Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// What is stored of a token.
pub(super) fn hash(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new string with which one host can join within an hour.
///
/// # Errors
/// When this is no member of a cluster, or the broker does not answer.
pub(crate) async fn invite(home: &Home, broker: &Broker) -> Result<JoinString, ApiError> {
    let Some(member) = read(home)? else {
        let cause = format!("{} belongs to a single host", home.dir.display());
        let try_ = "run it on a member, or start a cluster with `mozart up --cluster NAME --listen ADDRESS`";
        let what = "cannot make a join token";
        return Err(failure::error(failure::FAILED, what, cause, try_));
    };
    let token = random();
    broker.issue_ticket(&hash(&token), TOKEN).await.attempt("cannot store the join token")?;
    let Member { cluster, address, members, shared, .. } = member;
    let others = members.into_iter().filter(|member| *member != address);
    Ok(JoinString {
        cluster,
        addresses: std::iter::once(address).chain(others).collect(),
        ca: shared.ca,
        password: shared.join,
        token,
    })
}

/// Makes this folder a member of a cluster; it may be one already. `listen`: where the other hosts reach this one; otherwise the address from
/// which it reaches them.
///
/// # Errors
/// When no member answers, or none admits it, or the folder belongs to another cluster or holds a fleet of its own.
pub(in crate::up) async fn join(
    home: &Home,
    string: &JoinString,
    listen: Option<SocketAddr>,
    node: &NodeName,
) -> Result<Member, ApiError> {
    if let Some(member) = read(home)? {
        return super::is_same(home, member, &string.cluster, listen);
    }
    is_unused(home)?;
    let address = match listen {
        Some(listen) => listen,
        None => SocketAddr::new(own_address(&string.addresses)?, PORT),
    };
    let own = XKey::new();
    let request = Request {
        token: string.token.clone(),
        folder: home.claim()?,
        key: own.public_key(),
        address,
    };
    let payload = serde_json::to_vec(&request)
        .map_err(std::io::Error::from)
        .map_err(|error| failure::file("cannot ask to join", &error, ""))?;
    let servers: Vec<String> =
        string.addresses.iter().map(|address| format!("tls://{address}")).collect();
    let url = servers.join(",").replacen("://", &format!("://{JOINER}:{}@", string.password), 1);
    let options = ConnectOptions {
        url,
        creds: None,
        ca: Some(string.ca.clone()),
        name: format!("mozart join {node}"),
        namespace: cli::connect::default_namespace(),
        timeout: WITHIN,
        shim: None,
    };
    let what = format!("cannot join cluster {}", string.cluster);
    let answer = broker::ask_once(&options, subject::JOIN, payload.into()).await;
    let answer = answer.map_err(|error| {
        let mut error = broker::failure(what.clone(), error);
        error.try_ = format!(
            "check that `mozart up` runs on {}, and that this host reaches its port {}",
            string.addresses.first().map_or_else(String::new, |first| first.ip().to_string()),
            string.addresses.first().map_or(PORT, SocketAddr::port),
        );
        error
    })?;
    let sealed = serde_json::from_slice::<Sealed>(&answer).map_err(|error| error.to_string());
    let answer = sealed.and_then(|sealed| sealed.open(&own)).map_err(|error| {
        let try_ = "use the same version of mozart on all hosts";
        failure::error(failure::FAILED, what.clone(), error, try_)
    })?;
    match answer {
        Answer::Welcome { members, shared } => {
            let members: BTreeSet<SocketAddr> = members.into_iter().collect();
            let member = Member::new(home, &string.cluster, node, address, members, *shared)?;
            member.keep(home)?;
            Ok(member)
        }
        Answer::Refused { cause, try_ } => Err(failure::error(failure::DENIED, what, cause, try_)),
    }
}

/// The address from which this host reaches others. Nothing is sent.
fn own_address(others: &[SocketAddr]) -> Result<std::net::IpAddr, ApiError> {
    let found = others.iter().find_map(|other| {
        let any = if other.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(other).ok()?;
        Some(socket.local_addr().ok()?.ip())
    });
    found.ok_or_else(|| {
        let cause = "no network leads to the cluster's members";
        failure::error(failure::UNREACHABLE, "cannot join the cluster", cause, "--listen ADDRESS")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string() -> JoinString {
        JoinString {
            cluster: "prod".to_owned(),
            addresses: vec!["10.0.0.1:4222".parse().expect("valid")],
            ca: "-----BEGIN CERTIFICATE-----\n".to_owned(),
            password: "p".to_owned(),
            token: "secret".to_owned(),
        }
    }

    #[test]
    fn a_join_string_is_read_back_also_when_a_terminal_broke_it() {
        let text = string().to_string();
        assert_eq!(text.parse(), Ok(string()));
        let (left, right) = text.split_at(30);
        assert_eq!(format!(" {left}\n  {right}\n").parse(), Ok(string()));
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), format!("{text}\n")).expect("written");
        assert_eq!(format!("@{}", file.path().display()).parse(), Ok(string()));
    }

    #[test]
    fn what_is_no_join_string_is_refused() {
        let whole = string().to_string();
        let cut = &whole[..whole.len() - 9];
        for bad in ["", "x", "mozart-join-2.AAAA", cut, "@/nowhere"] {
            assert!(bad.parse::<JoinString>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(format!("{:?}", string()), "JoinString(prod)");
    }
}
