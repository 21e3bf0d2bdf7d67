//! Performs what the book decides.

use std::time::SystemTime;

use rustix::process::Signal;

use super::Pump;
use super::questions::LONGEST_ID;
use crate::book::Do;
use crate::publish;

impl Pump {
    pub(super) fn perform(&mut self, todo: Vec<Do>) {
        for act in todo {
            match act {
                Do::Tell(line) => self.tell(&line),
                Do::Ack { reply } => self.ack(reply),
                Do::Release => self.release(),
                Do::LookUp { seq, key } => {
                    self.tasks.look(publish::look_up(self.tasks.broker(), seq, key));
                }
                Do::Fetch { seq, key } => {
                    self.tasks.look(publish::fetch(self.tasks.broker(), seq, key));
                }
                Do::CountTurns { seq, conversation } => self.count_turns(seq, conversation),
                Do::Recall { seq, of } => {
                    let (broker, gate) = (self.tasks.broker(), self.tasks.gate());
                    self.tasks.look(publish::recall(broker, gate, seq, *of));
                }
                Do::Store { seq, of, step, after } => {
                    let (broker, gate) = (self.tasks.broker(), self.tasks.gate());
                    self.tasks.start(publish::step(broker, gate, seq, *of, step, after));
                }
                Do::AskPerson { seq, person } => {
                    let (broker, gate) = (self.tasks.broker(), self.tasks.gate());
                    self.tasks.look(publish::person(broker, gate, seq, *person));
                }
                Do::CloseQuestions { key } => {
                    self.tasks.look(publish::close_questions(self.tasks.broker(), key));
                }
                Do::Settle { seq, key, conversation, attempt, final_ } => {
                    let author = format!("{}.{attempt}", self.config.incarnation);
                    let (broker, gate) = (self.tasks.broker(), self.tasks.gate());
                    let to = (key, conversation);
                    self.tasks.start(publish::settle(broker, gate, seq, to, author, final_));
                    self.acks.hurry();
                }
                Do::Bury { envelope, final_, reply } => {
                    let (broker, gate) = (self.tasks.broker(), self.tasks.gate());
                    let log = self.logs.last();
                    self.tasks.start(publish::bury(
                        broker,
                        gate,
                        envelope.key(),
                        final_,
                        log,
                        reply,
                    ));
                }
                Do::Ask(question) => {
                    let asked = self.questions.ask(&question, &self.book, &self.tasks);
                    self.book.figures.questions += u64::from(asked.is_ok());
                    if let Err(error) = asked {
                        self.note(&format!("a question was not asked: {error}"));
                        let id = &question.request_id;
                        let id = id[..id.floor_char_boundary(LONGEST_ID)].to_owned();
                        self.answer(id, Err(error));
                    }
                }
                Do::ReadHistory(request) => self.read_history(*request),
                Do::EndWorker { reason } => {
                    self.note(&reason);
                    self.ending.reason = Some(reason);
                    self.pipes.worker.signal(Signal::KILL);
                }
                Do::Note(text) => self.note(&text),
            }
        }
    }

    /// Acknowledges a delivery, if the broker has given the message out: one that was fetched from the journal is
    /// acknowledged when it comes.
    pub(super) fn ack(&mut self, reply: String) {
        if !reply.is_empty() {
            self.acks.push(reply);
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.release(1);
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        self.log("shim", text.as_bytes());
    }

    pub(super) fn log(&mut self, stream: &str, line: &[u8]) {
        let turn = self.book.only_open().map(ToString::to_string);
        self.logs.push(SystemTime::now().into(), stream, line, turn);
    }
}
