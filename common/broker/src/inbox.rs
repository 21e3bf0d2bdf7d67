//! The shim's end of a consumer: pulls, checks what comes, and notices when the consumer is gone.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use common::message::{Envelope, MessageKey};
use common::subject::JournalSubject;
use common::{AgentName, ConversationTag, Timestamp};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::ack::AckSubject;
use crate::clock::Moment;
use crate::connection::{Broker, queued};
use crate::error::{BrokerError, Result};
use crate::wire::PAUSE;

/// A pull ends after this long, so that none outlives its caller for long.
const EXPIRES: Duration = Duration::from_secs(60);

/// A pull's heartbeat: the consumer itself says that it exists.
const HEARTBEAT: Duration = Duration::from_millis(2500);

/// Two heartbeats and a bit: after that a pull is lost.
const SILENCE: Duration = Duration::from_secs(6);

/// A heartbeat and a bit: after that the consumer may be out of reach.
const QUIET: Duration = Duration::from_secs(3);

/// What pulls are called among what is without an answer.
pub(crate) const PULL: &str = "pull";

/// The most requests of one pull: this many may wait in the client, whatever the window is.
const BATCH: u32 = 64;

/// How much of a refused payload is kept for the log.
const SHOWN: usize = 4096;

/// A request on its way to the worker.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Checked: subject, headers and body agree.
    pub envelope: Envelope,
    /// Its stream sequence.
    pub seq: u64,
    /// When the broker stored it.
    pub at: Timestamp,
    /// How often this consumer has given it out.
    pub delivered: u64,
    /// How many its consumer has beyond it.
    pub pending: u64,
    /// For [`Broker::ack`].
    pub reply: String,
}

/// A request of this agent that cannot be read: garbage, of a newer version, or of another subject. The journal has accepted
/// it, so that it must get its final state like any other, and be acked.
#[derive(Debug, Clone)]
pub struct Unreadable {
    /// What its subject names.
    pub key: MessageKey,
    /// See `key`.
    pub conversation: ConversationTag,
    /// Its stream sequence.
    pub seq: u64,
    /// For [`Broker::ack`]; empty if it was read from the journal.
    pub reply: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What an [`Inbox`] yields.
#[derive(Debug, Clone)]
pub enum InboxItem {
    /// A request.
    Delivery(Box<Delivery>),
    /// A request that cannot be read. It takes room in the window, like a delivery.
    Unreadable(Box<Unreadable>),
    /// Something that is not one of this agent's requests: refused (and acked when the broker itself delivered it from the stream).
    Refused {
        /// Why.
        reason: String,
        /// For the log, at most 4 KiB of it.
        payload: Bytes,
    },
    /// Nothing more will come from this inbox: the consumer is gone, was moved, or does not answer, or the connection is another
    /// one. Before continuing, the caller must look up which it is, and what was given out and never came.
    Ended,
}

/// The shim's end of a consumer.
pub struct Inbox {
    broker: Broker,
    agent: AgentName,
    stream: String,
    consumer: String,
    window: u32,
    /// With the caller, not released yet.
    held: u32,
    /// Asked for and not come yet.
    asked: u32,
    pulls: Pulls,
    /// Refused, and to be given to the caller next.
    refused: VecDeque<InboxItem>,
    closed: bool,
    /// Whether the caller has enough for now.
    held_back: bool,
    ended: bool,
    given: Given,
    /// Up to where deliveries are known that never came.
    passed: Option<Passed>,
}

/// What an inbox ended with: a delivery that it did not take, since one before it never came, or a heartbeat that told of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// How far the consumer had got in the stream: the delivery's sequence.
    pub seq: u64,
    /// How many deliveries the consumer had made by then.
    pub given: u64,
}

/// How many deliveries the consumer has made, as the last one that came says, or the last look before the first one.
#[derive(Debug)]
struct Given(Option<u64>);

impl Given {
    /// Whether something was given out since then.
    fn lacks(&self, given: u64) -> bool {
        self.0.is_some_and(|last| given > last)
    }

