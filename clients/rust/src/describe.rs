//! Records as sentences.

use common::control::{ControlEvent, ControlRecord, Timer};
use common::event::{Event, EventBody, attempt_of};
use common::shim::Exit;
use common::spec::AgentSpec;

use super::ends::{Incarnations, Life};
use common::words;

/// An event of a message, on one line.
pub fn event(event: &Event) -> String {
    let what = match &event.body {
        EventBody::Delivered { incarnation } => format!("delivered to incarnation {incarnation}"),
        EventBody::Acknowledged => "acknowledged by the worker".to_owned(),
        EventBody::Text { text } => format!("text {:?}", words::one_line(text, 60)),
        EventBody::Worker { event } => {
            format!("worker's event {}", words::one_line(&event.to_string(), 60))
        }
        EventBody::Error { error } => format!("error: {}", words::one_line(error, 200)),
        EventBody::Reset { attempt } => format!("reset: attempt {attempt} begins"),
    };
    format!("{}  attempt {}  #{}  {what}", event.at, attempt_of(event.seq), event.seq)
}

/// The author of what is asked for with the fleet's own credentials.
const NOBODY: &str = "cli";

/// A record of the control log, without its time and agent.
pub fn control(record: &ControlRecord) -> String {
    let what = what(record);
    let is_request = matches!(
        record.event,
        ControlEvent::AgentApplied { .. }
            | ControlEvent::AgentStarted { .. }
            | ControlEvent::AgentStopped { .. }
            | ControlEvent::AgentRestarted { .. }
            | ControlEvent::AgentReplaced { .. }
            | ControlEvent::AgentRemoved { .. }
            | ControlEvent::AgentMoved { .. }
            | ControlEvent::SchedulePaused { .. }
            | ControlEvent::ScheduleResumed { .. }
            | ControlEvent::NodeDrained { .. }
            | ControlEvent::NodeUndrained { .. }
            | ControlEvent::NodeRemoved { .. }
    );
    if is_request && record.author != NOBODY {
        format!("{what} (by {})", record.author)
    } else {
        what
    }
}

fn what(record: &ControlRecord) -> String {
    match &record.event {
        ControlEvent::AgentApplied { asked: Some(asked), .. } => format!("requested: {asked}"),
        ControlEvent::AgentApplied { force: false, .. } => "soul applied".to_owned(),
        ControlEvent::AgentApplied { force: true, .. } => "soul applied with --force".to_owned(),
        ControlEvent::AgentStarted { .. } => "start requested".to_owned(),
        ControlEvent::AgentStopped { .. } => "stop requested".to_owned(),
        ControlEvent::AgentRestarted { .. } => "restart requested".to_owned(),
        ControlEvent::AgentReplaced { .. } => "replacement requested".to_owned(),
        ControlEvent::AgentRemoved { .. } => "removal requested".to_owned(),
        ControlEvent::MessagesForgotten {
            by,
            done,
            conversation,
            before,
            messages,
            records,
            bytes,
            ..
        } => {
            let verb = if *done { "erased" } else { "erasing" };
            let messages = words::count(*messages, "message", "messages");
            let of = if *conversation { " of a conversation" } else { "" };
            let until = before.map(|before| format!(" from before {before}")).unwrap_or_default();
            let (records, bytes) =
                (words::count(*records, "record", "records"), words::bytes(*bytes));
            format!("{by}: {verb} {messages}{of}{until}: {records}, {bytes}")
        }
        ControlEvent::FleetRestored { taken, incarnations, .. } => {
            format!("restored from a backup of {taken}; incarnations count on from {incarnations}")
        }
        ControlEvent::LeaderElected { supervisor, .. } => {
            format!("supervisor {supervisor} was elected leader")
        }
        ControlEvent::NodeSeen { node, runtimes, .. } => {
            format!("node {node} joined; runtimes: {}", runtimes.join(", "))
        }
        ControlEvent::NodeDraining { node } => format!("node {node} is shutting down"),
        ControlEvent::NodeDrained { node, parallel } => {
            let at_once = if *parallel == 1 {
                "one by one".to_owned()
            } else {
                format!("{parallel} at a time")
            };
            format!("drain of node {node} requested: its agents are moved {at_once}")
        }
        ControlEvent::NodeUndrained { node } => format!("undrain of node {node} requested"),
        ControlEvent::NodeRemoved { node } => format!("removal of node {node} requested"),
        ControlEvent::AgentMoved { to, .. } => format!("move to node {to} requested"),
        ControlEvent::SchedulePaused { schedule, .. } => {
            format!("pause of schedule {schedule} requested")
        }
        ControlEvent::ScheduleResumed { schedule, .. } => {
            format!("resumption of schedule {schedule} requested")
        }
        ControlEvent::SanctumMoved { .. } => "its SANCTUM was moved".to_owned(),
        ControlEvent::SanctumNotMoved { reason, .. } => {
            format!("its SANCTUM was not moved: {reason}")
        }
        ControlEvent::SanctumKept { folders, .. } => {
            format!("the previous copy of its SANCTUM is kept as {}", folders.join(", "))
        }
        ControlEvent::NodeLost { node } => format!("node {node} is lost: it has stopped reporting"),
        ControlEvent::IncarnationAllocated { incarnation, generation, node, .. } => {
            format!(
                "incarnation {incarnation} of generation {generation} was scheduled on node {node}"
            )
        }
        ControlEvent::IncarnationReturned { incarnation, node, .. } => {
            format!("incarnation {incarnation} is running again: node {node} is back")
        }
        ControlEvent::IncarnationReady { incarnation, .. } => {
            format!("incarnation {incarnation} is ready")
        }
        ControlEvent::IncarnationBegun { incarnation, .. } => {
            format!("incarnation {incarnation} is receiving messages")
        }
        ControlEvent::IncarnationExited { incarnation, exit, clean, .. } => {
            let retried = if *clean { "" } else { RETRIED };
            format!("incarnation {incarnation} {}{retried}", ended(exit))
        }
        ControlEvent::StartFailed { incarnation, reason, .. } => {
            format!("incarnation {incarnation} failed to start: {reason}")
        }
        ControlEvent::IncarnationDrained { incarnation, .. } => {
            format!("incarnation {incarnation} has drained")
        }
        ControlEvent::IncarnationHung { incarnation, silent_for, .. } => {
            format!("incarnation {incarnation} is not responding: no heartbeat for {silent_for}s")
        }
        ControlEvent::IncarnationStable { incarnation, .. } => {
            format!("incarnation {incarnation} is stable")
        }
        ControlEvent::TimerFired { timer, incarnation, .. } => {
            let timer = match timer {
                Timer::Restart => "restart delay",
                Timer::Ready => "ready timeout",
                Timer::Drain => "drain timeout",
            };
            format!("the {timer} of incarnation {incarnation} has expired")
        }
        ControlEvent::Unknown => "a record written by a newer version".to_owned(),
    }
}

