//! The prompt of `mozart chat`: one conversation, one message a line, with history.

use common::api::ApiError;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};

use super::chat::{self, ChatArgs};
use super::client::Client;
use super::output;
use crate::args::Global;
use common::failure;
use runtime::home::Home;

type Lines = Editor<(), FileHistory>;

/// Reads messages and streams their answers, until end of input.
///
/// # Errors
/// When the terminal cannot be used. If a message gets no answer, that is printed, and the prompt returns.
pub(crate) async fn run(
    global: &Global,
    client: &Client,
    mut args: ChatArgs,
) -> Result<u8, ApiError> {
    let history = Home::locate(global.home.as_deref())
        .and_then(|home| home.create().map(|()| home.history()))
        .ok();
    let mut lines = open(history.as_deref()).map_err(|cause| terminal(&cause))?;
    args.message.conversation.get_or_insert_with(chat::new_conversation);
    let prompt = format!("{}> ", args.agent);
    let mut code = 0;
    loop {
        let read = {
            let prompt = prompt.clone();
            // The terminal is read on a thread of its own: the connection stays alive meanwhile.
            tokio::task::spawn_blocking(move || {
                let line = lines.readline(&prompt);
                (lines, line)
            })
        };
        let (returned, line) = read.await.map_err(|cause| terminal(&cause))?;
        lines = returned;
        let text = match line {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => line,
            Err(ReadlineError::Eof) => return Ok(code),
            Err(ReadlineError::Interrupted) => return Ok(failure::INTERRUPTED),
            Err(cause) => return Err(terminal(&cause)),
        };
        remember(&mut lines, history.as_deref(), &text);
        let envelope = args.message.envelope(client.sender(), args.agent.clone(), text);
        // An id can be given to the first message only.
        args.message.id = None;
        code = match chat::one(client, &envelope, &args).await {
            Ok(code) => code,
            Err(error) if error.code == failure::FAILED || error.code == failure::TIMEOUT => {
                output::complain(&error, client.output);
                error.code
            }
            Err(error) => return Err(error),
        };
    }
}

fn open(history: Option<&std::path::Path>) -> rustyline::Result<Lines> {
    let config = Config::builder().max_history_size(10_000)?.auto_add_history(false).build();
    let mut lines = Lines::with_config(config)?;
    if let Some(file) = history {
        // No history yet, or one that cannot be read: the prompt works without.
        drop(lines.load_history(file));
    }
    Ok(lines)
}

fn remember(lines: &mut Lines, history: Option<&std::path::Path>, text: &str) {
    let kept = lines.add_history_entry(text).unwrap_or(false);
    if let Some(file) = history.filter(|_| kept) {
        drop(lines.append_history(file));
    }
}

fn terminal(cause: &impl std::fmt::Display) -> ApiError {
    let try_ = "`mozart chat AGENT TEXT` needs no terminal";
    failure::error(failure::FAILED, "cannot read from the terminal", cause, try_)
}
