//! Whether this incarnation is the current one, which decides what it may start and publish. Pure: time is an
//! argument, and what is to be done comes back as [`Deed`].
//!
//! Only the broker's own answer about the incarnation's consumer makes it current, and only while that answer is recent: a
//! working connection, a supervisor's old command or messages that were read ahead prove nothing. Its own suspension (a
//! stopped process, a suspended machine) counts as silence too, since whatever was sent meanwhile may be old when it is read.
//! So does a server that is cut off from the others: the consumer in its memory says that it exists long after the others
//! have deleted it, and when the link is back it may give out new messages before it learns that.

#[cfg(test)]
mod tests;

use common::Timestamp;

/// A current incarnation that has heard nothing of its consumer for this long starts nothing more: somebody else may have been
/// given its messages. Shorter than any silence for which a supervisor replaces it.
pub(crate) const SILENCE_US: u64 = 8_000_000;
/// After this long without news it asks by itself, as it must while no pull is open that would bring heartbeats.
pub(crate) const LOOK_AFTER_US: u64 = 3_000_000;
/// The pause between two look-ups of the consumer while it is in doubt.
pub(crate) const LOOK_AGAIN_US: u64 = 250_000;
/// `Ready` is repeated until it is answered: first after this pause, give or take a quarter,
pub(crate) const READY_AGAIN_US: u64 = 250_000;
/// and after twice as long each time, up to this. A leader that comes after a long time is told soon, and one that has a large fleet
/// to admit is not told by all of it all the time. It waits for at least two of these before it thinks that a shim has nothing to say.
pub(crate) const READY_MOST_US: u64 = 2_000_000;
/// The clock is looked at so often,
pub(crate) const AWAKE_EVERY_US: u64 = 2_000_000;
/// and a look that comes so much later was kept from it: this process stood still.
pub(crate) const LATE_US: u64 = 1_000_000;
/// An incarnation that nobody has admitted for this long ends, once no turn is open: neither its node nor a leader will
/// ever come back for it.
pub(crate) const ORPHANED_US: u64 = 3600 * 1_000_000;

/// What distinguishes a consumer from one that was recreated under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) name: String,
    /// When the broker made it; none where that is not known.
    pub(crate) created: Option<Timestamp>,
}

impl Consumer {
    fn is(&self, other: &Self) -> bool {
        let unknown = self.created.is_none() || other.created.is_none();
        self.name == other.name && (unknown || self.created == other.created)
    }
}

/// What a leader hands to an incarnation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admission {
    pub(crate) consumer: Consumer,
    /// Requests up to this sequence may have been given out to another incarnation.
    pub(crate) horizon: u64,
    /// Everything before this sequence is settled: nothing below is ever read.
    pub(crate) floor: u64,
}

/// The result of a look-up of the consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    There(Consumer),
    Gone,
    /// The broker did not answer in time.
    NoAnswer,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The connection's number while connected, else none.
    Link(Option<u64>),
    /// The worker takes messages.
    WorkerReady,
    Begin(Admission),
    /// The answer to [`Deed::Look`] of this number.
    Looked {
        look: u64,
        found: Found,
    },
    /// A pull was answered with its end, or could not be made.
    PullEnded,
    /// It takes no more messages, for good; what it has may still end.
    Stop,
    /// Time has passed. `heard_us`: the last word of the consumer that a pull brought; `idle`: no turn is open.
    Tick {
        heard_us: u64,
        idle: bool,
    },
    /// [`Standing::stood_still`] said so.
    StoodStill,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Start turns, publish.
    Open,
    /// Neither.
    Close,
    SayReady,
    /// Look the consumer up; `lost`: and read what it gave out and never came. Then [`Input::Looked`].
    Look {
        look: u64,
        consumer: Consumer,
        lost: bool,
    },
    Pull(Consumer),
    /// What this pull still brings is not wanted.
    DropPull,
    /// The leader has a consumer that whoever looked for it did not find: it may be out of reach of the server that both are connected to.
    Disputed,
    /// No leader will ever admit this incarnation.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Never admitted: nothing was given to it, so there is nothing that it could do wrongly.
    New,
    /// Known to be current.
    Current,
    /// It has a consumer, and may have been replaced. Looks.
    Doubtful,
    /// Its consumer is gone, or is another's of the same name. Says ready.
    Gone,
}

/// The state machine.
#[derive(Debug)]
pub(crate) struct Standing {
    state: State,
    link: Option<u64>,
    /// The connection of the pull, if there is one.
    pull: Option<u64>,
    worker_ready: bool,
    stopped: bool,
    consumer: Option<Consumer>,
    horizon: u64,
    floor: u64,
    /// The number of the last look-up.
    look: u64,
    /// Whether it is under way, and whether for what was lost too.
    looking: Option<bool>,
    look_at_us: u64,
    /// None while there is nobody to say it to.
    ready_at_us: Option<u64>,
    /// The pause after it is said next.
    ready_pause_us: u64,
    /// What the pauses are spread by.
    random: u64,
    /// The last word of the consumer.
    heard_us: u64,
    /// When the leader of the journal was last known to be in reach.
    reached_us: u64,
    awake_us: u64,
    /// Since when it is not current.
    since_us: u64,
}

