//! `mozart dead`: messages that were given up.

use broker::{Attempt as _, Stored};
use clap::{Args, Subcommand};
use common::api::ApiError;
use common::message::DeadLetter;
use common::{AgentName, MessageId, Timestamp, failure};
use mozart_client::dead::{Shown, one, redrive};
use mozart_client::reference::MessageRef;
use serde::Serialize;

use super::client::{Client, now};
use super::lifecycle::Failures;
use super::list::List;
use super::output::{self, Array};
use super::page::{self, PageArgs};
use super::table;
use crate::args::Global;

/// `mozart dead`.
#[derive(Debug, Subcommand)]
pub enum DeadCommand {
    /// List the newest dead letters, oldest first
    Ls(LsArgs),
    /// Show a dead letter with every attempt and the worker's last log lines
    Show {
        /// The message: ID, AGENT/ID or AGENT/SENDER/ID
        message: MessageRef,
    },
    /// Send dead messages again, once each, as new messages that refer to the original
    Redrive(SelectArgs),
    /// Remove dead letters; the journal keeps the messages
    Drop(SelectArgs),
}

/// `mozart dead ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only dead letters of this agent
    #[arg(long)]
    agent: Option<AgentName>,
    #[command(flatten)]
    page: PageArgs<u64>,
}

/// Which dead letters.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct SelectArgs {
    /// The message: ID, AGENT/ID or AGENT/SENDER/ID
    message: Option<MessageRef>,
    /// All dead letters of this agent
    #[arg(long)]
    agent: Option<AgentName>,
    /// All dead letters
    #[arg(long)]
    all: bool,
}

/// Works on dead letters.
///
/// # Errors
/// 3 when there is no such dead letter.
pub(crate) async fn run(global: &Global, command: DeadCommand) -> Result<u8, ApiError> {
    match command {
        DeadCommand::Ls(args) => ls(&Client::to_read(global).await?, &args).await,
        DeadCommand::Show { message } => show(&Client::to_read(global).await?, &message).await,
        DeadCommand::Redrive(select) => {
            redrive_all(&Client::to_change(global).await?, &select).await
        }
        DeadCommand::Drop(select) => drop_all(&Client::to_change(global).await?, &select).await,
    }
}

const WHAT: &str = "cannot read the dead letters";

async fn ls(client: &Client, args: &LsArgs) -> Result<u8, ApiError> {
    let limit = args.page.limit(client.json()) as u64;
    let (agent, before) = (args.agent.as_ref(), args.page.before);
    let mut letters = client.broker.dead_page(agent, before, limit).await.attempt(WHAT)?;
    let (now, mut first) = (now(), None);
    let mut list = List::new(client.json(), HEADERS);
    let listed = async {
        while let Some(Stored { value: letter, seq, .. }) = letters.next().await.attempt(WHAT)? {
            first.get_or_insert(seq);
            list.item(&Shown::new(&letter), |shown| cells(shown.letter, now))?;
        }
        Ok(())
    };
    let listed = listed.await;
    list.end(listed)?;
    page::unreadable(letters.unreadable());
    if let (None, Some(agent)) = (first, &args.agent) {
        super::client::doubt(client, agent).await?;
    }
    if let Some(first) = first.filter(|_| letters.has_earlier()) {
        page::older(first);
    }
    Ok(0)
}

async fn show(client: &Client, message: &MessageRef) -> Result<u8, ApiError> {
    let letter = one(client, message).await?.value;
    if client.json() {
        output::json(&Shown::new(&letter))?;
    } else {
        output::line(render_one(&letter))?;
    }
    Ok(0)
}

async fn redrive_all(client: &Client, select: &SelectArgs) -> Result<u8, ApiError> {
    let mut done = Done::new(client);
    let result = redrive_each(client, select, &mut done).await;
    done.end(result)
}

