//! Goals 25 and 26: what a durable step costs a worker, and how long one waits for what was said in a conversation.

use std::time::{Duration, Instant};

use broker::reference::client::jetstream;
use broker::{Broker, StreamOptions};
use bytes::Bytes;
use common::message::Envelope;
use common::{ConversationId, ConversationTag, Namespace};
use hdrhistogram::Histogram;
use uuid::Uuid;

use crate::archiving::{archived, lead};
use crate::drive::text;
use crate::figure::{Goal, Pairs, Report};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::process;
use crate::raw;
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::worker::{self, RECALL, STEPS};

/// How many turns the long conversation has, and the short one.
const TURNS: [u64; 2] = [10_000, 20];
/// How many steps one turn stores, and how many records a pair has on the other side.
const AT_ONCE: u64 = 200;

/// A step, from the worker's line to the answer, beside a publish that the broker has synced.
pub(crate) async fn steps(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let (_fleet, ours) = rig.ours(1, &worker::soul(None, "")?).await?;
    let publisher = Publisher::start(&rig).await?;
    let mut pairs = Pairs::default();
    for round in 0..=plan.pairs {
        let stored = micros(&ours, 0, &format!("{STEPS}{AT_ONCE} x")).await?;
        let published = publisher.micros().await?;
        // The first warms up.
        if round > 0 {
            pairs.push(stored, published);
        }
    }
    let name = "a durable step, always, p50: a synced publish";
    report.add(pairs.figure(25, name, "us", Goal::AtMost(1.3)))
}

/// Publishes records of a step's size to a journal that nobody reads.
struct Publisher {
    broker: Broker,
    jetstream: jetstream::Context,
}

impl Publisher {
    async fn start(rig: &Rig) -> Result<Self> {
        let url = &rig.server.url;
        let streams = StreamOptions { journal_shards: rig.shards, replicas: None };
        let options = Rig::connect(url, &Namespace::new("published")?);
        let broker = Broker::connect_and_create(&options, &streams).await?;
        let client = raw::connect(url, None).await?;
        Ok(Self { broker, jetstream: jetstream::new(client) })
    }

    async fn micros(&self) -> Result<f64> {
        let mut took = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
        for number in 0..AT_ONCE {
            let id = Uuid::now_v7().to_string();
            let key = common::message::MessageKey {
                agent: common::AgentName::new("nobody")?,
                sender: common::SenderName::new("bench")?,
                message_id: common::MessageId::new(id)?,
            };
            let subject = self.broker.subjects().request(&key, &ConversationTag::none());
            let began = Instant::now();
            self.jetstream.publish(subject, Bytes::from(text(number))).await?.await?;
            took.saturating_record(u64::try_from(began.elapsed().as_nanos())?);
        }
        #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ns")]
        Ok(took.value_at_quantile(0.5) as f64 / 1000.0)
    }
}

/// What a worker measured.
async fn micros(ours: &Ours, agent: usize, text: &str) -> Result<f64> {
    let final_ = ours.ask(agent, text).await?;
    Ok(final_.response.unwrap_or_default().parse()?)
}

/// The last turns of a long conversation, and of a short one: while all are in the journal, and when all have left it.
pub(crate) async fn turns(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let (fleet, ours) = rig.ours(1, &worker::soul(None, "")?).await?;
    lead(&fleet, &ours, "24h").await?;
    let conversations = TURNS.map(|turns| format!("of-{turns}"));
    for (conversation, turns) in conversations.iter().zip(TURNS) {
        say(&ours, conversation, turns).await?;
    }
    recall(plan, report, &ours, &conversations, "journal").await?;
    let all = TURNS.iter().sum::<u64>();
    lead(&fleet, &ours, "1s").await?;
    process::until("the history", Duration::from_secs(120), async || {
        Ok((archived(&ours).await? >= all).then_some(()))
    })
    .await?;
    recall(plan, report, &ours, &conversations, "history").await
}

/// Fills a conversation. Its messages are stored well ahead of the worker, which takes one after the other.
async fn say(ours: &Ours, conversation: &str, turns: u64) -> Result<()> {
    let mut open = std::collections::VecDeque::new();
    for turn in 0..turns {
        let envelope = Envelope {
            conversation_id: ConversationId::new(conversation)?,
            ..ours.envelope(0, &text(turn))?
        };
        open.push_back(ours.send(&envelope).await?);
        if open.len() >= 64
            && let Some(first) = open.pop_front()
        {
            let _final = first.answer().await?;
        }
    }
    for waiter in open {
        let _final = waiter.answer().await?;
    }
    Ok(())
}

async fn recall(
    plan: &Plan,
    report: &mut Report,
    ours: &Ours,
    conversations: &[String; 2],
    place: &str,
) -> Result<()> {
    let ask = |conversation: &str| format!("{RECALL}{conversation} x");
    let mut pairs = Pairs::default();
    let mut longest = Pairs::default();
    for round in 0..=plan.pairs {
        let long = micros(ours, 0, &ask(&conversations[0])).await?;
        let short = micros(ours, 0, &ask(&conversations[1])).await?;
        if long <= 0.0 || short <= 0.0 {
            return fail("the worker remembers nothing");
        }
        if round > 0 {
            pairs.push(long, short);
            longest.push(long, 50_000.0);
        }
    }
    let [many, few] = TURNS;
    let name = format!("the last 20 of {many} turns, in the {place}, p50: of {few}");
    report.add(pairs.figure(26, &name, "us", Goal::AtMost(3.0)))?;
    let name = format!("  the same {many}, in the {place}: 50 ms");
    report.add(longest.figure(26, &name, "us", Goal::AtMost(1.0)))
}
