//! The supervisor: follows the control log, folds it, and, as the leader, performs the resulting actions.
//!
//! One task owns the state, the leader's observer and the timers; everything that waits for the broker is a separate future.

mod admit;
mod archive;
mod carry;
mod deadlines;
mod disk;
mod done;
mod doors;
mod figures;
mod files;
mod grow;
mod later;
mod leader;
mod lease;
mod looks;
mod nodes;
mod people;
mod perform;
mod query;
mod queue;
mod reads;
mod schedules;
mod settle;
mod show;
mod snapshot;
mod sweep;
mod timers;
mod unread;
mod view;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker::{
    AuthKey, Broker, ControlItem, LeaseState, Link, Moment, StreamFigures, Subscription,
    TransientMessage,
};
use common::api::ApiError;
use common::control::{ControlEvent, ControlRecord};
use common::figures::Queue;
use common::frame::{Heartbeat, NodeStatus};
use common::snapshot::Logged;
use common::{AgentName, NodeName, SenderName, Timestamp};
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use metrics::Fleet;
use supervisor_core::{Ears, Snapshots, State, skip, step};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use archive::Retention;
use broker::Attempt as _;
use doors::{Doors, Live};
pub use doors::{Refusals, Refused};
use leader::{Leading, Preparing};
use looks::Looks;
use query::Waiting;
use reads::Reads;
use unread::Unread;

/// The leader looks around this often.
const TICK: Duration = Duration::from_secs(1);
/// The most futures outside the loop; at this number it stops taking reports and queries until some are done.
const TASKS: usize = 4096;
/// Shims and nodes report to one queue each; when the loop is behind, the client drops reports, and they are repeated.
const QUERY_GROUP: &str = "supervisors";

/// How a supervisor is run.
#[derive(Debug, Clone)]
pub struct SupervisorOptions {
    /// Its id: shown, and what `LeaderElected` names.
    pub id: String,
    /// Whether no other process of this id can run, as its data folder's lock says: then the lease of an earlier one is taken over at
    /// once.
    pub succeeds: bool,
    /// How long finished messages are kept, and where.
    pub retention: Retention,
    /// Where the broker keeps its streams, if that is on this machine: the disk is watched.
    pub store: Option<PathBuf>,
    /// The key to answer for logins of agents with; none where they log in with the credentials of their nodes.
    pub key: Option<AuthKey>,
    /// Where its numbers go; none if nobody reads them.
    pub metrics: Option<Fleet>,
}

/// The result of a future outside the loop.
enum Done {
    /// A record is in the log.
    Appended { seq: u64, waiting: Option<Waiting> },
    /// It could not be appended; a client may wait for it.
    NotAppended { record: Box<ControlRecord>, error: broker::BrokerError, waiting: Option<Waiting> },
    /// What was done for an agent in its turn.
    Turn(admit::Ended),
    /// Specs whose files were looked for: they are there, or an error says which are not.
    Stored(Box<files::Apply>, Result<(), ApiError>),
    /// A node has answered about a SANCTUM, or has not.
    Carried(carry::Heard),
    /// Whether an agent with a SANCTUM can be moved.
    MoveChecked(Box<carry::Checked>),
    /// Files that nothing needs were removed.
    Collected,
    /// What is kept no longer was removed.
    Pruned,
    /// A look at some agents.
    Swept(Vec<(AgentName, sweep::Checked)>),
    /// What was read of the deadlines of agents that do not run.
    Deadlines(Vec<deadlines::Look>),
    /// Messages have expired; those that this could not be stored for.
    Expired(Vec<deadlines::Entry>),
    /// A snapshot as of a sequence was taken, or could not be.
    Snapshot { seq: u64, written: bool },
    /// Clients were shown what they asked to see; how many messages agents had.
    Shown(Vec<(AgentName, view::Counted)>),
    /// What a worker said that is late with being ready.
    Late(ControlEvent),
    /// The consumers that there are.
    Consumers(Vec<(AgentName, u64)>),
    /// What waits for some agents that do not run.
    Waits(Vec<(AgentName, figures::Wait)>),
    /// What the broker's clock shows, and when it did.
    Clock(Option<u64>, Result<(Timestamp, Moment), broker::BrokerError>),
    /// The last records of schedules.
    SchedulesRead(
        Option<u64>,
        Vec<schedules::Key>,
        Result<Vec<broker::LastOccurrences>, broker::BrokerError>,
    ),
    /// What became of schedules that were due.
    Decided(Option<u64>, Vec<schedules::Decided>),
    /// Old records of schedules were removed.
    SchedulesTidied,
    /// A person has answered a question.
    PersonAnswered(people::Told),
    /// Nothing more to do.
    Nothing,
}

