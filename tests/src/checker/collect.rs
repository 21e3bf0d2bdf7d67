//! Reads the facts: the journal's raw records, EVENTS, DEAD, and the workers' own notes.

use std::collections::BTreeMap;
use std::path::Path;

use broker::{Broker, BrokerError, JournalScan};
use common::event::{Event, EventBody, attempt_of};
use common::message::MessageKey;
use common::{AgentName, MessageId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Accepted, Facts, Life, Placed, Run};

/// Messages whose events are read side by side.
const SIDE_BY_SIDE: usize = 16;

impl Facts {
    /// Reads everything that the streams hold. `witnessed` is what [`witnessed`] read, `attempts` what the souls say.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn collect(
        broker: &Broker,
        accepted: Vec<Accepted>,
        attempts: BTreeMap<AgentName, u32>,
        mut witnessed: BTreeMap<MessageId, Vec<u32>>,
    ) -> Result<Self, BrokerError> {
        let mut facts = Self { accepted, attempts, ..Self::default() };
        facts.read_journal(broker.scan(None, 1, false).await?).await?;
        for letter in broker.dead_letters(None).await? {
            facts.lives.entry(letter.value.envelope.key()).or_default().dead = true;
        }
        let runs = stream::iter(facts.lives.keys().cloned().map(|key| runs(broker, key)));
        let runs: Vec<_> = runs.buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        for (key, runs) in runs {
            let life = facts.lives.entry(key).or_default();
            life.runs.extend(runs);
        }
        for (key, life) in &mut facts.lives {
            life.witnessed = witnessed.remove(&key.message_id).unwrap_or_default();
        }
        Ok(facts)
    }

    async fn read_journal(&mut self, mut scan: JournalScan) -> Result<(), BrokerError> {
        loop {
            let item = match scan.next().await {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(error @ BrokerError::Malformed { .. }) => {
                    self.malformed.push(error.to_string());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let life = self.lives.entry(item.key).or_default();
            if let Some(value) = item.request {
                life.requests.push(Placed { seq: item.seq, value });
            }
            if let Some(value) = item.final_ {
                life.tail_runs(&value.tail, value.incarnation.unwrap_or_default());
                life.finals.push(Placed { seq: item.seq, value });
            }
        }
    }
}

impl Life {
    /// Runs that were too quick for an event of their own.
    fn tail_runs(&mut self, tail: &[Event], incarnation: u64) {
        self.runs.extend(delivered(tail).map(|attempt| Run { attempt, incarnation }));
    }
}

fn delivered(events: &[Event]) -> impl Iterator<Item = u32> {
    let delivered = |event: &&Event| matches!(event.body, EventBody::Delivered { .. });
    events.iter().filter(delivered).map(|event| attempt_of(event.seq))
}

/// The runs of a message that are on record in EVENTS.
async fn runs(broker: &Broker, key: MessageKey) -> Result<(MessageKey, Vec<Run>), BrokerError> {
    let batches = broker.events(&key).await?;
    let run = |incarnation| move |attempt| Run { attempt, incarnation };
    let runs = batches
        .iter()
        .flat_map(|batch| delivered(&batch.events).map(run(batch.incarnation)))
        .collect();
    Ok((key, runs))
}

/// Reads the notes of the workers in a folder: lines `<message> <pid>`, one for each turn that began.
///
/// # Errors
/// When the folder cannot be read.
pub fn witnessed(folder: &Path) -> std::io::Result<BTreeMap<MessageId, Vec<u32>>> {
    let mut runs: BTreeMap<MessageId, Vec<u32>> = BTreeMap::new();
    for file in std::fs::read_dir(folder)? {
        let text = std::fs::read_to_string(file?.path())?;
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let id = words.next().and_then(|id| MessageId::new(id).ok());
            let pid = words.next().and_then(|pid| pid.parse().ok());
            if let (Some(id), Some(pid)) = (id, pid) {
                runs.entry(id).or_default().push(pid);
            }
        }
    }
    Ok(runs)
}
