//! The life of an agent: the desired state, its incarnations, and its timers.

use common::NodeName;
use common::control::Timer;
use common::shim::Exit;
use common::spec::{AgentSpec, Replace};

use crate::carry::WITH_CARRY;
use crate::placement::WITH_ROOM;
use crate::state::{Admission, Agent, Desired, Hold, Incarnation, Moving, Phase, Wanted};
use crate::text;
use crate::world::World;

/// One agent during one record.
pub(crate) struct Life<'a> {
    pub(crate) agent: &'a mut Agent,
    pub(crate) world: World<'a>,
}

/// The rules from which on a start that a person asks for forgets the place that was asked for before.
const WITH_NEW_START: u32 = 6;

/// Why an incarnation is gone.
pub(crate) enum End {
    /// Its process ended.
    Exited(Exit),
    /// It could not be started, or did not become ready.
    NeverRan(Exit),
    /// Its node went silent.
    NodeLost,
}

// === What people want ===

impl Life<'_> {
    /// A changed spec, or the same one by force, is a new generation; a stopped agent takes it and stays stopped.
    pub(crate) fn applied(&mut self, spec: &AgentSpec, force: bool) {
        let rules = self.world.rules;
        let agent = &mut *self.agent;
        if is_same(&agent.spec, spec, rules) && !force && !agent.removing {
            // Whoever applies a generation again that was rolled back has mended what kept it from being ready.
            if agent.is_rolled_back() {
                self.replaced();
            }
            return;
        }
        let before = std::mem::replace(&mut agent.spec, spec.clone());
        agent.older.insert(agent.generation, before);
        agent.generation = agent.generation.saturating_add(1);
        if agent.removing {
            // What was removed is nothing to go back to.
            agent.good.clear();
            agent.removing = false;
            agent.desired = Desired::Running;
        }
        agent.restart_count = 0;
        agent.restarts.clear();
        self.renew();
    }

    pub(crate) fn started(&mut self) {
        if self.agent.removing {
            return;
        }
        let stopped = self.agent.desired == Desired::Stopped;
        self.agent.desired = Desired::Running;
        if stopped || (self.agent.current.is_none() && self.agent.hold.is_some()) {
            self.agent.restart_count = 0;
            self.aim_at_newest();
            self.release();
            if self.world.rules >= WITH_NEW_START {
                // Else what is asked for meanwhile would run, and nobody would know any more that the newest one waits.
                self.agent.wanted = None;
            }
            self.go_on();
        }
    }

    pub(crate) fn stopped(&mut self) {
        self.agent.desired = Desired::Stopped;
        self.release();
        self.agent.started_at = None;
        self.agent.wanted = None;
        self.agent.moving = None;
        self.retire_next();
        self.drain_current();
    }

    /// Also starts what was stopped, as people expect of a restart.
    pub(crate) fn restarted(&mut self) {
        if self.agent.removing {
            return;
        }
        self.agent.desired = Desired::Running;
        self.release();
        self.agent.started_at = None;
        self.agent.wanted = None;
        self.agent.moving = None;
        self.retire_next();
        self.drain_current();
        self.go_on();
    }

    pub(crate) fn replaced(&mut self) {
        if !self.agent.removing {
            self.renew();
        }
    }

    pub(crate) fn removed(&mut self) {
        self.stopped();
        self.agent.removing = true;
    }

    /// Aims at the newest generation, and moves there if the agent is to run.
    fn renew(&mut self) {
        self.aim_at_newest();
        if self.agent.desired == Desired::Running {
            self.release();
            self.replace();
        }
    }

    fn aim_at_newest(&mut self) {
        self.agent.target = self.agent.generation;
        self.agent.given_up = None;
    }

    /// Ends whatever kept the agent from being started: a pending restart dies here, a quarantine too.
    pub(crate) fn release(&mut self) {
        if self.agent.next_try.take().is_some() {
            self.world.cancel_timer(&self.agent.name, Timer::Restart, self.agent.incarnation);
        }
        if self.agent.is_quarantined() {
            self.agent.restarts.clear();
        }
        self.agent.hold = None;
        self.agent.reason = self.agent.given_up.clone();
    }
}

// === Starting ===

