//! Workers for Mozart in Rust: the worker's side of its protocol, JSON lines on stdin and stdout.
//!
//! ```no_run
//! fn main() -> std::io::Result<()> {
//!     mozart_worker::run(|turn| {
//!         turn.say("you said ")?;
//!         turn.say(&turn.text)?;
//!         Ok(None)
//!     })
//! }
//! ```
//!
//! Each turn has a thread of its own; CONCURRENCY in the soul limits how many there are. The response is the text that is returned, or else
//! what was said. An error or a panic fails the message for good; [`Error::retry`] asks for another attempt. While the worker runs, stdin and
//! stdout belong to the protocol: what is printed goes to stderr, and appears in `mozart logs`.

mod error;
mod line;
mod link;
#[cfg(test)]
mod tests;
mod turn;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;

use serde_json::json;

pub use self::error::Error;
pub use self::turn::{Agent, Answered, Asking, History, Past, Questioning, Turn};

use self::line::Line;
use self::link::{Link, Reply};

/// What a turn ends with: the response; `None` if it is what was said.
pub type Answer = Result<Option<String>, Error>;

/// Reports ready, then answers messages until the shim says `shutdown`, when the open turns may end, or stdin ends.
///
/// # Errors
/// When stdin cannot be read, or has a line that is none of the protocol.
pub fn run(answer: impl Fn(&Turn) -> Answer + Send + Sync + 'static) -> io::Result<()> {
    // For the protocol alone: no library, `println!` or child process reads or writes in between.
    let from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let to = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    io::stdout().flush()?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    // When the shim no longer reads, nothing that is done here has an effect.
    let link = Link::new(to, || std::process::exit(0));
    serve(BufReader::new(from), &link, answer)
}

fn serve(
    from: impl BufRead,
    link: &Arc<Link>,
    answer: impl Fn(&Turn) -> Answer + Send + Sync + 'static,
) -> io::Result<()> {
    let answer = Arc::new(answer);
    let mut agent = Arc::new(Agent::default());
    let mut start = 0;
    let mut threads: Vec<std::thread::JoinHandle<()>> = Vec::new();
    link.send(&json!({ "type": "ready" }));
    for line in from.lines() {
        let (begun, is_route) = match serde_json::from_str(&line?)? {
            Line::Init { agent: soul, incarnation } => {
                (agent, start) = (Arc::new(soul), incarnation);
                continue;
            }
            Line::Chat(begun) => (begun, false),
            Line::Route(begun) => (begun, true),
            Line::Cancel { message_id } => {
                link.cancel(&message_id);
                continue;
            }
            Line::Shutdown => {
                for thread in threads {
                    // Panics of turns are caught.
                    let _ended = thread.join();
                }
                return Ok(());
            }
            Line::RouteResponse { request_id, response, error } => {
                link.reply(&turn::asked(&request_id), refused(error, false, Reply::Text(response)));
                continue;
            }
            Line::HistoryResponse { request_id, turns, next, error, retryable } => {
                let reply = Reply::History(History { turns, next });
                link.reply(&turn::recalled(&request_id), refused(error, retryable, reply));
                continue;
            }
            Line::StepStored { message_id, key, result, error, retryable } => {
                let message_id = message_id.unwrap_or_default();
                let id = turn::stored(&message_id, &key.unwrap_or_default());
                let replied = refused(error, retryable, Reply::Stored(result));
                link.reply_of(&message_id, turn::STEP, &id, replied);
                continue;
            }
            Line::Answer { message_id, request_id, text, error, is_default } => {
                let answered = Reply::Answered(Answered { text, is_default });
                let replied = refused(error, false, answered);
                let id = turn::questioned(&request_id);
                link.reply_of(&message_id.unwrap_or_default(), turn::QUESTION, &id, replied);
                continue;
            }
            Line::Unknown => continue,
        };
        let turn = Turn::new(Arc::clone(link), Arc::clone(&agent), start, begun, is_route);
        let answer = Arc::clone(&answer);
        threads.retain(|thread| !thread.is_finished());
        threads.push(std::thread::spawn(move || turn.answer(&*answer)));
    }
    // Nobody reads what the open turns say.
    link.cancel_all();
    Ok(())
}

fn refused(error: Option<String>, retryable: bool, reply: Reply) -> link::Replied {
    let error = error.map(|why| if retryable { Error::retry(why) } else { Error::new(why) });
    error.map_or(Ok(reply), Err)
}