impl Standing {
    /// `random`: another number for each shim, so that a fleet does not speak all at once.
    pub(crate) fn new(now_us: u64, link: Option<u64>, random: u64) -> Self {
        Self {
            state: State::New,
            link,
            pull: None,
            worker_ready: false,
            stopped: false,
            consumer: None,
            horizon: 0,
            floor: 0,
            look: 0,
            looking: None,
            look_at_us: 0,
            ready_at_us: None,
            ready_pause_us: READY_AGAIN_US,
            random,
            heard_us: now_us,
            reached_us: now_us,
            awake_us: now_us,
            since_us: now_us,
        }
    }

    /// Requests up to this one may have been given out to another incarnation.
    pub(crate) fn horizon(&self) -> u64 {
        self.horizon
    }

    /// Nothing below is read.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// To be asked before anything that has come is looked at: how long this process stood still, if it did. Then that is the
    /// next input.
    pub(crate) fn stood_still(&mut self, now_us: u64) -> Option<u64> {
        let gap = now_us.saturating_sub(self.awake_us);
        self.awake_us = now_us;
        (gap > AWAKE_EVERY_US + LATE_US).then_some(gap)
    }

    /// To be told before every input: when the connection's server was last known to reach the leader of the journal.
    pub(crate) fn reached(&mut self, at_us: u64) {
        self.reached_us = self.reached_us.max(at_us);
    }

    /// When [`Input::Tick`] is due.
    pub(crate) fn due_us(&self) -> u64 {
        let looks = self.link.is_some() && self.looking.is_none();
        let look = match self.state {
            State::Current if looks => Some((self.heard_us + LOOK_AFTER_US).max(self.look_at_us)),
            // Whether somebody is there to ask is known a moment later.
            State::Doubtful if looks && !self.is_reached(self.awake_us) => {
                Some(self.awake_us + LOOK_AGAIN_US)
            }
            State::Doubtful if looks => Some(self.look_at_us),
            State::New | State::Gone | State::Current | State::Doubtful => None,
        };
        let silence = (self.state == State::Current).then_some(self.silent_at_us());
        let always = self.awake_us + AWAKE_EVERY_US;
        let ready = self.ready_at_us.filter(|_| self.link.is_some());
        [look, silence, ready].into_iter().flatten().fold(always, u64::min)
    }

    /// Whether the leaders were in reach lately. While they are not, no look-up has an answer that counts.
    fn is_reached(&self, now_us: u64) -> bool {
        now_us < self.reached_us + SILENCE_US
    }

    /// When the silence is too long.
    fn silent_at_us(&self) -> u64 {
        self.heard_us.min(self.reached_us) + SILENCE_US
    }

    /// This is so now: the consumer is there, as somebody knows who reaches the leaders.
    fn confirmed(&mut self, now_us: u64) {
        self.heard_us = now_us;
        self.reached(now_us);
    }

    pub(crate) fn handle(&mut self, now_us: u64, input: Input) -> Vec<Deed> {
        let mut deeds = Vec::new();
        match input {
            Input::Link(link) => self.linked(now_us, link, &mut deeds),
            Input::WorkerReady => {
                self.worker_ready = true;
                if self.state == State::New {
                    self.say_ready(now_us);
                }
            }
            Input::Begin(admission) => self.begin(now_us, admission, &mut deeds),
            Input::Looked { look, found } => self.looked(now_us, look, found, &mut deeds),
            Input::PullEnded => {
                self.pull = None;
                self.doubt(now_us, &mut deeds);
            }
            Input::Stop => {
                self.stopped = true;
                self.ready_at_us = None;
            }
            Input::StoodStill => self.doubt(now_us, &mut deeds),
            Input::Tick { heard_us, idle } => {
                self.heard_us = self.heard_us.max(heard_us);
                if self.state == State::Current && self.silent_at_us() <= now_us {
                    self.doubt(now_us, &mut deeds);
                }
                let since = self.since_us + ORPHANED_US;
                if self.state != State::Current && !self.stopped && idle && since <= now_us {
                    self.stopped = true;
                    self.ready_at_us = None;
                    deeds.push(Deed::End);
                }
            }
        }
        self.go_on(now_us, &mut deeds);
        deeds
    }

    fn linked(&mut self, now_us: u64, link: Option<u64>, deeds: &mut Vec<Deed>) {
        if link == self.link {
            return;
        }
        self.link = link;
        self.doubt(now_us, deeds);
        let of_another = |pull: u64| link.is_some_and(|link| link != pull);
        if self.pull.is_some_and(of_another) {
            // What was on its way is lost, and later messages must not overtake it.
            self.pull = None;
            deeds.push(Deed::DropPull);
        }
        if link.is_some() && self.looking.is_some() {
            // Asked through the connection that is gone: nobody may ever answer.
            self.looking = None;
        }
        if link.is_some() && matches!(self.state, State::New | State::Gone) && self.worker_ready {
            self.say_ready(now_us);
        }
    }

