//! `mozart journal`: what the journal, the history and the events say about messages.

use std::time::Duration;

use broker::{Broker, Cursor, EventBatch, Found, JournalFollower, ListQuery, Watched};
use clap::{Args, Subcommand, ValueEnum};
use common::api::{ApiError, MessageDetail, MessageRow};
use common::event::{ATTEMPT_STRIDE, Event, EventBody, sequence};
use common::message::{AttemptEnd, Envelope, Final, Status};
use common::{AgentName, ConversationId, ConversationTag, SenderName, Timestamp};

use super::client::{Client, now};
use super::page::{self, PageArgs};
use super::reference::MessageRef;
use super::{describe, output, table};
use crate::args::{Global, duration};
use broker::Attempt;
use common::failure;

/// The most messages that are read to find those with a status; then a cursor is printed to continue from.
const LOOKED: usize = 20_000;

/// `mozart journal`.
#[derive(Debug, Subcommand)]
pub enum JournalCommand {
    /// List the newest messages, oldest first
    Ls(LsArgs),
    /// Show a message with everything that happened to it
    Show(ShowArgs),
}

/// `mozart journal ls`.
#[derive(Debug, Args)]
pub struct LsArgs {
    /// Only messages to this agent
    #[arg(long)]
    agent: Option<AgentName>,
    /// Only messages with this status; repeat for several
    #[arg(long, value_enum, value_name = "STATUS")]
    status: Vec<StatusArg>,
    /// Only this conversation (needs --agent)
    #[arg(long, value_name = "ID")]
    conversation: Option<ConversationId>,
    #[command(flatten)]
    page: PageArgs<Cursor>,
    /// Only messages sent within this time
    #[arg(long, value_parser = duration, value_name = "TIME")]
    since: Option<Duration>,
    /// Only messages from this sender: an agent, or `user`
    #[arg(long, value_name = "NAME")]
    sender: Option<SenderName>,
    /// Follow: show each message when it is stored, and again with its final state
    #[arg(short, long)]
    follow: bool,
}

impl LsArgs {
    fn is_of(&self, request: &Envelope) -> bool {
        self.conversation.as_ref().is_none_or(|wanted| *wanted == request.conversation_id)
            && self.sender.as_ref().is_none_or(|wanted| *wanted == request.sender)
    }

    fn is_status(&self, status: Status) -> bool {
        self.status.is_empty() || self.status.iter().any(|one| one.matches(status))
    }
}

/// A status on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StatusArg {
    Pending,
    Delivered,
    Acknowledged,
    Completed,
    Failed,
    Cancelled,
    Expired,
    /// Any status that is not final.
    Open,
}

impl StatusArg {
    /// Whether a message with this status is open.
    fn is_open(self) -> bool {
        match self {
            Self::Pending | Self::Delivered | Self::Acknowledged | Self::Open => true,
            Self::Completed | Self::Failed | Self::Cancelled | Self::Expired => false,
        }
    }

    fn matches(self, status: Status) -> bool {
        match self {
            Self::Pending => status == Status::Pending,
            Self::Delivered => status == Status::Delivered,
            Self::Acknowledged => status == Status::Acknowledged,
            Self::Completed => status == Status::Completed,
            Self::Failed => status == Status::Failed,
            Self::Cancelled => status == Status::Cancelled,
            Self::Expired => status == Status::Expired,
            Self::Open => !status.is_final(),
        }
    }
}

/// `mozart journal show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The message: ID, AGENT/ID or AGENT/SENDER/ID
    message: MessageRef,
}

/// Lists or shows messages.
///
/// # Errors
/// 3 when there is no such message.
pub(crate) async fn run(global: &Global, command: JournalCommand) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    match command {
        JournalCommand::Ls(args) => ls(&client, &args).await,
        JournalCommand::Show(args) => show(&client, &args.message).await,
    }
}