type Task = BoxFuture<'static, Done>;

struct Supervisor {
    id: String,
    /// Whether an earlier process of this id is known to be dead.
    succeeds: bool,
    broker: Broker,
    reads: Reads,
    retention: Retention,
    /// Makes the tokens of the shims' command subjects.
    secret: Uuid,
    /// This run of it, random: its message ids are no other run's, and no other process with its id is taken for it.
    run: Uuid,
    state: State,
    /// The record that it ends with.
    last: Logged,
    snapshots: Snapshots,
    /// When the last record was read.
    read: Moment,
    started: Moment,
    /// Whether it competes for the lease.
    competes: watch::Sender<bool>,
    /// Who holds the lease, as far as is known.
    holder: Option<String>,
    tasks: FuturesUnordered<Task>,
    appended: u64,
    /// Clients that wait until the fold has reached a sequence.
    waiting: Vec<(u64, Waiting)>,
    /// Clients that want to see agents.
    looks: Looks,
    heartbeats: HashMap<AgentName, (u64, Heartbeat)>,
    /// What the broker last told of agents' messages.
    counted: HashMap<AgentName, view::Counted>,
    /// The last reports of nodes about starts that take long.
    preparing: HashMap<AgentName, Preparing>,
    /// The last report of each node, and when it came.
    nodes: HashMap<NodeName, (u64, NodeStatus)>,
    /// What it hears of them, whether it leads or not.
    ears: Ears,
    leading: Option<Leading>,
    /// Which agents there are.
    roster: Arc<later::Roster>,
    unread: Unread,
    /// Which incarnations may be connected.
    live: Arc<Live>,
    leads: watch::Sender<bool>,
    refusals: Refusals,
    metrics: Option<Fleet>,
    /// What shims have told of their queues, and when.
    queues: HashMap<AgentName, (u64, Queue)>,
    waits: figures::Waits,
    /// What the streams hold.
    streams: watch::Receiver<Vec<StreamFigures>>,
    /// The user who asks for what is being handled.
    asks: Option<SenderName>,
}

/// Serves until `stop`. `reads` is a second connection to the same broker.
///
/// # Errors
/// When the broker's client is closed or its log cannot be followed.
pub async fn serve(
    options: SupervisorOptions,
    broker: Broker,
    reads: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    const WHAT: &str = "cannot start the supervisor";
    // A broker that goes away while this starts is waited for, like one that has not come.
    let who = format!("supervisor {}", options.id);
    let opening = broker::once_there(&who, || async {
        let secret = broker.fleet_secret().await?;
        let loaded = broker.load_snapshot(supervisor_core::restore).await?;
        let from = loaded.found.as_ref().map_or(1, |(head, _)| head.seq + 1);
        Ok((secret, loaded, broker.follow_control(from, None).await?))
    });
    let Some(opened) = stop.run_until_cancelled(opening).await else { return Ok(()) };
    let (secret, loaded, log) = opened.attempt(WHAT)?;
    let start = snapshot::start(WHAT, &options.id, loaded)?;
    let refusals = Refusals::new(broker.clone(), options.id.clone(), options.metrics.clone());
    let (sizes, streams) = watch::channel(Vec::new());
    let supervisor = Supervisor {
        id: options.id,
        succeeds: options.succeeds,
        broker,
        reads: Reads::new(reads),
        retention: options.retention,
        secret: Uuid::new_v5(&Uuid::NAMESPACE_OID, secret.as_bytes()),
        run: Uuid::now_v7(),
        snapshots: Snapshots::since(start.state.seq()),
        state: start.state,
        last: start.last,
        read: Moment::now(),
        started: Moment::now(),
        competes: watch::Sender::new(true),
        holder: None,
        tasks: FuturesUnordered::new(),
        appended: 0,
        waiting: Vec::new(),
        looks: Looks::default(),
        heartbeats: HashMap::new(),
        counted: HashMap::new(),
        preparing: HashMap::new(),
        nodes: HashMap::new(),
        ears: Ears::new(0),
        leading: None,
        roster: Arc::default(),
        unread: Unread::default(),
        live: Arc::default(),
        leads: watch::Sender::new(false),
        refusals,
        metrics: options.metrics.clone(),
        queues: HashMap::new(),
        waits: figures::Waits::default(),
        streams,
        asks: None,
    };
    supervisor.live.fold(&supervisor.state, None);
    supervisor.roster.all(&supervisor.state);
    let told = supervisor.broker.clone();
    let (asked, leads) = (supervisor.reads.broker.clone(), supervisor.leads.subscribe());
    let figures = figures::hear(&asked, options.metrics, sizes, leads);
    let (follows, key) = (CancellationToken::new(), options.key);
    let doors = supervisor.doors();
    let keeping = async {
        // What was replaced since the snapshot must not be let in.
        follows.cancelled().await;
        doors.keep(key).await
    };
    tokio::select! {
        ended = supervisor.go(log, &follows, stop) => ended,
        ended = keeping => ended,
        ended = figures => ended,
        () = disk::watch(&told, options.store) => Ok(()),
    }
}

