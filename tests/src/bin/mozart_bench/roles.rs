//! What this program starts of itself, and the echo child that every side drives.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::outcome::{Result, fail};
use crate::{cpu, raw, respawn, worker};

/// The first argument of a role.
pub(crate) const ROLE: &str = "role";

/// Plays a role.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
    let Some((role, rest)) = args.split_first() else {
        return fail("no role");
    };
    if role == "worker" {
        return worker::run(rest.first().map(Path::new));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match role.as_str() {
        "raw-agent" => runtime.block_on(raw::agent(rest)),
        "respawn" => runtime.block_on(respawn::run(rest)),
        other => fail(format!("no such role: {other}")),
    }
}

/// Mozart's echo worker as a child on stdio.
#[derive(Debug)]
pub(crate) struct Echo {
    _child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    line: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Chat<'a> {
    r#type: &'a str,
    message_id: &'a str,
    from_id: &'a str,
    message: &'a str,
    conversation_id: &'a str,
}

#[derive(Deserialize)]
struct Line {
    r#type: String,
    event: Option<Event>,
}

#[derive(Deserialize)]
struct Event {
    text: String,
}

impl Echo {
    /// Starts one; `folder` is the rig that it belongs to.
    pub(crate) async fn start(shim: &Path, folder: &Path) -> Result<Self> {
        let mut command = Command::new(shim);
        command.env(cpu::MARK, folder);
        command.arg("echo").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return fail("no pipes to the echo worker");
        };
        let stdout = BufReader::new(stdout);
        let mut echo = Self { _child: child, stdin, stdout, line: String::new() };
        match echo.next().await?.r#type.as_str() {
            "ready" => Ok(echo),
            other => fail(format!("the echo worker began with {other:?}")),
        }
    }

    async fn next(&mut self) -> Result<Line> {
        self.line.clear();
        self.stdout.read_line(&mut self.line).await?;
        Ok(serde_json::from_str(&self.line)?)
    }

    pub(crate) async fn ask(&mut self, id: &str, text: &str) -> Result<()> {
        let (message_id, message) = (id, text);
        let chat =
            Chat { r#type: "chat", message_id, from_id: "bench", message, conversation_id: id };
        let mut line = serde_json::to_vec(&chat)?;
        line.push(b'\n');
        Ok(self.stdin.write_all(&line).await?)
    }

    /// The first word of an answer.
    pub(crate) async fn first(&mut self) -> Result<String> {
        match self.next().await? {
            Line { event: Some(Event { text }), .. } => Ok(text),
            Line { r#type, .. } => fail(format!("the echo worker said {:?} first", r#type)),
        }
    }

    /// The end of an answer.
    pub(crate) async fn last(&mut self) -> Result<()> {
        match self.next().await?.r#type.as_str() {
            "chat_done" => Ok(()),
            other => fail(format!("the echo worker said {other:?} last")),
        }
    }

    pub(crate) async fn answer(&mut self) -> Result<String> {
        let text = self.first().await?;
        self.last().await?;
        Ok(text)
    }
}
