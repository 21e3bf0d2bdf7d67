//! Messages that are to be delivered later: while this supervisor leads, it gives each to the journal when its time has come.
//!
//! What waits is in LATER, and this is only what follows from there: a new leader reads it once, without the bodies, and then follows it. It
//! sleeps until the next one is due. The time is the broker's, asked for before anything is given; no host's clock counts.
//!
//! Before something is given, everything is read that was stored by then: so a message that is due later never goes before one that is due
//! earlier, in its conversation.

mod book;
mod roster;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker::{Broker, BrokerError, Giving, LaterEnd, LaterFollower, LaterItem, Moment};
use common::Timestamp;
use common::message::{Final, Outcome};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use self::book::{Book, Job, Old};
pub(super) use self::roster::Roster;
use self::roster::Standing;
use super::{Done, Supervisor};

/// How many messages are given at once.
const MOST: usize = 32;
/// The broker's clock is asked for at least this often while something waits.
const CLOCK: Duration = Duration::from_secs(30);
/// A sleep takes at least this long: a clock that goes a bit faster than the broker's must not spin.
const LEAST: Duration = Duration::from_millis(5);
/// The end of the stream is asked for again if it is not reached within this time: its last record may have been removed.
const REACHED: Duration = Duration::from_secs(1);
/// After a fault, a message is tried again after this time, and the stream is followed again.
const AGAIN: Duration = Duration::from_secs(2);
/// An agent that is not known may be on its way through the control log for so long.
const UNKNOWN: Duration = Duration::from_secs(30);
/// How long storing a final state may take.
const STORE: Duration = Duration::from_secs(5);
/// Cancelled messages are kept for this long, and so many of them: they take the room of those that wait.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
const CANCELLED: usize = 50_000;
/// Others are looked for this often, and removed so many at a time; after such a number, the next ones soon.
const TIDY: Duration = Duration::from_secs(3600);
const TIDIED: usize = 500;
const SOON: Duration = Duration::from_secs(1);
/// Faults are told of this often.
const TOLD: Duration = Duration::from_secs(60);

/// What a leadership has for them.
pub(super) struct Later {
    /// How many wait.
    waiting: Arc<AtomicU64>,
    /// Ends it with the leadership.
    _keeping: DropGuard,
}