async fn ls(client: &Client, args: &LsArgs) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot read the journal";
    if args.conversation.is_some() && args.agent.is_none() {
        let cause = "a conversation belongs to one agent";
        return Err(failure::error(
            failure::USAGE,
            "--conversation needs --agent",
            cause,
            "--agent NAME",
        ));
    }
    let limit = args.page.limit(client.json());
    let query = ListQuery {
        agent: args.agent.clone(),
        conversation: args.conversation.as_ref().map(ConversationTag::of_conversation),
        after: args.page.before.clone(),
        about: limit,
        hot: !args.status.is_empty() && args.status.iter().all(|status| status.is_open()),
    };
    let now = now();
    // Before what is there is read, so that nothing falls in between.
    let live = match args.follow {
        true => Some(client.broker.follow_journal(args.agent.as_ref()).await.attempt(WHAT)?),
        false => None,
    };
    let mut listing = client.broker.list(&query).await.attempt(WHAT)?;
    let (mut rows, mut looked, mut more) = (Vec::new(), 0, false);
    while let Some(listed) = listing.next().await.attempt(WHAT)? {
        looked += 1;
        // As its age is shown: what was imported was sent long before it was stored here.
        let sent = listed.request.value.created_at.min(listed.request.at);
        if let Some(since) = args.since
            && now.since(sent) > since
        {
            // The history is in the order in which messages finished: what finished before has nothing younger behind it.
            let finished = listed.final_.as_ref().filter(|_| listed.archived);
            if looked >= LOOKED || finished.is_some_and(|final_| now.since(final_.at) > since) {
                break;
            }
            continue;
        }
        let request = listed.request.value;
        let final_ = listed.final_.map(|stored| stored.value);
        if args.is_of(&request) {
            let events = match final_ {
                Some(_) => Vec::new(),
                None => events(&client.broker, &request).await?,
            };
            let row = row(request, final_.as_ref(), &events);
            rows.extend(Some(row).filter(|row| args.is_status(row.status)));
        }
        if rows.len() >= limit || looked >= LOOKED {
            more = true;
            break;
        }
    }
    rows.reverse();
    if let Some(agent) = args.agent.as_ref().filter(|_| rows.is_empty()) {
        super::agents::doubt(client, agent).await?;
    }
    if client.json() && args.follow {
        rows.iter().try_for_each(output::json_line)?;
    } else if client.json() {
        output::json(&rows)?;
    } else {
        output::line(render(&rows, now))?;
    }
    page::unreadable(listing.unreadable());
    if more {
        page::older(listing.place());
    }
    match live {
        Some(live) => follow(client, args, live, &rows).await,
        None => Ok(0),
    }
}

/// Shows messages as they are stored and end. What was listed already is not shown again as it is.
async fn follow(
    client: &Client,
    args: &LsArgs,
    mut live: JournalFollower,
    listed: &[MessageRow],
) -> Result<u8, ApiError> {
    const WHAT: &str = "cannot follow the journal";
    let is_listed = |row: &MessageRow| {
        listed.iter().any(|it| {
            (&it.agent, &it.sender, &it.message_id, it.status)
                == (&row.agent, &row.sender, &row.message_id, row.status)
        })
    };
    loop {
        let (request, final_) = match live.next().await.attempt(WHAT)? {
            Watched::Request(request) => (*request, None),
            Watched::Final(key, final_) => {
                match client.broker.message_of(&key).await.attempt(WHAT)? {
                    Some(request) => (request.value, Some(final_)),
                    // It was forgotten.
                    None => continue,
                }
            }
        };
        if !args.is_of(&request) {
            continue;
        }
        let row = row(request, final_.as_deref(), &[]);
        if !args.is_status(row.status) || is_listed(&row) {
            continue;
        }
        if client.json() {
            output::json_line(&row)?;
        } else {
            let shown = render(std::slice::from_ref(&row), now());
            output::line(shown.lines().skip(1).collect::<Vec<_>>().join("\n"))?;
        }
    }
}

async fn show(client: &Client, message: &MessageRef) -> Result<u8, ApiError> {
    let detail = detail(&client.broker, message).await?;
    if client.json() {
        output::json(&detail)?;
    } else {
        output::line(render_detail(&detail))?;
    }
    Ok(0)
}

/// A message with its history.
///
/// # Errors
/// 3 when there is no such message.
pub(crate) async fn detail(
    broker: &Broker,
    message: &MessageRef,
) -> Result<MessageDetail, ApiError> {
    let Found { request, archived } = message.resolve_whole(broker).await?;
    let request = request.value;
    let what = || format!("cannot read message {}", request.message_id);
    let key = request.key();
    let events = async { events(broker, &request).await };
    let (final_, mut attempts, batches) = match archived {
        Some(archived) => (Some(archived.final_.value), Some(archived.attempts), events.await?),
        None => {
            let outcome = async { broker.outcome_of(&key).await.attempt(what()) };
            let (outcome, batches) = tokio::try_join!(outcome, events)?;
            (outcome.map(|stored| stored.value), None, batches)
        }
    };
    let mut ends = Vec::new();
    if let Some(final_) = final_.as_ref().filter(|final_| final_.attempts > 1)
        && batches.is_empty()
    {
        // EVENTS keeps less than the history does.
        if attempts.is_none() {
            let archived = broker.archived_of(&key).await.attempt(what())?;
            attempts = archived.map(|archived| archived.attempts);
        }
        ends = attempts.into_iter().flatten().map(|end| ended(end, final_.at)).collect();
    }
    let row = row(request, final_.as_ref(), &batches);
    ends.extend(history(batches, final_));
    Ok(MessageDetail { row, history: ends })
}

