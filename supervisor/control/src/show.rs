//! Agents as clients see them: from the log at once, or with figures from their journals.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use common::api::{AgentDetail, AgentPage, AgentRow, AgentState, ApiError, Reply};
use common::{AgentName, Timestamp};
use futures_util::StreamExt as _;
use supervisor_core::Agent;
use tokio::time::Instant;

use super::looks::{Look, Wanted};
use super::query::{send_reply, unknown};
use super::view::Counted;
use super::{Done, Supervisor, view};

/// Agents whose journals are asked at once for those who look.
const AT_ONCE: usize = 64;
/// Agents of one page, at most, whatever is asked for: about half of what fits a reply where nothing is wrong with them.
const PAGE: usize = 1000;
/// What a node has said counts for so long, in milliseconds: some of its reports may be lost or late.
const LATELY: u64 = 5_000;
/// The bytes of a reply around its rows, at most.
const AROUND: usize = 1024;
/// What the broker has not told by then is shown as it was told before: people wait for it, and admissions behind it.
const SOON: Duration = Duration::from_millis(500);

/// An agent as it is shown, but for what only the broker knows.
struct Shown {
    row: AgentRow,
    begun: Option<u64>,
    floor: u64,
}

impl Supervisor {
    /// An agent as clients see it, but for what only the broker knows.
    fn row(&self, agent: &Agent) -> AgentRow {
        let held =
            self.heartbeats.get(&agent.name).filter(|(number, _)| agent.begun == Some(*number));
        let doing = self
            .preparing
            .get(&agent.name)
            .filter(|known| known.is_fresh(agent.incarnation, self.now_ms()))
            // What was done for one that has ended is over: how it ended is what is to be seen.
            .filter(|_| agent.incarnation(agent.incarnation).is_some())
            .map(|known| known.doing.as_str());
        let counted = self.counted.get(&agent.name).copied();
        let inflight = held.map_or(0, |(_, heartbeat)| heartbeat.open);
        let mut row = view::row(agent, inflight, counted, doing, self.is_reported(agent));
        let is_new = is_new(agent.started_at, SystemTime::now().into());
        if !row.reported && row.state == AgentState::Running && !is_new {
            let node = row.node.as_deref().unwrap_or_default();
            row.reason.get_or_insert_with(|| format!("node {node} has not confirmed it for 5s"));
        }
        row
    }

    /// Whether the node of what takes an agent's messages has said lately that it runs.
    fn is_reported(&self, agent: &Agent) -> bool {
        let Some(one) = &agent.current else { return false };
        let heard = self.nodes.get(&one.node);
        let lately = heard.filter(|(at, _)| self.now_ms().saturating_sub(*at) < LATELY);
        lately.is_some_and(|(_, status)| {
            let mut running = status.running.iter();
            running.any(|it| it.agent == agent.name && it.incarnation == one.number)
        })
    }

    /// What the log says, at once: for clients that ask repeatedly.
    pub(super) async fn show_briefly(
        &mut self,
        wanted: &Wanted,
        reply: &str,
    ) -> Result<(), ApiError> {
        let shown = match wanted {
            Wanted::One(agent) | Wanted::Detail(agent) => {
                Reply::Ps(vec![self.row(self.known(agent)?)])
            }
            Wanted::Page { after, limit, in_trouble } => {
                let (agents, more) = self.page(after.as_ref(), *limit, *in_trouble);
                let rows = agents.into_iter().map(|(_, row)| row).collect();
                Reply::PsPage(AgentPage { rows, more })
            }
            Wanted::All => Reply::Ps(self.state.agents().map(|agent| self.row(agent)).collect()),
        };
        self.reply(reply, &shown).await;
        Ok(())
    }

    pub(super) fn look(&mut self, reply: String, wanted: Wanted) -> Result<(), ApiError> {
        if let Wanted::One(agent) | Wanted::Detail(agent) = &wanted {
            self.known(agent)?;
        }
        self.looks.ask(Look { reply, wanted })?;
        self.show_next();
        Ok(())
    }

    /// `counted`: what the broker told of agents' messages.
    pub(super) fn shown(&mut self, counted: Vec<(AgentName, Counted)>) {
        let known = counted.into_iter().filter(|(agent, _)| self.state.agent(agent).is_some());
        self.counted.extend(known);
        self.looks.done();
        self.show_next();
    }

