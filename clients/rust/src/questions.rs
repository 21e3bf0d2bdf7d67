//! Questions of workers to people.

use common::api::{AnswerTaken, AnswerTo, ApiError, Query, QuestionPage, Reply};
use common::question::OpenQuestion;
use common::{AgentName, MessageId};

use crate::client::{Client, unexpected};

/// Questions of one answer.
const PAGE: usize = 300;

/// Open questions of one agent or of all, page by page.
#[derive(Debug)]
pub struct Questions<'a> {
    client: &'a Client,
    agent: Option<AgentName>,
    after: Option<u64>,
}

impl Client {
    /// The questions that are open, of one agent or of all, in the order in which they were asked.
    #[must_use]
    pub fn questions(&self, agent: Option<AgentName>) -> Questions<'_> {
        Questions { client: self, agent, after: Some(0) }
    }

    /// A page of them, after a place.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn question_page(
        &self,
        agent: Option<AgentName>,
        after: u64,
        limit: usize,
    ) -> Result<QuestionPage, ApiError> {
        let reply = self.ask(&Query::Questions { agent, after, limit }).await?;
        if let Reply::Questions(page) = reply { Ok(page) } else { Err(unexpected(&reply)) }
    }

    /// The oldest of the open questions, oldest first, at most `limit`: of some agents, or of all where none is named. And whether there are
    /// later ones.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn oldest_questions(
        &self,
        agents: &[AgentName],
        limit: usize,
    ) -> Result<(Vec<OpenQuestion>, bool), ApiError> {
        let of = match agents {
            [] => vec![None],
            agents => agents.iter().cloned().map(Some).collect(),
        };
        let (mut oldest, mut more) = (Vec::new(), false);
        for agent in of {
            let page = self.question_page(agent, 0, limit).await?;
            more |= page.next.is_some();
            oldest.extend(page.rows);
            oldest.sort_by_key(|one| one.asked);
            more |= oldest.len() > limit;
            oldest.truncate(limit);
        }
        Ok((oldest, more))
    }

    /// Answers a question: the one of an agent and a message, or the only one that a person can mean by an id.
    ///
    /// # Errors
    /// 2 it is no answer to it, 3 no such question, 4 several, or another answer was first; as [`Client::ask`].
    pub async fn answer_question(
        &self,
        of: Option<(AgentName, MessageId)>,
        request_id: String,
        text: String,
        by: String,
    ) -> Result<AnswerTaken, ApiError> {
        let (numbered, by) = (of.is_none(), Some(by));
        let (agent, message_id) = of.unzip();
        let write = uuid::Uuid::now_v7().to_string();
        let to = AnswerTo { agent, message_id, request_id, text, numbered, by, write };
        let reply = self.alter(&Query::Answer(to)).await?;
        if let Reply::AnswerTaken(taken) = reply { Ok(taken) } else { Err(unexpected(&reply)) }
    }
}

impl Questions<'_> {
    /// The next ones; none at the end.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn next(&mut self) -> Result<Option<Vec<OpenQuestion>>, ApiError> {
        let Some(after) = self.after else { return Ok(None) };
        let page = self.client.question_page(self.agent.clone(), after, PAGE).await?;
        self.after = page.next;
        Ok(Some(page.rows))
    }
}
