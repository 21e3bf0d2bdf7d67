//! What a leader tells a node, done: each command may come twice, and does the same as once.

use std::time::{Duration, Instant, SystemTime};

use common::codec;
use common::frame::{NodeCommand, NodeCommandBody, NodeReport, StartIncarnation};

use super::running::{self, Key, Running};
use super::{GRACE, Node};

impl Node {
    pub(super) async fn command(&mut self, payload: &[u8]) {
        let NodeCommand { term, instance, number, body } = match codec::decode(payload) {
            Ok(command) => command,
            Err(error) => return tracing::warn!("cannot read a command: {error}"),
        };
        if instance.is_some_and(|instance| instance != self.instance) {
            return tracing::info!("ignored a command for another process of this node");
        }
        if term < self.term {
            return tracing::info!(
                "refused a command of term {term}: the current term is {}",
                self.term
            );
        }
        self.term = term;
        // What the node says of what it has taken must stay true: a start that a later command has overtaken comes too late.
        if (term, number) < self.seen && matches!(body, NodeCommandBody::Start(_)) {
            return tracing::info!("ignored an outdated start command: the leader repeats it");
        }
        // What was said while it stood still is repeated if it still holds.
        if self.stale && matches!(body, NodeCommandBody::Start(_) | NodeCommandBody::Refused) {
            return tracing::info!("a command from before the standstill");
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

    async fn start(&mut self, start: StartIncarnation) {
        let key = (start.agent.clone(), start.incarnation);
        let is_known = self.running.contains_key(&key) || self.starting.contains_key(&key);
        if self.draining || is_known {
            return;
        }
        if let Some(exit) = self.exits.get(&start.agent)
            && exit.incarnation >= start.incarnation
        {
            let (instance, exit) = (Some(self.instance), exit.clone());
            return self.report(&NodeReport::Exited { instance, exit }).await;
        }
        let wants_container = running::wants_container(&start);
        match (&self.process, self.engine.clone()) {
            (Some(process), _) if !wants_container => {
                match process.start(&start, SystemTime::now().into()) {
                    Ok(shim) => {
                        tracing::info!("{}-{} started as process {}", key.0, key.1, shim.pid);
                        self.watch(key.clone(), shim.pid);
                        self.runs(key, Running::process(shim));
                    }
                    Err(reason) => self.not_started(key, reason).await,
                }
            }
            (_, Some(engine)) => self.start_container(engine, start),
            (_, None) => {
                let reason = format!("node `{}` has no container engine", self.options.name);
                self.not_started(key, reason).await;
            }
        }
    }

    /// An incarnation runs now: what was kept of the one before is not asked for any more.
    pub(super) fn runs(&mut self, key: Key, one: Running) {
        if let Some(old) = self.exits.remove(&key.0) {
            self.folders.forget(&key.0, old.incarnation);
        }
        self.running.insert(key, one);
    }

    pub(super) async fn not_started(&mut self, (agent, incarnation): Key, reason: String) {
        tracing::warn!("{agent}-{incarnation} not started: {reason}");
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

    /// Goes down with all that runs here. Said first, so that no end counts as a crash.
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
