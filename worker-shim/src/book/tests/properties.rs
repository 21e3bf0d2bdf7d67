//! What holds over any interleaving of deliveries, answers of the broker, lines, timers, cancels and ends.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::super::Batch;
use super::*;

const CONVERSATIONS: u64 = 3;
const MESSAGES: u64 = 10;
const ATTEMPTS: u32 = 3;

/// Something happens. Numbers choose among what is there.
#[derive(Debug, Clone)]
enum Step {
    Deliver { check: bool },
    Redeliver(usize),
    LookedUp { which: usize, attempts: u32 },
    Stored { which: usize, won: bool },
    TakeBatches,
    BatchStored(usize),
    Text { which: u64, bytes: usize },
    Done(u64),
    Error { which: u64, retryable: bool },
    Cancel(u64),
    Tick { us: u64, deaf: bool },
    Pause,
    Resume,
    WorkerExited,
}

fn step() -> impl Strategy<Value = Step> {
    let which = 1..=MESSAGES;
    prop_oneof![
        6 => any::<bool>().prop_map(|check| Step::Deliver { check }),
        1 => any::<usize>().prop_map(Step::Redeliver),
        3 => (any::<usize>(), 0..=ATTEMPTS)
            .prop_map(|(which, attempts)| Step::LookedUp { which, attempts }),
        4 => (any::<usize>(), prop::bool::weighted(0.9))
            .prop_map(|(which, won)| Step::Stored { which, won }),
        3 => Just(Step::TakeBatches),
        3 => any::<usize>().prop_map(Step::BatchStored),
        4 => (which.clone(), prop_oneof![Just(3_usize), Just(20_000), Just(300_000)])
            .prop_map(|(which, bytes)| Step::Text { which, bytes }),
        4 => which.clone().prop_map(Step::Done),
        3 => (which.clone(), any::<bool>())
            .prop_map(|(which, retryable)| Step::Error { which, retryable }),
        1 => which.prop_map(Step::Cancel),
        4 => (prop_oneof![Just(1_000_u64), Just(30_000), Just(2 * SECOND), Just(61 * SECOND)], any::<bool>())
            .prop_map(|(us, deaf)| Step::Tick { us, deaf }),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        1 => Just(Step::WorkerExited),
    ]
}

/// The world around a book, which watches what it wants done.
struct World {
    desk: Desk,
    concurrency: usize,
    delivered: u64,
    look_ups: Vec<u64>,
    finals: Vec<(u64, Final)>,
    batches: Vec<Batch>,
    /// With the worker: message to attempt.
    open: BTreeMap<u64, u32>,
    attempts: BTreeMap<u64, u32>,
    /// The numbers of each attempt's events, as they were published.
    events: BTreeMap<(u64, u32), Vec<u64>>,
    /// Attempts that the worker had, and those whose error was published.
    runs: BTreeSet<(u64, u32)>,
    broken: BTreeSet<(u64, u32)>,
    settled: BTreeSet<u64>,
    acked: BTreeSet<u64>,
    cancelled: BTreeSet<u64>,
    /// The order in which each conversation's final states were sent.
    order: BTreeMap<u64, Vec<u64>>,
    worker_gone: bool,
}

fn name(seq: u64) -> String {
    format!("m{seq}")
}

fn seq_of(message: &str) -> u64 {
    message[1..].parse().expect("our own id")
}

impl World {
    fn new(concurrency: usize) -> Self {
        Self {
            desk: Desk::new(concurrency),
            concurrency,
            delivered: 0,
            look_ups: Vec::new(),
            finals: Vec::new(),
            batches: Vec::new(),
            open: BTreeMap::new(),
            attempts: BTreeMap::new(),
            events: BTreeMap::new(),
            runs: BTreeSet::new(),
            broken: BTreeSet::new(),
            settled: BTreeSet::new(),
            acked: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            order: BTreeMap::new(),
            worker_gone: false,
        }
    }