async fn redrive_each(
    client: &Client,
    select: &SelectArgs,
    done: &mut Done,
) -> Result<u8, ApiError> {
    if let Some(message) = &select.message {
        let redriven = redrive(client, one(client, message).await?).await?;
        done.add(&redriven, &redriven.message_id, redriven.done())?;
        return Ok(0);
    }
    let mut failures = Failures::new(client.output);
    let mut before = 0;
    // Those that there are now: one that is marked as redriven moves to the end, and is met no second time.
    let mut letters = client.broker.dead_letters(select.agent.as_ref()).await.attempt(WHAT)?;
    while let Some(letter) = letters.next().await.attempt(WHAT)? {
        // All of them are those that are left to do: nobody asked for the copy of this one once more.
        if letter.value.redriven_as.is_some() {
            before += 1;
            continue;
        }
        match redrive(client, letter).await {
            Ok(redriven) => done.add(&redriven, &redriven.message_id, redriven.done())?,
            // One that cannot be sent again keeps no other from it.
            Err(error) if [failure::NOT_FOUND, failure::CONFLICT].contains(&error.code) => {
                failures.add(error);
            }
            Err(error) => return Err(error),
        }
    }
    page::unreadable(letters.unreadable());
    if before > 0 {
        let letters = table::count(before, "dead letter was", "dead letters were");
        output::note(format!("{letters} redriven before, and not sent again: `mozart dead ls`"));
    }
    failures.end()
}

/// What was done, told as it is done: an id a line, or one array.
struct Done {
    array: Option<Array>,
}

impl Done {
    fn new(client: &Client) -> Self {
        Self { array: client.json().then(Array::new) }
    }

    /// `what` was done, with this message; said on stderr where stdout cannot be written.
    fn add(&mut self, item: &impl Serialize, id: &MessageId, what: String) -> Result<(), ApiError> {
        let written = match &mut self.array {
            Some(array) => array.item(item),
            None => output::line(id.as_str()),
        };
        output::result(written, || what)
    }

    fn end(self, result: Result<u8, ApiError>) -> Result<u8, ApiError> {
        match self.array {
            Some(array) => array.end(result),
            None => result,
        }
    }
}

async fn drop_all(client: &Client, select: &SelectArgs) -> Result<u8, ApiError> {
    let mut done = Done::new(client);
    let result = drop_each(client, select, &mut done).await;
    done.end(result)
}

async fn drop_each(client: &Client, select: &SelectArgs, done: &mut Done) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot drop the dead letters";
    if let Some(message) = &select.message {
        let envelope = one(client, message).await?.value.envelope;
        let (key, id) = (envelope.key(), envelope.message_id);
        let what = format!("cannot drop dead letter {id}");
        if client.broker.drop_dead_letter(&key).await.attempt(what)? {
            done.add(&id, &id, format!("dead letter {id} was dropped"))?;
        }
        return Ok(0);
    }
    let mut dropping =
        client.broker.drop_dead_letters(select.agent.as_ref()).await.attempt(WHAT)?;
    while let Some(dropped) = dropping.next().await.attempt(WHAT)? {
        for key in dropped {
            let id = &key.message_id;
            done.add(id, id, format!("dead letter {id} was dropped"))?;
        }
    }
    Ok(0)
}

const HEADERS: [&str; 7] =
    ["MESSAGE", "AGENT", "SENDER", "ATTEMPTS", "AGE", "REDRIVEN-AS", "REASON"];

fn cells(letter: &DeadLetter, now: Timestamp) -> [String; HEADERS.len()] {
    [
        letter.envelope.message_id.to_string(),
        letter.envelope.agent.to_string(),
        letter.envelope.sender.to_string(),
        letter.attempts.len().to_string(),
        table::age(Some(letter.at), now),
        table::or_none(letter.redriven_as.as_ref()),
        table::one_line(&letter.reason, 60),
    ]
}

fn render_one(letter: &DeadLetter) -> String {
    let envelope = &letter.envelope;
    let mut lines = vec![
        format!("message       {}", envelope.message_id),
        format!("agent         {}", envelope.agent),
        format!("sender        {}", envelope.sender),
        format!("conversation  {}", envelope.conversation_id),
        format!("sent          {}", envelope.created_at),
        format!("given up      {}", letter.at),
        format!("reason        {}", letter.reason),
    ];
    if let Some(id) = &letter.redriven_as {
        lines.push(format!("redriven as   {id}"));
    }
    lines.push(format!("\n{}\n", envelope.message));
    for end in &letter.attempts {
        let (attempt, error) = (end.attempt, &end.error);
        lines.push(match end.incarnation {
            0 => format!("attempt {attempt}: {error}"),
            incarnation => format!("attempt {attempt} in incarnation {incarnation}: {error}"),
        });
    }
    if !letter.log.is_empty() {
        lines.push("\nlast log lines:".to_owned());
        lines.extend(letter.log.iter().map(|line| format!("  {line}")));
    }
    lines.join("\n")
}