    /// From now on, and at once: there is news.
    fn say_ready(&mut self, now_us: u64) {
        self.ready_at_us = (!self.stopped).then_some(now_us);
        self.ready_pause_us = READY_AGAIN_US;
    }

    fn begin(&mut self, now_us: u64, admission: Admission, deeds: &mut Vec<Deed>) {
        let Admission { consumer, horizon, floor } = admission;
        self.horizon = self.horizon.max(horizon);
        self.floor = self.floor.max(floor);
        if self.stopped || !self.worker_ready {
            return;
        }
        let known = self.consumer.as_ref().is_some_and(|known| known.is(&consumer));
        if known && matches!(self.state, State::Current | State::Doubtful) {
            return;
        }
        if known && self.state == State::Gone {
            deeds.push(Deed::Disputed);
        }
        self.consumer = Some(consumer.clone());
        if self.pull.take().is_some() {
            deeds.push(Deed::DropPull);
        }
        if self.state == State::New && self.link.is_some() {
            // It holds nothing that somebody else may have by now: the consumer's first delivery is the word that counts.
            self.confirmed(now_us);
            self.become_current(deeds);
            return;
        }
        if self.state == State::Current {
            deeds.push(Deed::Close);
            self.since_us = now_us;
        }
        self.state = State::Doubtful;
        self.ready_at_us = None;
        // A look-up of another consumer answers nothing.
        self.looking = None;
        self.look_at_us = now_us;
    }

    fn looked(&mut self, now_us: u64, look: u64, found: Found, deeds: &mut Vec<Deed>) {
        if look != self.look || self.looking.is_none() {
            return;
        }
        let whole = self.looking.take().unwrap_or(false);
        match found {
            Found::There(there) => {
                let ours = self.consumer.as_ref().is_some_and(|ours| ours.is(&there));
                match self.state {
                    _ if !ours => self.gone(now_us, deeds),
                    State::Current => self.confirmed(now_us),
                    State::Doubtful if whole => {
                        self.confirmed(now_us);
                        self.consumer = Some(there);
                        self.become_current(deeds);
                    }
                    State::New | State::Gone | State::Doubtful => {}
                }
            }
            Found::Gone => self.gone(now_us, deeds),
            Found::NoAnswer => {
                self.look_at_us = now_us + LOOK_AGAIN_US;
                if self.state == State::Doubtful && self.ready_at_us.is_none() {
                    // A consumer that does not answer may never do so again: a leader can make another.
                    self.say_ready(now_us);
                }
            }
        }
    }

    fn become_current(&mut self, deeds: &mut Vec<Deed>) {
        self.state = State::Current;
        self.ready_at_us = None;
        if self.pull.is_none() && !self.stopped {
            self.pull = self.link;
            deeds.extend(self.consumer.clone().map(Deed::Pull));
        }
        deeds.push(Deed::Open);
    }

    /// It was known to be current, and no longer is.
    fn doubt(&mut self, now_us: u64, deeds: &mut Vec<Deed>) {
        match self.state {
            State::New | State::Gone => {}
            State::Current => {
                self.state = State::Doubtful;
                self.since_us = now_us;
                // One that was asked before does not say what is so now.
                self.looking = None;
                self.look_at_us = self.look_at_us.max(now_us);
                deeds.push(Deed::Close);
            }
            State::Doubtful => {
                self.looking = None;
                self.look_at_us = self.look_at_us.min(now_us + LOOK_AGAIN_US);
            }
        }
    }

    fn gone(&mut self, now_us: u64, deeds: &mut Vec<Deed>) {
        if self.state == State::Current {
            deeds.push(Deed::Close);
            self.since_us = now_us;
        }
        if self.pull.take().is_some() {
            deeds.push(Deed::DropPull);
        }
        self.state = State::Gone;
        self.say_ready(now_us);
    }

    /// What has become due.
    fn go_on(&mut self, now_us: u64, deeds: &mut Vec<Deed>) {
        if self.link.is_none() {
            // It would wait in the client, and be old when it comes.
            return;
        }
        let lost = self.state == State::Doubtful;
        let due = match self.state {
            State::Current => (self.heard_us + LOOK_AFTER_US).max(self.look_at_us) <= now_us,
            State::Doubtful => self.is_reached(now_us) && self.look_at_us <= now_us,
            State::New | State::Gone => false,
        };
        if due
            && self.looking.is_none()
            && let Some(consumer) = self.consumer.clone()
        {
            self.look += 1;
            self.looking = Some(lost);
            deeds.push(Deed::Look { look: self.look, consumer, lost });
        }
        if self.ready_at_us.is_some_and(|at| at <= now_us) {
            self.ready_at_us = Some(now_us + self.spread(self.ready_pause_us));
            self.ready_pause_us = (self.ready_pause_us * 2).min(READY_MOST_US);
            deeds.push(Deed::SayReady);
        }
    }

    /// Three quarters to five quarters of a pause.
    fn spread(&mut self, pause_us: u64) -> u64 {
        // The generator of Knuth's MMIX; its high bits are the good ones.
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        pause_us - pause_us / 4 + pause_us / 2 * (self.random >> 56) / 255
    }
}