impl Later {
    pub(super) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

impl Supervisor {
    /// Delivers what is due, as long as this leadership lasts. Another leader that does not know yet that it is over does no harm.
    pub(super) fn keep_later(&mut self) {
        let Some(leading) = self.leading.as_mut() else { return };
        let (over, waiting) = (CancellationToken::new(), Arc::default());
        leading.later =
            Some(Later { waiting: Arc::clone(&waiting), _keeping: over.clone().drop_guard() });
        let (broker, roster) = (self.reads.broker.clone(), Arc::clone(&self.roster));
        let keeper = Keeper { broker, roster, waiting, told: None };
        self.task(async move {
            let _ended = over.run_until_cancelled(keeper.keep()).await;
            Done::Nothing
        });
    }
}

struct Keeper {
    broker: Broker,
    roster: Arc<Roster>,
    waiting: Arc<AtomicU64>,
    /// When a fault was told of.
    told: Option<Instant>,
}

/// What the broker showed: the time, when that was, and up to where LATER has to be read before what is due by then is given.
#[derive(Debug, Clone, Copy)]
struct Look {
    now: Timestamp,
    at: Moment,
    end: u64,
}

/// What has become of a message.
enum Ended {
    Done(Job),
    NotYet(Job, Timestamp),
    Failed(Job, Option<BrokerError>),
    /// What was left of one that had been given before was removed, or could not be.
    Removed(Option<BrokerError>),
    /// So many that were cancelled long ago were removed, or could not be.
    Tidied(Result<usize, BrokerError>),
}

/// What a keeper waits for.
enum Input {
    Item(Result<LaterItem, BrokerError>),
    Ended(Ended),
    Looked(Result<Look, BrokerError>),
    /// The agents are others.
    Agents,
    Wake,
    Tidy,
}

/// What follows from LATER.
struct Run {
    follower: LaterFollower,
    book: Book,
    /// The last sequence that was read.
    seen: u64,
    caught_up: bool,
    clock: Option<Look>,
    looking: Option<BoxFuture<'static, Result<Look, BrokerError>>>,
    /// What was shown, and until when its end is waited for: what is due by then is given once that is read.
    shown: Option<(Look, Instant)>,
    jobs: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// When cancelled messages are looked for; none while some are being removed.
    tidy_at: Option<Instant>,
}

impl Keeper {
    async fn keep(mut self) {
        loop {
            let Err(error) = self.follow().await;
            self.tell("cannot follow the messages that are to be delivered later", &error);
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Goes on until there is a fault; the next run reads what waits anew.
    async fn follow(&mut self) -> Result<std::convert::Infallible, BrokerError> {
        let mut agents = self.roster.changes();
        let mut run = Run {
            follower: self.broker.follow_later().await?,
            book: Book::default(),
            seen: 0,
            caught_up: false,
            clock: None,
            looking: None,
            shown: None,
            jobs: FuturesUnordered::new(),
            tidy_at: Some(Instant::now() + SOON),
        };
        loop {
            self.give(&mut run);
            self.waiting.store(run.book.len() as u64, Ordering::Relaxed);
            match run.next(&mut agents).await {
                Input::Item(item) => self.read(&mut run, item?),
                Input::Ended(ended) => self.ended(&mut run, ended),
                Input::Looked(Ok(look)) => {
                    run.clock = Some(look);
                    run.shown = Some((look, Instant::now() + REACHED));
                }
                Input::Looked(Err(error)) => {
                    self.tell("the broker's time is not known", &error);
                    let broker = self.broker.clone();
                    run.looking = Some(Box::pin(async move {
                        tokio::time::sleep(AGAIN).await;
                        look(broker).await
                    }));
                }
                Input::Agents if run.caught_up => {
                    run.book.hurry(self.roster.gone());
                }
                Input::Agents => {}
                Input::Wake => {
                    run.shown = None;
                    if run.looking.is_none() {
                        run.looking = Some(look(self.broker.clone()).boxed());
                    }
                }
                Input::Tidy => self.tidy(&mut run),
            }
        }
    }

    fn read(&self, run: &mut Run, item: LaterItem) {
        match item {
            LaterItem::Request { seq, at, key, conversation, deliver_at } => {
                run.seen = seq;
                let shard = self.broker.subjects().shard(&key.agent);
                run.book.request(seq, at, (key, conversation), deliver_at, shard);
            }
            LaterItem::Given { seq, key } => {
                run.seen = seq;
                if !run.book.given(&key) {
                    // Its message is in the journal, and whoever gave it there has died before this was removed.
                    let broker = self.broker.clone();
                    run.jobs.push(Box::pin(async move {
                        let dropped = broker.drop_later(Vec::new(), vec![seq]).await;
                        Ended::Removed(dropped.err())
                    }));
                }
            }
            LaterItem::Final { seq, at, key } => {
                run.seen = seq;
                run.book.ended(&key, seq, at);
            }
            LaterItem::Unknown { seq } => run.seen = seq,
            LaterItem::CaughtUp => {
                run.caught_up = true;
                // Those of agents that were removed while nobody led.
                run.book.hurry(self.roster.gone());
            }
        }
    }

    /// Begins with what is due, as far as there is room.
    fn give(&self, run: &mut Run) {
        let Some((look, _)) = run.shown.filter(|(look, _)| run.seen >= look.end) else { return };
        for job in run.book.take(look.now, MOST.saturating_sub(run.book.working())) {
            let (broker, roster) = (self.broker.clone(), Arc::clone(&self.roster));
            run.jobs.push(Box::pin(async move { work(&broker, &roster, job, look.now).await }));
        }
        if run.book.next().is_none_or(|next| next > look.now) {
            run.shown = None;
        }
    }

    fn ended(&mut self, run: &mut Run, ended: Ended) {
        match ended {
            Ended::Done(job) => run.book.done(&job),
            Ended::NotYet(job, due) => run.book.not_yet(job, due),
            Ended::Failed(job, error) => {
                let now = run.now().unwrap_or_default();
                let passes = error.as_ref().is_some_and(BrokerError::passes);
                if let Some(error) = error {
                    let what = format!("cannot deliver message {} of later", job.key.message_id);
                    self.tell(&what, &error);
                }
                match passes {
                    true => run.book.not_taken(job, now),
                    false => run.book.again(job, now.after(AGAIN)),
                }
            }
            Ended::Removed(None) => {}
            Ended::Removed(Some(error)) => {
                self.tell("cannot remove what is left of a message that was delivered", &error);
            }
            Ended::Tidied(tidied) => {
                let is_all = tidied.as_ref().is_ok_and(|tidied| *tidied < TIDIED);
                run.tidy_at = Some(Instant::now() + if is_all { TIDY } else { SOON });
                if let Err(error) = tidied {
                    // Those are found again with the next leadership.
                    self.tell("cannot remove messages that were cancelled long ago", &error);
                }
            }
        }
    }

    fn tidy(&self, run: &mut Run) {
        run.tidy_at = Some(Instant::now() + SOON);
        let old = match run.now() {
            // All that waits is read first.
            _ if !run.caught_up => return,
            Some(now) => {
                let kept = u64::try_from(KEPT.as_millis()).unwrap_or(u64::MAX);
                let before = Timestamp::from_millis(now.as_millis().saturating_sub(kept));
                run.book.old(before, CANCELLED, TIDIED)
            }
            None if run.book.has_ended() => {
                if run.looking.is_none() {
                    run.looking = Some(look(self.broker.clone()).boxed());
                }
                return;
            }
            None => Old::default(),
        };
        if old.finals.is_empty() {
            run.tidy_at = Some(Instant::now() + TIDY);
            return;
        }
        run.tidy_at = None;
        let broker = self.broker.clone();
        run.jobs.push(Box::pin(async move {
            let tidied = old.finals.len();
            Ended::Tidied(remove(&broker, old).await.map(|()| tidied))
        }));
    }

    /// Tells of a fault, once a minute.
    fn tell(&mut self, what: &str, error: &BrokerError) {
        if self.told.is_none_or(|told| told.elapsed() >= TOLD) {
            self.told = Some(Instant::now());
            tracing::warn!("{what}: {error}");
        }
    }
}

impl Run {
    /// The broker's time, carried on by the boot clock.
    fn now(&self) -> Option<Timestamp> {
        self.clock.map(|look| look.now.after(Moment::now().since(look.at)))
    }

    /// When the broker is to be asked for its time; none: something else happens before.
    fn wake(&self) -> Option<Instant> {
        if !self.caught_up || self.looking.is_some() {
            return None;
        }
        if let Some((look, until)) = self.shown {
            // What it has not read yet comes, or is gone; and what is left waits for room.
            return (self.seen < look.end).then_some(until);
        }
        let next = self.book.next()?;
        let Some(now) = self.now() else { return Some(Instant::now()) };
        Some(Instant::now() + next.since(now).clamp(LEAST, CLOCK))
    }

    async fn next(&mut self, agents: &mut watch::Receiver<()>) -> Input {
        let wait = async |until: Option<Instant>| match until {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        };
        let (wake, tidy) = (wait(self.wake()), wait(self.tidy_at));
        let looking = &mut self.looking;
        let looked = async {
            match looking {
                Some(look) => {
                    let looked = look.await;
                    *looking = None;
                    looked
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            item = self.follower.next() => Input::Item(item),
            Some(ended) = self.jobs.next(), if !self.jobs.is_empty() => Input::Ended(ended),
            looked = looked => Input::Looked(looked),
            Ok(()) = agents.changed() => Input::Agents,
            () = wake => Input::Wake,
            () = tidy => Input::Tidy,
        }
    }
}

async fn remove(broker: &Broker, old: Old) -> Result<(), BrokerError> {
    let Old { mut requests, unknown, finals } = old;
    for key in unknown {
        requests.extend(broker.place_in_later(&key).await?);
    }
    broker.drop_later(requests, finals).await
}

/// The time first: what is stored later than that is due later, or late.
async fn look(broker: Broker) -> Result<Look, BrokerError> {
    let now = broker.clock().await?;
    let at = Moment::now();
    let end = broker.end_of_later().await?;
    Ok(Look { now, at, end })
}

/// Gives a message to the journal, or cancels it.
async fn work(broker: &Broker, roster: &Roster, job: Job, now: Timestamp) -> Ended {
    let (outcome, reason) = match roster.standing(&job.key.agent, job.at) {
        Standing::There => match broker.give_later(of(&job), job.seq, now).await {
            Ok(Giving::Unreadable(reason)) => (Outcome::Failed, reason),
            given => return given_to_journal(job, given),
        },
        Standing::Unknown if now.since(job.at) < UNKNOWN => return Ended::Failed(job, None),
        Standing::Unknown => (Outcome::Cancelled, format!("there is no agent {}", job.key.agent)),
        Standing::Removed => (Outcome::Cancelled, format!("agent {} was removed", job.key.agent)),
    };
    let final_ = Final {
        status: outcome,
        response: None,
        reason: Some(reason),
        attempts: 0,
        incarnation: None,
        at: now,
        tail: Vec::new(),
    };
    let author = format!("leader.{}", Uuid::now_v7());
    match broker.end_later(of(&job), job.seq, &final_, &author, STORE).await {
        Ok(LaterEnd::Won | LaterEnd::Lost(_) | LaterEnd::Gone) => Ended::Done(job),
        // That was decided when the agent was there.
        Ok(LaterEnd::Given) => {
            let given = broker.give_later(of(&job), job.seq, now).await;
            given_to_journal(job, given)
        }
        Err(error) => Ended::Failed(job, Some(error)),
    }
}

fn of(job: &Job) -> (&common::message::MessageKey, &common::ConversationTag) {
    (&job.key, &job.conversation)
}

fn given_to_journal(job: Job, given: Result<Giving, BrokerError>) -> Ended {
    match given {
        Ok(Giving::Done | Giving::Ended | Giving::Gone) => Ended::Done(job),
        Ok(Giving::Other) => {
            let id = &job.key.message_id;
            tracing::warn!("message {id} is not delivered: another one of its id was sent since");
            Ended::Done(job)
        }
        Ok(Giving::NotYet(due)) => Ended::NotYet(job, due),
        Ok(Giving::Unreadable(reason)) => Ended::Failed(job, Some(BrokerError::Refused(reason))),
        Err(error) => Ended::Failed(job, Some(error)),
    }
}
