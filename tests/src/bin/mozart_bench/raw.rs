//! The raw reference: what somebody would write who knows NATS well and needs no more than the happy path.
//!
//! Publish the request and await its ack; pull it, hand it to a child over stdio, store the answer and await that, ack. The
//! answer reaches the client as the stream's republish. One process and connection per agent, the same streams, shards and
//! consumers as Mozart's: its own broker code makes them. No events, no message ids, no compare-and-set.

use std::path::Path;
use std::process::Stdio;

use broker::reference::client::{self, Client, jetstream};
use broker::{Broker, StreamOptions};
use bytes::Bytes;
use common::message::MessageKey;
use common::subject::Subjects;
use common::{AgentName, ConversationTag, MessageId, Namespace, SenderName};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::cpu;
use crate::drive::Side;
use crate::fleet;
use crate::outcome::{Result, fail};
use crate::process::{self, Owned};
use crate::rig::Rig;
use crate::waiters::Waiters;

/// As many requests in one pull as Mozart's shim asks for.
const BATCH: u32 = 64;

/// The raw loops and their client.
#[derive(Debug)]
pub(crate) struct Raw {
    subjects: Subjects,
    agents: Vec<AgentName>,
    sender: SenderName,
    jetstream: jetstream::Context,
    waiters: Waiters,
    _reader: JoinSet<()>,
    _processes: Vec<Owned>,
}

impl Raw {
    pub(crate) async fn start(rig: &Rig, name: &str, agents: usize) -> Result<Self> {
        let url = &rig.server.url;
        let namespace = Namespace::new(name)?;
        let ca = rig.server.ca.as_deref();
        let mut options = Rig::connect(url, &namespace);
        options.ca = ca.map(std::fs::read_to_string).transpose()?;
        let streams = StreamOptions { journal_shards: rig.shards, replicas: None };
        let broker = Broker::connect_and_create(&options, &streams).await?;
        let agents = fleet::names(agents)?;
        let mut processes = Vec::new();
        for agent in &agents {
            broker.create_consumer(agent, 1, 1, broker::WINDOW).await?;
            let mut command = process::role("raw-agent")?;
            command.args([url, namespace.as_str(), &rig.shards.to_string(), agent.as_str()]);
            let folder = rig.folder.path();
            command
                .arg(process::shim()?)
                .arg(folder)
                .args(ca)
                .env(cpu::MARK, folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            processes.push(Owned::start(&mut command)?);
        }
        let client = connect(url, ca).await?;
        let subjects = broker.subjects().clone();
        let sender = SenderName::new("bench")?;
        let waiters = Waiters::default();
        let mut finals = client.subscribe(subjects.done_for(&sender)).await?;
        client.flush().await?;
        let mut reader = JoinSet::new();
        let answered = waiters.clone();
        reader.spawn(async move {
            while let Some(message) = finals.next().await {
                answered.answered(&message.subject, message.payload);
            }
        });
        Ok(Self {
            subjects,
            agents,
            sender,
            jetstream: jetstream::new(client),
            waiters,
            _reader: reader,
            _processes: processes,
        })
    }
}

impl Side for Raw {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        let id = Uuid::now_v7().to_string();
        let key = MessageKey {
            agent: self.agents[agent].clone(),
            sender: self.sender.clone(),
            message_id: MessageId::new(&id)?,
        };
        let subject = self.subjects.request(&key, &ConversationTag::none());
        let waiter = self.waiters.expect(id);
        self.jetstream.publish(subject, Bytes::from(text.to_owned())).await?.await?;
        if waiter.answer().await?.len() == text.len() {
            return Ok(());
        }
        fail("the raw loop answered something else")
    }
}

pub(crate) async fn connect(url: &str, ca: Option<&Path>) -> Result<Client> {
    let servers = url.split(',').map(str::parse).collect::<std::result::Result<Vec<_>, _>>()?;
    let servers: Vec<client::ServerAddr> = servers;
    let mut options = client::ConnectOptions::new();
    let login = servers.first().and_then(|one| Some((one.username()?, one.password()?)));
    if let Some((user, password)) = login {
        options = options.user_and_password(user.to_owned(), password.to_owned());
    }
    if let Some(ca) = ca {
        options = options.add_root_certificates(ca.to_owned()).require_tls(true);
    }
    Ok(options.connect(servers).await?)
}

/// One agent: a process of its own with one connection and one child.
pub(crate) async fn agent(args: &[String]) -> Result<()> {
    let (args, ca) = match args {
        [args @ .., ca] if args.len() == 6 => (args, Some(Path::new(ca))),
        args => (args, None),
    };
    let [url, namespace, shards, agent, shim, folder] = args else {
        return fail("a raw agent needs URL NAMESPACE SHARDS AGENT SHIM FOLDER [CA]");
    };
    let subjects = Subjects::new(Namespace::new(namespace)?, shards.parse()?);
    let agent = AgentName::new(agent)?;
    let client = connect(url, ca).await?;
    let jetstream = jetstream::new(client);
    let consumer: jetstream::consumer::PullConsumer = jetstream
        .get_consumer_from_stream(
            subjects.consumer(&agent, 1),
            subjects.journal_stream(subjects.shard(&agent)),
        )
        .await?;
    let mut child = crate::roles::Echo::start(shim.as_ref(), folder.as_ref()).await?;
    let batch = usize::try_from(BATCH)?;
    let mut requests = consumer.stream().max_messages_per_batch(batch).messages().await?;
    while let Some(request) = requests.next().await {
        let request = request?;
        let Some(named) = subjects.parse_journal(&request.subject) else {
            return fail(format!("{} is not a request", request.subject));
        };
        let text = std::str::from_utf8(&request.payload)?;
        child.ask(named.key.message_id.as_str(), text).await?;
        let answer = child.answer().await?;
        let subject = subjects.final_(&named.key, &named.conversation);
        jetstream.publish(subject, answer.into()).await?.await?;
        request.ack().await?;
    }
    Ok(())
}