/// An attempt's end as the event that it was; when that was is not kept.
fn ended(end: AttemptEnd, at: Timestamp) -> Event {
    let AttemptEnd { attempt, error, .. } = end;
    Event { seq: sequence(attempt, ATTEMPT_STRIDE), at, body: EventBody::Error { error } }
}

/// The status of a message.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn status(broker: &Broker, request: &Envelope) -> Result<Status, ApiError> {
    let what = format!("cannot look up message {}", request.message_id);
    if let Some(final_) = broker.outcome_of(&request.key()).await.attempt(what)? {
        return Ok(final_.value.status.into());
    }
    Ok(open_status(&events(broker, request).await?))
}

async fn events(broker: &Broker, request: &Envelope) -> Result<Vec<EventBatch>, ApiError> {
    let what = format!("cannot read the events of {}", request.message_id);
    broker.events(&request.key()).await.attempt(what)
}

/// The status of a message that is not final: the last of `delivered` and `acknowledged`.
fn open_status(batches: &[EventBatch]) -> Status {
    batches
        .iter()
        .flat_map(|batch| &batch.events)
        .rev()
        .find_map(|event| match event.body {
            EventBody::Delivered { .. } => Some(Status::Delivered),
            EventBody::Acknowledged => Some(Status::Acknowledged),
            EventBody::Text { .. }
            | EventBody::Worker { .. }
            | EventBody::Error { .. }
            | EventBody::Reset { .. } => None,
        })
        .unwrap_or(Status::Pending)
}

fn row(request: Envelope, final_: Option<&Final>, batches: &[EventBatch]) -> MessageRow {
    let last_event = batches.iter().flat_map(|batch| &batch.events).map(|event| event.at).max();
    MessageRow {
        status: final_.map_or_else(|| open_status(batches), |final_| final_.status.into()),
        attempts: final_.map_or_else(
            || batches.iter().map(|batch| batch.attempt).max().unwrap_or(0),
            |final_| final_.attempts,
        ),
        response: final_.and_then(|final_| final_.response.clone()),
        reason: final_.and_then(|final_| final_.reason.clone()),
        updated_at: final_.map(|final_| final_.at).or(last_event).unwrap_or(request.created_at),
        message_id: request.message_id,
        agent: request.agent,
        sender: request.sender,
        conversation_id: request.conversation_id,
        kind: request.kind,
        message: request.message,
        created_at: request.created_at,
        cause: request.cause,
        redrive_of: request.redrive_of,
    }
}

/// All events in order: a final state brings those along that were not stored before it.
fn history(batches: Vec<EventBatch>, final_: Option<Final>) -> Vec<Event> {
    let mut history: Vec<Event> = batches.into_iter().flat_map(|batch| batch.events).collect();
    let known = history.len();
    for event in final_.into_iter().flat_map(|final_| final_.tail) {
        if !history[..known].iter().any(|seen| seen.seq == event.seq) {
            history.push(event);
        }
    }
    history
}

fn render(rows: &[MessageRow], now: Timestamp) -> String {
    let headers = ["MESSAGE", "AGENT", "SENDER", "STATUS", "ATTEMPTS", "AGE", "TEXT"];
    let cells = |row: &MessageRow| {
        vec![
            row.message_id.to_string(),
            row.agent.to_string(),
            row.sender.to_string(),
            row.status.as_str().to_owned(),
            row.attempts.to_string(),
            table::age(Some(row.created_at), now),
            table::one_line(&row.message, 40),
        ]
    };
    table::table(&headers, rows.iter().map(cells))
}

