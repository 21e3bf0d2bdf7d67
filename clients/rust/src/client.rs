//! A connection to a fleet: to its broker, and through that to whichever supervisor answers.

use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, BrokerError};
use bytes::Bytes;
use common::api::{
    AgentDetail, AgentPage, AgentRow, ApiError, Applied, Hello, NodeRow, Query, Reply,
};
use common::storage::Disk;
use common::users::Scope;
use common::{AgentName, NodeName, SenderName, Timestamp, failure, words};
use tokio::task::JoinSet;

/// How long a supervisor may take to answer.
const QUERY: Duration = Duration::from_secs(5);
/// How long the process on the broker's machine may take to tell of its disk.
const TOLD: Duration = Duration::from_millis(250);

/// A query that changes nothing goes to one of the supervisors. It may be suspended: after this long all are asked, and again
/// after twice as long each time.
const AGAIN: Duration = Duration::from_millis(500);

/// Agents whose journals are asked for one answer: well within the time for it.
const PAGE: usize = 200;
/// Agents of one answer that asks no journal.
const BRIEF_PAGE: usize = 1000;
/// Agents that are asked for one by one; of more, all rows are read.
const FEW: usize = 16;

/// A connection to a fleet, and in whose name it asks.
#[derive(Debug, Clone)]
pub struct Client {
    /// The connection.
    pub broker: Broker,
    /// Who asks, where that is not whoever the connection was made as: a connection with all rights can speak for others.
    behalf: Option<(Scope, SenderName)>,
    /// The only agents that it may see; none: all of them.
    agents: Vec<AgentName>,
}

/// The time by this machine's clock.
#[must_use]
pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The sender of what is sent with the fleet's own credentials.
fn nobody() -> SenderName {
    #[expect(clippy::expect_used, reason = "a literal that is a valid name")]
    SenderName::new("user").expect("`user` is a valid name")
}

