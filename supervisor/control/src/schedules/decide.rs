//! Work on what is due: a record in SCHEDULES that says what becomes of an occurrence, and then its message.
//!
//! The record comes first, by a compare-and-set: whoever stores it has decided. A leader that ends between the two leaves a record whose message is
//! missing; the next leader stores that first of all. Until the next occurrence, the record itself says whether that may be so.

use std::time::Duration;

use broker::{BrokerError, Moment, SendOutcome, Standing};
use common::message::Envelope;
use common::schedule::{
    Fate, Occurrences, Overlap, SkipReason, Step, message_key, occurrence_id, plan, trigger,
};
use common::{AgentName, MessageId, Timestamp};
use futures_util::StreamExt as _;

use super::super::reads::Reads;
use super::Key;
use super::book::{Job, Known};

/// How many are worked on at once.
const AT_ONCE: usize = 32;
/// How long storing a message may take.
const STORE: Duration = Duration::from_secs(5);
/// A record whose message is stored says so, if no other record of its schedule follows within this time: a message that has left the journal in
/// the meantime must not come back.
const CONFIRM: Duration = Duration::from_secs(600);
/// A message that is to be stored this long after its record may have been stored by another leader, and be in the history by now.
const FRESH: Duration = Duration::from_secs(5);

/// What work on a schedule has come to.
#[derive(Debug)]
pub(in super::super) struct Decided {
    pub(super) key: Key,
    pub(super) number: u64,
    /// Its last record; none: somebody else has written one, and it has to be read again.
    pub(super) known: Option<Known>,
    /// When there is something to do again.
    pub(super) next: Option<Timestamp>,
    /// Why it could not be finished: it is tried again.
    pub(super) fault: Option<BrokerError>,
}

/// Where it is stored what becomes of occurrences.
pub(super) trait Places: Sync {
    /// Stores a record of a schedule after the one at `last`. Its sequence; none if there is another one.
    fn store(
        &self,
        key: &Key,
        record: &Occurrences,
        last: u64,
    ) -> impl Future<Output = Result<Option<u64>, BrokerError>> + Send;

    /// Whether a message of a schedule has no final state.
    fn is_open(
        &self,
        agent: &AgentName,
        message: &MessageId,
    ) -> impl Future<Output = Result<bool, BrokerError>> + Send;

    /// Stores a message, if it is not there. `fresh`: nobody else can have stored it long ago.
    fn send(
        &self,
        envelope: &Envelope,
        fresh: bool,
    ) -> impl Future<Output = Result<(), BrokerError>> + Send;

    /// A clock that never goes back.
    fn moment(&self) -> Moment;
}

impl Places for Reads {
    async fn store(
        &self,
        (agent, id): &Key,
        record: &Occurrences,
        last: u64,
    ) -> Result<Option<u64>, BrokerError> {
        self.broker.store_occurrences((agent, id), record, last).await
    }

    async fn is_open(&self, agent: &AgentName, message: &MessageId) -> Result<bool, BrokerError> {
        let key = message_key(agent, message.clone());
        Ok(self.broker.standing_of(&key).await? == Standing::Open)
    }

    async fn send(&self, envelope: &Envelope, fresh: bool) -> Result<(), BrokerError> {
        let outcome = match fresh {
            true => self.broker.send(envelope, STORE).await?,
            false => self.broker.send_again(envelope, STORE).await?,
        };
        if let SendOutcome::Conflict { .. } = outcome {
            let Envelope { message_id, agent, .. } = envelope;
            tracing::error!(
                "message {message_id} of a schedule to {agent} is there with another content: somebody has sent it under this name"
            );
        }
        Ok(())
    }

    fn moment(&self) -> Moment {
        Moment::now()
    }
}

/// Works on schedules, some at a time.
pub(super) async fn all(
    places: &impl Places,
    jobs: Vec<Job>,
    term: Option<u64>,
    author: &str,
) -> Vec<Decided> {
    let work = jobs.into_iter().map(|job| one(places, job, term, author));
    futures_util::stream::iter(work).buffer_unordered(AT_ONCE).collect().await
}

pub(super) async fn one(
    places: &impl Places,
    mut job: Job,
    term: Option<u64>,
    author: &str,
) -> Decided {
    let done = work(places, &mut job, term, author).await;
    let Job { key, number, known, .. } = job;
    match done {
        Ok(Some(next)) => Decided { key, number, known: Some(known), next, fault: None },
        Ok(None) => Decided { key, number, known: None, next: None, fault: None },
        Err(fault) => Decided { key, number, known: Some(known), next: None, fault: Some(fault) },
    }
}

