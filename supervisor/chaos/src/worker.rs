//! The worker of the throwaway agents. It answers what its agent is sent, after the time that the message says, and writes down each turn
//! that it begins: a witness that the verdict believes more than what the shim has published.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

use common::AgentName;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Lines that wait, at most: then stdin does.
const LINES: usize = 64;

/// What an agent answers to a message.
#[must_use]
pub fn answer(agent: &AgentName, text: &str) -> String {
    format!("{agent} heard: {text}")
}

/// A message that takes so many milliseconds.
pub(crate) fn text(took: u64, rest: &str) -> String {
    format!("{took} {rest}")
}

/// Answers until stdin ends or a `shutdown` comes. Turns are written down in a file of the folder `notes`, by the agent's name.
///
/// # Errors
/// When the notes or stdout cannot be written.
pub async fn run(notes: &Path) -> io::Result<()> {
    let (line, mut lines) = mpsc::channel(LINES);
    // Ends with the process: nothing else can end a read of stdin.
    let _reading = std::thread::spawn(move || {
        for text in io::stdin().lock().lines().map_while(Result::ok) {
            if line.blocking_send(text).is_err() {
                return;
            }
        }
    });
    let mut turns = JoinSet::new();
    let mut worker = Worker { notes, born: now(), agent: None };
    say(&json!({ "type": "ready" }))?;
    loop {
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { return Ok(()) };
                let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
                match line["type"].as_str() {
                    Some("init") => worker.begin(&line)?,
                    Some("chat") => {
                        if let Some(turn) = worker.turn(&line)? {
                            turns.spawn(turn);
                        }
                    }
                    Some("shutdown") => return Ok(()),
                    Some(_) | None => {}
                }
            }
            Some(said) = turns.join_next(), if !turns.is_empty() => said.map_err(io::Error::other)??,
        }
    }
}

struct Worker<'a> {
    notes: &'a Path,
    /// When it was started.
    born: u64,
    /// As whom, where it writes, and as which incarnation.
    agent: Option<(AgentName, File, u64)>,
}

impl Worker<'_> {
    fn begin(&mut self, init: &Value) -> io::Result<()> {
        let name = init["agent"]["name"].as_str().unwrap_or_default();
        let agent = AgentName::new(name).map_err(io::Error::other)?;
        let notes = self.notes.join(agent.as_str());
        let notes = OpenOptions::new().create(true).append(true).open(notes)?;
        let incarnation = init["incarnation"].as_u64().unwrap_or_default();
        self.agent = Some((agent, notes, incarnation));
        Ok(())
    }

    /// Writes a turn down before anything else; then what is left to do.
    fn turn(
        &mut self,
        chat: &Value,
    ) -> io::Result<Option<impl Future<Output = io::Result<()>> + use<>>> {
        let Some((agent, notes, incarnation)) = &mut self.agent else { return Ok(None) };
        let (id, text) = (&chat["messageId"], chat["message"].as_str().unwrap_or_default());
        let (message, pid) = (id.as_str().unwrap_or_default(), std::process::id());
        // One write: lines of two incarnations do not mix.
        let note = format!("{message} {pid} {incarnation} {} {}\n", now(), self.born);
        notes.write_all(note.as_bytes())?;
        say(&json!({ "type": "ack", "messageId": id }))?;
        let took = text.split(' ').next().and_then(|took| took.parse().ok()).unwrap_or(0);
        let text = json!({ "type": "text", "text": answer(agent, text) });
        let event = json!({ "type": "event", "messageId": id, "event": text });
        let done = json!({ "type": "chat_done", "messageId": id });
        Ok(Some(async move {
            sleep(Duration::from_millis(took)).await;
            say(&event)?;
            say(&done)
        }))
    }
}

/// The machine's monotonic clock, in nanoseconds.
fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    seconds * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or_default()
}

fn say(line: &Value) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(format!("{line}\n").as_bytes())?;
    stdout.flush()
}