fn render_detail(detail: &MessageDetail) -> String {
    let row = &detail.row;
    let mut lines = vec![
        format!("message       {}", row.message_id),
        format!("agent         {}", row.agent),
        format!("sender        {}", row.sender),
        format!("conversation  {}", row.conversation_id),
        format!("status        {}", row.status.as_str()),
        format!("attempts      {}", row.attempts),
        format!("sent          {}", row.created_at),
        format!("changed       {}", row.updated_at),
    ];
    if let Some(cause) = &row.cause {
        lines.push(format!("caused by     {}/{}/{}", cause.agent, cause.sender, cause.message_id));
    }
    if let Some(dead) = &row.redrive_of {
        lines.push(format!("repeats       {dead}"));
    }
    if let Some(reason) = &row.reason {
        lines.push(format!("reason        {reason}"));
    }
    lines.push(format!("\n{}", row.message));
    if !detail.history.is_empty() || row.status.is_final() {
        lines.push(String::new());
        lines.extend(detail.history.iter().map(describe::event));
    }
    if row.status.is_final() {
        let attempts = match row.attempts {
            0 => String::new(),
            some => format!(" after {}", table::count(some.into(), "attempt", "attempts")),
        };
        lines.push(format!("{}  {}{attempts}", row.updated_at, row.status.as_str()));
    }
    if let Some(response) = &row.response {
        lines.push(format!("\n{response}"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::reference::tests::envelope;
    use super::*;
    use common::message::Outcome;

    fn batch(attempt: u32, events: Vec<(u64, EventBody)>) -> EventBatch {
        let request = envelope("a", "m1");
        let event = |(seq, body)| Event { seq, at: Timestamp::from_millis(10 + seq), body };
        EventBatch {
            agent: request.agent,
            sender: request.sender,
            message_id: request.message_id,
            conversation_id: request.conversation_id,
            incarnation: 1,
            attempt,
            events: events.into_iter().map(event).collect(),
        }
    }

    fn text(text: &str) -> EventBody {
        EventBody::Text { text: text.to_owned() }
    }

    #[test]
    fn an_open_message_stands_where_its_last_event_says() {
        let mut batches = Vec::new();
        assert_eq!(open_status(&batches), Status::Pending);
        batches.push(batch(1, vec![(1, EventBody::Delivered { incarnation: 1 }), (2, text("x"))]));
        assert_eq!(open_status(&batches), Status::Delivered);
        batches.push(batch(1, vec![(3, EventBody::Acknowledged), (4, text("y"))]));
        assert_eq!(open_status(&batches), Status::Acknowledged);
        let row = row(envelope("a", "m1"), None, &batches);
        assert_eq!((row.status, row.attempts), (Status::Acknowledged, 1));
        assert_eq!(row.updated_at, Timestamp::from_millis(14));
    }

    #[test]
    fn a_final_state_has_the_last_word_and_brings_its_tail() {
        let final_ = Final {
            status: Outcome::Completed,
            response: Some("xy".to_owned()),
            reason: None,
            attempts: 2,
            incarnation: Some(1),
            at: Timestamp::from_millis(99),
            tail: vec![
                Event { seq: 2, at: Timestamp::from_millis(12), body: text("x") },
                Event { seq: 3, at: Timestamp::from_millis(13), body: text("y") },
            ],
        };
        let batches =
            vec![batch(1, vec![(1, EventBody::Delivered { incarnation: 1 }), (2, text("x"))])];
        let row = row(envelope("a", "m1"), Some(&final_), &batches);
        assert_eq!((row.status, row.attempts), (Status::Completed, 2));
        assert_eq!(row.updated_at, Timestamp::from_millis(99));
        let seqs: Vec<u64> = history(batches, Some(final_)).iter().map(|e| e.seq).collect();
        assert_eq!(seqs, [1, 2, 3]);
    }

    #[test]
    fn the_timeline_ends_with_the_final_state_and_its_time() {
        let final_ = Final {
            status: Outcome::Expired,
            response: None,
            reason: Some("its deadline passed".to_owned()),
            attempts: 0,
            incarnation: None,
            at: Timestamp::from_millis(99),
            tail: Vec::new(),
        };
        let shown = |final_: Option<&Final>, batches: Vec<EventBatch>| {
            let row = row(envelope("a", "m1"), final_, &batches);
            render_detail(&MessageDetail { row, history: history(batches, final_.cloned()) })
        };
        let expired = shown(Some(&final_), Vec::new());
        let last = "\n\n1970-01-01T00:00:00.099Z  expired";
        assert!(expired.ends_with(last), "{expired}");
        let completed = Final {
            status: Outcome::Completed,
            response: Some("xy".to_owned()),
            reason: None,
            attempts: 1,
            ..final_
        };
        let batches = || vec![batch(1, vec![(1, EventBody::Delivered { incarnation: 1 })])];
        let answered = shown(Some(&completed), batches());
        let last =
            "delivered to incarnation 1\n1970-01-01T00:00:00.099Z  completed after 1 attempt\n\nxy";
        assert!(answered.ends_with(last), "{answered}");
        let open = shown(None, batches());
        assert!(open.ends_with("delivered to incarnation 1"), "{open}");
    }

    #[test]
    fn open_is_whatever_is_not_final() {
        assert!(StatusArg::Open.matches(Status::Acknowledged));
        assert!(!StatusArg::Open.matches(Status::Expired));
        assert!(StatusArg::Failed.matches(Status::Failed));
    }
}