const RETRIED: &str = "; any open turns will be retried";

/// The same, where `before` is what its agent was last applied with: an apply may change nothing; and `incarnations` what earlier
/// records tell of those that end.
pub fn control_after(
    record: &ControlRecord,
    before: Option<&AgentSpec>,
    incarnations: &Incarnations,
) -> String {
    if let ControlEvent::IncarnationExited { agent, incarnation, exit, .. } = &record.event {
        match incarnations.of(agent, *incarnation) {
            Some(Life::Late) => {
                return format!("incarnation {incarnation} was killed: it was not ready in time");
            }
            // It had no message.
            Some(Life::Started) => return format!("incarnation {incarnation} {}", ended(exit)),
            Some(Life::Ready) | None => {}
        }
    }
    if let ControlEvent::AgentApplied { spec, force: false, asked: None } = &record.event
        && before == Some(spec.as_ref())
    {
        return "soul applied: unchanged".to_owned();
    }
    control(record)
}

/// How an incarnation ended: `exited with code 3`, `was killed by signal 9`.
fn ended(exit: &Exit) -> String {
    match exit {
        Exit { reason: Some(_), .. } => format!("ended: {}", exit.describe()),
        Exit { out_of_memory: true, .. } => "was killed: out of memory".to_owned(),
        Exit { code: Some(code), .. } => format!("exited with code {code}"),
        Exit { signal: Some(signal), .. } => format!("was killed by signal {signal}"),
        _ => exit.words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::{AgentName, Timestamp};

    #[test]
    fn records_read_as_sentences() {
        let agent = AgentName::new("a").expect("valid");
        let exit = Exit { code: Some(1), ..Exit::default() };
        let record = ControlRecord {
            id: None,
            at: Timestamp::from_millis(0),
            term: Some(4),
            author: "s1".to_owned(),
            event: ControlEvent::IncarnationExited { agent, incarnation: 7, exit, clean: true },
        };
        assert_eq!(control(&record), "incarnation 7 exited with code 1");
        let (supervisor, run) = ("s1".to_owned(), "r".to_owned());
        let elected = ControlEvent::LeaderElected { supervisor, run, rules: 2 };
        let record = ControlRecord { event: elected, ..record };
        assert_eq!(control(&record), "supervisor s1 was elected leader");
    }

    #[test]
    fn one_that_was_never_ready_has_no_open_turns() {
        let agent = || AgentName::new("a").expect("valid");
        let reason = Some(Exit::UNREPORTED.to_owned());
        let exit = Exit { code: Some(137), reason, ..Exit::default() };
        let record = |event| ControlRecord {
            id: None,
            at: Timestamp::from_millis(0),
            term: Some(4),
            author: "s1".to_owned(),
            event,
        };
        let exited = record(ControlEvent::IncarnationExited {
            agent: agent(),
            incarnation: 7,
            exit,
            clean: false,
        });
        let mut seen = Incarnations::default();
        let unreported =
            "incarnation 7 ended: its shim ended without reporting an exit status (exit code 137)";
        let told = |seen: &Incarnations| control_after(&exited, None, seen);
        assert_eq!(told(&seen), format!("{unreported}; any open turns will be retried"));
        let node = common::NodeName::new("n").expect("valid");
        let (incarnation, generation) = (7, 1);
        seen.see(&ControlEvent::IncarnationAllocated {
            agent: agent(),
            incarnation,
            generation,
            node,
        });
        assert_eq!(told(&seen), unreported);
        let (timer, said) = (Timer::Ready, None);
        seen.see(&ControlEvent::TimerFired { agent: agent(), timer, incarnation, said });
        assert_eq!(told(&seen), "incarnation 7 was killed: it was not ready in time");
    }

    #[test]
    fn events_show_their_attempt() {
        let body = EventBody::Text { text: "a\nb".to_owned() };
        let shown = event(&Event { seq: 1_000_002, at: Timestamp::from_millis(0), body });
        assert_eq!(shown, "1970-01-01T00:00:00.000Z  attempt 2  #1000002  text \"a b\"");
    }
}
