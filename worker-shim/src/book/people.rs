//! Questions to people: from the worker to the broker, and the answers back.

use common::question::{Answered, Asked, Question};
use common::worker::{ToWorker, TurnRef};
use common::{MessageId, RequestTag, SenderName};
use serde_json::json;

use super::{Book, Do, Held, Now, Person, Phase};
use crate::people::{Act, Acted, News};
use crate::turn::Turn;

impl Book {
    /// A question of the worker's. That is progress.
    pub(super) fn question(
        &mut self,
        now: Now,
        turn: &TurnRef<'_>,
        question: Question,
        todo: &mut Vec<Do>,
    ) {
        let timeout = self.rules.turn_timeout_us;
        let id = turn.message_id.as_ref().map(|id| id.chars().take(64).collect());
        let open = self.find(turn).and_then(|seq| Some((seq, self.held.get_mut(&seq)?)));
        let Some((seq, Held { phase: Phase::Open(open), asks, .. })) = open else {
            let why = "it belongs to no open turn: name its `messageId`";
            return refuse(id, Some(question.request_id), why, todo);
        };
        open.progress(now, timeout);
        let asked = match open.cancelled {
            true => Err("its turn was cancelled".to_owned()),
            false => question.check().and_then(|()| open.people_mut().ask(question.clone())),
        };
        if let Err(why) = asked {
            return refuse(id, Some(question.request_id), &why, todo);
        }
        *asks = true;
        self.act_on(seq, vec![(Act::Ask, question)], todo);
    }

    fn act_on(&self, seq: u64, acts: Vec<(Act, Question)>, todo: &mut Vec<Do>) {
        let Some(Held { envelope, phase: Phase::Open(turn), .. }) = self.held.get(&seq) else {
            return;
        };
        let (attempt, incarnation) = (turn.attempt, self.rules.incarnation);
        todo.extend(acts.into_iter().map(|(act, question)| {
            let conversation_id = envelope.conversation_id.clone();
            let asked = Asked { question, attempt, incarnation, conversation_id };
            Do::AskPerson { seq, person: Box::new(Person { key: envelope.key(), asked, act }) }
        }));
    }

    /// What is to be done about a turn's questions by now.
    pub(super) fn people_due(&mut self, now: Now, seq: u64, todo: &mut Vec<Do>) {
        let Some(Held { phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq) else { return };
        let acts = turn.people().map(|people| people.due(now.us)).unwrap_or_default();
        self.act_on(seq, acts, todo);
    }

    /// Somebody has answered a question.
    pub(crate) fn answered(
        &mut self,
        now: Now,
        sender: &SenderName,
        id: &MessageId,
        tag: &RequestTag,
    ) -> Vec<Do> {
        let mut todo = Vec::new();
        let Some(seq) = self.open.get(id).copied() else { return todo };
        if let Some(Held { envelope, phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq)
            && envelope.sender == *sender
            && let Some(people) = turn.people()
        {
            people.answered(tag);
        }
        self.people_due(now, seq, &mut todo);
        todo
    }

    /// What came of a [`Do::AskPerson`].
    pub(crate) fn person(
        &mut self,
        now: Now,
        (seq, attempt): (u64, u32),
        request_id: &str,
        acted: Acted,
    ) -> Vec<Do> {
        let mut todo = Vec::new();
        let timeout = self.rules.turn_timeout_us;
        let Some(Held { envelope, phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq) else {
            return todo;
        };
        if turn.attempt != attempt {
            return todo;
        }
        let news = turn.people().and_then(|people| people.acted(now.us, request_id, acted));
        let id = || Some(envelope.message_id.to_string());
        match news {
            Some(News::Open(question, left)) => {
                let Question { request_id, text, options, default, .. } = question;
                let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
                let until = now.at.as_millis().saturating_add(left.unsigned_abs());
                let mut event = json!({
                    "type": "question", "requestId": request_id, "text": text,
                    "until": common::Timestamp::from_millis(until),
                });
                if !options.is_empty() {
                    event["options"] = options.into();
                }
                if let Some(default) = default {
                    event["default"] = default.into();
                }
                say(turn, now, event);
            }
            Some(News::Answered(answered)) => {
                // The worker could do nothing else.
                turn.progress(now, timeout);
                let Answered { text, error, is_default, by, .. } = answered;
                let mut event = json!({ "type": "answer", "requestId": request_id });
                match &error {
                    Some(error) => event["error"] = error.as_str().into(),
                    None => event["text"] = text.as_str().into(),
                }
                if is_default {
                    event["isDefault"] = true.into();
                }
                if let Some(by) = by {
                    event["by"] = by.into();
                }
                say(turn, now, event);
                // As the worker named it, whatever is stored.
                let request_id = Some(request_id.to_owned());
                let message_id = id();
                todo.push(Do::Tell(ToWorker::Answer {
                    message_id,
                    request_id,
                    text,
                    error,
                    is_default,
                }));
            }
            Some(News::Failed(why)) => {
                turn.progress(now, timeout);
                refuse(id(), Some(request_id.to_owned()), &why, &mut todo);
            }
            None => {}
        }
        self.people_due(now, seq, &mut todo);
        todo
    }

    /// The turn of a message was cancelled: its questions have no answer any more.
    pub(super) fn give_up_questions(&mut self, seq: u64, todo: &mut Vec<Do>) {
        let Some(Held { envelope, phase: Phase::Open(turn), .. }) = self.held.get_mut(&seq) else {
            return;
        };
        for id in turn.people().map(crate::people::People::give_up).unwrap_or_default() {
            let message_id = Some(envelope.message_id.to_string());
            refuse(message_id, Some(id), "its turn was cancelled", todo);
        }
    }
}

/// An event that readers of the turn see.
fn say(turn: &mut Turn, now: Now, event: serde_json::Value) {
    let bytes = event.to_string().len();
    if !turn.cancelled && turn.broken().is_none() && turn.may_say(bytes) {
        turn.say(now, event, bytes);
    }
}

/// A question that gets no answer: its turn goes on.
pub(super) fn refuse(
    message_id: Option<String>,
    request_id: Option<String>,
    why: &str,
    todo: &mut Vec<Do>,
) {
    /// An id that is too long is not repeated as a whole.
    const LONGEST: usize = common::question::MAX_REQUEST_ID;
    let request_id = request_id.map(|mut id| {
        id.truncate(id.floor_char_boundary(LONGEST));
        id
    });
    todo.push(Do::Note(format!("a question was not answered: {why}")));
    let (text, error, is_default) = (String::new(), Some(why.to_owned()), false);
    todo.push(Do::Tell(ToWorker::Answer { message_id, request_id, text, error, is_default }));
}
