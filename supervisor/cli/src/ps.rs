//! `mozart ps`.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use common::api::{AgentRow, AgentState, ApiError, Counts};
use common::{AgentName, Timestamp};

use super::client::{Client, now};
use super::list::List;
use super::page::limit;
use super::{output, table};
use crate::args::Global;
use common::failure;

const HEADERS: [&str; 12] = [
    "AGENT",
    "GEN",
    "STATE",
    "NODE",
    "UPTIME",
    "RESTARTS",
    "INBOX",
    "INFLIGHT",
    "OLDEST",
    "LAST-EXIT",
    "NEXT-TRY",
    "REASON",
];

/// `mozart ps`.
#[derive(Debug, Args)]
pub struct PsArgs {
    /// Only these agents, whatever their state
    agents: Vec<AgentName>,
    /// Include stopped agents
    #[arg(short, long)]
    all: bool,
    /// Show the list again whenever something changes
    #[arg(short, long)]
    watch: bool,
    /// Show at most N agents [default: all]
    #[arg(long, value_name = "N", value_parser = limit, conflicts_with = "agents")]
    limit: Option<usize>,
    /// Only agents whose names come after this one
    #[arg(long, value_name = "NAME", conflicts_with = "agents")]
    after: Option<AgentName>,
    /// Do not truncate reasons and exits
    #[arg(long)]
    no_trunc: bool,
}

/// The longest text of a cell, in characters, unless all of it is wanted.
const SHORT: usize = 40;

/// Lists agents.
///
/// # Errors
/// 3 when a given agent does not exist, 6 when no supervisor answers.
pub(crate) async fn run(global: &Global, args: &PsArgs) -> Result<u8, ApiError> {
    let client = Client::connect(global).await?;
    if args.watch {
        return watch(&client, args).await;
    }
    // Before anything is shown.
    let named = named(&client, args, true).await?;
    let now = now();
    let mut list = List::new(client.json(), HEADERS);
    let longest = if args.no_trunc { usize::MAX } else { SHORT };
    let mut late = 0;
    let show = |row: AgentRow| {
        late += u64::from(row.counts != Counts::Current);
        list.item(&row, |row| cells(row, now, longest))
    };
    let left_out = if args.agents.is_empty() {
        each(&client, args, show).await
    } else {
        named.into_iter().try_for_each(show).map(|()| None)
    };
    if let Some(last) = list.end(left_out)? {
        output::note(format!("there are more agents: for the next ones, add --after {last}"));
    }
    if let Some(refused) = client.broker.refuses(None).await {
        let ApiError { cause, try_, .. } = broker::failure("", refused);
        output::note(format!("warning: new messages are refused: {cause}; try: {try_}"));
    }
    if late > 0 {
        output::note(format!(
            "the broker is busy: INBOX and OLDEST of {} may be out of date",
            table::count(late, "agent", "agents")
        ));
    }
    Ok(0)
}

/// The rows of the agents that are named, in the order of their names.
async fn named(
    client: &Client,
    args: &PsArgs,
    demand_all: bool,
) -> Result<Vec<AgentRow>, ApiError> {
    let mut rows = Vec::new();
    for agent in args.agents.iter().collect::<BTreeSet<_>>() {
        match client.rows(Some(agent)).await {
            Ok(row) => rows.extend(row),
            Err(error) if error.code != failure::NOT_FOUND => return Err(error),
            Err(_) if demand_all => return Err(mozart_client::agents::meant(client, agent).await),
            Err(_) => {}
        }
    }
    Ok(rows)
}

/// Shows the agents that are wanted, as they come. Where `--limit` ended the list, the last one that it shows.
async fn each(
    client: &Client,
    args: &PsArgs,
    mut show: impl FnMut(AgentRow) -> Result<(), ApiError>,
) -> Result<Option<AgentName>, ApiError> {
    let mut pages = client.pages(args.after.clone(), false);
    let (mut left, mut last) = (args.limit.unwrap_or(usize::MAX), None);
    while left > 0
        && let Some(rows) = pages.next(left).await?
    {
        for row in rows.into_iter().filter(|row| args.all || row.state != AgentState::Stopped) {
            left -= 1;
            last = Some(row.agent.clone());
            show(row)?;
        }
    }
    Ok(last.filter(|_| pages.has_more()))
}

/// Shows the list again every second, until interrupted.
async fn watch(client: &Client, args: &PsArgs) -> Result<u8, ApiError> {
    const HOME_AND_CLEAR: &str = "\x1b[H\x1b[2J";
    let terminal = output::stdout_is_terminal();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut last = None;
    loop {
        tick.tick().await;
        let mut rows = named(client, args, false).await?;
        if args.agents.is_empty() {
            each(client, args, |row| {
                rows.push(row);
                Ok(())
            })
            .await?;
        }
        if client.json() {
            if last.as_ref() != Some(&rows) {
                output::json_line(&rows)?;
            }
        } else if terminal {
            output::bytes(HOME_AND_CLEAR.as_bytes())?;
            output::line(render(&rows, now()))?;
        } else if last.as_ref() != Some(&rows) {
            output::line(render(&rows, now()))?;
        }
        last = Some(rows);
    }
}

fn render(rows: &[AgentRow], now: Timestamp) -> String {
    table::table(&HEADERS, rows.iter().map(|row| cells(row, now, SHORT).to_vec()))
}

