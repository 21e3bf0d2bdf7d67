//! The other sides of an agent: its timeline, queue, logs and configuration.

use broker::{Attempt as _, ControlItem, Cursor, ListQuery};
use common::api::{ApiError, MessageRow};
use common::control::ControlEvent;
use common::log::LogLine;
use common::spec::AgentSpec;
use common::users::Scope;
use common::{AgentName, Timestamp, words};
use maud::{Markup, html};
use mozart_client::changes::Change;
use mozart_client::describe;
use mozart_client::ends::Incarnations;
use mozart_client::journal::{self, Wanted};
use mozart_client::rollout::{self, Generation};

use super::parts::{self, Action, Context, of_message, state, time};
use crate::caller::Caller;

/// Records of a timeline, and messages.
const RECORDS: u64 = 100;
const MESSAGES: usize = 50;
/// Messages of a queue, and those that are read to find them: those that are open are the newest ones, as a rule.
const WAITING: usize = 50;
const LOOKED: usize = 500;
/// Lines of a log, and how much of one is shown, in characters.
const LINES: usize = 200;
const LINE: usize = 2_000;
/// Generations that are shown.
const GENERATIONS: usize = 20;

/// What happened to an agent and its messages.
#[derive(Debug)]
pub(super) struct Timeline(Vec<Happening>);

#[derive(Debug)]
struct Happening {
    at: Timestamp,
    what: What,
}

#[derive(Debug)]
enum What {
    Record { seq: u64, text: String, author: String },
    Message(Box<MessageRow>),
}

impl Timeline {
    pub(super) async fn load(caller: &Caller, agent: &AgentName) -> Result<Self, ApiError> {
        const WHAT: &str = "cannot read the control log";
        let broker = &caller.client.broker;
        let records = async {
            let last = broker.control_last_seq().await.attempt(WHAT)?;
            let page = broker.control_page(Some(agent), last + 1, RECORDS).await;
            let mut page = page.attempt(WHAT)?;
            let (mut all, mut seen) = (Vec::new(), Incarnations::default());
            let mut spec: Option<Box<AgentSpec>> = None;
            while let Some(item) = page.next().await.attempt(WHAT)? {
                let ControlItem::Record { seq, record, .. } = item else { continue };
                let text = describe::control_after(&record, spec.as_deref(), &seen);
                seen.see(&record.event);
                let (at, author) = (record.at, record.author);
                if let ControlEvent::AgentApplied { spec: applied, .. } = record.event {
                    spec = Some(applied);
                }
                all.push(Happening { at, what: What::Record { seq, text, author } });
            }
            Ok::<_, ApiError>(all)
        };
        let wanted = Wanted { agent: Some(agent.clone()), limit: MESSAGES, ..Wanted::default() };
        let messages = journal::list(broker, &wanted);
        let (mut all, messages) = tokio::try_join!(records, messages)?;
        let messages = messages.rows.into_iter();
        all.extend(
            messages.map(|row| Happening { at: row.created_at, what: What::Message(row.into()) }),
        );
        all.sort_by_key(|one| std::cmp::Reverse(one.at));
        Ok(Self(all))
    }

    pub(super) fn main(&self, agent: &AgentName) -> Markup {
        html! {
            p id="about" { "Incarnations and messages, the newest first. As a command: " (parts::command(&format!("mozart events {agent}"))) }
            ol id="timeline" class="timeline" {
                @for one in &self.0 {
                    @match &one.what {
                        What::Record { seq, text, author } => {
                            li id={ "record-" (seq) } class="record" { (time(one.at)) " " (parts::short(text, 500)) " " span class="small" { "by " (author) } }
                        }
                        What::Message(row) => {
                            li id={ "told-" (row.sender) "-" (row.message_id) } { (time(one.at)) " " (of_row(row)) }
                        }
                    }
                }
            }
        }
    }
}

