//! Reads the facts: the journal's raw records, EVENTS, DEAD, and the workers' own notes.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use broker::{Broker, BrokerError, JournalScan};
use common::event::{Event, EventBody, attempt_of};
use common::message::MessageKey;
use common::{AgentName, MessageId};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::{Accepted, Facts, Life, Notes, Placed, Run, Turn};

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
        injected: BTreeMap<MessageKey, bool>,
        mut witnessed: Notes,
    ) -> Result<Self, BrokerError> {
        let mut facts = Self { accepted, attempts, injected, ..Self::default() };
        facts.read_journal(broker, broker.scan(None, 1, false).await?).await?;
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
            let noted = (key.agent.clone(), key.message_id.clone());
            life.witnessed = witnessed.remove(&noted).unwrap_or_default();
        }
        facts.unstored = witnessed;
        Ok(facts)
    }

    async fn read_journal(
        &mut self,
        broker: &Broker,
        mut scan: JournalScan,
    ) -> Result<(), BrokerError> {
        loop {
            let item = match scan.next().await {
                Ok(Some(item)) => item,
                Ok(None) => return Ok(()),
                Err(BrokerError::Malformed { subject, seq, cause }) => {
                    let known = broker.subjects().parse_journal(&subject);
                    match known {
                        Some(it) if !it.is_final && self.injected.contains_key(&it.key) => {
                            self.lives.entry(it.key).or_default().garbage += 1;
                        }
                        _ => self.malformed.push(format!("{subject} at {seq}: {cause}")),
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            let life = self.lives.entry(item.key).or_default();
            if let Some(value) = item.request {
                life.requests.push(Placed { seq: item.seq, at: item.at, value });
            }
            if let Some(value) = item.final_ {
                life.tail_runs(&value.tail, value.incarnation.unwrap_or_default());
                life.finals.push(Placed { seq: item.seq, at: item.at, value });
            }
        }
    }
}

impl Life {
    /// Where workers write no notes: what is on record stands for them, in the order of the incarnations.
    pub fn believe_the_record(&mut self) {
        let noted = |run: &Run| Turn {
            pid: 0,
            incarnation: run.incarnation,
            began: run.incarnation,
            born: run.incarnation,
        };
        self.witnessed = self.runs.iter().map(noted).collect();
    }

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

/// Reads the notes of the workers in a folder: a file for each agent, and in it a line
/// `<message> <pid> <incarnation> <began> <born>` for each turn that began.
///
/// # Errors
/// When the folder cannot be read, or a line is none of these.
pub fn witnessed(folder: &Path) -> io::Result<Notes> {
    let mut notes = Notes::new();
    for file in std::fs::read_dir(folder)? {
        let file = file?;
        let agent = file.file_name().to_str().and_then(|name| AgentName::new(name).ok());
        for line in std::fs::read_to_string(file.path())?.lines() {
            let (Some(agent), Some((message, turn))) = (agent.clone(), note(line)) else {
                let text = format!("{}: no worker's note: {line:?}", file.path().display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            notes.entry((agent, message)).or_default().push(turn);
        }
    }
    Ok(notes)
}

fn note(line: &str) -> Option<(MessageId, Turn)> {
    let mut words = line.split(' ');
    let message = MessageId::new(words.next()?).ok()?;
    let pid = words.next()?.parse().ok()?;
    let incarnation = words.next()?.parse().ok()?;
    let began = words.next()?.parse().ok()?;
    let born = words.next()?.parse().ok()?;
    words.next().is_none().then_some((message, Turn { pid, incarnation, began, born }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_of_an_agent_and_have_five_words() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("echo");
        std::fs::write(&file, "a 7 2 30 20\nb 7 2 40 20\n").unwrap();
        let echo = AgentName::new("echo").unwrap();
        let turn = |began| Turn { pid: 7, incarnation: 2, began, born: 20 };
        let id = |id| MessageId::new(id).unwrap();
        let all = Notes::from([
            ((echo.clone(), id("a")), vec![turn(30)]),
            ((echo, id("b")), vec![turn(40)]),
        ]);
        assert_eq!(witnessed(folder.path()).unwrap(), all);
        for bad in ["a 7", "a 7 2 30", "a 7 2 30 20 1", "a 7 2 30 -1", ""] {
            std::fs::write(&file, format!("{bad}\n")).unwrap();
            assert!(witnessed(folder.path()).is_err(), "{bad:?}");
        }
    }
}
