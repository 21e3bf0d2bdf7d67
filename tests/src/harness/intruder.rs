//! Somebody who has taken over an agent: a client that speaks NATS with the credentials of its shim, and keeps to no rules of ours.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broker::Broker;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::Fleet;

/// How long a server may take to say something.
const WITHIN: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub struct Intruder {
    stream: BufReader<TcpStream>,
    subscriptions: u32,
}

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// An error, such as a violation.
    Error(String),
    /// A message, with its subject, headers and all.
    Message {
        /// Its subject.
        subject: String,
        /// What is in it.
        content: Vec<u8>,
    },
    /// Nothing more: the connection has ended.
    Ended,
}

/// The login of an agent's incarnation: what its shim has.
pub async fn login_of(broker: &Broker, agent: &str, incarnation: u64) -> (String, String) {
    let secret = broker.fleet_secret().await.expect("the fleet has one");
    let secret = Uuid::new_v5(&Uuid::NAMESPACE_OID, secret.as_bytes());
    let token = Uuid::new_v5(&secret, format!("{agent}/{incarnation}").as_bytes());
    let agent = agent.parse().expect("valid");
    (broker.subjects().shim_user(&agent, incarnation), token.simple().to_string())
}

impl Intruder {
    /// Connects to a fleet's server.
    ///
    /// # Errors
    /// What the server said instead of letting it in.
    ///
    /// # Panics
    /// When there is no server.
    pub async fn connect(fleet: &Fleet, user: &str, password: &str) -> Result<Self, Vec<Said>> {
        Self::connect_with(fleet, user, password, None).await
    }

    /// Connects with the key of a user or a node.
    ///
    /// # Errors
    /// What the server said instead of letting it in.
    ///
    /// # Panics
    /// When there is no server, or this is no credentials file.
    pub async fn connect_with_key(
        fleet: &Fleet,
        user: &str,
        creds: &Path,
    ) -> Result<Self, Vec<Said>> {
        let text = std::fs::read_to_string(creds).expect("the file");
        let mut after = text.lines().skip_while(|line| !line.contains("BEGIN USER NKEY SEED"));
        let key = KeyPair::from_seed(after.nth(1).expect("a seed").trim()).expect("a seed");
        Self::connect_with(fleet, user, "", Some(key)).await
    }

    async fn connect_with(
        fleet: &Fleet,
        user: &str,
        password: &str,
        key: Option<KeyPair>,
    ) -> Result<Self, Vec<Said>> {
        let note = fleet.note().expect("`mozart up` runs");
        let url = note["url"].as_str().expect("the note has it");
        let address = url.rsplit_once('@').expect("it has credentials").1;
        let stream = TcpStream::connect(address).await.expect("a server");
        let mut intruder = Self { stream: BufReader::new(stream), subscriptions: 0 };
        let mut info = String::new();
        intruder.stream.read_line(&mut info).await.expect("the server says who it is");
        let info: Value = serde_json::from_str(info.trim_start_matches("INFO ")).expect("JSON");
        let mut options = json!({
            "verbose": false, "pedantic": false, "lang": "test", "version": "1", "protocol": 1,
            "headers": true, "no_responders": true, "name": "x\" - \"AGENTS/user:mozart.default.shim.b.1",
            "user": user, "pass": password,
        });
        if let Some(key) = key {
            let nonce = info["nonce"].as_str().expect("the server asks for a signature");
            let signature = key.sign(nonce.as_bytes()).expect("it has the private key");
            options["nkey"] = key.public_key().into();
            options["sig"] = URL_SAFE_NO_PAD.encode(signature).into();
        }
        intruder.write(&format!("CONNECT {options}\r\n")).await;
        let said = intruder.said().await;
        if said.is_empty() { Ok(intruder) } else { Err(said) }
    }

    async fn write(&mut self, line: &str) {
        // The server may have ended it: what it says then tells.
        let _ended = self.stream.write_all(line.as_bytes()).await.is_err();
    }

    /// Publishes.
    pub async fn publish(&mut self, subject: &str, reply: &str, content: &str) {
        let line = format!("PUB {subject} {reply} {}\r\n{content}\r\n", content.len());
        self.write(&line).await;
    }

    /// Publishes bytes.
    pub async fn publish_bytes(&mut self, subject: &str, reply: &str, content: &[u8]) {
        self.write(&format!("PUB {subject} {reply} {}\r\n", content.len())).await;
        let _ended = self.stream.write_all(content).await.is_err();
        self.write("\r\n").await;
    }

    /// Listens.
    pub async fn subscribe(&mut self, subject: &str) {
        self.subscriptions += 1;
        self.write(&format!("SUB {subject} {}\r\n", self.subscriptions)).await;
    }

    /// What the server has said up to now.
    ///
    /// # Panics
    /// When it says nothing at all.
    pub async fn said(&mut self) -> Vec<Said> {
        self.write("PING\r\n").await;
        let mut said = Vec::new();
        loop {
            let mut line = String::new();
            let read = timeout(WITHIN, self.stream.read_line(&mut line)).await;
            match read.expect("the server says something") {
                Ok(0) | Err(_) => {
                    said.push(Said::Ended);
                    return said;
                }
                Ok(_) => {}
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["PONG"] => return said,
                ["PING"] => self.write("PONG\r\n").await,
                ["MSG" | "HMSG", subject, .., size] => {
                    let size: usize = size.parse().expect("a size");
                    let mut content = vec![0; size + 2];
                    self.stream.read_exact(&mut content).await.expect("all of it");
                    content.truncate(size);
                    said.push(Said::Message { subject: (*subject).to_owned(), content });
                }
                ["-ERR", ..] => said.push(Said::Error(line.trim().to_owned())),
                ["INFO", ..] | [] => {}
                other => panic!("a server that says {other:?}"),
            }
        }
    }

    /// What the server says, once it says something.
    ///
    /// # Panics
    /// When it says nothing.
    pub async fn hears(&mut self) -> Vec<Said> {
        super::eventually("the server says something", async || {
            let said = self.said().await;
            if said.is_empty() { Err("nothing".to_owned()) } else { Ok(said) }
        })
        .await
    }
}

impl Said {
    /// The JSON of a message.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::Message { content, .. } => serde_json::from_slice(content).expect("JSON"),
            other @ (Self::Error(_) | Self::Ended) => panic!("{other:?}"),
        }
    }
}
