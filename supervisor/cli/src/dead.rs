//! `mozart dead`: messages that were given up.

use std::time::Duration;

use broker::{SendOutcome, Stored};
use clap::{Args, Subcommand};
use common::api::ApiError;
use common::message::{DeadLetter, Envelope, Kind, MessageKey, Outcome, Status};
use common::{AgentName, ConversationId, MessageId, Timestamp};
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use super::client::{Client, now};
use super::lifecycle::Failures;
use super::list::List;
use super::output::{self, Array};
use super::page::{self, PageArgs};
use super::reference::{MessageRef, NotOne, only_id};
use super::table;
use crate::args::Global;
use broker::Attempt;
use common::failure;

/// The namespace of the ids of redriven messages: the same dead letter always becomes the same message.
const REDRIVEN: Uuid = Uuid::from_u128(0x6d6f_7a61_7274_5e64_9264_7265_6472_6976);

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

/// Whether a message has failed just now: its letter is stored after its final state, and before it is done with.
async fn is_on_its_way(client: &Client, message: &MessageRef) -> bool {
    const LATELY: Duration = Duration::from_secs(10);
    let Ok(request) = message.resolve(&client.broker).await else { return false };
    match client.broker.outcome_of(&request.value.key()).await {
        Ok(Some(Stored { value, .. })) => {
            value.status == Outcome::Failed && now().since(value.at) < LATELY
        }
        _ => false,
    }
}

async fn one(client: &Client, message: &MessageRef) -> Result<Stored<DeadLetter>, ApiError> {
    const WAIT: Duration = Duration::from_secs(3);
    const AGAIN: Duration = Duration::from_millis(50);
    let until = Instant::now() + WAIT;
    let found = loop {
        let found = named(client, message).await?;
        if found.is_ok() || Instant::now() > until || !is_on_its_way(client, message).await {
            break found;
        }
        tokio::time::sleep(AGAIN).await;
    };
    let id = &message.message_id;
    let mut letters = found.map_err(|why| {
        failure::error(
            failure::NOT_FOUND,
            why.what(id, "dead letter"),
            why.or("no message with that id was given up, or its dead letter was dropped"),
            format!("`mozart dead ls`, `mozart journal show {id}`"),
        )
    })?;
    if letters.len() > 1 {
        let names = letters.iter().map(|letter| {
            let Envelope { agent, sender, message_id, .. } = &letter.value.envelope;
            format!("{agent}/{sender}/{message_id}")
        });
        let what = format!("{} dead letters have the id {id}", letters.len());
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(failure::error(failure::NOT_FOUND, what, names, "name one of them in full"));
    }
    letters.pop().ok_or_else(|| failure::error(failure::NOT_FOUND, WHAT, "it no longer exists", ""))
}

/// The dead letters of the messages that are named, at least one: by their id, else by how it begins.
async fn named(
    client: &Client,
    message: &MessageRef,
) -> Result<Result<Vec<Stored<DeadLetter>>, NotOne>, ApiError> {
    let (agent, sender) = (message.agent.as_ref(), message.sender.as_ref());
    let of = async |id: &MessageId| client.broker.dead_named(agent, sender, id).await.attempt(WHAT);
    let letters = of(&message.message_id).await?;
    if !letters.is_empty() {
        return Ok(Ok(letters));
    }
    let beginning = message.message_id.as_str();
    let ids = client.broker.dead_ids(agent, sender, beginning).await.attempt(WHAT)?;
    let whole = match only_id(&ids) {
        Ok(whole) => whole,
        Err(why) => return Ok(Err(why)),
    };
    let letters = of(whole).await?;
    Ok(if letters.is_empty() { Err(NotOne::None) } else { Ok(letters) })
}

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
        super::agents::doubt(client, agent).await?;
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

/// The outcome of a dead message.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Redriven {
    message_id: MessageId,
    agent: AgentName,
    redrive_of: MessageId,
}

impl Redriven {
    fn done(&self) -> String {
        format!("dead letter {} was redriven as {}", self.redrive_of, self.message_id)
    }
}

