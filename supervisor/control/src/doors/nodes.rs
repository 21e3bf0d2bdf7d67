//! The questions of nodes with logins of their own.

use std::collections::HashMap;

use broker::{Attempt as _, Subscription, TransientMessage};
use common::api::ApiError;
use common::frame::ask::NodeAsk;
use common::security::Refusal;
use common::{NodeName, codec};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::live::Rank;
use super::refusals::{Refusals, Refused};
use super::{AHEAD, Doors, GROUP, INBOXES};

/// Questions that are answered at once, at most: each answer may have a chunk of an archive. The others wait in the client.
const AT_ONCE: usize = 64;
/// Those of one node: what is beyond is not answered, and is asked again. A node fetches two archives at once, chunk by chunk.
const OF_NODE: usize = 8;

/// A question that was answered, and why not if it was refused.
struct Answered {
    node: NodeName,
    refused: Option<String>,
}

pub(super) struct NodeAsks {
    doors: Doors,
    asked: Subscription,
    answering: FuturesUnordered<BoxFuture<'static, Answered>>,
    of_nodes: HashMap<NodeName, usize>,
    refusals: Refusals,
}

impl NodeAsks {
    pub(super) async fn open(doors: Doors) -> Result<Self, ApiError> {
        let subject = doors.broker.subjects().node_asks();
        let asked = doors.broker.subscribe(subject, Some(GROUP)).await;
        let asked = asked.attempt("cannot listen to the questions of nodes")?;
        let refusals = Refusals::new(doors.broker.clone(), doors.id.clone(), doors.metrics.clone());
        let of_nodes = HashMap::new();
        Ok(Self { doors, asked, answering: FuturesUnordered::new(), of_nodes, refusals })
    }

    pub(super) async fn answer(mut self) -> Result<(), ApiError> {
        loop {
            let has_room = self.answering.len() < AT_ONCE;
            tokio::select! {
                message = self.asked.next(), if has_room => match message {
                    Some(message) => self.take(message),
                    None => return Ok(()),
                },
                Some(answered) = self.answering.next(), if !self.answering.is_empty() => {
                    self.answered(answered);
                }
                () = self.refusals.record() => {}
            }
        }
    }

    fn answered(&mut self, Answered { node, refused }: Answered) {
        if let Some(count) = self.of_nodes.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.of_nodes.remove(&node);
            }
        }
        if let Some(why) = refused {
            self.refusals.note(Refused::to_node(Refusal::Question, node, why));
        }
    }

    fn take(&mut self, message: TransientMessage) {
        let TransientMessage { subject, payload, reply, .. } = message;
        let Some(node) = self.doors.broker.subjects().parse_node_ask(&subject) else { return };
        let Some(reply) = reply else { return };
        let count = self.of_nodes.entry(node.clone()).or_default();
        if *count >= OF_NODE {
            return;
        }
        *count += 1;
        let doors = self.doors.clone();
        self.answering.push(Box::pin(async move {
            if !INBOXES.iter().any(|inbox| reply.starts_with(inbox)) {
                return Answered { node, refused: Some(format!("an answer to {reply}")) };
            }
            let asked = codec::decode(&payload).map_err(|error| error.to_string());
            let refused = match asked {
                Ok(ask) => answer(&doors, &node, &ask, &reply).await.err(),
                Err(why) => Some(why),
            };
            if let Some(why) = refused.clone()
                && let Err(error) = doors.broker.refuse_node(why, reply).await
            {
                tracing::debug!("cannot answer node {node}: {error}");
            }
            Answered { node, refused }
        }));
    }
}

/// Answers a question, or tells why the node may not ask it.
async fn answer(doors: &Doors, node: &NodeName, ask: &NodeAsk, reply: &str) -> Result<(), String> {
    let files = match ask {
        NodeAsk::Fleet | NodeAsk::Term => None,
        NodeAsk::Files { agent, incarnation, .. } => {
            let rank = doors.live.rank_once_known(agent, *incarnation, AHEAD).await;
            let files = doors.live.files(agent, *incarnation, node);
            match (rank, files) {
                (_, Some(files)) => Some(files),
                // It is asked again.
                (Rank::Unknown | Rank::Stranger, None) => return Ok(()),
                (Rank::Current | Rank::Retiring | Rank::Over, None) => {
                    return Err(format!(
                        "the files of {agent}-{incarnation}, which is not to start there"
                    ));
                }
            }
        }
    };
    if let Err(error) = doors.broker.answer_node(ask, files.as_ref(), reply.to_owned()).await {
        tracing::debug!("cannot answer a question of node {node}: {error}");
    }
    Ok(())
}