    /// Whether something was given out since then and before this one: it went to a pull of before, or was lost between two servers of
    /// a cluster.
    fn skips(&mut self, consumer_seq: u64) -> bool {
        // A consumer that was moved may count on from less.
        self.0.replace(consumer_seq).is_some_and(|last| consumer_seq > last + 1)
    }
}

/// The subscription that pulls are answered on.
struct Pulls {
    messages: Subscriber,
    inbox: String,
    epoch: u64,
    /// The last word.
    heard: Instant,
    /// Since when one is due.
    asked: Instant,
    /// When it was last told that there is none.
    told: Instant,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox")
            .field("consumer", &self.consumer)
            .field("window", &self.window)
            .field("held", &self.held)
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Nobody who was asked for so long found the consumer of this connection's pulls, although somebody reaches the leader of its stream: that
    /// counts as a pull that is not answered, since none is open meanwhile.
    pub fn consumer_is_unseen(&self, asked: Duration) {
        if self.is_in_reach() {
            let now = Instant::now();
            self.wire().route.missed(PULL, now.checked_sub(asked).unwrap_or(now));
        }
    }

    /// Some find the consumer of this connection's pulls, and others do not: that counts as a pull that is not answered.
    pub fn consumer_is_disputed(&self) {
        self.wire().route.missed(PULL, Instant::now());
    }
}

/// What woke the inbox.
enum Woken {
    Message(Option<Message>),
    Reconnected,
    /// It has said nothing for a while.
    Quiet,
    Silence,
}

impl Inbox {
    pub(crate) async fn open(
        broker: &Broker,
        agent: &AgentName,
        consumer: String,
        window: u32,
        given: Option<u64>,
    ) -> Result<Self> {
        let mut inbox = Self {
            broker: broker.clone(),
            agent: agent.clone(),
            stream: broker.journal_stream(agent),
            consumer,
            window: window.max(1),
            held: 0,
            asked: 0,
            pulls: Pulls::open(broker).await?,
            refused: VecDeque::new(),
            closed: false,
            held_back: false,
            ended: false,
            given: Given(given),
            passed: None,
        };
        inbox.ask().await?;
        Ok(inbox)
    }

    /// The next item. Cancel safe. Pulls again by itself as [`Inbox::release`] makes room.
    pub async fn next(&mut self) -> InboxItem {
        loop {
            if let Some(refused) = self.refused.pop_front() {
                return refused;
            }
            if self.ended {
                return InboxItem::Ended;
            }
            if let Err(error) = self.ask().await {
                // The client's queue is full, as it is after a while without a connection.
                tracing::debug!(%error, "no pull");
                sleep(PAUSE).await;
                continue;
            }
            match self.wake().await {
                Woken::Message(Some(message)) => {
                    if message.status == Some(StatusCode::NO_RESPONDERS) {
                        self.unheard();
                    } else {
                        self.pulls.heard = Instant::now();
                        self.broker.wire().route.answered(PULL);
                    }
                    if let Some(item) = self.hear(message).await {
                        return item;
                    }
                }
                // What was on its way is lost with the connection; the consumer may be lost with the server.
                Woken::Message(None) | Woken::Reconnected => self.ended = true,
                Woken::Quiet => self.unheard(),
                Woken::Silence => {
                    self.unheard();
                    self.ended = true;
                }
            }
        }
    }

    /// How long the consumer has said nothing to a pull; beyond a few seconds that means something only while one is open.
    #[must_use]
    pub fn quiet(&self) -> Duration {
        self.pulls.heard.elapsed()
    }

    /// Which deliveries it knows of that never came, if that is why it ended.
    #[must_use]
    pub fn passed(&self) -> Option<Passed> {
        self.passed
    }

    /// Makes room for `count` more requests.
    pub fn release(&mut self, count: u32) {
        self.held = self.held.saturating_sub(count);
    }

    /// Whether the caller has enough for now: then no more is asked for, whatever room there is. What is on its way still comes.
    pub fn hold_back(&mut self, enough: bool) {
        self.held_back = enough;
    }

    /// Stops asking for more. What is on its way may still come.
    pub fn close(&mut self) {
        self.closed = true;
    }

