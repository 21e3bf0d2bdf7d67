//! The built-in worker: echoes every message. It speaks the worker protocol like any other.

use std::io::{self, BufRead as _, Write as _};

use serde_json::{Value, json};

/// Answers until stdin ends or a `shutdown` comes.
pub(crate) fn run() -> io::Result<()> {
    let (stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
    let mut say = |line: Value| {
        let mut line = line.to_string();
        line.push('\n');
        stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush())
    };
    say(json!({"type": "ready"}))?;
    for line in stdin.lines() {
        let Ok(line) = serde_json::from_str::<Value>(&line?) else {
            continue;
        };
        let (id, text) = (&line["messageId"], &line["message"]);
        match line["type"].as_str() {
            Some("chat") => {
                say(
                    json!({"type": "event", "messageId": id, "conversationId": line["conversationId"],
                    "event": {"type": "text", "text": text}}),
                )?;
                say(json!({"type": "chat_done", "messageId": id,
                    "conversationId": line["conversationId"]}))?;
            }
            Some("route") => {
                say(json!({"type": "route_done", "requestId": line["requestId"], "messageId": id,
                    "response": text}))?;
            }
            Some("shutdown") => break,
            _ => {}
        }
    }
    Ok(())
}
