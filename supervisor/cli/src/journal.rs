//! `mozart journal`: what the journal, the history and the events say about messages.

use std::time::Duration;

use broker::{Attempt as _, Cursor, JournalFollower, Watched};
use clap::{Args, Subcommand, ValueEnum};
use common::api::{ApiError, MessageDetail, MessageRow};
use common::message::{MessageKey, Status};
use common::step::StepMark;
use common::{AgentName, ConversationId, SenderName, Timestamp, failure, words};
use mozart_client::journal::{self, Page, Statuses, Wanted, detail, row};
use mozart_client::reference::MessageRef;

use super::client::{Client, now};
use super::page::{self, PageArgs};
use super::{later, output, table};
use crate::args::{Global, duration};
use mozart_client::describe;

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

impl From<StatusArg> for Statuses {
    fn from(status: StatusArg) -> Self {
        match status {
            StatusArg::Pending => Self::One(Status::Pending),
            StatusArg::Delivered => Self::One(Status::Delivered),
            StatusArg::Acknowledged => Self::One(Status::Acknowledged),
            StatusArg::Completed => Self::One(Status::Completed),
            StatusArg::Failed => Self::One(Status::Failed),
            StatusArg::Cancelled => Self::One(Status::Cancelled),
            StatusArg::Expired => Self::One(Status::Expired),
            StatusArg::Open => Self::Open,
        }
    }
}

/// `mozart journal show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The message: ID, AGENT/ID or AGENT/SENDER/ID
    message: MessageRef,
    /// Show the results of its steps as well: until the message leaves the journal, or as long as `KEEP steps=` says
    #[arg(long)]
    results: bool,
}

/// Lists or shows messages.
///
/// # Errors
/// 3 when there is no such message.
pub(crate) async fn run(global: &Global, command: JournalCommand) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    match command {
        JournalCommand::Ls(args) => ls(&client, &args).await,
        JournalCommand::Show(args) => show(&client, &args).await,
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
    let query = Wanted {
        agent: args.agent.clone(),
        conversation: args.conversation.clone(),
        sender: args.sender.clone(),
        statuses: args.status.iter().map(|status| (*status).into()).collect(),
        since: args.since,
        before: args.page.before.clone(),
        limit: args.page.limit(client.json()),
    };
    let now = now();
    // Before what is there is read, so that nothing falls in between.
    let live = match args.follow {
        true => Some(client.broker.follow_journal(args.agent.as_ref()).await.attempt(WHAT)?),
        false => None,
    };
    let Page { rows, older, unreadable } = journal::list(&client.broker, &query).await?;
    if let Some(agent) = args.agent.as_ref().filter(|_| rows.is_empty()) {
        super::client::doubt(client, agent).await?;
    }
    if client.json() && args.follow {
        rows.iter().try_for_each(output::json_line)?;
    } else if client.json() {
        output::json(&rows)?;
    } else {
        output::line(render(&rows, now))?;
    }
    page::unreadable(unreadable);
    if let Some(older) = older {
        page::older(older);
    }
    match live {
        Some(live) => follow(client, &query, live, &rows).await,
        None => Ok(0),
    }
}

/// Shows messages as they are stored and end. What was listed already is not shown again as it is.
async fn follow(
    client: &Client,
    args: &Wanted,
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

async fn show(client: &Client, args: &ShowArgs) -> Result<u8, ApiError> {
    let mut detail = detail(&client.broker, &args.message).await?;
    if args.results && !detail.steps.is_empty() {
        let MessageRow { agent, sender, message_id, .. } = detail.row.clone();
        let key = MessageKey { agent, sender, message_id };
        let what = || format!("cannot read the steps of {}", key.message_id);
        let kept = client.broker.steps(&key, true).await.attempt(what())?;
        if !kept.is_empty() {
            detail.steps = kept;
        }
    }
    if client.json() {
        output::json(&detail)?;
    } else {
        output::line(render_detail(&detail))?;
    }
    Ok(0)
}

fn render(rows: &[MessageRow], now: Timestamp) -> String {
    let headers = ["MESSAGE", "AGENT", "SENDER", "STATUS", "ATTEMPTS", "AGE", "TEXT"];
    let cells = |row: &MessageRow| {
        vec![
            row.message_id.to_string(),
            row.agent.to_string(),
            row.sender.to_string(),
            later::status(row.status, row.deliver_at),
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
        format!("status        {}", later::status(row.status, row.deliver_at)),
        format!("attempts      {}", row.attempts),
        format!("sent          {}", row.created_at),
        format!("changed       {}", row.updated_at),
    ];
    if let Some(at) = &row.deliver_at {
        lines.push(format!("deliver at    {at}"));
    }
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
    if !detail.steps.is_empty() {
        let headers = ["STEP", "STORED", "ATTEMPT", "RESULT"];
        let cells = |step: &StepMark| {
            vec![
                table::one_line(&step.key, 60),
                step.at.to_string(),
                step.attempt.to_string(),
                words::bytes(step.bytes),
            ]
        };
        lines.push(format!("\n{}", table::table(&headers, detail.steps.iter().map(cells))));
        for StepMark { key, result, .. } in &detail.steps {
            let result = result.as_ref().map(|result| words::shown(result.text()));
            lines.extend(result.map(|it| format!("\n{}:\n{it}", table::one_line(key, 60))));
        }
    }
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
    use super::*;
    use broker::EventBatch;
    use common::event::{Event, EventBody};
    use common::message::{Envelope, Final, Outcome};
    use mozart_client::send::Draft;

    fn envelope() -> Envelope {
        let agent = AgentName::new("a").expect("valid");
        let sender = SenderName::new("user").expect("valid");
        let (text, id) = ("hello".to_owned(), common::MessageId::new("m1").ok());
        let (conversation, deadline, traceparent, deliver_at) = (None, None, None, None);
        Draft { agent, sender, text, conversation, id, deadline, traceparent, deliver_at }
            .envelope()
    }

    fn delivered() -> EventBatch {
        let request = envelope();
        let (at, body) = (Timestamp::from_millis(11), EventBody::Delivered { incarnation: 1 });
        EventBatch {
            agent: request.agent,
            sender: request.sender,
            message_id: request.message_id,
            conversation_id: request.conversation_id,
            incarnation: 1,
            attempt: 1,
            events: vec![Event { seq: 1, at, body }],
        }
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
            let row = row(envelope(), final_, &batches);
            let history = batches.into_iter().flat_map(|batch| batch.events).collect();
            render_detail(&MessageDetail { row, history, steps: Vec::new() })
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
        let batches = || vec![delivered()];
        let answered = shown(Some(&completed), batches());
        let last =
            "delivered to incarnation 1\n1970-01-01T00:00:00.099Z  completed after 1 attempt\n\nxy";
        assert!(answered.ends_with(last), "{answered}");
        let open = shown(None, batches());
        assert!(open.ends_with("delivered to incarnation 1"), "{open}");
    }
}
