//! What was said in a conversation, for the worker that goes on with it: its finished messages, in the journal and in HISTORY alike.
//!
//! A shim cannot list: it asks the supervisors (`asked.rs`), which read a page from the end. The cost is that of the page, however long the
//! conversation is.

use std::str::FromStr as _;

use common::frame::ask::{ShimAsk, Told};
use common::message::{Envelope, Final, MessageKey};
use common::worker::PastTurn;
use common::{AgentName, ConversationId, ConversationTag, Timestamp};
use serde::{Deserialize, Serialize};

use crate::asked::unexpected;
use crate::connection::Broker;
use crate::error::{BrokerError, Result};
use crate::history::commit::ORIGIN;
use crate::history::{Cursor, ListQuery, Listed};
use crate::journal::encode;
use crate::wire::CALL;

/// The most messages of one page.
pub const MOST_TURNS: u32 = 100;

/// The most bytes of JSON in one page: an answer is one message.
const BYTES: usize = 256 << 10;

/// Finished messages of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turns {
    /// The newest first.
    pub turns: Vec<PastTurn>,
    /// Where those before them begin; none if there are none.
    pub next: Option<String>,
}

/// The same, as supervisors tell it.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) turns: Vec<ToldTurn>,
    pub(crate) next: Option<String>,
}

/// A message of a page.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToldTurn {
    turn: PastTurn,
    /// Its texts do not fit an answer, and are asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    large: Option<MessageKey>,
}

