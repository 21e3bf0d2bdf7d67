//! Questions of workers to people: who asks for those that are open, and who answers one.

use std::time::Duration;

use broker::{AnswerEnd, Attempt as _, Broker, NamedQuestions};
use common::api::{AnswerTaken, AnswerTo, ApiError, QuestionPage, Reply};
use common::frame::ShimCommand;
use common::message::MessageKey;
use common::question::{Answered, OpenQuestion, Question};
use common::{AgentName, RequestTag, SenderName, failure, words};

use super::query::send_reply;
use super::{Done, Supervisor};

/// The most questions of one answer.
const PAGE: usize = 300;
/// How long storing an answer may take.
const STORE: Duration = Duration::from_secs(10);
/// So many questions are named where several are meant.
const CANDIDATES: usize = 10;

/// A question that has an answer, of which its shim is to be told.
pub(super) struct Told {
    key: MessageKey,
    tag: RequestTag,
}

impl Supervisor {
    /// The questions that are open, of one agent or of all, after a place.
    pub(super) fn show_questions(
        &mut self,
        agent: Option<AgentName>,
        after: u64,
        limit: usize,
        reply: &str,
    ) -> Result<(), ApiError> {
        if let Some(agent) = &agent {
            self.known(agent)?;
        }
        let (reads, told, reply) =
            (self.reads.broker.clone(), self.broker.clone(), reply.to_owned());
        // Half of it: JSON in JSON, and what is around it.
        let bytes = self.broker.max_record() / 2;
        self.task(async move {
            let limit = limit.clamp(1, PAGE);
            let open = reads.open_questions(agent.as_ref(), after, limit, bytes).await;
            let answer = match open.attempt("cannot read the questions that are open") {
                Ok((rows, next)) => Reply::Questions(QuestionPage { rows, next }),
                Err(error) => Reply::Error(error),
            };
            send_reply(&told, reply, &answer).await;
            Done::Nothing
        });
        Ok(())
    }

    /// Answers a question.
    pub(super) fn answer_question(&mut self, to: AnswerTo, reply: &str) -> Result<(), ApiError> {
        let user = self.asks.clone();
        let (reads, told, reply) =
            (self.reads.broker.clone(), self.broker.clone(), reply.to_owned());
        self.task(async move {
            let (answer, done) = match take(&reads, &to, user).await {
                Ok((taken, told)) => (Reply::AnswerTaken(taken), Done::PersonAnswered(told)),
                Err(error) => (Reply::Error(error), Done::Nothing),
            };
            send_reply(&told, reply, &answer).await;
            done
        });
        Ok(())
    }

    /// The shim looks for the answer at once. If it does not hear of it, it does so later.
    pub(super) async fn person_answered(&mut self, told: Told) {
        let Told { key: MessageKey { agent, sender, message_id }, tag } = told;
        if let Some(begun) = self.state.agent(&agent).and_then(|known| known.begun) {
            let command = ShimCommand::Answered { sender, message_id, tag };
            self.tell_shim(&agent, begun, &command).await;
        }
    }

    /// A message was cancelled: nobody waits for the answers to its questions.
    pub(super) fn close_questions(&mut self, key: MessageKey) {
        let broker = self.reads.broker.clone();
        self.task(async move {
            if let Err(error) = broker.close_questions(&key).await {
                tracing::warn!("questions of a cancelled message stay for now: {error}");
            }
            Done::Nothing
        });
    }
}

/// Stores an answer to the one question that is meant.
async fn take(
    broker: &Broker,
    to: &AnswerTo,
    user: Option<SenderName>,
) -> Result<(AnswerTaken, Told), ApiError> {
    let what = || format!("cannot answer {:?}", words::one_line(&to.request_id, 80));
    let known = match &user {
        Some(name) => broker.user_named(name).await.attempt(what())?,
        None => None,
    };
    let agents = known.map(|user| user.agents).unwrap_or_default();
    let mut found = NamedQuestions::default();
    for (agent, message, request_id) in to.readings() {
        // Each by itself: of others there may be more than are read.
        let of: Vec<_> = match &agent {
            Some(agent) if agents.is_empty() || agents.contains(agent) => vec![Some(agent)],
            Some(_) => Vec::new(),
            None if agents.is_empty() => vec![None],
            None => agents.iter().map(Some).collect(),
        };
        for agent in of {
            let named = broker.questions_named(agent, message.as_ref(), request_id).await;
            let NamedQuestions { open, answered } = named.attempt(what())?;
            found.open.extend(open);
            found.answered.extend(answered);
        }
    }
    let question = match chosen(to, found)? {
        Chosen::Open(question) => question,
        // The confirmation was lost, and it is repeated.
        Chosen::Stored(key, answered) => return Ok(taken(key, answered)),
    };
    let key = MessageKey {
        agent: question.agent.clone(),
        sender: question.sender.clone(),
        message_id: question.message_id.clone(),
    };
    let OpenQuestion { conversation_id, request_id, text, options, default, asked, until, .. } =
        question;
    let timeout_ms = until.as_millis().saturating_sub(asked.as_millis());
    let question = Question { request_id, text, options, default, timeout_ms };
    let text = if to.numbered { question.meant(&to.text) } else { to.text.as_str() }.to_owned();
    question.accepts(&text).map_err(|cause| {
        let try_ = match question.options.is_empty() {
            true => "`mozart questions` shows the question",
            false => "one of the options",
        };
        failure::error(failure::USAGE, what(), cause, try_)
    })?;
    let by = user.map(|user| user.to_string()).or_else(|| to.by.clone());
    let by: String = by.unwrap_or_else(|| "user".to_owned()).chars().take(64).collect();
    let answered = Answered::by(question, &text, &by, to.write.clone());
    let stored = broker.answer_question(&key, &conversation_id, &answered, STORE).await;
    match stored.attempt(what())? {
        AnswerEnd::Stored => Ok(taken(key, answered)),
        AnswerEnd::Already(first) => Err(conflict(to, &first)),
    }
}

