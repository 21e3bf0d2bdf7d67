//! Following a stream forever: an ordered push consumer, recreated where it left off whenever anything looks wrong.
//!
//! The consumer is in memory and without acks, so that a record reaches the follower as soon as it is stored. A gap in the
//! consumer's own numbers, silence, and a reconnect all end the same way: a new consumer after the last record that was given.
//!
//! A server that died may have lost the end of a stream that is not synced, and reuses its sequences. If that is
//! expected, the follower resumes by time; if not, it returns an error.

use std::fmt;
use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::{Message, StatusCode, Subscriber, datetime};
use common::Timestamp;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

use crate::ack::AckSubject;
use crate::api::{ApiError, code};
use crate::connection::queued;
use crate::error::{BrokerError, Result};
use crate::poll::{self, Poll, Polled};
use crate::quiet::Quiet;
use crate::wire::{CALL, PAUSE, Wire, jitter};

const HEARTBEAT: Duration = Duration::from_secs(5);

/// Two heartbeats and a bit.
const SILENCE: Duration = Duration::from_secs(12);

/// Consumers that are tried, one after the other, where each is said to be there already.
const CREATES: u32 = 5;

/// The pause before a server that made no consumer is asked again.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// What a follower yields.
pub(crate) enum Followed {
    /// A record, its stream sequence, and when it was stored.
    Message { seq: u64, at: Timestamp, message: Message },
    /// All that was stored at the start has been given; once.
    CaughtUp,
}

/// What and where to follow.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) stream: String,
    pub(crate) filter: String,
    /// The first sequence that is wanted.
    pub(crate) from: u64,
    /// What the stream's end is worth once its server has died.
    pub(crate) end: End,
    /// Whether only the headers are wanted.
    pub(crate) bare: bool,
}

/// Whether a stream may end earlier after a restart than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Every answered record stays: an earlier end is an error.
    Firm,
    /// The same, and records are removed anywhere, also before they were followed.
    Thinned,
    /// The last records may be lost, and their numbers given again.
    Soft,
}

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Begin {
    /// At the sequence, which nobody has seen yet.
    First,
    /// At the sequence, on the connection that gave the ones before it.
    Next,
    /// After the last record that was given, on a server that may be another process. In nanoseconds since 1970.
    After(u64),
}

/// A run through a stream.
pub(crate) struct Follower {
    wire: Wire,
    source: Source,
    phase: Phase,
    /// Stored records not given yet, until the caller was told that it caught up.
    left: Option<u64>,
    /// When the last record that was given was stored, or when the first run began. In nanoseconds since 1970.
    seen: u64,
}