/// What waits and what is being answered.
pub(crate) fn busy(row: &AgentRow) -> String {
    let when = match row.counts {
        Counts::Current => "",
        Counts::Earlier => " (as last counted: the broker has not answered in time)",
        Counts::Unknown => {
            return format!(
                "{} in progress (how many are waiting is not known yet: the broker has not answered)",
                row.inflight
            );
        }
    };
    format!("{} waiting, {} in progress{when}", row.inbox, row.inflight)
}

/// The generation that runs, and the newest one if it is another.
fn generation(row: &AgentRow) -> String {
    // What was given up was replaced by an earlier one, whether that runs just now or not.
    let target =
        (row.given_up.is_some() && row.target_generation > 0).then_some(row.target_generation);
    match row.running_generation.or(target).filter(|runs| *runs != row.generation) {
        Some(runs) => {
            let how = if row.given_up.is_some() { "failed" } else { "starting" };
            format!("{runs} ({} {how})", row.generation)
        }
        None => row.generation.to_string(),
    }
}

/// Its state, and how many questions it has asked people.
fn state(row: &AgentRow) -> String {
    match row.asks {
        0 => row.state.as_str().to_owned(),
        asks => format!("{} (asks {asks})", row.state.as_str()),
    }
}

/// How the worker last ended, and how long ago.
fn last_exit(row: &AgentRow, now: Timestamp, longest: usize) -> String {
    let Some(exit) = &row.last_exit else { return table::or_none(None::<&str>) };
    let exit = table::one_line(exit, longest);
    match row.last_exit_at {
        Some(at) => format!("{exit} ({} ago)", table::short(now.since(at))),
        None => exit,
    }
}

fn cells(row: &AgentRow, now: Timestamp, longest: usize) -> [String; HEADERS.len()] {
    let short =
        |text: Option<&String>| table::or_none(text.map(|text| table::one_line(text, longest)));
    let started = row.started_at.filter(|_| row.state == AgentState::Running);
    [
        row.agent.to_string(),
        generation(row),
        state(row),
        table::or_none(row.node.as_deref()),
        table::age(started, now),
        row.restart_count.to_string(),
        match row.counts {
            Counts::Unknown => "?".to_owned(),
            Counts::Earlier | Counts::Current => row.inbox.to_string(),
        },
        row.inflight.to_string(),
        table::age(row.oldest, now),
        last_exit(row, now, longest),
        table::until(row.next_try, now),
        short(row.reason.as_ref()),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(name: &str, state: AgentState) -> AgentRow {
        AgentRow {
            agent: AgentName::new(name).expect("valid"),
            state,
            reason: None,
            generation: 2,
            incarnation: 3,
            restart_count: 1,
            message_count: 9,
            node: Some("local".to_owned()),
            started_at: Some(Timestamp::from_millis(1_000)),
            inbox: 4,
            inflight: 1,
            oldest: None,
            last_exit: None,
            last_exit_at: None,
            next_try: None,
            reported: true,
            running_incarnation: Some(3),
            running_generation: Some(2),
            given_up: None,
            target_generation: 2,
            quarantined: false,
            asks: 0,
            counts: Counts::Current,
        }
    }

    #[test]
    fn what_the_broker_has_not_told_is_not_nothing() {
        let mut row = row("a", AgentState::Running);
        row.inbox = 0;
        row.counts = Counts::Unknown;
        assert_eq!(cells(&row, Timestamp::from_millis(61_000), SHORT)[6], "?");
        assert_eq!(
            busy(&row),
            "1 in progress (how many are waiting is not known yet: the broker has not answered)"
        );
        row.counts = Counts::Earlier;
        assert_eq!(
            busy(&row),
            "0 waiting, 1 in progress (as last counted: the broker has not answered in time)"
        );
    }

    #[test]
    fn what_runs_is_shown_beside_what_does_not() {
        let mut row = row("a", AgentState::Running);
        row.generation = 5;
        row.running_generation = Some(4);
        assert_eq!(generation(&row), "4 (5 starting)");
        row.given_up = Some("no".to_owned());
        assert_eq!(generation(&row), "4 (5 failed)");
        row.running_generation = None;
        row.target_generation = 4;
        assert_eq!(generation(&row), "4 (5 failed)", "also while it is not running");
        row.running_generation = Some(5);
        assert_eq!(generation(&row), "5");
        (row.running_generation, row.given_up) = (None, None);
        assert_eq!(generation(&row), "5");
    }

    #[test]
    fn a_row_has_a_cell_for_every_header() {
        let cells = cells(&row("a", AgentState::Running), Timestamp::from_millis(61_000), SHORT);
        assert_eq!(
            cells,
            [
                "a", "2", "running", "local", "60s", "1", "4", "1", "<none>", "<none>", "<none>",
                "<none>"
            ]
        );
        assert_eq!(cells.len(), HEADERS.len());
    }

    #[test]
    fn an_agent_that_does_not_run_has_no_uptime_but_a_next_try() {
        let mut row = row("a", AgentState::Error);
        row.last_exit = Some("exit code 1".to_owned());
        row.next_try = Some(Timestamp::from_millis(4_000));
        let cells = cells(&row, Timestamp::from_millis(1_000), SHORT);
        assert_eq!((cells[4].as_str(), cells[9].as_str()), ("<none>", "exit code 1"));
        assert_eq!(cells[10], "in 3s");
    }
}