fn taken(key: MessageKey, answered: Answered) -> (AnswerTaken, Told) {
    let Answered { request_id, text, .. } = answered;
    let tag = RequestTag::of(&request_id);
    let (agent, message_id) = (key.agent.clone(), key.message_id.clone());
    (AnswerTaken { agent, message_id, request_id, text }, Told { key, tag })
}

#[derive(Debug, PartialEq, Eq)]
enum Chosen {
    Open(OpenQuestion),
    /// This very answer is stored.
    Stored(MessageKey, Answered),
}

/// The question that is meant.
fn chosen(to: &AnswerTo, found: NamedQuestions) -> Result<Chosen, ApiError> {
    let NamedQuestions { mut open, mut answered } = found;
    if let Some(at) = answered.iter().position(|(_, answered)| answered.write == to.write) {
        let (key, answered) = answered.swap_remove(at);
        return Ok(Chosen::Stored(key, answered));
    }
    let id = words::one_line(&to.request_id, 80);
    if open.len() > 1 {
        let name = |open: &OpenQuestion| {
            format!("{}/{}/{}", open.agent, open.message_id, words::one_line(&open.request_id, 80))
        };
        let mut names: Vec<String> = open.iter().take(CANDIDATES).map(name).collect();
        if open.len() > CANDIDATES {
            names.push("…".to_owned());
        }
        let what = format!("several open questions have the id {id:?}");
        let cause = format!("they are {}", names.join(", "));
        let try_ = "name one as AGENT/requestId or AGENT/MESSAGE/requestId";
        return Err(failure::error(failure::CONFLICT, what, cause, try_));
    }
    if let Some(open) = open.pop() {
        return Ok(Chosen::Open(open));
    }
    match answered.pop() {
        Some((_, first)) => Err(conflict(to, &first)),
        None => {
            let what = format!("no open question {id:?}");
            let cause = "nobody has asked it, or its message has ended, or its time is over";
            let try_ = "`mozart questions` lists those that are open";
            Err(failure::error(failure::NOT_FOUND, what, cause, try_))
        }
    }
}

/// Another answer was first.
fn conflict(to: &AnswerTo, first: &Answered) -> ApiError {
    let what = format!("question {:?} is already answered", words::one_line(&to.request_id, 80));
    let text = words::one_line(&first.text, 200);
    let cause = match (&first.by, &first.error) {
        (Some(by), _) => format!("{by} has answered {text:?}"),
        (None, Some(error)) => words::one_line(error, 200),
        (None, None) => format!("nobody answered in time, and it got its default {text:?}"),
    };
    let try_ = "the first answer counts; `mozart questions` lists those that are open";
    failure::error(failure::CONFLICT, what, cause, try_)
}

#[cfg(test)]
mod tests {
    use common::{ConversationId, MessageId, Timestamp};

    use super::*;

    fn open(agent: &str, message: &str) -> OpenQuestion {
        OpenQuestion {
            agent: AgentName::new(agent).expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            message_id: MessageId::new(message).expect("valid"),
            conversation_id: ConversationId::new("c").expect("valid"),
            request_id: "q".to_owned(),
            text: "Go?".to_owned(),
            options: Vec::new(),
            default: None,
            asked: Timestamp::default(),
            until: Timestamp::from_millis(1000),
        }
    }

    fn answered(by: Option<&str>, write: &str) -> (MessageKey, Answered) {
        let OpenQuestion { agent, sender, message_id, request_id, text, .. } = open("a", "m");
        let (options, default) = (Vec::new(), Some("no".to_owned()));
        let question = Question { request_id, text, options, default, timeout_ms: 1000 };
        let answered = match by {
            Some(by) => Answered::by(question, "yes", by, write.to_owned()),
            None => Answered::nobody(question, write.to_owned()),
        };
        (MessageKey { agent, sender, message_id }, answered)
    }

    #[test]
    fn one_open_question_is_meant_or_it_is_said_which_there_are() {
        let to = AnswerTo {
            agent: None,
            message_id: None,
            request_id: "q".to_owned(),
            text: "yes".to_owned(),
            numbered: true,
            by: None,
            write: "w1".to_owned(),
        };
        let of = |open: Vec<OpenQuestion>, answered| chosen(&to, NamedQuestions { open, answered });
        assert_eq!(of(vec![open("a", "m")], vec![]), Ok(Chosen::Open(open("a", "m"))));
        let several = of(vec![open("a", "m"), open("b", "n")], vec![]).expect_err("two");
        assert_eq!(several.code, failure::CONFLICT);
        assert_eq!(several.cause, "they are a/m/q, b/n/q");
        assert_eq!(of(vec![], vec![]).expect_err("none").code, failure::NOT_FOUND);
        let late = of(vec![], vec![answered(Some("ada"), "w0")]).expect_err("answered");
        assert_eq!(
            (late.code, late.cause.as_str()),
            (failure::CONFLICT, "ada has answered \"yes\"")
        );
        let late = of(vec![], vec![answered(None, "w0")]).expect_err("over");
        assert_eq!(late.cause, "nobody answered in time, and it got its default \"no\"");
        let (key, again) = answered(Some("ada"), "w1");
        assert_eq!(of(vec![], vec![(key.clone(), again.clone())]), Ok(Chosen::Stored(key, again)));
    }
}