impl Life<'_> {
    /// Asks for the next incarnation as the only one, or waits for a node. `cause` is why a start is needed at all.
    pub(crate) fn begin(&mut self, cause: Option<String>) {
        if self.waits_for_its_sanctum() {
            return;
        }
        let cause = cause.or(self.unable_to_move());
        let generation = self.agent.target;
        if self.is_blocked(generation) {
            self.agent.reason = cause.or(self.agent.reason.take());
            return;
        }
        let wanted = Wanted { generation, beside: false, cause: cause.clone() };
        match self.world.want(self.agent, wanted) {
            Ok(()) => {
                self.agent.hold = None;
                if cause.is_some() {
                    self.agent.reason = cause;
                }
            }
            Err(why) => self.begin_meanwhile(cause, why),
        }
    }

    /// Begins, if the agent is to run, nothing of it does or is about to, and nothing holds it.
    pub(crate) fn go_on(&mut self) {
        let agent = &*self.agent;
        let is_idle = agent.current.is_none() && agent.wanted.is_none() && agent.hold.is_none();
        if agent.desired == Desired::Running && is_idle {
            self.begin(None);
        }
    }

    /// A start has its number and its place. One that nobody waits for any more changes nothing; neither does a number that is
    /// not a new one.
    pub(crate) fn allocated(&mut self, number: u64, generation: u64, node: &NodeName) {
        let agent = &mut *self.agent;
        let is_asked = agent.wanted.as_ref().is_some_and(|wanted| wanted.generation == generation);
        if !is_asked || number <= agent.incarnation {
            return;
        }
        let spec = agent.spec_of(generation).unwrap_or(&agent.spec);
        if !self.world.takes(node, agent, spec) {
            // The node went away meanwhile, or is full.
            return self.place_anew();
        }
        let Some(wanted) = agent.wanted.take() else { return };
        agent.moving.take_if(|moving| matches!(moving, Moving::To(_)));
        let one = self.world.start(agent, number, generation, node, wanted.beside);
        if wanted.beside {
            agent.next = Some(one);
        } else {
            agent.current = Some(one);
        }
    }

    /// The nodes have changed: a start without a place is requested again, or waits.
    pub(crate) fn place_anew(&mut self) {
        match self.agent.wanted.take() {
            Some(Wanted { beside: true, .. }) => self.start_beside(),
            Some(Wanted { cause, .. }) => self.begin(cause),
            None => {}
        }
    }

    /// An incarnation that counted as gone is there after all. It goes on, if nothing has taken its place.
    pub(crate) fn returned(&mut self, number: u64, generation: u64, node: &NodeName) {
        let agent = &mut *self.agent;
        if self.world.rules < 2 || !agent.can_return(number, generation) {
            return;
        }
        let spec = agent.spec_of(generation).unwrap_or(&agent.spec);
        if !self.world.takes_back(node, spec)
            || self.world.rules >= WITH_CARRY && agent.has_data_elsewhere(generation, node)
        {
            return;
        }
        agent.wanted = None;
        let one = self.world.take_up(agent, number, generation, node);
        agent.current = Some(one);
        agent.home = Some(node.clone());
        agent.begun_clean = false;
        agent.started_at = Some(self.world.at);
        self.release();
    }

    /// With `stop-first`, the old is gone before the new starts, whatever kind of old.
    pub(crate) fn is_blocked(&self, generation: u64) -> bool {
        let spec = self.agent.spec_of(generation).unwrap_or(&self.agent.spec);
        !self.agent.retiring.is_empty() && spec.replace_mode() == Replace::StopFirst
    }

    pub(crate) fn node_seen(&mut self) {
        if self.waits_for_a_node() {
            self.agent.hold = None;
            self.replace();
        } else {
            self.place_anew();
        }
    }

    fn waits_for_a_node(&self) -> bool {
        self.agent.desired == Desired::Running && self.agent.hold == Some(Hold::NoNode)
    }

    /// There is more room somewhere: it may be enough.
    pub(crate) fn try_again(&mut self) {
        if self.waits_for_a_node() && self.world.place(self.agent).is_ok() {
            self.agent.hold = None;
            self.replace();
        }
    }

    /// What is taken of the nodes has changed: a start whose place is taken waits, too.
    pub(crate) fn fit(&mut self) {
        let spec = |wanted: &Wanted| self.agent.spec_of(wanted.generation);
        let spec = self.agent.wanted.as_ref().and_then(spec);
        if spec.is_some_and(|spec| !self.world.has_room(self.agent, spec)) {
            self.place_anew();
        }
    }
}

// === Becoming ready, and ending ===

