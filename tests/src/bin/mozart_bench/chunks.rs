//! Goal 5: an answer in 50 chunks beside one without any; nothing lost, nothing reordered, also at 64 at once.

use std::time::Instant;

use common::event::{Event, EventBody};
use common::message::Envelope;
use futures_util::future::try_join_all;

use crate::drive::{self, Load, Side, drive, warm_up};
use crate::figure::{Figure, Goal, Pairs, Report};
use crate::ours::Ours;
use crate::outcome::{Result, fail};
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::worker::{self, CHUNKS, PIECES};

const AT_ONCE: usize = 64;

/// Chats that want chunks.
struct Chunked<'a>(&'a Ours);

impl Side for Chunked<'_> {
    async fn chat(&self, agent: usize, text: &str) -> Result<()> {
        let answer = self.0.ask(agent, &wanted(text)).await?;
        if answer.response.as_deref() == Some(&whole()) {
            return Ok(());
        }
        fail(format!("an answer is not whole: {:?}", answer.response))
    }
}

fn wanted(text: &str) -> String {
    format!("{CHUNKS}{}", &text[CHUNKS.len()..])
}

fn whole() -> String {
    (0..PIECES).map(|chunk| format!("{chunk} ")).collect()
}

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Lazy).await?;
    let (_fleet, ours) = rig.ours(20, &worker::soul(None, "")?).await?;
    let chunked = Chunked(&ours);
    let load = Load { agents: 1, in_flight: 1, window: plan.window };
    warm_up(&ours, 20).await?;
    warm_up(&chunked, 20).await?;
    let mut pairs = Pairs::default();
    for _ in 0..plan.pairs {
        let (many, none) = (drive(&chunked, load).await?, drive(&ours, load).await?);
        pairs.push(many.micros(0.5), none.micros(0.5));
    }
    let name = format!("{PIECES} chunks, full reply, p50: no chunks");
    report.add(pairs.figure(5, &name, "us", Goal::AtMost(1.5)))?;
    let (chats, bad) = at_once(plan, &ours).await?;
    let name = format!("chunks lost or reordered in {chats} chats, {AT_ONCE} at once");
    report.add(Figure::alone(5, &name, bad, "chunks").wanting(Goal::AtMost(0.0)))
}

/// How many chunks are missing or out of place when many chats stream at once, of how many chats.
async fn at_once(plan: &Plan, ours: &Ours) -> Result<(usize, f64)> {
    let end = Instant::now() + plan.window;
    let lanes = (0..AT_ONCE).map(|lane| async move {
        let (mut chats, mut bad) = (0, 0);
        while Instant::now() < end {
            let text = wanted(&drive::text(lane as u64));
            let envelope = ours.envelope(lane % ours.agents.len(), &text)?;
            ours.send(&envelope).await?.answer().await?;
            bad += wrong(ours, &envelope).await?;
            chats += 1;
        }
        let both: Result<(usize, u32)> = Ok((chats, bad));
        both
    });
    let all = try_join_all(lanes).await?;
    Ok((all.iter().map(|(chats, _)| chats).sum(), all.iter().map(|(_, bad)| f64::from(*bad)).sum()))
}

/// Reads a chat's stream back as a late reader would: its stored events, then the final's own.
async fn wrong(ours: &Ours, envelope: &Envelope) -> Result<u32> {
    let Some(final_) = ours.broker.final_of(&envelope.key()).await? else {
        return fail("an answered chat has no final state");
    };
    let stored = ours.broker.events(&envelope.key()).await?;
    let events = stored.into_iter().flat_map(|batch| batch.events).chain(final_.value.tail);
    let texts: Vec<String> = events
        .filter_map(|event| match event {
            Event { body: EventBody::Text { text }, .. } => Some(text),
            _ => None,
        })
        .collect();
    let places = (0..PIECES.max(texts.len()))
        .filter(|at| texts.get(*at).is_none_or(|text| *text != format!("{at} ")));
    Ok(u32::try_from(places.count())?)
}
