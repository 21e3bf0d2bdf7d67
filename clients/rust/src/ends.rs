//! How incarnations ended, by the records of the control log.

use std::collections::BTreeMap;

use common::control::{ControlEvent, ControlRecord, Timer};
use common::shim::Exit;
use common::{AgentName, Timestamp};

/// What the records so far tell of incarnations, seen oldest first.
#[derive(Debug, Default)]
pub struct Incarnations(BTreeMap<(AgentName, u64), Life>);

/// How far an incarnation came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// It was started, and has not been ready.
    Started,
    /// It was not ready in time: its node kills it.
    Late,
    /// It was ready.
    Ready,
}

impl Incarnations {
    /// Takes note of a record.
    pub fn see(&mut self, event: &ControlEvent) {
        let (agent, incarnation, life) =
            if let ControlEvent::IncarnationAllocated { agent, incarnation, .. } = event {
                (agent, incarnation, Life::Started)
            } else if let ControlEvent::IncarnationReady { agent, incarnation, .. } = event {
                (agent, incarnation, Life::Ready)
            } else if let ControlEvent::TimerFired {
                agent, timer: Timer::Ready, incarnation, ..
            } = event
            {
                // A timer that fires late says nothing.
                if self.of(agent, *incarnation) == Some(Life::Ready) {
                    return;
                }
                (agent, incarnation, Life::Late)
            } else {
                return self.forget(event);
            };
        self.0.insert((agent.clone(), *incarnation), life);
    }

    /// One that has ended says nothing more.
    fn forget(&mut self, event: &ControlEvent) {
        if let ControlEvent::IncarnationExited { agent, incarnation, .. } = event {
            self.0.remove(&(agent.clone(), *incarnation));
        }
    }

    /// How far an incarnation came; none if its start is not among the records.
    pub fn of(&self, agent: &AgentName, incarnation: u64) -> Option<Life> {
        self.0.get(&(agent.clone(), incarnation)).copied()
    }
}

/// The last end of an agent's incarnations.
#[derive(Debug, PartialEq, Eq)]
pub struct LastEnd {
    /// Of which incarnation.
    pub incarnation: u64,
    /// When.
    pub at: Timestamp,
    /// How.
    pub how: String,
    /// Whether it was a failure.
    pub is_failure: bool,
}

impl LastEnd {
    /// The last one, by an agent's records, newest first. One that is late has failed then, whatever its killed shim says later.
    pub fn of(records: &[(u64, ControlRecord)]) -> Option<Self> {
        let mut killed: Option<Self> = None;
        for (_, record) in records {
            let at = record.at;
            let end = if let ControlEvent::IncarnationExited { incarnation, exit, .. } =
                &record.event
            {
                let (how, is_failure) = (exit.words(), exit.is_failure());
                let end = Self { incarnation: *incarnation, at, how, is_failure };
                if exit.reason.as_deref() == Some(Exit::UNREPORTED) && killed.is_none() {
                    // Perhaps because it was late: that is said by an earlier record.
                    killed = Some(end);
                    continue;
                }
                Some(end)
            } else if let ControlEvent::StartFailed { incarnation, reason, .. } = &record.event {
                let how = reason.clone();
                Some(Self { incarnation: *incarnation, at, how, is_failure: true })
            } else if let ControlEvent::TimerFired {
                timer: Timer::Ready, incarnation, said, ..
            } = &record.event
            {
                let how = late(said.as_deref());
                Some(Self { incarnation: *incarnation, at, how, is_failure: true })
            } else {
                None
            };
            match (end, killed.take()) {
                (Some(end), Some(later)) if end.incarnation != later.incarnation => {
                    return Some(later);
                }
                (Some(end), _) => return Some(end),
                (None, later) => killed = later,
            }
        }
        killed
    }

    /// As a sentence.
    pub fn words(&self) -> String {
        let Self { incarnation, at, how, is_failure } = self;
        let what = if *is_failure { "failure" } else { "end" };
        format!("Last {what}: {how}, at {at} (incarnation {incarnation}).")
    }
}

/// That it was not ready in time.
pub fn late(said: Option<&str>) -> String {
    match said {
        Some(said) => format!("it was not ready in time; the last line of its output: {said}"),
        None => "it was not ready in time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> AgentName {
        AgentName::new("a").expect("valid")
    }

    fn exited(incarnation: u64, exit: Exit) -> ControlEvent {
        ControlEvent::IncarnationExited { agent: agent(), incarnation, exit, clean: false }
    }

    fn unreported() -> Exit {
        let reason = Some(Exit::UNREPORTED.to_owned());
        Exit { code: Some(137), reason, ..Exit::default() }
    }

    fn fired(incarnation: u64) -> ControlEvent {
        let (timer, said) = (Timer::Ready, None);
        ControlEvent::TimerFired { agent: agent(), timer, incarnation, said }
    }

    fn last(events: Vec<ControlEvent>) -> String {
        let record = |(seq, event)| {
            let at = Timestamp::from_millis(seq);
            (seq, ControlRecord { id: None, at, term: None, author: "t".to_owned(), event })
        };
        let mut records: Vec<_> = (1..).zip(events).map(record).collect();
        records.reverse();
        LastEnd::of(&records).expect("one ended").words()
    }

    #[test]
    fn the_last_end_has_its_own_time_and_incarnation() {
        let at = "at 1970-01-01T00:00:00.00";
        let stopped = Exit { code: Some(0), reason: Some("stopped".into()), ..Exit::default() };
        assert_eq!(
            last(vec![exited(1, Exit::default()), exited(2, stopped)]),
            format!("Last end: stopped (exit code 0), {at}2Z (incarnation 2).")
        );
        let failed = ControlEvent::StartFailed {
            agent: agent(),
            incarnation: 3,
            reason: "SECRET API_KEY is not set".into(),
        };
        assert_eq!(
            last(vec![failed]),
            format!("Last failure: SECRET API_KEY is not set, {at}1Z (incarnation 3).")
        );
        assert_eq!(
            last(vec![fired(4), exited(4, unreported())]),
            format!("Last failure: it was not ready in time, {at}1Z (incarnation 4).")
        );
        // It was killed by somebody else.
        let killed = last(vec![fired(4), exited(4, unreported()), exited(5, unreported())]);
        assert!(killed.ends_with("(incarnation 5)."), "{killed}");
    }
}