enum Phase {
    Polling(Box<Poll>),
    Starting(BoxFuture<'static, Result<Started>>),
    Running(Run),
}

/// A run, and how many records are stored for it; or why the server made no consumer.
type Started = std::result::Result<(Run, u64), ApiError>;

/// A consumer and its subscription.
struct Run {
    messages: Subscriber,
    consumer: String,
    epoch: u64,
    /// The consumer sequence of the next message.
    expected: u64,
    heard: Instant,
    /// When it began, by the server's clock. In nanoseconds since 1970.
    began: u64,
}

#[derive(Deserialize)]
struct Created {
    #[serde(default)]
    num_pending: u64,
    #[serde(default)]
    created: String,
    delivered: Delivered,
}

#[derive(Deserialize)]
struct Delivered {
    consumer_seq: u64,
}

/// What one message means to a run.
enum Heard {
    Record {
        seq: u64,
        pending: u64,
        time: u64,
    },
    Nothing,
    /// The consumer has nothing that we do not have.
    Idle,
    /// The server waits for this to be answered.
    Answer(String),
    Gap,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("source", &self.source)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Follower {
    /// Starts to follow: the consumer exists when this returns.
    pub(crate) async fn start(wire: &Wire, source: Source) -> Result<Self> {
        if wire.polls {
            let polling = Box::new(Poll::start(wire, source.clone()).await?);
            let phase = Phase::Polling(polling);
            return Ok(Self { wire: wire.clone(), source, seen: 0, phase, left: None });
        }
        let (run, left) = start(wire.clone(), source.clone(), Begin::First).await??;
        Ok(Self {
            wire: wire.clone(),
            source,
            seen: run.began,
            phase: Phase::Running(run),
            left: Some(left),
        })
    }

    /// The next item; waits forever. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Followed> {
        loop {
            match &mut self.phase {
                Phase::Polling(poll) => {
                    return Ok(match poll.next().await? {
                        Polled::CaughtUp => Followed::CaughtUp,
                        Polled::Record(record) => {
                            let (seq, at) = (record.seq, record.at);
                            Followed::Message { seq, at, message: poll::message(&record) }
                        }
                    });
                }
                Phase::Starting(starting) => match starting.await {
                    Ok(Ok((run, left))) => {
                        self.left = self.left.map(|_| left);
                        self.phase = Phase::Running(run);
                    }
                    // It was followed before, and will be again: a part of a cluster, or a full server, may refuse for a while.
                    Ok(Err(error)) if error.err_code != code::STREAM_NOT_FOUND => {
                        static REFUSED: Quiet = Quiet::new();
                        if let Some(others) = REFUSED.count() {
                            let stream = &self.source.stream;
                            let error = BrokerError::from(error);
                            tracing::warn!("cannot follow {stream} just now: {error}{others}");
                        }
                        self.restart("refused", Begin::After(self.seen), REFUSED_PAUSE);
                    }
                    Ok(Err(error)) => {
                        self.reconnected();
                        return Err(error.into());
                    }
                    Err(error) if error.is_transient() => self.reconnected(),
                    Err(error) => {
                        // The caller may go on: not with a future that is used up.
                        self.reconnected();
                        return Err(error);
                    }
                },
                Phase::Running(run) => {
                    if self.left == Some(0) {
                        self.left = None;
                        return Ok(Followed::CaughtUp);
                    }
                    let message = tokio::select! {
                        biased;
                        message = run.messages.next() => message,
                        () = self.wire.reconnected(run.epoch) => {
                            self.reconnected();
                            continue;
                        }
                        () = sleep_until(run.heard + SILENCE) => {
                            self.restart("silence", Begin::Next, PAUSE);
                            continue;
                        }
                    };
                    let Some(message) = message else {
                        return Err(BrokerError::other("the client is closed"));
                    };
                    run.heard = Instant::now();
                    match run.hear(&message, &self.source.stream) {
                        Heard::Record { seq, pending, time } => {
                            run.expected += 1;
                            self.seen = time;
                            self.source.from = seq + 1;
                            self.left = self.left.map(|left| left.saturating_sub(1).min(pending));
                            let at = Timestamp::from_millis(time / 1_000_000);
                            return Ok(Followed::Message { seq, at, message });
                        }
                        Heard::Nothing => {}
                        Heard::Idle => self.left = self.left.map(|_| 0),
                        Heard::Answer(reply) => {
                            // Lost with the connection or by a cancelled call: the next heartbeat asks again.
                            queued(self.wire.client.publish(reply, bytes::Bytes::new())).await?;
                        }
                        Heard::Gap => self.restart("a gap", Begin::Next, PAUSE),
                    }
                }
            }
        }
    }

    fn reconnected(&mut self) {
        self.restart("reconnected", Begin::After(self.seen), Duration::ZERO);
    }

    fn restart(&mut self, why: &str, begin: Begin, after: Duration) {
        let (wire, source) = (self.wire.clone(), self.source.clone());
        tracing::debug!(stream = source.stream, from = source.from, why, "following anew");
        self.phase = Phase::Starting(Box::pin(async move {
            sleep(jitter(after)).await;
            start(wire, source, begin).await
        }));
    }
}

impl Run {
    fn hear(&self, message: &Message, stream: &str) -> Heard {
        if message.status == Some(StatusCode::IDLE_HEARTBEAT) {
            return self.hear_status(message);
        }
        let reply = message.reply.as_deref().and_then(AckSubject::parse);
        match reply {
            Some(reply) if reply.stream == stream && reply.consumer == self.consumer => {
                if reply.consumer_seq == self.expected {
                    Heard::Record {
                        seq: reply.stream_seq,
                        pending: reply.pending,
                        time: reply.time,
                    }
                } else {
                    Heard::Gap
                }
            }
            // Not from our consumer: nothing that anybody can send to an inbox is believed.
            Some(_) | None => Heard::Nothing,
        }
    }

    fn hear_status(&self, message: &Message) -> Heard {
        if let Some(reply) = &message.reply {
            return Heard::Answer(reply.to_string());
        }
        let header = |name: &'static str| {
            let headers = message.headers.as_ref()?;
            headers.get(name).map(|value| value.as_str())
        };
        if let Some(stalled) = header("Nats-Consumer-Stalled") {
            return Heard::Answer(stalled.to_owned());
        }
        match header("Nats-Last-Consumer").and_then(|last| last.parse::<u64>().ok()) {
            Some(last) if last + 1 == self.expected => Heard::Idle,
            Some(last) if last + 1 > self.expected => Heard::Gap,
            Some(_) | None => Heard::Nothing,
        }
    }
}

/// On a cluster, records that were followed are lost only if they are missing for so long: an election is over by then, and with it whatever
/// a server answers that does not know yet that it was deposed. Whoever follows ends because of it.
const LOST: Duration = Duration::from_secs(10);