/// A message in a line.
fn of_row(row: &MessageRow) -> Markup {
    let (sign, word) = of_message(row.status);
    let path = format!("/messages/{}/{}/{}", row.agent, row.sender, row.message_id);
    html! { a href=(path) { (parts::short(&row.message, 80)) } " from " (row.sender) " " (state(sign, word)) }
}

/// The messages that are not final, the first one first.
#[derive(Debug)]
pub(super) struct Queue {
    rows: Vec<MessageRow>,
    is_first: bool,
    /// How many are open, of this page and of others.
    open: u64,
    /// Where to look for others.
    older: Option<Cursor>,
}

impl Queue {
    pub(super) async fn load(
        caller: &Caller,
        agent: &AgentName,
        before: Option<Cursor>,
    ) -> Result<Self, ApiError> {
        const WHAT: &str = "cannot read the journal";
        let broker = &caller.client.broker;
        let is_first = before.is_none();
        // Counted, not read: how much is read depends on how many are open, and not on how many there were.
        let open = broker.count_open(agent).await.attempt(WHAT)?;
        let wanted = usize::try_from(open).unwrap_or(WAITING).min(WAITING);
        let (mut rows, mut looked, mut older) = (Vec::new(), 0, None);
        if wanted > 0 {
            let (agent, about) = (Some(agent.clone()), wanted);
            let query =
                ListQuery { agent, after: before, about, hot: true, ..ListQuery::default() };
            let mut listing = broker.list(&query).await.attempt(WHAT)?;
            loop {
                if rows.len() >= wanted || looked >= LOOKED {
                    older = Some(listing.place()).filter(|_| (rows.len() as u64) < open);
                    break;
                }
                let Some(listed) = listing.next().await.attempt(WHAT)? else { break };
                looked += 1;
                if listed.final_.is_none() {
                    let mut row = journal::listed_row(broker, listed.request.value, None).await?;
                    row.message = parts::short(&row.message, 80);
                    rows.push(row);
                }
            }
        }
        rows.reverse();
        Ok(Self { rows, is_first, open, older })
    }

    pub(super) fn main(&self, context: &Context<'_>, agent: &AgentName) -> Markup {
        let path = format!("{}/queue", parts::agent_path(agent));
        html! {
            p id="count" {
                @if self.open == 0 { "No message is open." }
                @else { (words::count(self.open, "message is open.", "messages are open.")) }
                @if self.rows.is_empty() && self.older.is_some() { " None of them is among the messages of this page." }
            }
            ol id="queue" class="queue" {
                @for row in &self.rows {
                    li id={ "open-" (row.sender) "-" (row.message_id) } {
                        (time(row.created_at)) " " (of_row(row))
                        @if context.may_cancel(&row.sender) {
                            (Action {
                                path: format!("/messages/{}/{}/{}/cancel", row.agent, row.sender, row.message_id),
                                label: "Cancel",
                                about: row.message_id.as_str(),
                                command: format!("mozart cancel {}", row.message_id),
                                fields: &[],
                            }.show(context))
                        }
                    }
                }
            }
            p id="pages" {
                @if !self.is_first { a href=(path) { "The newest ones" } " " }
                @if let Some(older) = &self.older { a href={ (path) "?before=" (older) } { "Older ones" } }
            }
            (parts::as_command("command", &format!("mozart journal ls --agent {agent} --status open")))
        }
    }
}

/// The last lines that workers wrote.
#[derive(Debug)]
pub(super) struct Logs(Vec<LogLine>);

impl Logs {
    pub(super) async fn load(caller: &Caller, agent: &AgentName) -> Result<Self, ApiError> {
        let what = format!("cannot read the log of {agent}");
        let lines = caller.client.broker.logs(agent, None, LINES).await.attempt(what)?;
        Ok(Self(lines))
    }