impl Client {
    /// A client that asks as whoever the connection was made as.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self { broker, behalf: None, agents: Vec::new() }
    }

    /// The same connection, in the name of somebody with that scope: the supervisors refuse what is beyond it, and the control log names them.
    /// Only a connection with all rights can do so.
    #[must_use]
    pub fn on_behalf(&self, scope: Scope, name: SenderName) -> Self {
        Self { behalf: Some((scope, name)), ..self.clone() }
    }

    /// The same connection for some agents alone; none: for all of them. Whoever looks up messages, or is told which name was probably meant,
    /// learns of no other agent.
    #[must_use]
    pub fn only(self, agents: Vec<AgentName>) -> Self {
        Self { agents, ..self }
    }

    /// The only agents that it may see; none: all of them.
    #[must_use]
    pub fn agents(&self) -> &[AgentName] {
        &self.agents
    }

    /// Whether it may see an agent.
    #[must_use]
    pub fn sees(&self, agent: &AgentName) -> bool {
        self.agents.is_empty() || self.agents.contains(agent)
    }

    /// The sender of the messages.
    #[must_use]
    pub fn sender(&self) -> SenderName {
        match (&self.behalf, self.broker.user()) {
            (Some((_, name)), _) => name.clone(),
            (None, Some(user)) => user.name.clone(),
            (None, None) => nobody(),
        }
    }

    fn query(&self) -> String {
        match &self.behalf {
            Some((scope, name)) => self.broker.subjects().query_by(*scope, name),
            None => self.broker.query(),
        }
    }

    fn query_of_all(&self) -> String {
        match &self.behalf {
            Some((scope, name)) => self.broker.subjects().query_of_all_by(*scope, name),
            None => self.broker.query_of_all(),
        }
    }

    /// Whether a change would last.
    ///
    /// # Errors
    /// 9 when the broker's data was removed while it runs: what it stores now is lost with its end.
    pub async fn lasts(&self) -> Result<(), ApiError> {
        match removed(&self.broker).await {
            Some(removed) => Err(ApiError { what: "cannot change anything".to_owned(), ..removed }),
            None => Ok(()),
        }
    }

    /// The error of a change that was not stored: where the broker's disk has no room for it, that is why no answer came.
    pub async fn unless_full(&self, error: ApiError) -> ApiError {
        let disk = match error.code {
            failure::TIMEOUT => self.broker.disk(TOLD).await,
            _ => None,
        };
        let Some(disk) = disk.filter(Disk::is_used_up) else { return error };
        let free = || format!("{} are free", words::bytes(disk.free));
        let free = disk.shortage().unwrap_or_else(free);
        let cause =
            format!("the broker's disk is {} % full, {free}; {}", disk.percent(), error.cause);
        const TRY: &str =
            "free some space on it, and run it again; `mozart usage --storage` shows what uses it";
        failure::error(failure::LIMIT, error.what, cause, TRY)
    }

    /// Asks the supervisors.
    ///
    /// # Errors
    /// The supervisor's error; 6 when none listens, 5 when it does not answer.
    pub async fn ask(&self, query: &Query) -> Result<Reply, ApiError> {
        self.ask_within(query, QUERY).await
    }

    /// Asks the supervisors.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn ask_within(&self, query: &Query, timeout: Duration) -> Result<Reply, ApiError> {
        const WHAT: &str = "no supervisor answers";
        let payload = serde_json::to_vec(query).map_err(|cause| {
            failure::error(failure::FAILED, "cannot encode the request", cause, "")
        })?;
        let changes_nothing = matches!(
            query,
            Query::Hello
                | Query::Ps { .. }
                | Query::Inspect { .. }
                | Query::Nodes { .. }
                | Query::Schedules { .. }
                | Query::Questions { .. }
                | Query::Rebalance
        );
        let asked = if changes_nothing {
            self.ask_again(payload.into(), timeout).await
        } else {
            self.broker.ask(self.query(), payload.into(), timeout).await
        };
        let bytes = match asked {
            Ok(bytes) => bytes,
            Err(BrokerError::Other(cause)) => {
                let try_ = "`mozart up`, or `mozart supervisor`; messages can be sent without one";
                return Err(failure::error(failure::UNREACHABLE, WHAT, cause, try_));
            }
            Err(cause @ BrokerError::Timeout(_)) => {
                return Err(failure::error(failure::TIMEOUT, WHAT, cause, "`mozart doctor`"));
            }
            Err(cause) => return Err(broker::failure("cannot ask the supervisors", cause)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(Reply::Error(error)) => Err(error),
            Ok(reply) => Ok(reply),
            Err(cause) => {
                let what = "the supervisor's answer does not parse";
                let try_ = "use the same mozart version on both sides";
                Err(failure::error(failure::FAILED, what, cause, try_))
            }
        }
    }

    /// Asks one supervisor, then all of them, repeatedly, and takes the first answer.
    async fn ask_again(&self, payload: Bytes, timeout: Duration) -> Result<Bytes, BrokerError> {
        let deadline = Instant::now() + timeout;
        let mut asked = JoinSet::new();
        let mut pause = AGAIN;
        let mut whom = self.query();
        loop {
            let (broker, payload) = (self.broker.clone(), payload.clone());
            let rest = deadline.saturating_duration_since(Instant::now());
            let to = std::mem::replace(&mut whom, self.query_of_all());
            asked.spawn(async move { broker.ask(to, payload, rest).await });
            let is_last = rest <= pause;
            let mut again = std::pin::pin!(tokio::time::sleep(pause));
            loop {
                tokio::select! {
                    Some(answer) = asked.join_next() => {
                        let answer = answer
                            .unwrap_or_else(|cause| Err(BrokerError::Other(cause.to_string())));
                        // That one was not heard says nothing of the others.
                        if answer.is_ok() || asked.is_empty() {
                            return answer;
                        }
                    }
                    () = &mut again, if !is_last => break,
                }
            }
            pause *= 2;
        }
    }

    /// The rows of all agents, or of one.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn rows(&self, agent: Option<&AgentName>) -> Result<Vec<AgentRow>, ApiError> {
        self.rows_of(agent, false).await
    }

    /// The rows without what only the journal knows: messages, inbox, oldest. To be asked again and again.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn brief_rows(&self, agent: Option<&AgentName>) -> Result<Vec<AgentRow>, ApiError> {
        self.rows_of(agent, true).await
    }

    async fn rows_of(
        &self,
        agent: Option<&AgentName>,
        brief: bool,
    ) -> Result<Vec<AgentRow>, ApiError> {
        if let Some(agent) = agent.cloned() {
            let query = Query::Ps {
                agent: Some(agent),
                brief,
                after: None,
                limit: None,
                in_trouble: false,
            };
            let reply = self.ask(&query).await?;
            return if let Reply::Ps(rows) = reply { Ok(rows) } else { Err(unexpected(&reply)) };
        }
        let (mut pages, mut rows) = (self.pages(None, brief), Vec::new());
        while let Some(page) = pages.next(usize::MAX).await? {
            rows.extend(page);
        }
        Ok(rows)
    }

    /// The rows of all agents that it may see. Where these are few and named, only they are asked for, however many there are.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn seen_rows(&self, brief: bool) -> Result<Vec<AgentRow>, ApiError> {
        if self.agents.is_empty() || self.agents.len() > FEW {
            let mut rows = self.rows_of(None, brief).await?;
            rows.retain(|row| self.sees(&row.agent));
            return Ok(rows);
        }
        let mut rows = Vec::new();
        for agent in &self.agents {
            rows.extend(self.row(agent, brief).await?);
        }
        rows.sort_by(|one: &AgentRow, other| one.agent.cmp(&other.agent));
        Ok(rows)
    }

    /// The row of an agent; none if there is no such agent.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn row(&self, agent: &AgentName, brief: bool) -> Result<Option<AgentRow>, ApiError> {
        match self.rows_of(Some(agent), brief).await {
            Ok(rows) => Ok(rows.into_iter().find(|row| row.agent == *agent)),
            Err(error) if error.code == failure::NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The rows of all agents whose names come after one, a page at a time: however many there are, each answer fits a message.
    pub fn pages(&self, after: Option<AgentName>, brief: bool) -> Pages<'_> {
        Pages { client: self, after, brief, in_trouble: false, more: true }
    }

    /// A request that changes agents.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn change(&self, query: &Query) -> Result<Vec<Applied>, ApiError> {
        let reply = self.alter(query).await?;
        if let Reply::Agents(applied) = reply { Ok(applied) } else { Err(unexpected(&reply)) }
    }

    /// A request that changes nodes.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn tell(&self, query: &Query) -> Result<(), ApiError> {
        let reply = self.alter(query).await?;
        if reply == Reply::Done { Ok(()) } else { Err(unexpected(&reply)) }
    }

    pub(crate) async fn alter(&self, query: &Query) -> Result<Reply, ApiError> {
        // A disk that is busy, as with an image that was just pulled, holds a synced write up for longer than one would think.
        const WITHIN: Duration = Duration::from_secs(60);
        self.lasts().await?;
        match self.ask_within(query, WITHIN).await {
            Err(error) => Err(self.unless_full(error).await),
            reply => reply,
        }
    }

    /// Who answers and who leads.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn hello(&self) -> Result<Hello, ApiError> {
        let reply = self.ask(&Query::Hello).await?;
        if let Reply::Hello(hello) = reply { Ok(hello) } else { Err(unexpected(&reply)) }
    }

    /// Everything known about an agent.
    ///
    /// # Errors
    /// As [`Client::ask`]; 3 when there is no such agent.
    pub async fn inspect(&self, agent: AgentName) -> Result<Box<AgentDetail>, ApiError> {
        let reply = self.ask(&Query::Inspect { agent }).await?;
        if let Reply::Inspect(detail) = reply { Ok(detail) } else { Err(unexpected(&reply)) }
    }

    /// The nodes.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, ApiError> {
        let reply = self.ask(&Query::Nodes { node: None }).await?;
        if let Reply::Nodes(rows) = reply { Ok(rows) } else { Err(unexpected(&reply)) }
    }

    /// A node, with its agents.
    ///
    /// # Errors
    /// As [`Client::ask`]; 3 when there is no such node.
    pub async fn node(&self, node: &NodeName) -> Result<NodeRow, ApiError> {
        let reply = self.ask(&Query::Nodes { node: Some(node.clone()) }).await?;
        let Reply::Nodes(rows) = reply else { return Err(unexpected(&reply)) };
        rows.into_iter().next().ok_or_else(|| unexpected(&Reply::Nodes(Vec::new())))
    }
}

