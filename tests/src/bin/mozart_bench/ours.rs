//! Mozart's side, as a Rust client would use it: one connection, one subscription for all answers.

use std::time::{Duration, SystemTime};

use broker::{Broker, ConnectOptions, SendOutcome};
use common::message::{Envelope, Final, Kind, Outcome};
use common::{AgentName, ConversationId, MessageId, SenderName};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::drive::Side;
use crate::fleet::Fleet;
use crate::outcome::{Result, fail};
use crate::rig::Rig;
use crate::waiters::{Waiter, Waiters};

const SEND: Duration = Duration::from_secs(30);

/// A client of a fleet.
#[derive(Debug)]
pub(crate) struct Ours {
    pub(crate) broker: Broker,
    pub(crate) agents: Vec<AgentName>,
    pub(crate) sender: SenderName,
    waiters: Waiters,
    _reader: JoinSet<()>,
}

impl Ours {
    pub(crate) async fn connect(fleet: &Fleet) -> Result<Self> {
        let ca = fleet.ca.as_ref().map(std::fs::read_to_string).transpose()?;
        let options = ConnectOptions { ca, ..Rig::connect(&fleet.url, &fleet.namespace) };
        Self::of(&options, fleet.agents.clone()).await
    }

    /// A client of these agents, wherever they are.
    pub(crate) async fn of(options: &ConnectOptions, agents: Vec<AgentName>) -> Result<Self> {
        let broker = Broker::connect(options).await?;
        let sender = SenderName::new("bench")?;
        let waiters = Waiters::default();
        let mut finals = broker.subscribe(broker.subjects().done_for(&sender), None).await?;
        broker.flush(SEND).await?;
        let mut reader = JoinSet::new();
        let answered = waiters.clone();
        reader.spawn(async move {
            while let Some(message) = finals.next().await {
                answered.answered(&message.subject, message.payload);
            }
        });
        Ok(Self { broker, agents, sender, waiters, _reader: reader })
    }

    /// A new message.
    pub(crate) fn envelope(&self, agent: usize, text: &str) -> Result<Envelope> {
        let message_id = MessageId::new(Uuid::now_v7().to_string())?;
        Ok(Envelope {
            conversation_id: ConversationId::new(&message_id)?,
            message_id,
            agent: self.agents[agent].clone(),
            sender: self.sender.clone(),
            kind: Kind::Chat,
            message: text.to_owned(),
            created_at: SystemTime::now().into(),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: None,
            scheduled_for: None,
            deliver_at: None,
        })
    }

    /// Stores a message; its answer is to be waited for.
    pub(crate) async fn send(&self, envelope: &Envelope) -> Result<Waiter> {
        let waiter = self.waiters.expect(envelope.message_id.to_string());
        match self.broker.send(envelope, SEND).await? {
            // A connection that was lost took the answer to the first try with it.
            SendOutcome::Stored { .. } | SendOutcome::Already { .. } => Ok(waiter),
            other @ SendOutcome::Conflict { .. } => {
                fail(format!("a new message was not new: {other:?}"))
            }
        }
    }

    /// A whole chat; its final state.
    pub(crate) async fn ask(&self, agent: usize, text: &str) -> Result<Final> {
        let waiter = self.send(&self.envelope(agent, text)?).await?;
        let final_: Final = serde_json::from_slice(&waiter.answer().await?)?;
        if final_.status == Outcome::Completed {
            return Ok(final_);
        }
        fail(format!("a chat ended otherwise: {final_:?}"))
    }
}

impl Side for Ours {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        self.ask(agent, text).await.map(drop)
    }
}