impl Broker {
    /// The finished messages of an agent's conversation, the newest first, at most [`MOST_TURNS`]: those before a place, or the last ones.
    ///
    /// # Errors
    /// When the broker, or for a shim no supervisor, answers; when the place is none of this conversation's.
    pub async fn turns(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Turns> {
        let ask = || ShimAsk::Turns {
            conversation: conversation.clone(),
            before: before.map(str::to_owned),
            limit,
        };
        let Page { turns: told, next } = match self.asked(ask).await? {
            None => self.page_of_turns(agent, conversation, before, limit).await?,
            Some(Told::Turns { turns, next }) => {
                let turns = serde_json::from_slice(&turns).map_err(BrokerError::other)?;
                Page { turns, next }
            }
            Some(told) => return Err(unexpected(&told)),
        };
        let mut turns = Vec::with_capacity(told.len());
        for ToldTurn { mut turn, large } in told {
            if let Some(key) = large {
                let (request, final_) =
                    tokio::try_join!(self.message_of(&key), self.outcome_of(&key))?;
                // It has been forgotten meanwhile.
                let Some((request, final_)) = request.zip(final_) else { continue };
                turn.message = request.value.message;
                (turn.response, turn.reason) = (final_.value.response, final_.value.reason);
            }
            turns.push(turn);
        }
        Ok(Turns { turns, next })
    }

    /// Reads a page.
    pub(crate) async fn page_of_turns(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Page> {
        let limit = limit.clamp(1, MOST_TURNS) as usize;
        let after = before.map(Cursor::from_str).transpose();
        let query = ListQuery {
            agent: Some(agent.clone()),
            conversation: Some(ConversationTag::of_conversation(conversation)),
            after: after.map_err(|why| BrokerError::Refused(format!("`before` is {why}")))?,
            about: limit,
            hot: false,
            ..ListQuery::default()
        };
        let other = || BrokerError::Refused("`before` is of another conversation".to_owned());
        let mut listing = self.list(&query).await.map_err(|error| {
            if matches!(error, BrokerError::OtherList) { other() } else { error }
        })?;
        let (mut turns, mut bytes, mut next) = (Vec::new(), 0, None);
        loop {
            let place = listing.place();
            let Some(listed) = listing.next().await? else { break };
            // An open one is no turn that was; and two conversations can have one tag.
            let Listed { request, final_: Some(final_), .. } = listed else { continue };
            if request.value.conversation_id != *conversation {
                continue;
            }
            let (told, size) = told(request.at, request.value, final_.value)?;
            // One that is asked for by itself takes all the room that there is: whoever gets the page keeps its texts.
            let is_large = told.large.is_some();
            bytes += if is_large { BYTES } else { size };
            if turns.len() == limit || (bytes > BYTES && !turns.is_empty()) {
                next = Some(place.to_string());
                break;
            }
            turns.push(told);
        }
        Ok(Page { turns, next })
    }

    /// How many finished messages an agent's conversation has, as far as they are kept. A message of two records in HISTORY counts twice.
    ///
    /// # Errors
    /// As [`Broker::turns`].
    pub async fn count_turns(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
    ) -> Result<u64> {
        if let Some(told) = self.asked(|| ShimAsk::CountTurns(conversation.clone())).await? {
            let Told::Count(count) = told else { return Err(unexpected(&told)) };
            return Ok(count);
        }
        let tag = ConversationTag::of_conversation(conversation);
        let subjects = self.subjects();
        let (history, journal) = (self.history_stream(), self.journal_stream(agent));
        let (cold_of, hot_of) = (subjects.history(agent, &tag), subjects.finals_in(agent, &tag));
        // What is being moved is in both: the last one in HISTORY says up to where the journal counts no more.
        let cold = self.wire().first(&history, &cold_of, 1).await?;
        let cold = cold.map_or(0, |(_, more)| more + 1);
        let from = match cold {
            0 => 1,
            _ => self.moved_of(&history, &cold_of, &journal).await? + 1,
        };
        let hot = self.wire().first(&journal, &hot_of, from).await?;
        Ok(cold + hot.map_or(0, |(_, more)| more + 1))
    }

    /// The sequence of the final state that the last record of a conversation in HISTORY was made from, in the journal as it is now.
    async fn moved_of(&self, history: &str, subject: &str, journal: &str) -> Result<u64> {
        let last = self.wire().last(history, subject).await?;
        let origin = last.as_ref().and_then(|last| last.header(ORIGIN)).unwrap_or_default();
        let mut parts = origin.splitn(3, ':').skip(1);
        let (seq, made) = (parts.next().and_then(|seq| seq.parse().ok()), parts.next());
        let info = self.wire().stream_info(journal, CALL).await??;
        Ok(seq.filter(|_| made == Some(info.created.as_str())).unwrap_or(0))
    }
}

/// A message as it is told, and its bytes of JSON.
fn told(at: Timestamp, request: Envelope, final_: Final) -> Result<(ToldTurn, usize)> {
    let key = request.key();
    let turn = PastTurn {
        message_id: request.message_id,
        from_id: request.sender,
        kind: request.kind,
        message: request.message,
        response: final_.response,
        status: final_.status,
        reason: final_.reason,
        at,
    };
    let mut told = ToldTurn { turn, large: None };
    let size = encode(&told)?.len();
    if size <= BYTES {
        return Ok((told, size));
    }
    told.turn.message = String::new();
    (told.turn.response, told.turn.reason) = (None, None);
    told.large = Some(key);
    let size = encode(&told)?.len();
    Ok((told, size))
}

#[cfg(test)]
mod tests {
    use common::message::{Kind, Outcome};

    use super::*;

    fn tell(message: &str, response: &str) -> (ToldTurn, usize) {
        let id = common::MessageId::new("m1").expect("valid");
        let request = Envelope {
            conversation_id: ConversationId::from(&id),
            message_id: id,
            agent: AgentName::new("a").expect("valid"),
            sender: common::SenderName::new("user").expect("valid"),
            kind: Kind::Chat,
            message: message.into(),
            created_at: Timestamp::default(),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent: None,
            scheduled_for: None,
            deliver_at: None,
        };
        let final_ = Final {
            status: Outcome::Completed,
            response: Some(response.into()),
            reason: None,
            attempts: 1,
            incarnation: Some(1),
            at: Timestamp::default(),
            tail: Vec::new(),
        };
        told(Timestamp::default(), request, final_).expect("JSON")
    }

    #[test]
    fn texts_that_do_not_fit_an_answer_are_left_to_be_asked_for() {
        let (small, _) = tell("hello", "world");
        assert_eq!(
            (small.turn.message.as_str(), small.turn.response.as_deref()),
            ("hello", Some("world"))
        );
        assert!(small.large.is_none());
        // Each of these characters is six bytes of JSON.
        for (message, response) in
            [("x".repeat(BYTES), ""), (String::new(), &*"\u{1}".repeat(BYTES / 5))]
        {
            let (large, size) = tell(&message, response);
            assert!(large.large.is_some() && size < 1024, "{size}");
            assert_eq!((large.turn.message.as_str(), large.turn.response), ("", None));
        }
    }
}
