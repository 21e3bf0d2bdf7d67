//! Server addresses: credentials are taken out at the edge, so that no error text and no log line can show them.

use std::net::{IpAddr, UdpSocket};

use async_nats::ServerAddr;

use crate::error::{BrokerError, Result};

/// Where to connect to, and as whom.
pub(crate) struct Address {
    /// The servers, without credentials.
    pub(crate) servers: Vec<ServerAddr>,
    /// The same, to show.
    pub(crate) shown: String,
    /// User and password of the first address that has any; a user without a password is a token.
    pub(crate) login: Option<(String, Option<String>)>,
}

impl Address {
    /// Parses `nats://user:password@host:port`, several separated by commas.
    pub(crate) fn parse(urls: &str) -> Result<Self> {
        let mut login = None;
        let mut plain = Vec::new();
        for url in urls.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let (scheme, rest) = url.split_once("://").unwrap_or(("nats", url));
            // A password may hold an `@`; a host cannot.
            let host = match rest.rsplit_once('@') {
                Some((user_info, host)) => {
                    let (user, password) = match user_info.split_once(':') {
                        Some((user, password)) => (user, Some(decode(password))),
                        None => (user_info, None),
                    };
                    login.get_or_insert((decode(user), password));
                    host
                }
                None => rest,
            };
            plain.push(format!("{scheme}://{host}"));
        }
        let shown = plain.join(",");
        let bad = |cause: String| BrokerError::BadAddress { url: shown.clone(), cause };
        let servers = plain
            .iter()
            .map(|url| url.parse().map_err(|error| bad(format!("{error}"))))
            .collect::<Result<Vec<ServerAddr>>>()?;
        if servers.is_empty() {
            return Err(bad("no address given".into()));
        }
        Ok(Self { servers, shown, login })
    }

    /// Whether the first server is on this host: then it is the one to begin with, since a cluster's host that is cut off from another may
    /// reach a third.
    pub(crate) fn begins_here(&self) -> bool {
        let first = self.servers.first().and_then(|server| server.host().parse::<IpAddr>().ok());
        // Only an address of this host can be bound to.
        first.is_some_and(|address| UdpSocket::bind((address, 0)).is_ok())
    }
}

/// The servers of an address, without the credentials in it.
#[must_use]
pub fn without_login(urls: &str) -> String {
    // What cannot be read is refused by whoever connects.
    Address::parse(urls).map_or_else(|_| urls.to_owned(), |address| address.shown)
}

/// Another way to the one server of an address: where it is, as `host:port`, and the address of whoever passes on what is sent to `by`, with
/// the same credentials. None where there are several servers, or where TLS would find another name than the certificate's.
#[must_use]
pub fn by_way_of(urls: &str, by: std::net::SocketAddr) -> Option<(String, String)> {
    let address = Address::parse(urls).ok()?;
    let [server] = address.servers.as_slice() else { return None };
    if server.tls_required() || server.scheme() != "nats" {
        return None;
    }
    let host = server.host();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let url = urls.split(',').map(str::trim).find(|url| !url.is_empty())?;
    let (_, rest) = url.split_once("://").unwrap_or(("nats", url));
    let login = rest.rsplit_once('@').map(|(login, _)| format!("{login}@")).unwrap_or_default();
    Some((format!("{host}:{}", server.port()), format!("nats://{login}{by}")))
}

/// Decodes `%41`; what is not an escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = text
            .get(at + 1..at + 3)
            .filter(|_| byte == b'%')
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_what_is_shown() {
        let address = Address::parse("nats://u%40x:p@s%3As@h:1, tls://k").expect("valid");
        assert_eq!(address.shown, "nats://h:1,tls://k");
        assert_eq!(address.login, Some(("u@x".into(), Some("p@s:s".into()))));
        assert_eq!(address.servers.len(), 2);
    }

    #[test]
    fn another_way_keeps_the_credentials_and_is_for_one_server_without_tls() {
        let by = "127.0.0.1:99".parse().expect("valid");
        let way = |urls| by_way_of(urls, by);
        let to = |to: &str, url: &str| Some((to.to_owned(), url.to_owned()));
        assert_eq!(way("nats://u:p@s@h:1"), to("h:1", "nats://u:p@s@127.0.0.1:99"));
        assert_eq!(way("h"), to("h:4222", "nats://127.0.0.1:99"));
        assert_eq!(way("nats://[::1]:1"), to("[::1]:1", "nats://127.0.0.1:99"));
        for other in ["nats://a,nats://b", "tls://a", "ws://a", ""] {
            assert_eq!(way(other), None, "{other}");
        }
    }

    #[test]
    fn a_server_of_this_host_is_told_from_another() {
        let begins_here = |urls| Address::parse(urls).expect("valid").begins_here();
        assert!(begins_here("tls://127.0.0.1:4222,tls://192.0.2.1:4222"));
        assert!(!begins_here("tls://192.0.2.1:4222,tls://127.0.0.1:4222"));
        assert!(!begins_here("somewhere"));
    }

    #[test]
    fn a_bare_host_is_enough_and_nothing_is_too_little() {
        assert_eq!(Address::parse("h").expect("valid").shown, "nats://h");
        assert!(Address::parse("").is_err());
        assert!(Address::parse("http://h").is_err());
    }
}