/// Sends a dead message again, unless that was done before. Doing so twice at once, or after a crash in between, sends it once.
///
/// # Errors
/// 4 when it was sent again before.
async fn redrive(client: &Client, letter: Stored<DeadLetter>) -> Result<Redriven, ApiError> {
    const STORE: Duration = Duration::from_secs(15);
    let Stored { value: mut letter, seq, .. } = letter;
    let dead = letter.envelope.message_id.clone();
    let agent = letter.envelope.agent.clone();
    if let Some(copy) = &letter.redriven_as {
        return Err(redriven_before(client, &letter.envelope, copy).await?);
    }
    let what = || format!("cannot redrive message {dead}");
    let whole = match letter.cut {
        false => letter.envelope.clone(),
        // Only its beginning fitted the letter.
        true => match client.broker.message_of(&letter.envelope.key()).await.attempt(what())? {
            Some(request) => request.value,
            None => {
                let cause = "its dead letter does not hold the whole message, which is no longer in the journal or the history";
                return Err(failure::error(failure::NOT_FOUND, what(), cause, "`mozart send`"));
            }
        },
    };
    let again = again(&whole, seq, now());
    match client.broker.send_again(&again, STORE).await.attempt(what())? {
        SendOutcome::Stored { .. } | SendOutcome::Already { .. } => {}
        SendOutcome::Conflict { .. } => {
            let cause = format!("another message has the id {}", again.message_id);
            return Err(failure::error(failure::CONFLICT, what(), cause, "`mozart send`"));
        }
    }
    letter.redriven_as = Some(again.message_id.clone());
    // Whoever was faster marked it with the same id.
    let _marked = client.broker.rebury(&letter, seq).await.attempt(what())?;
    Ok(Redriven { message_id: again.message_id, agent, redrive_of: dead })
}

/// That a dead message was sent again before, and what became of the copy.
async fn redriven_before(
    client: &Client,
    dead: &Envelope,
    copy: &MessageId,
) -> Result<ApiError, ApiError> {
    let key = MessageKey { message_id: copy.clone(), ..dead.key() };
    let request = client.broker.message_of(&key).await.attempt("cannot look up its copy")?;
    let status = match request {
        Some(request) => Some(super::journal::status(&client.broker, &request.value).await?),
        None => None,
    };
    let became = match status {
        None => "is no longer kept",
        Some(Status::Pending) => "is pending",
        Some(Status::Delivered) => "is delivered",
        Some(Status::Acknowledged) => "is acknowledged",
        Some(Status::Completed) => "is completed",
        Some(Status::Failed) => "failed",
        Some(Status::Cancelled) => "was cancelled",
        Some(Status::Expired) => "expired",
    };
    let try_ = match status {
        // It has a dead letter of its own.
        Some(Status::Failed) => format!("`mozart dead redrive {copy}`"),
        Some(_) => format!("`mozart journal show {copy}`"),
        None => format!("`mozart dead show {}`", dead.message_id),
    };
    let what = format!("dead letter {} was redriven before", dead.message_id);
    Ok(failure::error(failure::CONFLICT, what, format!("its copy {copy} {became}"), try_))
}

/// The message that repeats a dead one. No agent waits for a route's answer any more, so it becomes a chat.
fn again(dead: &Envelope, seq: u64, at: Timestamp) -> Envelope {
    let name = format!("{}/{}/{}/{seq}", dead.agent, dead.sender, dead.message_id);
    let message_id = MessageId::from(Uuid::new_v5(&REDRIVEN, name.as_bytes()));
    let own = dead.conversation_id.as_str() == dead.message_id.as_str();
    Envelope {
        conversation_id: if own {
            ConversationId::from(&message_id)
        } else {
            dead.conversation_id.clone()
        },
        message_id,
        kind: Kind::Chat,
        created_at: at,
        request_id: None,
        deadline: None,
        hops: 0,
        cause: None,
        path: Vec::new(),
        redrive_of: Some(dead.message_id.clone()),
        traceparent: dead.traceparent,
        agent: dead.agent.clone(),
        sender: dead.sender.clone(),
        message: dead.message.clone(),
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

/// A dead letter in JSON, its id and agent in front where scripts look for them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    message_id: &'a MessageId,
    agent: &'a AgentName,
    #[serde(flatten)]
    letter: &'a DeadLetter,
}

impl<'a> Shown<'a> {
    fn new(letter: &'a DeadLetter) -> Self {
        Self { message_id: &letter.envelope.message_id, agent: &letter.envelope.agent, letter }
    }
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

#[cfg(test)]
mod tests {
    use super::super::reference::tests::envelope;
    use super::*;

    #[test]
    fn a_dead_letter_always_becomes_the_same_message() {
        let dead = envelope("a", "m1");
        let (at, later) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
        let first = again(&dead, 7, at);
        assert!(first.same_content(&again(&dead, 7, later)));
        assert_ne!(first.message_id, again(&dead, 8, at).message_id);
        assert_ne!(first.message_id, dead.message_id);
    }

    #[test]
    fn a_redriven_message_names_its_origin_and_keeps_its_conversation() {
        let mut dead = envelope("a", "m1");
        let own = again(&dead, 7, Timestamp::from_millis(1));
        assert_eq!(own.conversation_id.as_str(), own.message_id.as_str());
        assert_eq!(own.redrive_of, Some(dead.message_id.clone()));

        dead.conversation_id = ConversationId::new("c").expect("valid");
        dead.kind = Kind::Route;
        dead.request_id = Some("r".to_owned());
        let shared = again(&dead, 7, Timestamp::from_millis(1));
        assert_eq!(shared.conversation_id.as_str(), "c");
        assert_eq!((shared.kind, shared.request_id), (Kind::Chat, None));
    }
}