/// When there is something to do again, if this is who decides.
async fn work(
    places: &impl Places,
    job: &mut Job,
    term: Option<u64>,
    author: &str,
) -> Result<Option<Option<Timestamp>>, BrokerError> {
    let mut sent = false;
    if let Some(record) = &job.known.record
        && let Some(message) = record.unconfirmed()
    {
        // A schedule that is back in the soul begins anew.
        if record.nominal.is_some_and(|nominal| nominal >= job.facts.since) {
            send(places, job, message, record.nominal, None).await?;
        }
        sent = true;
    }
    let plan = plan(&job.key.1, &job.schedule.options, &job.times, &job.facts);
    for step in plan.steps {
        let overlaps = match (&step, job.schedule.options.overlap) {
            (Step::Run { .. }, Overlap::Skip) => overlapped(places, job).await?,
            (Step::Run { .. }, Overlap::Queue) | (Step::Skip { .. }, _) => None,
        };
        let last = job.known.record.as_ref().and_then(|record| record.last.clone());
        let mut record = record(job, step, overlaps, last);
        (record.term, record.author) = (term, author.to_owned());
        let began = places.moment();
        if !store(places, job, record).await? {
            return Ok(None);
        }
        sent = false;
        if let Some(record) = &job.known.record
            && let Some(message) = record.unconfirmed()
        {
            send(places, job, message, record.nominal, Some(began)).await?;
            sent = true;
        }
    }
    let is_far = plan.next.is_none_or(|next| next.since(job.facts.now) > CONFIRM);
    if sent && is_far {
        let confirmed =
            job.known.record.clone().map(|record| Occurrences { stored: true, ..record });
        if let Some(confirmed) = confirmed
            && !store(places, job, confirmed).await?
        {
            return Ok(None);
        }
    }
    Ok(Some(plan.next))
}

/// The message of an earlier occurrence, if it is not finished.
async fn overlapped(places: &impl Places, job: &Job) -> Result<Option<MessageId>, BrokerError> {
    let last = job.known.record.as_ref().and_then(|record| record.last.as_ref());
    Ok(match last {
        Some(last) if places.is_open(&job.key.0, last).await? => Some(last.clone()),
        Some(_) | None => None,
    })
}

/// What a step is on record. `overlaps`: the open message of an earlier occurrence.
fn record(
    job: &Job,
    step: Step,
    overlaps: Option<MessageId>,
    last: Option<MessageId>,
) -> Occurrences {
    let at = job.facts.now;
    let record = |nominal, from, count, more, fate, last, stored| Occurrences {
        nominal: Some(nominal),
        from,
        count,
        more,
        fate,
        last,
        stored,
        at,
        term: None,
        author: String::new(),
    };
    match (step, overlaps) {
        (Step::Run { nominal, from, count }, Some(open)) => {
            let detail = Some(format!("message {open} is open"));
            let fate = Fate::Skipped { reason: SkipReason::Overlap, detail };
            record(nominal, from, count, false, fate, last, true)
        }
        (Step::Run { nominal, from, count }, None) => {
            let message_id = occurrence_id(&job.key.1, nominal);
            let fate = Fate::Ran { message_id: message_id.clone() };
            record(nominal, from, count, false, fate, Some(message_id), false)
        }
        (Step::Skip { nominal, from, count, more, reason, detail }, _) => {
            record(nominal, from, count, more, Fate::Skipped { reason, detail }, last, true)
        }
    }
}

/// Whether the record is stored after the one that is known.
async fn store(
    places: &impl Places,
    job: &mut Job,
    record: Occurrences,
) -> Result<bool, BrokerError> {
    let stored = places.store(&job.key, &record, job.known.seq).await?;
    if let Some(seq) = stored {
        job.known = Known { seq, record: Some(record) };
    }
    Ok(stored.is_some())
}

/// Stores the message of an occurrence, if it is not there. `began`: when its record was stored, if that was here and now.
async fn send(
    places: &impl Places,
    job: &Job,
    message: &MessageId,
    nominal: Option<Timestamp>,
    began: Option<Moment>,
) -> Result<(), BrokerError> {
    let (agent, id) = &job.key;
    let envelope = trigger(agent, (id, &job.schedule), message.clone(), nominal, job.facts.now);
    let fresh = began.is_some_and(|began| places.moment().since(began) < FRESH);
    places.send(&envelope, fresh).await
}