    /// Shows agents to all that wait, unless others are just being shown some. What is asked of the broker is asked once for all of them,
    /// and about nobody else.
    fn show_next(&mut self) {
        let Some(looks) = self.looks.begin() else { return };
        let mut shown = BTreeMap::new();
        let mut show = |agent: &Agent, row: AgentRow| {
            shown.entry(agent.name.clone()).or_insert_with(|| Shown {
                row,
                begun: agent.begun,
                floor: agent.floor,
            });
        };
        let mut answers = Vec::new();
        for Look { reply, wanted } in looks {
            let answer = match wanted {
                Wanted::All => {
                    self.state.agents().for_each(|agent| show(agent, self.row(agent)));
                    Answer::All
                }
                Wanted::Page { after, limit, in_trouble } => {
                    let (agents, more) = self.page(after.as_ref(), limit, in_trouble);
                    let names = agents.iter().map(|(agent, _)| agent.name.clone()).collect();
                    agents.into_iter().for_each(|(agent, row)| show(agent, row));
                    Answer::Page { names, more }
                }
                Wanted::One(name) => match self.state.agent(&name) {
                    Some(agent) => {
                        show(agent, self.row(agent));
                        Answer::One(name)
                    }
                    // Removed since it asked.
                    None => Answer::Gone(name),
                },
                Wanted::Detail(name) => match self.state.agent(&name) {
                    Some(agent) => {
                        show(agent, self.row(agent));
                        Answer::Detail(Box::new(view::detail(&self.state, agent, self.row(agent))))
                    }
                    None => Answer::Gone(name),
                },
            };
            answers.push((reply, answer));
        }
        let (reads, broker) = (self.reads.clone(), self.broker.clone());
        let soon = Instant::now() + SOON;
        self.task(async move {
            let only = shown.keys().next().filter(|_| shown.len() == 1).cloned();
            let asks = view::by(soon, reads.broker.count_questions(only.as_ref()));
            let asks = asks.await.unwrap_or_default();
            let rows: BTreeMap<_, _> = futures_util::stream::iter(shown.into_values())
                .map(async |Shown { row, begun, floor }| {
                    view::fill(&reads, row, begun, floor, soon).await
                })
                .buffered(AT_ONCE)
                .map(|row| {
                    let asks = asks.get(&row.agent).copied().unwrap_or(0);
                    (row.agent.clone(), AgentRow { asks, ..row })
                })
                .collect()
                .await;
            for (reply, answer) in answers {
                send_reply(&broker, reply, &answer.reply(&rows)).await;
            }
            let counted = rows.into_iter();
            Done::Shown(
                counted.filter_map(|(agent, row)| Some((agent, Counted::of(&row)?))).collect(),
            )
        });
    }

    /// The agents whose names come after one, as many as are wanted and fit a reply; and whether there are more.
    fn page(
        &self,
        after: Option<&AgentName>,
        limit: usize,
        in_trouble: bool,
    ) -> (Vec<(&Agent, AgentRow)>, bool) {
        let rows = self.state.agents_after(after).map(|agent| (agent, self.row(agent)));
        let rows = rows.filter(|(_, row)| !in_trouble || row.is_in_trouble());
        let room = self.broker.max_record().saturating_sub(AROUND);
        fit(rows, |(_, row)| size(row), limit.clamp(1, PAGE), room)
    }
}

/// Whether it is ready for so short a time that its node need not have said that it runs. What lies ahead is another clock's.
fn is_new(started: Option<Timestamp>, now: Timestamp) -> bool {
    started.is_some_and(|at| at <= now && now.since(at) < Duration::from_millis(LATELY))
}

/// What a client is shown.
enum Answer {
    All,
    Page { names: Vec<AgentName>, more: bool },
    One(AgentName),
    Detail(Box<AgentDetail>),
    Gone(AgentName),
}

impl Answer {
    /// The reply, with what the broker has told of the agents by now.
    fn reply(self, rows: &BTreeMap<AgentName, AgentRow>) -> Reply {
        let row = |name: &AgentName| rows.get(name).cloned();
        match self {
            Self::All => Reply::Ps(rows.values().cloned().collect()),
            Self::Page { names, more } => {
                Reply::PsPage(AgentPage { rows: names.iter().filter_map(row).collect(), more })
            }
            Self::One(name) => match row(&name) {
                Some(row) => Reply::Ps(vec![row]),
                None => Reply::Error(unknown(&name)),
            },
            Self::Detail(detail) => match row(&detail.id) {
                Some(row) => Reply::Inspect(Box::new(AgentDetail { row, ..*detail })),
                None => Reply::Error(unknown(&detail.id)),
            },
            Self::Gone(name) => Reply::Error(unknown(&name)),
        }
    }
}

/// The bytes of a row in a reply, at most: what the journal tells is added later.
fn size(row: &AgentRow) -> usize {
    /// Three numbers and a time.
    const TOLD_LATER: usize = 100;
    serde_json::to_vec(row).map_or(0, |row| row.len()) + TOLD_LATER
}

/// The first items, as many as are wanted and have room, but one at least; and whether there are more.
fn fit<T>(
    items: impl Iterator<Item = T>,
    size: impl Fn(&T) -> usize,
    most: usize,
    mut room: usize,
) -> (Vec<T>, bool) {
    let mut fitting = Vec::new();
    for item in items {
        let size = size(&item);
        if fitting.len() == most || (size > room && !fitting.is_empty()) {
            return (fitting, true);
        }
        room = room.saturating_sub(size);
        fitting.push(item);
    }
    (fitting, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_just_become_ready_need_not_be_confirmed_yet() {
        let at = Timestamp::from_millis;
        assert!(is_new(Some(at(10_000)), at(10_000)) && is_new(Some(at(10_000)), at(14_999)));
        assert!(!is_new(Some(at(10_000)), at(15_000)) && !is_new(Some(at(10_001)), at(10_000)));
        assert!(!is_new(None, at(0)));
    }

    #[test]
    fn a_page_has_what_is_wanted_and_fits_and_one_at_least() {
        let page = |most, room| fit([3, 3, 3, 9].into_iter(), |size| *size, most, room);
        assert_eq!(page(2, 100), (vec![3, 3], true));
        assert_eq!(page(10, 100), (vec![3, 3, 3, 9], false));
        assert_eq!(page(10, 18), (vec![3, 3, 3, 9], false));
        assert_eq!(page(10, 17), (vec![3, 3, 3], true));
        assert_eq!(page(10, 1), (vec![3], true), "or nobody would get any further");
        assert_eq!(fit([0_u8; 0].into_iter(), |_| 1, 1, 1), (vec![], false));
    }
}
