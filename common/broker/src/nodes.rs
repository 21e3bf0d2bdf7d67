//! Nodes with logins of their own: they read no stream, and ask the supervisors for what they have to know. Any of these answers.

use std::time::Duration;

use bytes::Bytes;
use common::codec;
use common::files::{Files, Sha256};
use common::frame::ask::{NodeAnswer, NodeAsk, NodeTold};
use common::users::Scope;
use common::{AgentName, NodeName};

use crate::clock::Moment;
use crate::connection::{Broker, ConnectOptions};
use crate::error::{BrokerError, Result};
use crate::files::{Assembly, FilesFault, Head};
use crate::streams::Made;
use crate::wire::{CALL, Wire};

/// An answer that does not fit the question.
fn unexpected(told: &NodeTold) -> BrokerError {
    BrokerError::Other(format!("a supervisor's answer that was not asked for: {told:?}"))
}

/// What a node is told of its fleet.
struct Fleet {
    id: String,
    made: Made,
}

impl ConnectOptions {
    /// Whose credentials these are, if they are those of a node.
    #[must_use]
    pub fn node(&self) -> Option<NodeName> {
        let user = self.user().filter(|user| user.scope == Scope::Node)?;
        NodeName::new(user.name.as_str()).ok()
    }
}

impl Broker {
    /// The node that this connection has the rights of, if it has no others.
    pub(crate) fn as_node(&self) -> Option<NodeName> {
        let user = self.user().filter(|user| user.scope == Scope::Node)?;
        NodeName::new(user.name.as_str()).ok()
    }

    /// A connection of a node, which has to be told what others read.
    pub(crate) async fn connected_as_node(
        wire: Wire,
        options: &ConnectOptions,
        node: &NodeName,
        within: Duration,
    ) -> Result<Self> {
        let unknown = Made { shards: 1, replicas: 1, grows: false };
        let asking = Self::new(wire.clone(), options, unknown);
        let Fleet { made, .. } = asking.ask_fleet(node, within).await?;
        Ok(Self::new(wire, options, made))
    }

    async fn ask_fleet(&self, node: &NodeName, within: Duration) -> Result<Fleet> {
        let told = self.ask_as_node(node, &NodeAsk::Fleet, within).await?;
        let NodeTold::Fleet { id, shards, replicas } = told else { return Err(unexpected(&told)) };
        let replicas = usize::try_from(replicas).unwrap_or(1);
        Ok(Fleet { id, made: Made { shards, replicas, grows: false } })
    }

    pub(crate) async fn fleet_id_as_node(&self, node: &NodeName) -> Result<String> {
        self.ask_fleet(node, CALL).await.map(|fleet| fleet.id)
    }

    pub(crate) async fn newest_term_as_node(
        &self,
        node: &NodeName,
        within: Duration,
    ) -> Result<u64> {
        let told = self.ask_as_node(node, &NodeAsk::Term, within).await?;
        if let NodeTold::Term(term) = told { Ok(term) } else { Err(unexpected(&told)) }
    }

    /// Asks the supervisors, until one answers.
    async fn ask_as_node(
        &self,
        node: &NodeName,
        ask: &NodeAsk,
        within: Duration,
    ) -> Result<NodeTold> {
        let subject = self.subjects().node_ask(node).into();
        let frame = codec::encode(ask).map_err(BrokerError::other)?;
        let answer = self.wire().request(&subject, || None, frame.into(), within).await?;
        let NodeAnswer { at, told } =
            codec::decode(&answer.message.payload).map_err(BrokerError::other)?;
        self.wire().clock.learn(answer.asked, Moment::now(), at);
        if let NodeTold::Refused(why) = told { Err(BrokerError::Refused(why)) } else { Ok(told) }
    }

    /// Reads the files that an incarnation starts with on this node, as [`Broker::read_files`]. A node with a login of its own gets those of
    /// no other incarnation.
    ///
    /// # Errors
    /// When the broker, or no supervisor, answers.
    pub async fn read_files_of(
        &self,
        agent: &AgentName,
        incarnation: u64,
        files: &Files,
    ) -> Result<std::result::Result<Vec<u8>, FilesFault>> {
        let Some(node) = self.as_node() else { return self.read_files(files).await };
        let of = (&node, agent, incarnation);
        let head = self.ask_files(of, None).await?;
        let head = head.and_then(|head| serde_json::from_slice::<Head>(&head).ok());
        let mut assembly = match Assembly::of(files, head) {
            Ok(assembly) => assembly,
            Err(fault) => return Ok(Err(fault)),
        };
        while let Some(number) = assembly.wants() {
            let chunk = self.ask_files(of, Some(number)).await?.map(Bytes::from);
            if let Err(fault) = assembly.take(chunk) {
                return Ok(Err(fault));
            }
        }
        assembly.end().await
    }

    async fn ask_files(
        &self,
        (node, agent, incarnation): (&NodeName, &AgentName, u64),
        chunk: Option<u64>,
    ) -> Result<Option<Vec<u8>>> {
        let ask = NodeAsk::Files { agent: agent.clone(), incarnation, chunk };
        let told = self.ask_as_node(node, &ask, CALL).await?;
        if let NodeTold::Stored(stored) = told { Ok(stored) } else { Err(unexpected(&told)) }
    }

    /// Answers a node's question about the fleet.
    ///
    /// # Errors
    /// When the broker does not answer: the node asks again.
    pub async fn answer_node(
        &self,
        ask: &NodeAsk,
        files: Option<&Sha256>,
        to: String,
    ) -> Result<()> {
        let told = match ask {
            NodeAsk::Fleet => {
                let replicas = u32::try_from(self.replicas()).unwrap_or(1);
                let shards = self.subjects().shards();
                NodeTold::Fleet { id: self.fleet_id().await?, shards, replicas }
            }
            NodeAsk::Term => NodeTold::Term(self.newest_term().await?),
            NodeAsk::Files { chunk, .. } => match files {
                Some(files) => NodeTold::Stored(self.stored_files(files, *chunk).await?),
                None => NodeTold::Stored(None),
            },
        };
        self.tell_node(told, to).await
    }

    /// Tells a node that its question is not answered.
    ///
    /// # Errors
    /// When the client's queue stays full.
    pub async fn refuse_node(&self, why: String, to: String) -> Result<()> {
        self.tell_node(NodeTold::Refused(why), to).await
    }

    async fn tell_node(&self, told: NodeTold, to: String) -> Result<()> {
        let answer = NodeAnswer { at: self.now(), told };
        let frame = codec::encode(&answer).map_err(BrokerError::other)?;
        self.tell(to, frame.into()).await
    }
}