    async fn wake(&mut self) -> Woken {
        let wire = self.broker.wire();
        let since = self.pulls.since();
        let quiet = since.max(self.pulls.told) + QUIET;
        tokio::select! {
            biased;
            message = self.pulls.messages.next() => Woken::Message(message),
            () = wire.reconnected(self.pulls.epoch) => Woken::Reconnected,
            // Silence means something only while an answer is due.
            () = sleep_until(since + SILENCE), if self.asked > 0 => Woken::Silence,
            () = sleep_until(quiet), if self.asked > 0 => Woken::Quiet,
        }
    }

    /// The consumer has said nothing to a pull. It is gone, which whoever asks learns; or its server is out of reach of the one that this
    /// connection is with, and another server reaches both.
    fn unheard(&mut self) {
        self.pulls.told = Instant::now();
        self.broker.wire().route.missed(PULL, self.pulls.since());
    }

    /// Pulls when at least half of what may be on its way is not, or nothing is: few pulls, and never an idle stream.
    async fn ask(&mut self) -> Result<()> {
        let most = self.window.min(BATCH);
        let room = (self.window - self.window.min(self.held + self.asked))
            .min(most - most.min(self.asked));
        if self.closed || self.held_back || room == 0 || (self.asked > 0 && room < most.div_ceil(2))
        {
            return Ok(());
        }
        let body = json!({
            "batch": room,
            "expires": EXPIRES.as_nanos(),
            "idle_heartbeat": HEARTBEAT.as_nanos(),
        });
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{}.{}", self.stream, self.consumer);
        let client = &self.broker.wire().client;
        let reply = self.pulls.inbox.clone();
        queued(client.publish_with_reply(subject, reply, body.to_string().into())).await?;
        if self.asked == 0 {
            // No answer was due before: the silence begins here, and is no word.
            self.pulls.asked = Instant::now();
        }
        self.asked += room;
        Ok(())
    }

    async fn hear(&mut self, message: Message) -> Option<InboxItem> {
        match message.status {
            None | Some(StatusCode::OK) => Some(self.take(message).await),
            Some(StatusCode::IDLE_HEARTBEAT) => {
                self.beat(&message);
                None
            }
            Some(status) => {
                self.pull_ended(status, &message);
                None
            }
        }
    }

    /// A heartbeat says how far the consumer has got, and comes after whatever it gave to this inbox. Without that, a delivery that was lost
    /// with a server would be noticed only at the next one, or when it is given out again after the ack wait.
    fn beat(&mut self, message: &Message) {
        let headers = message.headers.as_ref();
        let number = |name| headers?.get(name)?.as_str().parse::<u64>().ok();
        let (given, seq) = (number("Nats-Last-Consumer"), number("Nats-Last-Stream"));
        if let (Some(given), Some(seq)) = (given, seq)
            && self.given.lacks(given)
        {
            tracing::debug!(consumer = self.consumer, "a delivery never came");
            self.ended = true;
            self.passed = Some(Passed { seq, given });
        }
    }

    fn pull_ended(&mut self, status: StatusCode, message: &Message) {
        let undelivered = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Pending-Messages"))
            .and_then(|count| count.as_str().parse::<u32>().ok());
        match undelivered {
            Some(count) => self.asked = self.asked.saturating_sub(count),
            // Nobody listens, the consumer was deleted, its leader changed.
            None => {
                tracing::debug!(consumer = self.consumer, %status, "the pull ended");
                self.ended = true;
            }
        }
    }

