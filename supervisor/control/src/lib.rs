//! The supervisor: follows the control log, folds it, and, as the leader, performs what the fold asks for.
//!
//! One task owns the state, the leader's eyes and the timers; everything that waits for the broker is a future beside it.

mod admit;
mod leader;
mod lease;
mod perform;
mod query;
mod settle;
mod sweep;
mod timers;

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use broker::{Broker, ControlItem, LeaseState, Link, Subscription};
use common::api::ApiError;
use common::control::{ControlEvent, ControlRecord};
use common::shim::{Heartbeat, NodeStatus};
use common::{AgentName, NodeName, Timestamp};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use supervisor_core::{State, step};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use broker::Attempt as _;
use leader::{Leading, Preparing};
use query::Waiting;

/// The leader looks around this often.
const TICK: Duration = Duration::from_secs(1);
/// Futures beside the loop, at most; then it stops taking reports and queries until some are done.
const TASKS: usize = 4096;
/// Shims and nodes report to one queue each; when the loop is behind, the client drops reports, and they are repeated.
const QUERY_GROUP: &str = "supervisors";

/// How a supervisor is run.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// Its id: shown, and what `LeaderElected` names.
    pub id: String,
}

/// What comes back from a future beside the loop.
enum Done {
    /// A record is in the log.
    Appended { seq: u64, waiting: Option<Waiting> },
    /// It could not be appended; a client may wait for it.
    NotAppended { record: Box<ControlRecord>, error: broker::BrokerError, waiting: Option<Waiting> },
    /// Where the consumer of an incarnation that became ready starts.
    Floor { agent: AgentName, incarnation: u64, floor: u64 },
    /// A consumer is made before its incarnation is ready.
    Prepared { agent: AgentName, prepared: admit::Prepared },
    /// An incarnation takes messages; `swapped`: its consumer took the place of another incarnation's just now.
    Admitted { agent: AgentName, incarnation: u64, swapped: bool },
    /// A sweep of one agent.
    Swept { agent: AgentName, checked: Option<u64> },
    /// The consumers that there are.
    Consumers(Vec<(AgentName, u64)>),
    /// Nothing more to do.
    Nothing,
}

type Task = BoxFuture<'static, Done>;

struct Supervisor {
    id: String,
    broker: Broker,
    /// Makes the tokens of the shims' command subjects.
    secret: Uuid,
    /// This run of it: its message ids are no other run's.
    run: Uuid,
    state: State,
    started: Instant,
    tasks: FuturesUnordered<Task>,
    appended: u64,
    /// Clients that wait until the fold has reached a sequence.
    waiting: Vec<(u64, Waiting)>,
    heartbeats: HashMap<AgentName, (u64, Heartbeat)>,
    /// What nodes last said of starts that take long.
    preparing: HashMap<AgentName, Preparing>,
    /// The last report of each node, and when it came.
    nodes: HashMap<NodeName, (u64, NodeStatus)>,
    leading: Option<Leading>,
}

/// Serves until `stop`.
///
/// # Errors
/// When the broker's client is closed or its log cannot be followed.
pub async fn serve(
    options: SupervisorOptions,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    const WHAT: &str = "cannot start the supervisor";
    let secret = broker.fleet_secret().await.attempt(WHAT)?;
    let log = broker.follow_control(1, None).await.attempt(WHAT)?;
    let supervisor = Supervisor {
        id: options.id,
        broker,
        secret: Uuid::new_v5(&Uuid::NAMESPACE_OID, secret.as_bytes()),
        run: Uuid::now_v7(),
        state: State::default(),
        started: Instant::now(),
        tasks: FuturesUnordered::new(),
        appended: 0,
        waiting: Vec::new(),
        heartbeats: HashMap::new(),
        preparing: HashMap::new(),
        nodes: HashMap::new(),
        leading: None,
    };
    supervisor.go(log, stop).await
}

