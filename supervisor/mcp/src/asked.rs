//! The tools about what workers ask people.

use common::AgentName;
use common::MessageId;
use common::question::OpenQuestion;
use common::users::Scope;

use crate::shown::{AnswerQuestion, Answered, ListQuestions, Question, Questions, time};
use crate::tools::{Refused, named};
use crate::who::Who;

/// The most questions of a result.
const QUESTIONS: usize = 100;

/// Lists open questions: of one agent, or of all that they may see.
pub(crate) async fn list(who: &Who, asked: ListQuestions) -> Result<Questions, Refused> {
    let agent = asked.agent.as_deref().map(named::<AgentName>).transpose()?;
    if let Some(agent) = &agent {
        who.reach(agent)?;
    }
    let of = agent.as_slice();
    let of = if of.is_empty() { who.client.agents() } else { of };
    let (open, more) = who.client.oldest_questions(of, QUESTIONS).await?;
    Ok(Questions { questions: open.into_iter().map(question).collect(), more })
}

fn question(open: OpenQuestion) -> Question {
    Question {
        agent: open.agent.to_string(),
        message_id: open.message_id.to_string(),
        request_id: open.request_id,
        text: open.text,
        options: open.options,
        default: open.default,
        asked: time(open.asked),
        until: time(open.until),
    }
}

/// Answers a question. The first answer counts.
pub(crate) async fn answer(who: &Who, asked: AnswerQuestion) -> Result<Answered, Refused> {
    who.may(Scope::Send)?;
    let agent: AgentName = named(&asked.agent)?;
    let message: MessageId = named(&asked.message_id)?;
    who.reach(&agent)?;
    let (of, by) = (Some((agent, message)), who.name().to_string());
    let taken = who.client.answer_question(of, asked.request_id, asked.text, by).await?;
    Ok(Answered { request_id: taken.request_id, text: taken.text })
}