    pub(super) fn main(&self, agent: &AgentName) -> Markup {
        html! {
            @if self.0.is_empty() { p id="none" { "Its workers have written nothing to stderr." } }
            div id="logs" class="logs" tabindex="0" role="region" aria-label={ "The last lines of " (agent) } {
                @for line in &self.0 {
                    p { (parts::moment(line.at)) " " span class="small" { "#" (line.incarnation) " " (line.stream) } " " span class="line" { (line_of(&line.text)) } }
                }
            }
            (parts::as_command("command", &format!("mozart logs {agent} --follow")))
        }
    }
}

/// A line, or as much of it as is shown.
fn line_of(text: &str) -> String {
    let shown = words::shown(text);
    match shown.char_indices().nth(LINE) {
        Some((end, _)) => {
            let more = (shown.len() - end) as u64;
            format!("{}… {} more", shown.get(..end).unwrap_or_default(), words::bytes(more))
        }
        None => shown.into_owned(),
    }
}

/// What an agent is, and what it was.
#[derive(Debug)]
pub(super) struct Config {
    spec: serde_json::Value,
    running: Option<u64>,
    generations: Vec<Generation>,
}

impl Config {
    pub(super) async fn load(caller: &Caller, agent: &AgentName) -> Result<Self, ApiError> {
        let (detail, generations) = rollout::generations(&caller.client, agent).await?;
        let spec = serde_json::to_value(detail.in_force()).unwrap_or_default();
        Ok(Self { spec, running: detail.row.running_generation, generations })
    }

    pub(super) fn main(&self, context: &Context<'_>, agent: &AgentName) -> Markup {
        html! {
            h3 id="in-force" { "In force" }
            dl id="spec" class="spec" {
                @for (field, value) in self.spec.as_object().into_iter().flatten() {
                    div { dt { (field) } dd { (parts::text(&parts::value(value))) } }
                }
            }
            h3 id="generations" { "Generations" }
            @for one in self.generations.iter().take(GENERATIONS) {
                @let number = one.generation.to_string();
                section id={ "generation-" (number) } {
                    h4 { "Generation " (number) ": " (one.state) }
                    p { "Applied " (time(one.at)) " by " (one.by) @if let Some(asked) = &one.asked { ": " (words::shown(asked)) } }
                    @if let Some(why) = &one.why { p class="trouble" { (words::shown(why)) } }
                    (diff(one.changes.as_deref()))
                    @if self.running != Some(one.generation) && context.may(Scope::Operate) {
                        (Action {
                            path: format!("{}/rollback", parts::agent_path(agent)),
                            label: "Go back to it",
                            about: &format!("generation {number}"),
                            command: format!("mozart rollout undo {agent} --to-generation {number}"),
                            fields: &[("generation", &number)],
                        }.show(context))
                    }
                }
            }
            @if let Some(more) = self.generations.len().checked_sub(GENERATIONS).filter(|more| *more > 0) {
                p id="more" { (words::count(more as u64, "earlier generation", "earlier generations")) }
            }
            (parts::as_command("command", &format!("mozart rollout history {agent}")))
        }
    }
}

/// What changed from the generation before.
fn diff(changes: Option<&[Change]>) -> Markup {
    let side = |value: Option<&serde_json::Value>| match value {
        Some(value) => parts::value(value),
        None => "not set".to_owned(),
    };
    html! {
        @match changes {
            None => p { "The generation before is no longer on record." }
            Some([]) => p { "Nothing changed." }
            Some(changes) => table class="diff wide" {
                caption { "Changes" }
                thead { tr { th scope="col" { "Field" } th scope="col" { "Before" } th scope="col" { "After" } } }
                tbody { @for Change { field, before, after } in changes {
                    tr {
                        th scope="row" { (field) }
                        td data-label="Before" { del { (line_of(&side(before.as_ref()))) } }
                        td data-label="After" { ins { (line_of(&side(after.as_ref()))) } }
                    }
                } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_log_is_shown_as_far_as_it_fits() {
        assert_eq!(line_of("short"), "short");
        let long = line_of(&"ä".repeat(LINE + 512));
        assert_eq!(long, format!("{}… 1 KiB more", "ä".repeat(LINE)));
    }
}
