//! What a shim may not read by itself it asks of the supervisors, any of which answers (`answer.rs`). Everything that it writes it writes
//! itself: no supervisor is needed as long as nothing has to be looked up.

use std::time::Duration;

use bytes::Bytes;
use common::AgentName;
use common::codec;
use common::frame::ask::{ShimAnswer, ShimAsk, Told, ToldRecord};

use tokio::time::Instant;

use crate::api::Record;
use crate::attempts::AttemptMark;
use crate::clock::Moment;
use crate::connection::Broker;
use crate::consumer::ConsumerState;
use crate::error::{BrokerError, Result};
use crate::find::Standing;
use crate::journal::{AUTHOR, Stored, encode, read_final};
use crate::wire::{CALL, PAUSE};

/// A connection with the rights of one incarnation's shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsShim {
    /// The agent.
    pub agent: AgentName,
    /// The incarnation.
    pub incarnation: u64,
    /// How many streams the journal has.
    pub shards: u32,
    /// How many replicas the streams have.
    pub replicas: usize,
    /// User and password.
    pub login: (String, String),
}

/// How long the supervisors may take to tell the time to somebody who has just connected: without it, deadlines pass later.
const TIME_WITHIN: Duration = Duration::from_secs(2);

impl Broker {
    /// Asks the supervisors, until one answers.
    async fn ask_supervisors(
        &self,
        shim: &AsShim,
        ask: &ShimAsk,
        within: Duration,
    ) -> Result<Told> {
        let subject = self.subjects().shim_ask(&shim.agent, shim.incarnation).into();
        let frame = codec::encode(ask).map_err(BrokerError::other)?;
        let answer = self.wire().request(&subject, || None, frame.into(), within).await?;
        let ShimAnswer { at, told } =
            codec::decode(&answer.message.payload).map_err(BrokerError::other)?;
        self.wire().clock.learn(answer.asked, Moment::now(), at);
        refusal(told)
    }

    /// The answer of the supervisors to a shim; none if this connection may look for itself.
    pub(crate) async fn asked(&self, ask: impl FnOnce() -> ShimAsk) -> Result<Option<Told>> {
        self.asked_within(CALL, ask).await
    }

    /// The same, within a time.
    pub(crate) async fn asked_within(
        &self,
        within: Duration,
        ask: impl FnOnce() -> ShimAsk,
    ) -> Result<Option<Told>> {
        match self.as_shim() {
            Some(shim) => self.ask_supervisors(shim, &ask(), within).await.map(Some),
            None => Ok(None),
        }
    }

    /// The same, of what must not wait until there is a supervisor.
    pub(crate) async fn asked_if_anyone(&self, ask: impl FnOnce() -> ShimAsk) -> Result<Answered> {
        let Some(shim) = self.as_shim() else { return Ok(Answered::ByItself) };
        let (deadline, ask) = (Instant::now() + CALL, ask());
        let frame = Bytes::from(codec::encode(&ask).map_err(BrokerError::other)?);
        let subject = self.subjects().shim_ask(&shim.agent, shim.incarnation);
        // One that is being replaced by another leaves nobody for a moment.
        for pause in [PAUSE, 2 * PAUSE, 4 * PAUSE] {
            match self.ask(subject.clone(), frame.clone(), CALL).await {
                Err(BrokerError::Other(_)) => pause_until(pause, deadline).await,
                Err(error) => return Err(error),
                Ok(answer) => {
                    let ShimAnswer { told, .. } =
                        codec::decode(&answer).map_err(BrokerError::other)?;
                    return refusal(told).map(Answered::Told);
                }
            }
        }
        Ok(Answered::Nobody)
    }

    /// Learns what the broker's clock shows, as far as a supervisor is there to tell.
    pub(crate) async fn learn_time(&self, shim: &AsShim) {
        if let Err(error) = self.ask_supervisors(shim, &ShimAsk::Time, TIME_WITHIN).await {
            tracing::debug!(%error, "the broker's time is not known");
        }
    }
}