impl Supervisor {
    async fn go(
        mut self,
        mut log: broker::ControlFollower,
        stop: CancellationToken,
    ) -> Result<(), ApiError> {
        const WHAT: &str = "the supervisor ends";
        loop {
            tokio::select! {
                item = log.next() => if self.fold(item.attempt(WHAT)?) == Folded::CaughtUp {
                    break;
                },
                () = stop.cancelled() => return Ok(()),
            }
        }
        let subjects = self.broker.subjects().clone();
        let mut shims = self.broker.subscribe(subjects.shim_reports(), None).await.attempt(WHAT)?;
        let mut nodes = self.broker.subscribe(subjects.node_reports(), None).await.attempt(WHAT)?;
        let queries = self.broker.subscribe(subjects.query(), Some(QUERY_GROUP)).await;
        let mut queries: Subscription = queries.attempt(WHAT)?;
        let (lease, mut held) = watch::channel(None);
        let run = uuid::Uuid::now_v7().to_string();
        let lease = lease::keep(self.broker.lease(&self.id, &run, lease::TTL), lease, stop.clone());
        let mut lease = std::pin::pin!(lease);
        let mut link = self.broker.link();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tracing::info!("supervisor {} follows the log up to {}", self.id, self.state.seq());
        loop {
            let room = self.tasks.len() < TASKS;
            let due = self.leading.as_ref().and_then(|leading| leading.timers.next());
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut lease => break,
                item = log.next() => if self.fold(item.attempt(WHAT)?) == Folded::Leads {
                    self.hear_nodes_again().await;
                },
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => self.done(done).await,
                Some(message) = shims.next(), if room => self.shim_report(&message).await,
                Some(message) = nodes.next(), if room => self.node_report(&message).await,
                Some(message) = queries.next(), if room => self.query(message).await,
                Ok(()) = held.changed() => {
                    let held = held.borrow_and_update().clone();
                    self.lease(held);
                }
                Ok(()) = link.changed() => {
                    let link = *link.borrow_and_update();
                    self.link(link);
                }
                () = timer => self.fire_timers(),
                _ = tick.tick() => self.tick().await,
            }
            self.perform_pending().await;
            self.answer_waiting().await;
        }
        self.last_reports(&mut nodes).await;
        self.last_words().await;
        Ok(())
    }

    /// What the nodes have said by now goes on record: an end that is heard of later would look like a crash.
    async fn last_reports(&mut self, nodes: &mut Subscription) {
        if self.broker.flush(Duration::from_secs(1)).await.is_ok() {
            while let Some(Some(message)) = nodes.next().now_or_never() {
                self.node_report(&message).await;
            }
        }
    }

    fn now(&self) -> Timestamp {
        SystemTime::now().into()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn task(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    /// One item of the log. Actions are queued, and performed if this supervisor leads.
    fn fold(&mut self, item: ControlItem) -> Folded {
        match item {
            ControlItem::CaughtUp => return Folded::CaughtUp,
            ControlItem::Malformed { seq, cause, .. } => {
                tracing::error!("record {seq} of the control log is skipped: {cause}");
            }
            ControlItem::Record { seq, record, .. } => {
                let actions = step(&mut self.state, seq, &record);
                self.note_removed(&record);
                if let Some(leading) = &mut self.leading
                    && leading.folded(&self.state, &record, actions)
                {
                    return Folded::Leads;
                }
            }
        }
        Folded::Record
    }

    fn note_removed(&mut self, record: &ControlRecord) {
        if let ControlEvent::AgentRemoved { agent } = &record.event {
            self.heartbeats.remove(agent);
            self.preparing.remove(agent);
        }
    }

    /// Appends a record; the answer comes as [`Done`]. Records leave in the order of these calls.
    fn append(&mut self, event: ControlEvent, term: Option<u64>, waiting: Option<Waiting>) {
        let author = if waiting.is_some() { "cli".to_owned() } else { self.id.clone() };
        let record = ControlRecord { at: self.now(), term, author, event };
        self.appended += 1;
        let id = format!("{}.{}", self.run, self.appended);
        let broker = self.broker.clone();
        self.task(async move {
            match broker.append_control(&record, &id).await {
                Ok(appended) => Done::Appended { seq: appended.seq, waiting },
                Err(error) => Done::NotAppended { record: Box::new(record), error, waiting },
            }
        });
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Appended { seq, waiting } => {
                if let Some(waiting) = waiting {
                    self.waiting.push((seq, waiting));
                }
            }
            Done::NotAppended { record, error, waiting } => {
                tracing::error!("appending to the control log: {error}");
                let now = self.now();
                if let Some(leading) = &mut self.leading {
                    leading.unsaid(&record, now);
                }
                if let Some(waiting) = waiting {
                    let error = broker::failure("the change is not on record", error);
                    self.refuse(waiting, error).await;
                }
            }
            Done::Floor { agent, incarnation, floor } => {
                self.floor_found(agent, incarnation, floor)
            }
            Done::Prepared { agent, prepared } => self.prepared(agent, prepared),
            Done::Admitted { agent, incarnation, swapped } => {
                self.admitted(agent, incarnation, swapped);
            }
            Done::Swept { agent, checked } => self.swept(agent, checked),
            Done::Consumers(consumers) => self.drop_consumers(consumers),
            Done::Nothing => {}
        }
    }

    /// Waits for what is under way, for a moment.
    async fn last_words(&mut self) {
        let rest = async { while self.tasks.next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await.is_ok();
        let _ = self.broker.flush(Duration::from_secs(1)).await.is_ok();
    }

    fn lease(&mut self, held: Option<LeaseState>) {
        match (held, &self.leading) {
            (Some(LeaseState::Held { tenure, .. }), Some(leading)) if leading.term == tenure => {}
            (Some(LeaseState::Held { tenure: term, .. }), _) => {
                tracing::info!("supervisor {} leads, term {term}", self.id);
                self.leading = Some(Leading::new(term, self.now_ms()));
                self.elect();
            }
            (Some(LeaseState::Other { .. }) | None, Some(leading)) => {
                tracing::info!("supervisor {} leads no more, term {}", self.id, leading.term);
                self.leading = None;
            }
            (Some(LeaseState::Other { .. }) | None, None) => {}
        }
    }

    fn link(&mut self, link: Link) {
        let now = self.now_ms();
        if let Some(leading) = &mut self.leading {
            leading.observer.link(link.up, now);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folded {
    Record,
    /// This supervisor's own election: it acts from now on.
    Leads,
    CaughtUp,
}
