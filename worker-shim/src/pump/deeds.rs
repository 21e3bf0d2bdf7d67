//! The pump's deeds: what the book wants done.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use rustix::process::Signal;

use super::{ACK_WITHIN, Pump, QUESTIONS};
use crate::book::Do;
use crate::{publish, route};

impl Pump {
    pub(super) fn perform(&mut self, todo: Vec<Do>) {
        for act in todo {
            match act {
                Do::Tell(line) => self.tell(&line),
                Do::Ack { reply } => {
                    self.acks.push(reply);
                    self.acks_due.get_or_insert_with(|| Instant::now() + ACK_WITHIN);
                    if let Some(inbox) = &mut self.inbox {
                        inbox.release(1);
                    }
                }
                Do::LookUp { seq, key } => {
                    self.task(publish::look_up(self.broker.clone(), seq, key))
                }
                Do::Settle { seq, key, attempt, final_ } => {
                    let author = format!("{}.{attempt}", self.config.incarnation);
                    let gate = self.gate.subscribe();
                    self.task(publish::settle(self.broker.clone(), gate, seq, key, author, final_));
                    // The acks ride with it.
                    if self.acks_due.is_some() {
                        self.acks_due = Some(Instant::now());
                    }
                }
                Do::Bury { envelope, final_ } => {
                    let (gate, log) = (self.gate.subscribe(), Arc::new(self.logs.last()));
                    self.task(publish::bury(self.broker.clone(), gate, envelope, final_, log));
                }
                Do::Ask(question) => self.ask(&question),
                Do::EndWorker { reason } => {
                    self.note(&reason);
                    self.end_reason = Some(reason);
                    self.worker.signal(Signal::KILL);
                }
                Do::Note(text) => self.note(&text),
            }
        }
    }

    pub(super) fn ask(&mut self, question: &crate::book::Question) {
        let (me, incarnation) = (&self.config.spec.name, self.config.incarnation);
        let envelope = if self.questions >= QUESTIONS {
            Err(format!("more than {QUESTIONS} questions wait for an answer"))
        } else {
            route::envelope(me, incarnation, question, SystemTime::now().into())
        };
        match envelope {
            Ok(envelope) => {
                self.questions += 1;
                self.task(route::ask(self.broker.clone(), self.gate.subscribe(), envelope));
            }
            Err(error) => self.answer(question.request_id.clone(), Err(error)),
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        let turn = self.book.only_open().map(ToString::to_string);
        self.logs.push(SystemTime::now().into(), "shim", text.as_bytes(), turn);
    }
}