    /// Believes a message only if its reply, its subject and its body agree.
    async fn take(&mut self, message: Message) -> InboxItem {
        let reply = message.reply.as_deref().unwrap_or_default();
        let ack = AckSubject::parse(reply)
            .filter(|ack| ack.stream == self.stream && ack.consumer == self.consumer);
        let Some(ack) = ack else {
            return refuse("not from this consumer", &message);
        };
        if self.given.skips(ack.consumer_seq) {
            // An earlier message of its conversation may be among what never came: both are found by whoever looks.
            tracing::debug!(consumer = self.consumer, "a delivery never came");
            self.ended = true;
            self.passed = Some(Passed { seq: ack.stream_seq, given: ack.consumer_seq });
            return InboxItem::Ended;
        }
        let (seq, delivered, pending) = (ack.stream_seq, ack.delivered, ack.pending);
        let at = Timestamp::from_millis(ack.time / 1_000_000);
        self.broker.wire().clock.passed(Moment::now(), at);
        self.asked = self.asked.saturating_sub(1);
        let named = self.broker.subjects().parse_journal(&message.subject);
        let named = named.filter(|named| named.key.agent == self.agent && !named.is_final);
        let Some(named) = named else {
            let reason = format!("{} is not a request of this agent", message.subject);
            let item = refuse(&reason, &message);
            // Kept while the ack waits for room: a cancelled call must not lose the item.
            self.refused.push_back(item.clone());
            if let Err(error) = self.broker.ack(reply).await {
                tracing::debug!(%error, "a refused message is not acked");
            }
            self.refused.pop_back();
            return item;
        };
        self.held += 1;
        let reply = reply.to_owned();
        match believe(named, &message.payload) {
            Ok(envelope) => InboxItem::Delivery(Box::new(Delivery {
                envelope,
                seq,
                at,
                delivered,
                pending,
                reply,
            })),
            Err(unbelieved) => InboxItem::Unreadable(Box::new(unbelieved.named(seq, reply))),
        }
    }
}

/// A record on a request's subject that is no request.
pub(crate) struct Unbelieved {
    named: JournalSubject,
    reason: String,
}

impl Unbelieved {
    /// Why it is not believed.
    pub(crate) fn reason(&self) -> &str {
        &self.reason
    }

    pub(crate) fn named(self, seq: u64, reply: String) -> Unreadable {
        let Self { named: JournalSubject { key, conversation, .. }, reason } = self;
        Unreadable { key, conversation, seq, reply, reason }
    }
}

/// Reads an envelope, and believes it only if it is the one that its subject names.
pub(crate) fn believe(
    named: JournalSubject,
    payload: &[u8],
) -> std::result::Result<Envelope, Unbelieved> {
    let reason = match serde_json::from_slice::<Envelope>(payload) {
        Ok(envelope) if named.key == envelope.key() && named.conversation == envelope.tag() => {
            return Ok(envelope);
        }
        Ok(_) => "the envelope is of another subject".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(Unbelieved { named, reason })
}

fn refuse(reason: &str, message: &Message) -> InboxItem {
    InboxItem::Refused {
        reason: reason.to_owned(),
        payload: message.payload.slice(..message.payload.len().min(SHOWN)),
    }
}

impl Pulls {
    async fn open(broker: &Broker) -> Result<Self> {
        let wire = broker.wire();
        let epoch = wire.link.borrow().epoch;
        let inbox = wire.client.new_inbox();
        let subscribing = wire.client.subscribe(inbox.clone());
        let messages = subscribing.await.map_err(BrokerError::other)?;
        let now = Instant::now();
        Ok(Self { messages, inbox, epoch, heard: now, asked: now, told: now })
    }

    /// Since when there is no word, if one is due.
    fn since(&self) -> Instant {
        self.heard.max(self.asked)
    }
}

#[cfg(test)]
mod tests {
    use super::Given;

    #[test]
    fn a_delivery_that_never_came_is_noticed_by_the_next_one() {
        let skips = |given, deliveries: [u64; 8]| {
            let mut given = Given(given);
            deliveries.map(|seq| given.skips(seq))
        };
        let (no, yes) = (false, true);
        // What came before the first one is not known, if nobody looked.
        assert_eq!(skips(None, [7, 8, 9, 11, 12, 3, 4, 6]), [no, no, no, yes, no, no, no, yes]);
        assert_eq!(skips(Some(0), [1, 2, 3, 4, 5, 6, 7, 9]), [no, no, no, no, no, no, no, yes]);
        assert_eq!(skips(Some(5), [7, 8, 9, 9, 9, 9, 9, 9]), [yes, no, no, no, no, no, no, no]);
        // The look knew of it already.
        assert_eq!(skips(Some(9), [7, 8, 9, 10, 11, 12, 13, 14]), [no; 8]);
    }
}