/// What the supervisor's loop waits for.
enum Input {
    Log(Result<ControlItem, broker::BrokerError>),
    Done(Done),
    Shim(TransientMessage),
    Node(TransientMessage),
    Query(TransientMessage),
    Lease(Option<LeaseState>),
    Link(Link),
    Timer,
    Tick,
    Stop,
}

impl Supervisor {
    async fn go(
        mut self,
        mut log: broker::ControlFollower,
        follows: &CancellationToken,
        stop: CancellationToken,
    ) -> Result<(), ApiError> {
        const WHAT: &str = "the supervisor stopped";
        loop {
            tokio::select! {
                item = log.next() => if self.fold(item.attempt(WHAT)?) == Folded::CaughtUp {
                    break;
                },
                () = stop.cancelled() => return Ok(()),
            }
        }
        follows.cancel();
        let subjects = self.broker.subjects().clone();
        let mut shims = self.broker.subscribe(subjects.shim_reports(), None).await.attempt(WHAT)?;
        let mut nodes = self.broker.subscribe(subjects.node_reports(), None).await.attempt(WHAT)?;
        let group = Some(QUERY_GROUP);
        let mut queries = self.broker.subscribe(subjects.query(), group).await.attempt(WHAT)?;
        let of_users = self.broker.subscribe(subjects.queries_by(), group).await;
        let mut of_users: Subscription = of_users.attempt(WHAT)?;
        let [all, all_by] = [subjects.query_of_all(), subjects.queries_of_all_by()];
        let mut asked_all = self.broker.subscribe(all, None).await.attempt(WHAT)?;
        let mut users_all = self.broker.subscribe(all_by, None).await.attempt(WHAT)?;
        let (lease, mut held) = watch::channel(None);
        let run = self.run.to_string();
        let competing = self.broker.lease(&self.id, &run, lease::TTL);
        let competing = if self.succeeds { competing.succeeding() } else { competing };
        let lease = lease::keep(competing, self.competes.subscribe(), lease, stop.clone());
        let mut lease = std::pin::pin!(lease);
        let near = self.broker.clone().stay_in_reach(None);
        let reads_near = self.reads.broker.clone().stay_in_reach(None);
        let (mut near, mut reads_near) = (std::pin::pin!(near), std::pin::pin!(reads_near));
        let mut link = self.broker.link();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        tracing::info!("supervisor {} follows the log up to {}", self.id, self.state.seq());
        loop {
            let room = self.tasks.len() < TASKS;
            let due = self.leading.as_ref().and_then(Leading::due);
            let timer = async {
                match due {
                    Some(at) => tokio::time::sleep(at.since(Moment::now())).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                () = &mut lease => Input::Stop,
                never = &mut near => match never {},
                never = &mut reads_near => match never {},
                item = log.next() => Input::Log(item),
                Some(done) = self.tasks.next(), if !self.tasks.is_empty() => Input::Done(done),
                Some(message) = shims.next(), if room => Input::Shim(message),
                Some(message) = nodes.next(), if room => Input::Node(message),
                Some(message) = queries.next(), if room => Input::Query(message),
                Some(message) = asked_all.next(), if room => Input::Query(message),
                Some(message) = of_users.next(), if room => Input::Query(message),
                Some(message) = users_all.next(), if room => Input::Query(message),
                () = self.refusals.record() => continue,
                Ok(()) = held.changed() => Input::Lease(held.borrow_and_update().clone()),
                Ok(()) = link.changed() => Input::Link(*link.borrow_and_update()),
                () = timer => Input::Timer,
                _ = tick.tick() => Input::Tick,
            };
            // Whatever it is: it may have waited while this process stood still.
            self.awake();
            match input {
                Input::Log(item) => {
                    if self.fold(item.attempt(WHAT)?) == Folded::Leads {
                        self.keep_archiving();
                        self.keep_later();
                        self.hear_nodes_again().await;
                    }
                }
                Input::Done(done) => self.done(done).await,
                Input::Shim(message) => self.shim_report(&message).await,
                Input::Node(message) => self.node_report(&message).await,
                Input::Query(message) => self.query(message).await,
                Input::Lease(held) => self.lease(held),
                Input::Link(link) => self.link(link),
                Input::Timer => self.fire_timers(),
                Input::Tick => self.tick().await,
                Input::Stop => break,
            }
            self.perform_pending().await;
            self.take_turns();
            self.carry_next();
            self.answer_waiting().await;
            self.tell_who_leads();
        }
        self.last_reports(&mut nodes).await;
        self.last_words().await;
        Ok(())
    }

    /// What those need who answer for logins and questions.
    fn doors(&self) -> Doors {
        Doors {
            id: self.id.clone(),
            broker: self.reads.broker.clone(),
            secret: self.secret,
            live: Arc::clone(&self.live),
            leads: self.leads.subscribe(),
            metrics: self.metrics.clone(),
        }
    }

    fn tell_who_leads(&self) {
        let leads = self.leading.is_some();
        if self.leads.send_if_modified(|known| std::mem::replace(known, leads) != leads) && leads {
            self.live.leads();
        }
    }

    /// Records what the nodes have reported so far: an exit that is reported later would look like a crash.
    async fn last_reports(&mut self, nodes: &mut Subscription) {
        if self.broker.flush(Duration::from_secs(1)).await.is_ok() {
            while let Some(Some(message)) = nodes.next().now_or_never() {
                self.node_report(&message).await;
            }
        }
    }

    /// It runs again. A lease that is past its deadline is given up before anything else is done; and what nobody listened to
    /// for a while was silent for no time.
    fn awake(&mut self) {
        let (now, now_ms) = (Moment::now(), self.now_ms());
        if self.leading.as_ref().is_some_and(|leading| leading.until <= now) {
            tracing::warn!("supervisor {} lost the lease: it was not renewed in time", self.id);
            self.leading = None;
            self.holder = None;
        }
        self.ears.awake(now_ms);
        if let Some(leading) = &mut self.leading {
            leading.awake(now_ms);
        }
    }

    /// The log's time: that of the last record read, and what has passed since by a clock that is nobody's to set.
    fn now(&self) -> Timestamp {
        self.state.at().after(Moment::now().since(self.read))
    }

    fn now_ms(&self) -> u64 {
        let passed = Moment::now().since(self.started);
        u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
    }

    fn task(&mut self, task: impl Future<Output = Done> + Send + 'static) {
        self.tasks.push(Box::pin(task));
    }

    /// One item of the log. Actions are queued, and performed if this supervisor leads.
    fn fold(&mut self, item: ControlItem) -> Folded {
        match item {
            ControlItem::CaughtUp => return Folded::CaughtUp,
            ControlItem::Malformed { seq, at, kind, cause, .. } => {
                self.read_up_to(seq, at, None);
                // Whatever has a type was written by some version of this; the rest means nothing to any.
                let newer = kind
                    .map(|kind| format!("it is a {kind:?} that this build cannot read: {cause}"));
                if let Some(others) = self.unread.records.count(self.now_ms()) {
                    tracing::error!(
                        "record {seq} of the control log cannot be read: {cause}{others}"
                    );
                }
                skip(&mut self.state, seq, at, newer);
            }
            ControlItem::Record { seq, at, record } => {
                self.read_up_to(seq, at, record.id.clone());
                let actions = step(&mut self.state, seq, at, &record);
                self.note_removed(&record);
                if let (Some(leading), Some(agent)) = (&mut self.leading, record.event.agent()) {
                    leading.schedules.folded(&self.state, agent);
                }
                match record.event.agent() {
                    Some(agent) => self.roster.folded(&self.state, agent),
                    None if matches!(record.event, ControlEvent::FleetRestored { .. }) => {
                        self.roster.all(&self.state);
                    }
                    None => {}
                }
                self.live.fold(&self.state, record.event.agent());
                let (run, now_ms) = (self.run.to_string(), self.now_ms());
                if let Some(leading) = &mut self.leading
                    && leading.folded(&self.state, &run, now_ms, &self.ears, &record, actions)
                {
                    self.count_record(&record);
                    return self.follow_what_cannot_be_read(Folded::Leads);
                }
                self.count_record(&record);
            }
        }
        self.follow_what_cannot_be_read(Folded::Record)
    }

    /// The next record is here. The log has no gaps: what is missing was removed, and may have meant anything.
    fn read_up_to(&mut self, seq: u64, at: Timestamp, id: Option<String>) {
        self.read = Moment::now();
        if seq > self.state.seq() {
            self.last = Logged { at, id };
        }
        let next = self.state.seq() + 1;
        if seq > next {
            let last = seq - 1;
            let why = format!("records {next} to {last} are missing");
            skip(&mut self.state, last, at, Some(why));
        }
    }

    /// What a replica cannot read makes it a follower: it gives the lease up, and competes for it no more.
    fn follow_what_cannot_be_read(&mut self, folded: Folded) -> Folded {
        let Some(unreadable) = self.state.unreadable() else { return folded };
        let is_new = self.competes.send_if_modified(std::mem::take);
        if is_new {
            tracing::error!(
                "supervisor {} stops competing for the lease: record {} of the control log: {}",
                self.id,
                unreadable.seq,
                unreadable.why
            );
        }
        self.leading = None;
        Folded::Record
    }

    fn note_removed(&mut self, record: &ControlRecord) {
        if let ControlEvent::AgentRemoved { agent } = &record.event {
            self.heartbeats.remove(agent);
            self.queues.remove(agent);
            self.counted.remove(agent);
            self.preparing.remove(agent);
        }
    }

    /// Appends a record; the answer comes as [`Done`]. Records leave in the order of these calls.
    fn append(&mut self, event: ControlEvent, term: Option<u64>, waiting: Option<Waiting>) {
        let author = match (&self.asks, &waiting) {
            (Some(user), _) => user.to_string(),
            (None, Some(_)) => "cli".to_owned(),
            (None, None) => self.id.clone(),
        };
        // By this host's clock, for people.
        let at = SystemTime::now().into();
        self.appended += 1;
        let id = Some(format!("{}.{}", self.run, self.appended));
        let record = ControlRecord { id, at, term, author, event };
        let broker = self.broker.clone();
        self.task(async move {
            match broker.append_control(&record).await {
                Ok(appended) => Done::Appended { seq: appended.seq, waiting },
                Err(error) => Done::NotAppended { record: Box::new(record), error, waiting },
            }
        });
    }

    /// Waits for what is under way, for a moment.
    async fn last_words(&mut self) {
        // What goes on for as long as it leads, as the archiver does, ends now; what is to be stored still is.
        self.leading = None;
        let rest = async { while self.tasks.next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(1), rest).await.is_ok();
        let _ = self.broker.flush(Duration::from_secs(1)).await.is_ok();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Folded {
    Record,
    /// This supervisor's own election: it acts from now on.
    Leads,
    CaughtUp,
}