impl Life<'_> {
    pub(crate) fn ready(&mut self, number: u64, floor: u64) {
        let waits = |one: &&mut Incarnation| one.number == number && one.phase == Phase::Starting;
        let agent = &mut *self.agent;
        if let Some(current) = agent.current.as_mut().filter(waits) {
            current.floor = floor;
            let generation = current.generation;
            self.world.cancel_timer_of(&agent.name, current);
            self.world.start_succeeded(&agent.name, &current.node);
            agent.was_ready(generation);
            self.pin(number);
            self.admit();
        } else if let Some(next) = agent.next.as_mut().filter(waits) {
            next.floor = floor;
            self.world.cancel_timer_of(&agent.name, next);
            self.world.start_succeeded(&agent.name, &next.node);
            next.phase = Phase::Ready;
            next.deadline = None;
            let generation = next.generation;
            agent.was_ready(generation);
            self.pin(number);
            self.drain_current();
        }
    }

    /// What it writes to is where it was first ready. Before that it had no message.
    fn pin(&mut self, number: u64) {
        let agent = &mut *self.agent;
        let Some(one) = agent.incarnation(number) else { return };
        let is_pinned = agent.spec_of(one.generation).is_some_and(|spec| spec.pins().is_some());
        if self.world.rules >= WITH_ROOM && is_pinned && agent.pin.is_none() {
            agent.pin = Some(one.node.clone());
        }
    }

    pub(crate) fn stable(&mut self, number: u64) {
        let current = self.agent.current.as_ref();
        if current.is_some_and(|one| one.number == number && one.phase == Phase::Ready) {
            self.agent.restart_count = 0;
        }
    }

    /// An incarnation has its consumer: what it took over from is settled, and to admit it again is to make its own consumer
    /// anew.
    pub(crate) fn begun(&mut self, number: u64) {
        if self.agent.begun == Some(number) {
            self.agent.admission = Some(Admission::default());
        }
    }

    /// An incarnation is gone. One that the agent has let go of changes nothing but that.
    pub(crate) fn ended(&mut self, number: u64, end: End, clean: bool) {
        let agent = &mut *self.agent;
        if let Some(index) = agent.retiring.iter().position(|one| one.number == number) {
            let gone = agent.retiring.remove(index);
            self.forget(&gone, clean);
            self.go_on();
        } else if let Some(next) = agent.next.take_if(|next| next.number == number) {
            self.forget(&next, clean);
            self.note_failure(&next);
            self.next_gone(&next, &end);
        } else if let Some(current) = agent.current.take_if(|one| one.number == number) {
            self.forget(&current, clean);
            self.note_failure(&current);
            self.current_gone(&current, end);
        }
    }

    /// Whether one that was to start is gone because its node was restarted: that does not count as a crash.
    pub(crate) fn went_with_its_node(&self, gone: &Incarnation, end: &End) -> bool {
        let is_gone = match end {
            End::Exited(exit) => exit.code.is_none() && exit.signal.is_none(),
            End::NeverRan(_) | End::NodeLost => false,
        };
        is_gone
            && gone.phase == Phase::Starting
            && self.world.instance_of(&gone.node) != gone.instance
    }

    /// One that ends before it was ready speaks against its node.
    fn note_failure(&mut self, gone: &Incarnation) {
        let is_its_fault = self.world.instance_of(&gone.node) == gone.instance
            && !self.world.is_draining(&gone.node);
        if gone.phase == Phase::Starting && is_its_fault {
            self.world.start_failed(&self.agent.name, &gone.node);
        }
    }

    /// An incarnation hangs: it is ended at once. Its end is a crash, whatever it then reports.
    pub(crate) fn hung(&mut self, number: u64, silent_for: u64) {
        let agent = &mut *self.agent;
        let hangs = |one: &&mut Incarnation| one.number == number && one.phase == Phase::Ready;
        if let Some(current) = agent.current.as_mut().filter(hangs) {
            self.world.drain(&agent.name, current, std::time::Duration::ZERO);
            current.hung = Some(format!("hung: no heartbeat from its shim for {silent_for}s"));
        }
    }

    /// A node is lost: all that it ran counts as gone, and none of it as crashed.
    pub(crate) fn node_lost(&mut self, node: &NodeName) {
        let on_node = |one: &Incarnation| one.node == *node;
        self.carry_lost(node);
        let agent = &mut *self.agent;
        let gone: Vec<_> = agent.retiring.extract_if(.., |one| on_node(one)).collect();
        let next = agent.next.take_if(|next| on_node(next));
        let current = agent.current.take_if(|current| on_node(current));
        for one in gone.iter().chain(&next).chain(&current) {
            self.forget(one, false);
        }
        match (current, next) {
            (Some(current), _) => self.current_gone(&current, End::NodeLost),
            (None, Some(next)) => self.next_gone(&next, &End::NodeLost),
            (None, None) if self.agent.wanted.is_some() => self.place_anew(),
            (None, None) => self.go_on(),
        }
    }

    fn forget(&mut self, gone: &Incarnation, clean: bool) {
        self.world.gone(&self.agent.name, gone);
        if self.agent.begun == Some(gone.number) {
            self.agent.begun_clean = clean;
        }
    }

    fn current_gone(&mut self, gone: &Incarnation, mut end: End) {
        if self.went_with_its_node(gone, &end) {
            end = End::NodeLost;
        }
        let commanded = gone.phase == Phase::Draining && gone.hung.is_none();
        if let (Some(reason), End::Exited(exit)) = (&gone.hung, &mut end) {
            *exit = Exit { reason: Some(reason.clone()), ..Exit::default() };
        }
        let fault = match end {
            End::NodeLost => Err(format!("node {} lost", gone.node)),
            End::Exited(_) | End::NeverRan(_) if self.world.is_draining(&gone.node) => {
                Err(format!("node {} is shutting down", gone.node))
            }
            End::Exited(exit) => Ok((format!("worker: {}", exit.describe()), exit)),
            End::NeverRan(exit) => Ok((exit.reason.clone().unwrap_or_default(), exit)),
        };
        let was_replaced = self.agent.wanted.take().is_some();
        if self.agent.next.is_some() || was_replaced {
            let why = match fault {
                Ok((why, exit)) if !commanded => {
                    self.ended_with(exit);
                    Some(why)
                }
                Ok(_) => None,
                Err(cause) => Some(cause),
            };
            return self.promote(why);
        }
        self.agent.started_at = None;
        match (self.agent.desired, fault) {
            (Desired::Stopped, Ok((_, exit))) => self.ended_with(exit),
            (Desired::Stopped, Err(_)) => {}
            (Desired::Running, _) if commanded => self.go_on(),
            (Desired::Running, Err(cause)) => self.begin(Some(cause)),
            (Desired::Running, Ok((why, exit))) => match self.way_back(gone) {
                Some(good) => self.roll_back(good, gone, exit),
                None => self.crashed(why, exit),
            },
        }
    }
}

