//! Performs a leader's commands: each command may come twice, and has the same effect as once.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use broker::Moment;
use common::codec;
use common::frame::{NodeCommand, NodeCommandBody, NodeReport, StartIncarnation};
use common::tally::Tally;

use super::files::Prepared;
use super::running::{self, Key, Running};
use super::{GRACE, Node};

/// Commands that were ignored: logged at a limited rate, however many come.
#[derive(Debug, Default)]
pub(super) struct Untaken {
    unreadable: Tally,
    /// Outdated, or for another process.
    ignored: Tally,
}

fn now_ms() -> u64 {
    Moment::now().since_boot_ms()
}

impl Node {
    pub(super) async fn command(&mut self, payload: &[u8]) {
        let NodeCommand { term, instance, number, body } = match codec::decode(payload) {
            Ok(command) => command,
            Err(error) => {
                if let Some(others) = self.untaken.unreadable.count(now_ms()) {
                    tracing::warn!("cannot read a command: {error}{others}");
                }
                return;
            }
        };
        if instance.is_some_and(|instance| instance != self.instance) {
            return self.ignored(format_args!("it is for another process of this node"));
        }
        if term < self.term {
            let current = self.term;
            return self
                .ignored(format_args!("it is of term {term}, and the current term is {current}"));
        }
        self.term = term;
        // What the node says of what it has taken must stay true: a start that a later command has overtaken comes too late.
        if (term, number) < self.seen && matches!(body, NodeCommandBody::Start(_)) {
            return self.ignored(format_args!("it is an outdated start, which the leader repeats"));
        }
        // What was said while it stood still is repeated if it still holds.
        if self.stale && matches!(body, NodeCommandBody::Start(_) | NodeCommandBody::Refused) {
            return self.ignored(format_args!("it is from before the suspension"));
        }
        self.seen = self.seen.max((term, number));
        match body {
            NodeCommandBody::Start(start) => self.start(*start).await,
            NodeCommandBody::Stop { agent, incarnation, within } => {
                self.stop((agent, incarnation), within).await;
            }
            NodeCommandBody::List => self.report_status().await,
            NodeCommandBody::Refused => self.refused = instance.is_some(),
        }
    }

    fn ignored(&mut self, why: fmt::Arguments<'_>) {
        if let Some(others) = self.untaken.ignored.count(now_ms()) {
            tracing::info!("ignored a command: {why}{others}");
        }
    }

    /// Says how many more were not taken, once that is due.
    pub(super) fn tell_untaken(&mut self) {
        if let Some(more) = self.untaken.unreadable.due(now_ms()) {
            tracing::warn!("cannot read {more} more commands");
        }
        if let Some(more) = self.untaken.ignored.due(now_ms()) {
            tracing::info!("ignored {more} more commands");
        }
    }

    async fn start(&mut self, start: StartIncarnation) {
        let key = (start.agent.clone(), start.incarnation);
        let is_known = self.running.contains_key(&key) || self.starting.contains_key(&key);
        if self.draining || is_known {
            return;
        }
        self.forget_other_history(&start);
        self.carries.used(&start.agent);
        if let Some(exit) = self.exits.get(&start.agent)
            && exit.incarnation == start.incarnation
        {
            let (instance, exit) = (Some(self.instance), exit.clone());
            return self.report(&NodeReport::Exited { instance, exit }).await;
        }
        match Self::files_of(&start) {
            Some(files) => self.prepare(start, files),
            None => self.begin(start, None).await,
        }
    }

    /// Starts an incarnation whose files, if it has any, are ready.
    pub(super) async fn begin(&mut self, start: StartIncarnation, prepared: Option<Prepared>) {
        let key = (start.agent.clone(), start.incarnation);
        let wants_container = running::wants_container(&start);
        match (&self.process, self.engine.clone()) {
            (Some(process), _) if !wants_container => {
                let folder = prepared.as_ref().and_then(|prepared| prepared.folder.as_deref());
                match process.start(&start, folder, SystemTime::now().into()) {
                    Ok(shim) => {
                        tracing::info!("{}-{} started as process {}", key.0, key.1, shim.pid);
                        self.watch(key.clone(), shim.pid);
                        self.runs(key, Running::process(shim));
                    }
                    Err(reason) => self.not_started(key, reason).await,
                }
            }
            (_, Some(engine)) => self.start_container(engine, start, prepared),
            (_, None) => {
                let reason = format!("node `{}` has no container engine", self.options.name);
                self.not_started(key, reason).await;
            }
        }
    }

