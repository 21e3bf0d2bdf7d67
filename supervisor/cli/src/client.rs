//! A client's connection: to the broker, and through it to whichever supervisor answers.

use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, BrokerError, ConnectOptions};
use bytes::Bytes;
use common::api::{AgentPage, AgentRow, ApiError, Applied, Hello, Query, Reply};
use common::{AgentName, SenderName, Timestamp};
use tokio::task::JoinSet;

use crate::args::{Global, Output};
use crate::{connect, output, table};
use broker::Attempt;
use common::failure;
use common::storage::Disk;

/// How long a client waits for its first connection.
pub(crate) const CONNECT: Duration = Duration::from_secs(3);
/// How long a supervisor may take to answer.
const QUERY: Duration = Duration::from_secs(5);
/// How long the process on the broker's machine may take to tell of its disk.
const TOLD: Duration = Duration::from_millis(250);

/// A query that changes nothing goes to one of the supervisors. It may be suspended: after this long all are asked, and again
/// after twice as long each time.
const AGAIN: Duration = Duration::from_millis(500);

/// A client's connection.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) broker: Broker,
    pub(crate) output: Output,
    /// That the broker's data was removed while it runs, if that was asked and is so: what is not found may have been there.
    pub(crate) removed: Option<ApiError>,
}

/// The time by this machine's clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The sender of everything that the command line sends: the user whose login it has.
pub(crate) fn sender(broker: &Broker) -> SenderName {
    if let Some(user) = broker.user() {
        return user.name.clone();
    }
    #[expect(clippy::expect_used, reason = "a literal that is a valid name")]
    SenderName::new("user").expect("`user` is a valid name")
}

/// Agents whose journals are asked for one answer: well within the time for it.
const PAGE: usize = 200;
/// Agents of one answer that asks no journal.
const BRIEF_PAGE: usize = 1000;

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// When the broker cannot be reached, refuses us, or lacks what is needed.
    pub(crate) async fn connect(global: &Global) -> Result<Self, ApiError> {
        let options = connect::options(global, "mozart-cli", CONNECT)?;
        let connected = Self::connect_to(&options, global.output).await;
        connected.map_err(|error| connect::explain_own(global, error, &options.url))
    }

    /// Connects to a broker that is known.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(crate) async fn connect_to(
        options: &ConnectOptions,
        output: Output,
    ) -> Result<Self, ApiError> {
        let broker = Broker::connect(options).await.attempt("cannot use the broker")?;
        Ok(Self { broker, output, removed: None })
    }

    /// Connects to read what is stored, and warns where that may not be all that was.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(crate) async fn to_read(global: &Global) -> Result<Self, ApiError> {
        let mut client = Self::connect(global).await?;
        client.removed = removed(&client.broker).await;
        if let Some(ApiError { cause, try_, .. }) = &client.removed {
            output::note(format!("warning: {cause}: what is shown may be incomplete; try: {try_}"));
        }
        Ok(client)
    }

    /// Connects to change something that is stored.
    ///
    /// # Errors
    /// As [`Client::connect`] and [`Client::lasts`].
    pub(crate) async fn to_change(global: &Global) -> Result<Self, ApiError> {
        let client = Self::connect(global).await?;
        client.lasts().await.map(|()| client)
    }

    /// Whether a change would last.
    ///
    /// # Errors
    /// 9 when the broker's data was removed while it runs: what it stores now is lost with its end.
    pub(crate) async fn lasts(&self) -> Result<(), ApiError> {
        match removed(&self.broker).await {
            Some(removed) => Err(ApiError { what: "cannot change anything".to_owned(), ..removed }),
            None => Ok(()),
        }
    }

    /// The error of a change that was not stored: where the broker's disk has no room for it, that is why no answer came.
    pub(crate) async fn unless_full(&self, error: ApiError) -> ApiError {
        let disk = match error.code {
            failure::TIMEOUT => self.broker.disk(TOLD).await,
            _ => None,
        };
        let Some(disk) = disk.filter(Disk::is_used_up) else { return error };
        let free = || format!("{} are free", table::bytes(disk.free));
        let free = disk.shortage().unwrap_or_else(free);
        let cause =
            format!("the broker's disk is {} % full, {free}; {}", disk.percent(), error.cause);
        const TRY: &str =
            "free some space on it, and run it again; `mozart usage --storage` shows what uses it";
        failure::error(failure::LIMIT, error.what, cause, TRY)
    }

    /// Whether results are for programs.
    pub(crate) fn json(&self) -> bool {
        self.output == Output::Json
    }

    /// Asks the supervisors.
    ///
    /// # Errors
    /// The supervisor's error; 6 when none listens, 5 when it does not answer.
    pub(crate) async fn ask(&self, query: &Query) -> Result<Reply, ApiError> {
        self.ask_within(query, QUERY).await
    }

    /// Asks the supervisors.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn ask_within(
        &self,
        query: &Query,
        timeout: Duration,
    ) -> Result<Reply, ApiError> {
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
                | Query::Rebalance
        );
        let asked = if changes_nothing {
            self.ask_again(payload.into(), timeout).await
        } else {
            self.broker.ask(self.broker.query(), payload.into(), timeout).await
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
        let mut whom = self.broker.query();
        loop {
            let (broker, payload) = (self.broker.clone(), payload.clone());
            let rest = deadline.saturating_duration_since(Instant::now());
            let to = std::mem::replace(&mut whom, broker.query_of_all());
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
    pub(crate) async fn rows(&self, agent: Option<&AgentName>) -> Result<Vec<AgentRow>, ApiError> {
        self.rows_of(agent, false).await
    }

    /// The rows without what only the journal knows: messages, inbox, oldest. To be asked again and again.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn brief_rows(
        &self,
        agent: Option<&AgentName>,
    ) -> Result<Vec<AgentRow>, ApiError> {
        self.rows_of(agent, true).await
    }

    async fn rows_of(
        &self,
        agent: Option<&AgentName>,
        brief: bool,
    ) -> Result<Vec<AgentRow>, ApiError> {
        if let Some(agent) = agent.cloned() {
            let query = Query::Ps { agent: Some(agent), brief, after: None, limit: None };
            let reply = self.ask(&query).await?;
            return if let Reply::Ps(rows) = reply { Ok(rows) } else { Err(unexpected(&reply)) };
        }
        let (mut pages, mut rows) = (self.pages(None, brief), Vec::new());
        while let Some(page) = pages.next(usize::MAX).await? {
            rows.extend(page);
        }
        Ok(rows)
    }

    /// The rows of all agents whose names come after one, a page at a time: however many there are, each answer fits a message.
    pub(crate) fn pages(&self, after: Option<AgentName>, brief: bool) -> Pages<'_> {
        Pages { client: self, after, brief, more: true }
    }

    /// A request that changes agents.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn change(&self, query: &Query) -> Result<Vec<Applied>, ApiError> {
        let reply = self.alter(query).await?;
        if let Reply::Agents(applied) = reply { Ok(applied) } else { Err(unexpected(&reply)) }
    }

    /// A request that changes nodes.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn tell(&self, query: &Query) -> Result<(), ApiError> {
        let reply = self.alter(query).await?;
        if reply == Reply::Done { Ok(()) } else { Err(unexpected(&reply)) }
    }

    async fn alter(&self, query: &Query) -> Result<Reply, ApiError> {
        const WITHIN: Duration = Duration::from_secs(15);
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
    pub(crate) async fn hello(&self) -> Result<Hello, ApiError> {
        let reply = self.ask(&Query::Hello).await?;
        if let Reply::Hello(hello) = reply { Ok(hello) } else { Err(unexpected(&reply)) }
    }
}