// === Timers ===

impl Life<'_> {
    /// `said`: the last line of its worker's output.
    pub(crate) fn timer(&mut self, timer: Timer, number: u64, said: Option<&str>) {
        match timer {
            Timer::Restart => {
                // Any start since then has taken a higher number, and any release has taken the timer away.
                if number == self.agent.incarnation && self.agent.next_try.take().is_some() {
                    self.agent.hold = None;
                    self.begin(self.agent.reason.clone());
                }
            }
            Timer::Ready => self.not_ready(number, said),
            Timer::Drain => {
                let agent = &mut *self.agent;
                let overdue = agent
                    .retiring
                    .iter_mut()
                    .chain(&mut agent.current)
                    .find(|one| one.number == number && one.phase == Phase::Draining);
                if let Some(one) = overdue {
                    self.world.stop_again(&agent.name, one);
                }
            }
        }
    }

    fn not_ready(&mut self, number: u64, said: Option<&str>) {
        let agent = &mut *self.agent;
        let late = |one: &mut Incarnation| one.number == number && one.phase == Phase::Starting;
        let (mut one, is_next) = match agent.next.take_if(late) {
            Some(next) => (next, true),
            None => match agent.current.take_if(late) {
                Some(current) => (current, false),
                None => return,
            },
        };
        let spec = agent.spec_of(one.generation).unwrap_or(&agent.spec);
        let late = format!("not ready within {}", text::duration(spec.timeout.ready));
        let end = End::NeverRan(Exit {
            reason: Some(match said {
                Some(said) => format!("{late}; the last line of its output: {said}"),
                None => late,
            }),
            ..Exit::default()
        });
        let as_it_was = one.clone();
        if !self.world.is_draining(&one.node) {
            self.world.start_failed(&agent.name, &one.node);
        }
        self.world.drain(&agent.name, &mut one, std::time::Duration::ZERO);
        agent.retiring.push(one);
        if is_next {
            self.next_gone(&as_it_was, &end);
        } else {
            self.current_gone(&as_it_was, end);
        }
    }
}

/// Whether one spec says what the other one does. Builds that lead by earlier rules do not see the archive of files.
fn is_same(one: &AgentSpec, other: &AgentSpec, rules: u32) -> bool {
    if rules >= 4 || one.files == other.files {
        return one == other;
    }
    *one == AgentSpec { files: one.files.clone(), ..other.clone() }
}
