//! Records as sentences.

use common::control::{ControlEvent, ControlRecord, Timer};
use common::event::{Event, EventBody, attempt_of};

use super::table;

/// An event of a message, on one line.
pub(crate) fn event(event: &Event) -> String {
    let what = match &event.body {
        EventBody::Delivered { incarnation } => format!("delivered to incarnation {incarnation}"),
        EventBody::Acknowledged => "acknowledged by the worker".to_owned(),
        EventBody::Text { text } => format!("text {:?}", table::one_line(text, 60)),
        EventBody::Worker { event } => {
            format!("worker's event {}", table::one_line(&event.to_string(), 60))
        }
        EventBody::Error { error } => format!("error: {}", table::one_line(error, 200)),
        EventBody::Reset { attempt } => format!("reset: attempt {attempt} begins"),
    };
    format!("{}  attempt {}  #{}  {what}", event.at, attempt_of(event.seq), event.seq)
}

/// A record of the control log, without its time and agent.
pub(crate) fn control(record: &ControlRecord) -> String {
    match &record.event {
        ControlEvent::AgentApplied { asked: Some(asked), .. } => format!("{asked} asked for"),
        ControlEvent::AgentApplied { force: false, .. } => "soul applied".to_owned(),
        ControlEvent::AgentApplied { force: true, .. } => "soul applied by force".to_owned(),
        ControlEvent::AgentStarted { .. } => "start asked for".to_owned(),
        ControlEvent::AgentStopped { .. } => "stop asked for".to_owned(),
        ControlEvent::AgentRestarted { .. } => "restart asked for".to_owned(),
        ControlEvent::AgentReplaced { .. } => "replacement asked for".to_owned(),
        ControlEvent::AgentRemoved { .. } => "removal asked for".to_owned(),
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
            let messages = table::count(*messages, "message", "messages");
            let of = if *conversation { " of a conversation" } else { "" };
            let until = before.map(|before| format!(" from before {before}")).unwrap_or_default();
            let (records, bytes) =
                (table::count(*records, "record", "records"), table::bytes(*bytes));
            format!("{by}: {verb} {messages}{of}{until}: {records}, {bytes}")
        }
        ControlEvent::LeaderElected { supervisor, .. } => format!("supervisor {supervisor} leads"),
        ControlEvent::NodeSeen { node, runtimes, .. } => {
            format!("node {node} is there, runs {}", runtimes.join(", "))
        }
        ControlEvent::NodeDraining { node } => format!("node {node} goes down in order"),
        ControlEvent::NodeLost { node } => format!("node {node} is lost: no report for too long"),
        ControlEvent::IncarnationAllocated { incarnation, generation, node, .. } => {
            format!("incarnation {incarnation} of generation {generation} is to start on {node}")
        }
        ControlEvent::IncarnationReturned { incarnation, node, .. } => {
            format!("incarnation {incarnation} is there again with node {node}, and goes on")
        }
        ControlEvent::IncarnationReady { incarnation, .. } => {
            format!("incarnation {incarnation} is ready")
        }
        ControlEvent::IncarnationBegun { incarnation, .. } => {
            format!("incarnation {incarnation} takes the messages")
        }
        ControlEvent::IncarnationExited { incarnation, exit, clean, .. } => {
            let books = if *clean { "" } else { "; its open turns' ends are not on record" };
            format!("incarnation {incarnation} ended: {}{books}", exit.describe())
        }
        ControlEvent::StartFailed { incarnation, reason, .. } => {
            format!("incarnation {incarnation} could not be started: {reason}")
        }
        ControlEvent::IncarnationDrained { incarnation, .. } => {
            format!("incarnation {incarnation} has finished its turns")
        }
        ControlEvent::IncarnationHung { incarnation, silent_for, .. } => {
            format!("incarnation {incarnation} hangs: no word from its shim for {silent_for}s")
        }
        ControlEvent::IncarnationStable { incarnation, .. } => {
            format!("incarnation {incarnation} is stable")
        }
        ControlEvent::TimerFired { timer, incarnation, .. } => {
            let timer = match timer {
                Timer::Restart => "restart delay",
                Timer::Ready => "time to say ready",
                Timer::Drain => "time to drain",
            };
            format!("{timer} of incarnation {incarnation} is over")
        }
        ControlEvent::Unknown => "a record of a newer version".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::shim::Exit;
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
        assert_eq!(control(&record), "incarnation 7 ended: exit code 1");
        let (supervisor, run) = ("s1".to_owned(), "r".to_owned());
        let elected = ControlEvent::LeaderElected { supervisor, run, rules: 2 };
        let record = ControlRecord { event: elected, ..record };
        assert_eq!(control(&record), "supervisor s1 leads");
    }

    #[test]
    fn events_show_their_attempt() {
        let body = EventBody::Text { text: "a\nb".to_owned() };
        let shown = event(&Event { seq: 1_000_002, at: Timestamp::from_millis(0), body });
        assert_eq!(shown, "1970-01-01T00:00:00.000Z  attempt 2  #1000002  text \"a b\"");
    }
}
