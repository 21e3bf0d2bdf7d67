//! Reads the facts: the journal's raw records, EVENTS, DEAD, and the workers' own notes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use broker::{Broker, BrokerError, JournalScan};
use common::event::{Event, EventBody, SHIM_KILLED, attempt_of};
use common::message::MessageKey;
use common::{AgentName, MessageId, Timestamp};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustix::time::{ClockId, clock_gettime};

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
        facts.read_journal(broker, broker.scan(None).await?).await?;
        let mut letters = broker.dead_letters(None).await?;
        while let Some(letter) = letters.next().await? {
            facts.lives.entry(letter.value.envelope.key()).or_default().dead = true;
        }
        let runs = stream::iter(facts.lives.keys().cloned().map(|key| runs(broker, key)));
        let runs: Vec<_> = runs.buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
        let mut handed_out: BTreeMap<MessageKey, Vec<(Run, u64)>> = BTreeMap::new();
        for (key, Recorded { runs, with_shims }) in runs {
            let life = facts.lives.entry(key.clone()).or_default();
            life.runs.extend(runs.iter().map(|(run, _)| *run));
            life.with_shims = with_shims;
            handed_out.insert(key, runs);
        }
        for (key, life) in &mut facts.lives {
            let noted = (key.agent.clone(), key.message_id.clone());
            life.witnessed = witnessed.remove(&noted).unwrap_or_default();
            life.believe_the_stream(handed_out.get(key).map(Vec::as_slice).unwrap_or_default());
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

    /// A worker that is stopped reads late what it was given in time: a turn had begun by the time at which the stream stored that it was
    /// given out. `handed_out` is by the clock of the notes. Believed only where an incarnation has a record for each of its notes.
    pub(super) fn believe_the_stream(&mut self, handed_out: &[(Run, u64)]) {
        let mut stored: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (run, at) in handed_out {
            stored.entry(run.incarnation).or_default().push(*at);
        }
        self.witnessed.sort_unstable_by_key(|turn| (turn.incarnation, turn.began));
        for noted in self.witnessed.chunk_by_mut(|one, other| one.incarnation == other.incarnation)
        {
            let of = noted.first().and_then(|turn| stored.get_mut(&turn.incarnation));
            let Some(of) = of.filter(|of| of.len() == noted.len()) else { continue };
            of.sort_unstable();
            for (turn, at) in noted.iter_mut().zip(of) {
                turn.began = turn.began.min(*at);
            }
        }
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

/// What EVENTS tells of a message.
struct Recorded {
    /// Its runs, and when that was stored, by the clock of the workers' notes.
    runs: Vec<(Run, u64)>,
    /// Those that ended with their shim.
    with_shims: BTreeSet<Run>,
}

async fn runs(broker: &Broker, key: MessageKey) -> Result<(MessageKey, Recorded), BrokerError> {
    let batches = broker.stored_events(&key).await?;
    let by_notes = clock_of_notes(broker);
    let runs = batches.iter().flat_map(|(at, batch)| {
        let (at, incarnation) = (by_notes(*at), batch.incarnation);
        delivered(&batch.events).map(move |attempt| (Run { attempt, incarnation }, at))
    });
    let with_shims = batches.iter().flat_map(|(_, batch)| {
        let ends = batch.events.iter().filter(
            |event| matches!(&event.body, EventBody::Error { error } if error == SHIM_KILLED),
        );
        ends.map(|event| Run { attempt: attempt_of(event.seq), incarnation: batch.incarnation })
    });
    let with_shims = with_shims.collect();
    Ok((key, Recorded { runs: runs.collect(), with_shims }))
}

/// From nats-server's clock to the one of the notes. Rounded up: a record's time is in whole milliseconds.
fn clock_of_notes(broker: &Broker) -> impl Fn(Timestamp) -> u64 {
    let millis = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1000 + i128::from(time.tv_nsec) / 1_000_000
    };
    let nanos = |clock| {
        let time = clock_gettime(clock);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    let shown = |time: Timestamp| i128::from(time.as_millis());
    let least = shown(broker.now_at_least().unwrap_or_else(|| broker.now()));
    let most = 2 * shown(broker.now());
    let most = most - least;
    // This machine's clock, as far as anybody can tell; else the earliest that the server's may show: a turn is then said to have begun
    // too late rather than too early.
    let is_ours = (least - 1..=most + 1).contains(&millis(ClockId::Realtime));
    let now = if is_ours { nanos(ClockId::Realtime) } else { least * 1_000_000 };
    let less = now - nanos(ClockId::Monotonic);
    move |at| {
        let at = i128::from(at.as_millis() + 1) * 1_000_000;
        u64::try_from(at - less).unwrap_or_default()
    }
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