    fn take(&mut self, step: Step) {
        let now = self.desk.now();
        let todo = match step {
            Step::Deliver { check } if self.delivered < MESSAGES => {
                self.delivered += 1;
                let seq = self.delivered;
                let conversation = format!("c{}", seq % CONVERSATIONS);
                self.desk.deliver_as(seq, envelope(&name(seq), &conversation), check)
            }
            Step::Redeliver(which) if self.delivered > 0 => {
                let seq = which as u64 % self.delivered + 1;
                let conversation = format!("c{}", seq % CONVERSATIONS);
                let todo = self.desk.deliver(seq, &name(seq), &conversation);
                let settled = [Do::Ack { reply: format!("reply {seq}") }];
                assert!(todo == [Do::Release] || todo == settled, "{todo:?}");
                return;
            }
            Step::LookedUp { which, attempts } if !self.look_ups.is_empty() => {
                let seq = self.look_ups.swap_remove(which % self.look_ups.len());
                self.attempts.insert(seq, attempts);
                self.desk.looked_up(seq, None, attempts)
            }
            Step::Stored { which, won } if !self.finals.is_empty() => {
                let (seq, final_) = self.finals.remove(which % self.finals.len());
                self.desk.book.settled(now, seq, won, Box::new(final_))
            }
            Step::TakeBatches => {
                let batches = self.desk.book.take_batches(now, false);
                for batch in &batches {
                    self.published(batch.seq, batch.attempt, &batch.events);
                }
                self.batches.extend(batches);
                return;
            }
            Step::BatchStored(which) if !self.batches.is_empty() => {
                let batch = self.batches.remove(which % self.batches.len());
                self.desk.book.batch_stored(now, batch.seq)
            }
            Step::Text { which, bytes } if self.speaks() => {
                let (id, piece) = (name(which), "x".repeat(bytes));
                self.desk.line(text(&id, &piece))
            }
            Step::Done(which) if self.speaks() => {
                self.open.remove(&which);
                self.desk.line(done(&name(which), "x"))
            }
            Step::Error { which, retryable } if self.speaks() => {
                self.open.remove(&which);
                self.desk.line(error(&name(which), retryable))
            }
            Step::Cancel(which) => {
                if which <= self.delivered {
                    self.cancelled.insert(which);
                }
                self.desk.book.cancel(now, &sender("user"), &id(&name(which)))
            }
            Step::Tick { us, deaf } => {
                self.desk.us += us;
                let now = self.desk.now();
                self.desk.book.tick(now, deaf)
            }
            Step::Pause => {
                self.desk.book.pause();
                return;
            }
            Step::Resume => self.desk.book.resume(now),
            Step::WorkerExited if self.speaks() => {
                self.worker_gone = true;
                self.open.clear();
                self.desk.book.worker_exited(now, "gone")
            }
            _ => return,
        };
        self.perform(todo);
    }

    fn speaks(&self) -> bool {
        !self.worker_gone
    }

    fn perform(&mut self, todo: Vec<Do>) {
        // A slot is free in the book before the next turn is begun: what left it goes first.
        self.open.retain(|seq, attempt| self.desk.book.is_open(*seq, *attempt));
        for act in todo {
            match act {
                Do::LookUp { seq, .. } => self.look_ups.push(seq),
                Do::Tell(ToWorker::Chat { message_id, .. }) => self.told(seq_of(&message_id)),
                Do::Settle { seq, attempt, final_, .. } => {
                    assert!(self.settled.insert(seq), "{seq} is settled once");
                    assert!(!self.acked.contains(&seq), "{seq} is settled before its ack");
                    assert_eq!(attempt, final_.attempts);
                    self.published(seq, attempt, &final_.tail);
                    self.order.entry(seq % CONVERSATIONS).or_default().push(seq);
                    self.finals.push((seq, *final_));
                }
                Do::Ack { reply } | Do::Bury { reply, .. } => {
                    let seq = reply["reply ".len()..].parse().expect("our own reply");
                    assert!(self.acked.insert(seq), "{seq} is acked once");
                    let over = self.settled.contains(&seq) || self.cancelled.contains(&seq);
                    assert!(over, "{seq} is acked once it is final");
                }
                Do::Tell(_) | Do::Note(_) => {}
                Do::EndWorker { .. } => self.worker_gone = true,
                Do::Fetch { .. }
                | Do::Recall { .. }
                | Do::ReadHistory(_)
                | Do::CountTurns { .. }
                | Do::AskPerson { .. }
                | Do::CloseQuestions { .. }
                | Do::Store { .. }
                | Do::Release
                | Do::Ask(_) => panic!("nobody asked for {act:?}"),
            }
        }
        if self.worker_gone && self.desk.book.open() > 0 {
            let now = self.desk.now();
            let todo = self.desk.book.worker_exited(now, "hung");
            self.perform(todo);
        }
    }

