//! The worker's requests for what was said in a conversation. The supervisors read it: a shim may read no stream.

use std::collections::VecDeque;
use std::time::Duration;

use broker::{Broker, BrokerError, Retries, Turns};
use common::worker::ToWorker;
use common::{AgentName, ConversationId};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::Pump;
use super::questions::LONGEST_ID;
use crate::book::HistoryRequest;
use crate::publish::Done;

/// Requests that are under way, at most: each may bring a page of texts.
const MOST: usize = 16;
/// Requests that wait for their turn, at most: as many turns may be open, and each asks for one page after the other.
const QUEUED: usize = 1024;
/// How many messages are told where the worker names no number.
const USUAL: u64 = 20;
/// How long an answer may take: while there is no broker or no supervisor, there is none.
const WITHIN: Duration = Duration::from_secs(15);

/// The requests that have no answer yet.
#[derive(Default)]
pub(super) struct Histories {
    asked: FuturesUnordered<BoxFuture<'static, Done>>,
    queued: VecDeque<BoxFuture<'static, Done>>,
}

impl Histories {
    pub(super) fn are_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// The next that has come to its end. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Done> {
        let done = self.asked.next().await;
        self.go_on();
        done
    }

    fn go_on(&mut self) {
        while self.asked.len() < MOST
            && let Some(next) = self.queued.pop_front()
        {
            self.asked.push(next);
        }
    }
}

/// Why a request has no answer, and whether it may have one later.
#[derive(Debug)]
pub(crate) struct Unread {
    why: String,
    retryable: bool,
}

/// Asks until there is an answer: a supervisor may be about to lead.
async fn read(
    broker: Broker,
    agent: AgentName,
    conversation: ConversationId,
    before: Option<String>,
    limit: u32,
) -> Result<Turns, Unread> {
    let mut retries = Retries::new("reading what was said");
    let mut last = None;
    let asking = async {
        loop {
            match broker.turns(&agent, &conversation, before.as_deref(), limit).await {
                Ok(turns) => return Ok::<Turns, BrokerError>(turns),
                Err(error) => {
                    last = Some(error.to_string());
                    retries.after(error).await?;
                }
            }
        }
    };
    match tokio::time::timeout(WITHIN, asking).await {
        Ok(Ok(turns)) => Ok(turns),
        Ok(Err(error)) => Err(Unread { why: error.to_string(), retryable: false }),
        Err(_) => {
            let last = last.unwrap_or_else(|| "no supervisor answered".to_owned());
            let why = format!("no answer within {WITHIN:?}: {last}");
            Err(Unread { why, retryable: true })
        }
    }
}

/// How long a message waits for the number of turns before it. Without supervisors it is told without that.
const COUNTED_WITHIN: Duration = Duration::from_millis(500);
/// How long nobody is asked for it after that failed.
const UNCOUNTED: Duration = Duration::from_secs(10);

impl Pump {
    /// Counts the turns that a conversation has had.
    pub(super) fn count_turns(&mut self, seq: u64, conversation: ConversationId) {
        let asked = self.uncounted.is_none_or(|since| since.elapsed() > UNCOUNTED);
        let (broker, agent) = (self.tasks.broker(), self.config.spec.name.clone());
        self.tasks.look(async move {
            let counting = async {
                let counted = broker.count_turns(&agent, &conversation);
                tokio::time::timeout(COUNTED_WITHIN, counted).await.ok()?.ok()
            };
            let turns = if asked { counting.await } else { None };
            Done::Counted { seq, turns, asked }
        });
    }

    /// Asks what was said, or says why not.
    pub(super) fn read_history(&mut self, request: HistoryRequest) {
        match self.may_read(&request) {
            Ok((conversation, limit)) => {
                let (broker, agent) = (self.tasks.broker(), self.config.spec.name.clone());
                let HistoryRequest { request_id, before, .. } = request;
                self.histories.queued.push_back(Box::pin(async move {
                    let history = read(broker, agent, conversation, before, limit).await;
                    Done::HistoryRead { request_id, history }
                }));
                self.histories.go_on();
            }
            Err(why) => {
                let mut request_id = request.request_id;
                request_id.truncate(request_id.floor_char_boundary(LONGEST_ID));
                self.history_read(request_id, Err(why));
            }
        }
    }

    fn may_read(&self, request: &HistoryRequest) -> Result<(ConversationId, u32), Unread> {
        if self.histories.queued.len() >= QUEUED {
            let why = format!("{} requests have no answer yet", MOST + QUEUED);
            return Err(Unread { why, retryable: true });
        }
        self.is_in_order(request).map_err(|why| Unread { why, retryable: false })
    }

    fn is_in_order(&self, request: &HistoryRequest) -> Result<(ConversationId, u32), String> {
        let length = request.request_id.len();
        if length > LONGEST_ID {
            return Err(format!(
                "a requestId of {length} bytes: at most {LONGEST_ID} are accepted"
            ));
        }
        if !self.config.spec.memory {
            return Err("the soul has `MEMORY none`".to_owned());
        }
        let most = u64::from(broker::MOST_TURNS);
        let limit = request.limit.unwrap_or(USUAL);
        let limit = u32::try_from(limit).ok().filter(|limit| (1..=most).contains(&(*limit).into()));
        let limit = limit.ok_or_else(|| format!("`limit` must be a number from 1 to {most}"))?;
        let conversation = ConversationId::new(request.conversation_id.as_str());
        let conversation = conversation.map_err(|error| error.to_string())?;
        Ok((conversation, limit))
    }

    /// Tells the worker what was said.
    pub(super) fn history_read(&mut self, request_id: String, history: Result<Turns, Unread>) {
        if let Err(Unread { why, .. }) = &history {
            self.note(&format!("a history_request was not answered: {why}"));
        }
        let line = match history {
            Ok(Turns { turns, next }) => {
                ToWorker::HistoryResponse { request_id, turns, next, error: None, retryable: false }
            }
            Err(Unread { why, retryable }) => ToWorker::HistoryResponse {
                request_id,
                turns: Vec::new(),
                next: None,
                error: Some(why),
                retryable,
            },
        };
        self.tell(&line);
    }
}