    /// A leader that starts an incarnation knows no later one, and none with this number that ended before this process
    /// began. If there is an exit record of one, it belongs to another history: the broker's data was restored from an earlier time.
    fn forget_other_history(&mut self, start: &StartIncarnation) {
        let agent = &start.agent;
        let Some(exit) = self.exits.get(agent) else { return };
        let incarnation = exit.incarnation;
        let is_other = incarnation > start.incarnation
            || (incarnation == start.incarnation && self.found.contains(agent));
        if is_other {
            tracing::warn!(
                "discarded the recorded exit of {agent}-{incarnation}, which the control log does not know: was the broker's data restored?"
            );
            self.exits.remove(agent);
            self.found.remove(agent);
            self.folders.forget(agent, incarnation);
        }
    }

    /// An incarnation runs now: what was kept of the one before is no longer needed.
    pub(super) fn runs(&mut self, key: Key, one: Running) {
        if let Some(metrics) = &self.options.metrics {
            metrics.started();
        }
        if let Some(old) = self.exits.remove(&key.0) {
            self.found.remove(&key.0);
            self.folders.forget(&key.0, old.incarnation);
        }
        self.running.insert(key, one);
    }

    pub(super) async fn not_started(&mut self, (agent, incarnation): Key, reason: String) {
        tracing::warn!("{agent}-{incarnation} not started: {reason}");
        if let Some(metrics) = &self.options.metrics {
            metrics.not_started();
        }
        self.folders.forget(&agent, incarnation);
        let instance = Some(self.instance);
        self.report(&NodeReport::StartFailed { instance, agent, incarnation, reason }).await;
    }

    async fn stop(&mut self, key: Key, within: Duration) {
        if let Some(start) = self.starting.get(&key) {
            return start.cancel.cancel();
        }
        let signal = match self.running.get_mut(&key) {
            // It is told as soon as nothing of it is left.
            Some(one) if !one.hears() => None,
            Some(one) => {
                let grace = if within.is_zero() { Duration::ZERO } else { GRACE };
                let at = Instant::now() + within + grace;
                one.kill_at = Some(one.kill_at.map_or(at, |earlier| earlier.min(at)));
                Some(one.place.clone())
            }
            None => {
                return match self.exits.get(&key.0) {
                    Some(exit) if exit.incarnation == key.1 => {
                        let (instance, exit) = (Some(self.instance), exit.clone());
                        self.report(&NodeReport::Exited { instance, exit }).await;
                    }
                    _ => self.report_status().await,
                };
            }
        };
        if let Some(place) = signal {
            self.terminate(&place);
        }
    }

    pub(super) fn kill_late(&mut self) {
        let now = Instant::now();
        let mut late = Vec::new();
        for ((agent, incarnation), one) in &mut self.running {
            if one.kill_at.is_none_or(|at| at > now) {
                continue;
            }
            tracing::warn!("{agent}-{incarnation} did not stop in time: killed");
            // Once more should it survive; its end is awaited.
            one.kill_at = Some(now + GRACE);
            late.push(one.place.clone());
        }
        for place in late {
            self.kill(&place);
        }
    }

    /// Shuts down with everything that runs here. That is reported first, so that no exit counts as a crash.
    pub(super) async fn drain(&mut self) {
        self.draining = true;
        self.report_status().await;
        for start in self.starting.values() {
            start.cancel.cancel();
        }
        let mut told = Vec::new();
        for one in self.running.values_mut().filter(|one| one.hears()) {
            one.kill_at.get_or_insert_with(|| Instant::now() + crate::DRAIN + GRACE);
            told.push(one.place.clone());
        }
        for place in told {
            self.terminate(&place);
        }
    }
}