    fn told(&mut self, seq: u64) {
        let attempts = self.attempts.entry(seq).or_default();
        *attempts += 1;
        assert!(*attempts <= ATTEMPTS, "{seq} has its attempts and no more");
        assert!(!self.settled.contains(&seq) && !self.acked.contains(&seq), "{seq} is over");
        let others = self.open.keys().filter(|other| *other % CONVERSATIONS == seq % CONVERSATIONS);
        assert_eq!(others.count(), 0, "one turn a conversation");
        let before = (seq, *attempts - 1);
        assert!(
            !self.runs.contains(&before) || self.broken.contains(&before),
            "all of {before:?} is on record"
        );
        self.runs.insert((seq, *attempts));
        self.open.insert(seq, *attempts);
        assert!(self.open.len() <= self.concurrency, "no more turns than the soul allows");
    }

    /// Events go out once, in order, without a gap, and none of an earlier attempt after a later one began.
    fn published(&mut self, seq: u64, attempt: u32, events: &[Event]) {
        assert!(!self.acked.contains(&seq), "nothing after the end");
        let out = self.events.entry((seq, attempt)).or_default();
        for event in events {
            assert_eq!(common::event::attempt_of(event.seq), attempt);
            let next =
                u64::from(attempt - 1) * common::event::ATTEMPT_STRIDE + out.len() as u64 + 1;
            assert_eq!(event.seq, next, "of {seq}");
            out.push(event.seq);
            if let EventBody::Error { .. } = event.body {
                self.broken.insert((seq, attempt));
            }
        }
    }

    /// The broker answers everything and the worker ends whatever it has, until nothing happens any more.
    fn come_to_rest(&mut self) {
        self.take(Step::Resume);
        for _ in 0..400 {
            while !self.look_ups.is_empty() {
                self.take(Step::LookedUp { which: 0, attempts: 0 });
            }
            self.take(Step::TakeBatches);
            while !self.batches.is_empty() {
                self.take(Step::BatchStored(0));
            }
            while !self.finals.is_empty() {
                self.take(Step::Stored { which: 0, won: true });
            }
            let open: Vec<u64> = self.open.keys().copied().collect();
            for seq in open {
                self.take(Step::Done(seq));
            }
            self.take(Step::Tick { us: 10 * SECOND, deaf: false });
        }
    }
}

proptest! {
    #[test]
    fn the_rules_hold_and_everything_ends(
        concurrency in 1..=3_usize,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new(concurrency);
        for step in steps {
            world.take(step);
        }
        world.come_to_rest();
        prop_assert!(world.desk.book.is_idle());
        for sent in world.order.values() {
            prop_assert!(sent.is_sorted(), "final states in journal order: {sent:?}");
        }
        if world.speaks() {
            prop_assert_eq!(world.desk.book.held(), 0);
            prop_assert_eq!(world.acked.len() as u64, world.delivered);
            prop_assert_eq!(world.desk.book.lanes.len(), 0);
            prop_assert_eq!(world.desk.book.next_us(), None);
        }
    }
}
