//! The worker of the figures that need more than an echo.
//!
//! What it does with a chat is in the chat's first word: [`CHUNKS`], [`ASK`], [`SLOW`], [`STEPS`], [`RECALL`]; without one it answers at once. With a
//! folder it tells the measuring side what happens to it, and crashes at its start when a file there says so.

use std::fs::exists;
use std::io::{BufRead as _, StdoutLock, Write as _, stdin, stdout};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::outcome::{Result, fail};

/// Asks for an answer in [`PIECES`] pieces.
pub(crate) const CHUNKS: &str = "chunks ";
/// Asks for somebody else's answer, who is named next.
pub(crate) const ASK: &str = "ask ";
/// Asks for an answer after [`PAUSE`].
pub(crate) const SLOW: &str = "slow ";

/// Stores so many steps, one after the other, and answers with the middle of how long each took, in microseconds.
pub(crate) const STEPS: &str = "steps ";
/// Asks for the last turns of a conversation, which is named next; answers likewise.
pub(crate) const RECALL: &str = "recall ";
/// How often, for one answer.
const RECALLS: usize = 20;

/// How many pieces.
pub(crate) const PIECES: usize = 50;
/// How long a slow answer takes.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// The soul of agents with this worker; with a folder, it tells the [`Beacon`](crate::beacon::Beacon) there. `more`: further lines.
pub(crate) fn soul(folder: Option<&Path>, more: &str) -> Result<String> {
    let own = std::env::current_exe()?;
    let mut command = vec![
        own.to_string_lossy().into_owned(),
        crate::roles::ROLE.to_owned(),
        "worker".to_owned(),
    ];
    command.extend(folder.map(|folder| folder.to_string_lossy().into_owned()));
    let command = serde_json::to_string(&command)?;
    Ok(format!("MODEL bench/worker\nSOUL You answer.\nWORKER {command}\n{more}\n"))
}

/// The socket on which a worker tells what happens.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("beacon")
}

/// The file that makes an agent's worker crash at its start.
pub(crate) fn curse(folder: &Path, agent: &str) -> PathBuf {
    folder.join(format!("crash-{agent}"))
}

/// Works until stdin ends or a `shutdown` comes.
pub(crate) fn run(folder: Option<&Path>) -> Result<()> {
    let beacon = folder.map(|folder| tell(&socket(folder))).transpose()?;
    let say = |what: &str| match &beacon {
        Some((beacon, name)) => beacon.send(format!("{what} {name}").as_bytes()).map(drop),
        None => Ok(()),
    };
    say(&format!("main {}", std::process::id()))?;
    if let (Some(folder), Some((_, name))) = (folder, &beacon)
        && exists(curse(folder, name))?
    {
        std::process::exit(1);
    }
    let mut out = Out(stdout().lock());
    out.line(&json!({"type": "ready"}))?;
    let mut asking = Value::Null;
    let mut timed: Option<Timed> = None;
    for line in stdin().lock().lines() {
        let line: Value = serde_json::from_str(&line?)?;
        let (id, text) = (&line["messageId"], line["message"].as_str().unwrap_or_default());
        match line["type"].as_str() {
            Some("chat") => {
                say(&format!("chat {}", id.as_str().unwrap_or_default()))?;
                timed = Timed::of(id, text)?;
                if let Some(timed) = &timed {
                    out.line(&timed.next())?;
                } else if out.chat(id, text)? {
                    asking = id.clone();
                }
            }
            Some("route") => {
                let request = &line["requestId"];
                out.line(&json!({"type": "route_done", "requestId": request, "response": text}))?;
            }
            Some("step_stored" | "history_response") => {
                let Some(timed) = &mut timed else { return fail("an answer to no question") };
                match timed.answered(&line)? {
                    Some(middle) => out.done(&timed.id, &middle.to_string().into())?,
                    None => out.line(&timed.next())?,
                }
            }
            Some("route_response") => out.done(&asking, &line["response"])?,
            Some("shutdown") => break,
            _ => {}
        }
    }
    Ok(())
}

/// Lines whose answers are waited for, one after the other.
struct Timed {
    id: Value,
    /// The conversation that is asked for; none for steps.
    conversation: Option<String>,
    wanted: usize,
    took: Vec<Duration>,
    asked: Instant,
}

impl Timed {
    fn of(id: &Value, text: &str) -> Result<Option<Self>> {
        let word = |kind| text.strip_prefix(kind).and_then(|rest: &str| rest.split_once(' '));
        let (conversation, wanted) = match (word(STEPS), word(RECALL)) {
            (Some((wanted, _)), _) => (None, wanted.parse()?),
            (None, Some((conversation, _))) => (Some(conversation.to_owned()), RECALLS),
            (None, None) => return Ok(None),
        };
        let (took, asked) = (Vec::with_capacity(wanted), Instant::now());
        Ok(Some(Self { id: id.clone(), conversation, wanted, took, asked }))
    }

    fn next(&self) -> Value {
        let number = self.took.len();
        match &self.conversation {
            Some(conversation) => {
                json!({"type": "history_request", "requestId": number.to_string(),
                "conversationId": conversation})
            }
            None => json!({"type": "step", "messageId": self.id, "key": number.to_string(),
                "result": crate::drive::text(0)}),
        }
    }

    /// The middle of the times, in microseconds, once all are there.
    fn answered(&mut self, line: &Value) -> Result<Option<u128>> {
        if !line["error"].is_null() {
            return fail(format!("it was refused: {line}"));
        }
        if self.conversation.is_some() && line["turns"].as_array().map(Vec::len) != Some(20) {
            return fail(format!("not 20 turns: {line}"));
        }
        self.took.push(self.asked.elapsed());
        self.asked = Instant::now();
        if self.took.len() < self.wanted {
            return Ok(None);
        }
        self.took.sort_unstable();
        Ok(Some(self.took[self.took.len() / 2].as_micros()))
    }
}

fn tell(path: &Path) -> Result<(UnixDatagram, String)> {
    let beacon = UnixDatagram::unbound()?;
    beacon.connect(path)?;
    Ok((beacon, std::env::var("MOZART_AGENT").unwrap_or_default()))
}

struct Out(StdoutLock<'static>);

impl Out {
    fn line(&mut self, line: &Value) -> Result<()> {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        self.0.write_all(&line)?;
        Ok(self.0.flush()?)
    }

    fn done(&mut self, id: &Value, response: &Value) -> Result<()> {
        self.line(&json!({"type": "chat_done", "messageId": id, "response": response}))
    }

    /// Answers a chat; true when the answer waits for somebody else's.
    fn chat(&mut self, id: &Value, text: &str) -> Result<bool> {
        if text.starts_with(CHUNKS) {
            for piece in 0..PIECES {
                let event = json!({"type": "text", "text": format!("{piece} ")});
                self.line(&json!({"type": "event", "messageId": id, "event": event}))?;
            }
            self.line(&json!({"type": "chat_done", "messageId": id}))?;
        } else if let Some((callee, text)) =
            text.strip_prefix(ASK).and_then(|rest| rest.split_once(' '))
        {
            self.line(&json!({"type": "route_request", "messageId": id, "requestId": "q",
                "toId": callee, "message": text}))?;
            return Ok(true);
        } else {
            if text.starts_with(SLOW) {
                #[expect(clippy::disallowed_methods, reason = "the work that is to take a while")]
                std::thread::sleep(PAUSE);
            }
            self.done(id, &text.into())?;
        }
        Ok(false)
    }
}