/// What became of a question that does not wait for a supervisor.
pub(crate) enum Answered {
    /// The connection may look for itself.
    ByItself,
    /// There is no supervisor.
    Nobody,
    /// It was answered.
    Told(Told),
}

async fn pause_until(pause: Duration, deadline: Instant) {
    tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
}

fn refusal(told: Told) -> Result<Told> {
    if let Told::Refused(why) = told { Err(BrokerError::Refused(why)) } else { Ok(told) }
}

/// An answer that does not fit the question.
pub(crate) fn unexpected(told: &Told) -> BrokerError {
    BrokerError::Other(format!("a supervisor's answer that was not asked for: {told:?}"))
}

pub(crate) fn flag(told: &Told) -> Result<bool> {
    if let Told::Is(is) = told { Ok(*is) } else { Err(unexpected(told)) }
}

pub(crate) fn done(told: &Told) -> Result<()> {
    if *told == Told::Done { Ok(()) } else { Err(unexpected(told)) }
}

pub(crate) fn record(told: Told) -> Result<Option<Record>> {
    if told == Told::Nothing {
        return Ok(None);
    }
    if let Told::Record(record) = told { Ok(Some(record.into())) } else { Err(unexpected(&told)) }
}

pub(crate) fn records(told: Told) -> Result<(Vec<Record>, bool)> {
    if let Told::Records(records, more) = told {
        return Ok((records.into_iter().map(Record::from).collect(), more));
    }
    Err(unexpected(&told))
}

pub(crate) fn standing(told: Told) -> Result<Standing> {
    if told == Told::Open {
        return Ok(Standing::Open);
    }
    let final_ = record(told)?;
    Ok(final_.map_or(Standing::Gone, |record| Standing::Final(read_final(&record))))
}

pub(crate) fn mark(told: &Told) -> Result<Option<AttemptMark>> {
    if let Told::Mark { attempt, incarnation, ended } = *told {
        return Ok(Some(AttemptMark { attempt, incarnation, ended }));
    }
    if *told == Told::Nothing { Ok(None) } else { Err(unexpected(told)) }
}

pub(crate) fn consumer(told: &Told) -> Result<Option<ConsumerState>> {
    if let Told::Consumer { start, ack_floor, delivered, given, pending, ack_pending, created } =
        *told
    {
        return Ok(Some(ConsumerState {
            start,
            ack_floor,
            delivered,
            given,
            pending,
            ack_pending,
            created,
        }));
    }
    if *told == Told::Nothing { Ok(None) } else { Err(unexpected(told)) }
}

pub(crate) fn room(told: Told) -> Result<(u64, String)> {
    if let Told::Room { left, cause } = told { Ok((left, cause)) } else { Err(unexpected(&told)) }
}

impl From<ToldRecord> for Record {
    fn from(told: ToldRecord) -> Self {
        let mut headers = async_nats::HeaderMap::new();
        if let Some(author) = told.author {
            headers.insert(AUTHOR, author);
        }
        let ToldRecord { subject, seq, at, payload, .. } = told;
        Self { subject, seq, at, headers, payload: payload.into() }
    }
}

impl From<&Record> for ToldRecord {
    fn from(record: &Record) -> Self {
        Self {
            subject: record.subject.clone(),
            seq: record.seq,
            at: record.at,
            author: record.header(AUTHOR).map(str::to_owned),
            payload: record.payload.to_vec(),
        }
    }
}

/// A parsed record, as it is told.
pub(crate) fn told<T: serde::Serialize>(subject: String, stored: &Stored<T>) -> Result<Told> {
    let payload = encode(&stored.value)?.to_vec();
    let Stored { seq, at, .. } = *stored;
    Ok(Told::Record(ToldRecord { subject, seq, at, author: None, payload }))
}
