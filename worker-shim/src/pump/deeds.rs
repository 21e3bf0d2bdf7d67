//! The pump's deeds: what the book wants done.

use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt as _;
use futures_util::future::abortable;
use rustix::process::Signal;

use super::{ACK_WITHIN, Pump, QUESTIONS};
use crate::book::Do;
use crate::publish::Done;
use crate::{publish, route};

/// An agent that answered within this time is still there: asking it again needs no look at the control log.
const KNOWN: Duration = Duration::from_secs(5);

impl Pump {
    pub(super) fn perform(&mut self, todo: Vec<Do>) {
        for act in todo {
            match act {
                Do::Tell(line) => self.tell(&line),
                Do::Ack { reply } => self.ack(reply),
                Do::Release => self.release(),
                Do::LookUp { seq, key } => {
                    self.optional += 1;
                    self.task(publish::look_up(self.broker.clone(), seq, key));
                }
                Do::Settle { seq, key, conversation, attempt, final_ } => {
                    let author = format!("{}.{attempt}", self.config.incarnation);
                    let gate = self.gate.subscribe();
                    let broker = self.broker.clone();
                    self.task(publish::settle(
                        broker,
                        gate,
                        seq,
                        (key, conversation),
                        author,
                        final_,
                    ));
                    // The acks ride with it.
                    if self.acks_due.is_some() {
                        self.acks_due = Some(Instant::now());
                    }
                }
                Do::Bury { envelope, final_, reply } => {
                    let (gate, log) = (self.gate.subscribe(), self.logs.last());
                    let broker = self.broker.clone();
                    self.task(publish::bury(broker, gate, *envelope, final_, log, reply));
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

    /// Acknowledges a delivery, if the broker has given the message out: one that was fetched from the journal is
    /// acknowledged when it comes.
    pub(super) fn ack(&mut self, reply: String) {
        if reply.is_empty() {
            return;
        }
        self.acks.push(reply);
        self.acks_due.get_or_insert_with(|| Instant::now() + ACK_WITHIN);
        self.release();
    }

    fn release(&mut self) {
        if let Some(inbox) = &mut self.inbox {
            inbox.release(1);
        }
    }

    pub(super) fn ask(&mut self, question: &crate::book::Question) {
        self.forget_questions();
        let (me, incarnation) = (&self.config.spec.name, self.config.incarnation);
        let envelope = if self.questions >= QUESTIONS {
            Err(format!("more than {QUESTIONS} questions wait for an answer"))
        } else {
            route::envelope(me, incarnation, question, SystemTime::now().into())
        };
        match envelope {
            Ok(envelope) => {
                self.questions += 1;
                let known = self.answered.get(&envelope.agent);
                let known = known.is_some_and(|at| at.elapsed() < KNOWN);
                let asking =
                    route::ask(self.broker.clone(), self.gate.subscribe(), envelope, known);
                let (asking, handle) = abortable(asking);
                self.task(asking.map(|answered| answered.unwrap_or(Done::NotAsked)));
                if let Some(asker) = &question.asker {
                    self.asking.push((asker.seq, asker.attempt, handle));
                }
            }
            Err(error) => self.answer(question.request_id.clone(), Err(error)),
        }
    }

    pub(super) fn note(&mut self, text: &str) {
        let turn = self.book.only_open().map(ToString::to_string);
        self.logs.push(SystemTime::now().into(), "shim", text.as_bytes(), turn);
    }
}