/// The error that the broker's data was removed while it runs, if it was.
pub async fn removed(broker: &Broker) -> Option<ApiError> {
    let fault = broker.disk(TOLD).await?.fault?;
    Some(broker::failure("cannot read all that was stored", BrokerError::Full(fault.to_string())))
}

/// Rows, page by page.
#[derive(Debug)]
pub struct Pages<'a> {
    client: &'a Client,
    after: Option<AgentName>,
    brief: bool,
    in_trouble: bool,
    more: bool,
}

impl Pages<'_> {
    /// Only agents that are [in trouble](AgentRow::is_in_trouble); others may be among them, where a supervisor of an earlier version answers.
    #[must_use]
    pub fn in_trouble(self) -> Self {
        Self { in_trouble: true, ..self }
    }

    /// The next rows, at most `most` and at least one; none at the end.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub async fn next(&mut self, most: usize) -> Result<Option<Vec<AgentRow>>, ApiError> {
        if !self.more {
            return Ok(None);
        }
        let page = if self.brief { BRIEF_PAGE } else { PAGE };
        let (after, limit) = (self.after.clone(), Some(page.min(most)));
        let query =
            Query::Ps { agent: None, brief: self.brief, after, limit, in_trouble: self.in_trouble };
        let reply = self.client.ask(&query).await?;
        let rows = if let Reply::PsPage(AgentPage { rows, more }) = reply {
            self.more = more;
            rows
        } else if let Reply::Ps(mut rows) = reply {
            // A supervisor of the version before sends all of them.
            rows.retain(|row| self.after.as_ref().is_none_or(|after| row.agent > *after));
            self.more = rows.len() > most;
            rows.truncate(most);
            rows
        } else {
            return Err(unexpected(&reply));
        };
        let Some(last) = rows.last() else {
            self.more = false;
            return Ok(None);
        };
        self.after = Some(last.agent.clone());
        Ok(Some(rows))
    }

    /// Whether there may be agents after those that were given.
    pub fn has_more(&self) -> bool {
        self.more
    }
}

/// A reply that does not belong to the query.
pub fn unexpected(reply: &Reply) -> ApiError {
    let what = "unexpected answer from the supervisor";
    let cause = format!("{reply:?}").chars().take(200).collect::<String>();
    failure::error(failure::FAILED, what, cause, "use the same mozart version on both sides")
}