/// The error that the broker's data was removed while it runs, if it was.
async fn removed(broker: &Broker) -> Option<ApiError> {
    let fault = broker.disk(TOLD).await?.fault?;
    Some(broker::failure("cannot read all that was stored", BrokerError::Full(fault.to_string())))
}

/// What was not found may have been removed with the broker's data: then nobody can tell.
pub(crate) async fn doubted(global: &Global, error: ApiError) -> ApiError {
    let Ok(client) = Client::connect(global).await else { return error };
    match removed(&client.broker).await {
        Some(removed) => {
            let what = format!("{}, as far as the broker still knows", error.what);
            failure::error(removed.code, what, removed.cause, removed.try_)
        }
        None => error,
    }
}

/// Rows, page by page.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    client: &'a Client,
    after: Option<AgentName>,
    brief: bool,
    more: bool,
}

impl Pages<'_> {
    /// The next rows, at most `most` and at least one; none at the end.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) async fn next(&mut self, most: usize) -> Result<Option<Vec<AgentRow>>, ApiError> {
        if !self.more {
            return Ok(None);
        }
        let page = if self.brief { BRIEF_PAGE } else { PAGE };
        let (after, limit) = (self.after.clone(), Some(page.min(most)));
        let query = Query::Ps { agent: None, brief: self.brief, after, limit };
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
    pub(crate) fn has_more(&self) -> bool {
        self.more
    }
}

/// A reply that does not belong to the query.
pub(crate) fn unexpected(reply: &Reply) -> ApiError {
    let what = "unexpected answer from the supervisor";
    let cause = format!("{reply:?}").chars().take(200).collect::<String>();
    failure::error(failure::FAILED, what, cause, "use the same mozart version on both sides")
}