/// Where a stream begins and ends that lacks what was followed of it; none if it has that. `end`: what must be there.
pub(crate) async fn lost(wire: &Wire, source: &Source, end: End) -> Result<Option<(u64, u64)>> {
    let deadline = Instant::now() + LOST;
    loop {
        let state = wire.stream_info(&source.stream, CALL).await??.state;
        let (first, last) = (state.first_seq, state.last_seq);
        let is_cut = end == End::Firm && source.from < first;
        if last + 1 >= source.from && !is_cut {
            return Ok(None);
        }
        let is_clustered = wire.client.server_info().cluster.is_some();
        if !is_clustered || end == End::Soft || Instant::now() >= deadline {
            return Ok(Some((first, last)));
        }
        sleep(jitter(REFUSED_PAUSE)).await;
    }
}

/// What was followed of a stream and is there no more.
pub(crate) fn loss(source: &Source, (first, last): (u64, u64)) -> BrokerError {
    let (stream, seen) = (&source.stream, source.from - 1);
    BrokerError::Other(format!(
        "{stream} lost records: #{seen} was seen, and now it begins at #{first} and ends at #{last}"
    ))
}

/// Where the consumer is to begin.
async fn policy(wire: &Wire, source: &Source, begin: Begin) -> Result<DeliverPolicy> {
    let at_sequence = DeliverPolicy::ByStartSequence { start_sequence: source.from.max(1) };
    match (begin, source.end) {
        (Begin::First, _) | (Begin::Next, End::Soft) => Ok(at_sequence),
        (Begin::After(seen), End::Soft) => {
            let start_time =
                datetime::from_nanos(i128::from(seen) + 1).map_err(BrokerError::other)?;
            Ok(DeliverPolicy::ByStartTime { start_time })
        }
        // Also after a gap: a cluster that was killed as a whole makes the consumer again, from where that once began.
        (Begin::Next | Begin::After(_), End::Firm | End::Thinned) => {
            match lost(wire, source, source.end).await? {
                Some(extent) => Err(loss(source, extent)),
                None => Ok(at_sequence),
            }
        }
    }
}

/// Makes the consumer.
async fn start(wire: Wire, source: Source, begin: Begin) -> Result<Started> {
    let policy = policy(&wire, &source, begin).await?;
    let mut tries = 0;
    loop {
        tries += 1;
        match create(&wire, &source, &policy).await? {
            Ok(started) => return Ok(Ok(started)),
            // A server that stood still finds the request more than once, as it was repeated meanwhile, and may answer the last.
            // Whatever the first made is gone with its subscription.
            Err(error) if is_there(&error) && tries < CREATES => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

fn is_there(error: &ApiError) -> bool {
    [code::CONSUMER_EXISTS, code::CONSUMER_NAME_EXISTS].contains(&error.err_code)
}

/// Makes a consumer under a name that was never used, for a subscription of its own.
async fn create(wire: &Wire, source: &Source, policy: &DeliverPolicy) -> Result<Started> {
    let epoch = wire.up(Instant::now() + CALL, CALL).await?;
    let inbox = wire.client.new_inbox();
    let messages = wire.client.subscribe(inbox.clone()).await.map_err(BrokerError::other)?;
    let consumer = format!("follow-{}", inbox.rsplit('.').next().unwrap_or_default());
    let Source { stream, filter, .. } = source;
    let mut config = json!({
        "name": consumer,
        "deliver_subject": inbox,
        "filter_subject": filter,
        "ack_policy": "none",
        "max_deliver": 1,
        "replay_policy": "instant",
        "flow_control": true,
        "idle_heartbeat": HEARTBEAT.as_nanos(),
        "mem_storage": true,
        "num_replicas": 1,
    });
    if source.bare {
        config["headers_only"] = true.into();
    }
    let policy = serde_json::to_value(policy).map_err(BrokerError::other)?;
    if let (Value::Object(config), Value::Object(policy)) = (&mut config, policy) {
        config.extend(policy);
    }
    let body = json!({ "stream_name": stream, "action": "create", "config": config });
    let what = format!("CONSUMER.CREATE.{stream}.{consumer}.{filter}");
    let created: Created = match wire.api(&what, &body, CALL).await? {
        Ok(created) => created,
        Err(error) => return Ok(Err(error)),
    };
    let run = Run {
        messages,
        consumer,
        epoch,
        expected: 1,
        heard: Instant::now(),
        began: nanos(&created.created),
    };
    Ok(Ok((run, created.num_pending + created.delivered.consumer_seq)))
}

fn nanos(time: &str) -> u64 {
    datetime::parse_rfc3339(time)
        .ok()
        .and_then(|time| u64::try_from(time.unix_timestamp_nanos()).ok())
        .unwrap_or_default()
}
