//! Requests of callers from outside the fleet, and answers to them that are not stored.

use std::fmt;

use async_nats::HeaderMap;
use bytes::Bytes;
use common::SenderName;
use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use serde::Deserialize;

use crate::api::header;
use crate::callout::Who;
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};

/// Where nats-server says whose request it is that came from another account. It replaces what the caller may have put there.
const REQUEST_INFO: &str = "Nats-Request-Info";
const ERROR_CODE: &str = "Nats-Service-Error-Code";
const ERROR: &str = "Nats-Service-Error";
/// The longest description of an error, in characters.
const DESCRIBED: usize = 200;

/// Whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromWhom {
    /// Somebody with all rights: the request came from the fleet's own account.
    Fleet,
    /// A user of this fleet, as the server says.
    User(SenderName),
    /// Somebody else: a user of another fleet on the same server.
    Others,
}

/// A request.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its subject.
    pub subject: String,
    /// Its payload.
    pub payload: Bytes,
    /// Where the answer goes; none if nobody waits for it.
    pub reply: Option<String>,
    /// The caller's own id of the request (`Nats-Msg-Id`).
    pub key: Option<String>,
    /// The trace that the caller is in.
    pub traceparent: Option<String>,
    /// Whose it is.
    pub by: FromWhom,
}

/// Requests to several subjects.
pub struct Asking {
    inner: SelectAll<async_nats::Subscriber>,
    broker: Broker,
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking").finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct RequestInfo {
    #[serde(default)]
    user: String,
    #[serde(default)]
    name_tag: String,
}

impl Asking {
    /// The next one; none when the client is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<Asked> {
        let message = self.inner.next().await?;
        let headers = message.headers.unwrap_or_default();
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        Some(Asked {
            by: self.by(&headers),
            key: text(header::MESSAGE_ID),
            traceparent: text("traceparent"),
            subject: message.subject.into_string(),
            payload: message.payload,
            reply: message.reply.map(async_nats::Subject::into_string),
        })
    }

    fn by(&self, headers: &HeaderMap) -> FromWhom {
        let Some(info) = headers.get(REQUEST_INFO) else { return FromWhom::Fleet };
        let Ok(info) = serde_json::from_str::<RequestInfo>(info.as_str()) else {
            return FromWhom::Others;
        };
        let known = [info.user, info.name_tag];
        let known = known.iter().find_map(|name| Who::of(self.broker.subjects(), name));
        match known {
            Some(Who::User(name)) => FromWhom::User(name),
            Some(Who::Shim(..) | Who::Node(_)) | None => FromWhom::Others,
        }
    }
}

impl Broker {
    /// Listens for requests; each goes to one member of the group.
    ///
    /// # Errors
    /// When the client is closed.
    pub async fn asked_at(&self, subjects: Vec<String>, group: &str) -> Result<Asking> {
        let mut all = Vec::with_capacity(subjects.len());
        for subject in subjects {
            let subscribed = self.wire().client.queue_subscribe(subject, group.to_owned()).await;
            all.push(subscribed.map_err(BrokerError::other)?);
        }
        Ok(Asking { inner: select_all(all), broker: self.clone() })
    }

    /// Answers that a request is refused, by the headers of NATS services.
    ///
    /// # Errors
    /// When the client's queue stays full.
    pub async fn tell_error(
        &self,
        to: String,
        code: u16,
        description: &str,
        body: Bytes,
    ) -> Result<()> {
        let headers = error_headers(code, description);
        queued(self.wire().client.publish_with_headers(to, headers, body)).await
    }
}

/// The headers of an error: what they describe is one line of ASCII.
pub(crate) fn error_headers(code: u16, description: &str) -> HeaderMap {
    let plain = |letter: char| if letter.is_ascii_graphic() { letter } else { ' ' };
    let line: String = description.chars().map(plain).take(DESCRIBED).collect();
    let line = if line.trim().is_empty() { "error" } else { line.trim() };
    let mut headers = HeaderMap::new();
    headers.insert(ERROR_CODE, code.to_string());
    headers.insert(ERROR, line);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_is_a_short_line_of_ascii() {
        let said = |text: &str| {
            let headers = error_headers(409, text);
            assert_eq!(headers.get(ERROR_CODE).map(|code| code.as_str()), Some("409"));
            headers.get(ERROR).expect("it is there").as_str().to_owned()
        };
        assert_eq!(said("no\r\nNats-Evil: 1"), "no  Nats-Evil: 1");
        assert_eq!(said("ä"), "error");
        assert_eq!(said(&"x".repeat(500)).len(), 200);
    }
}
