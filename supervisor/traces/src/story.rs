//! The spans of one message. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::message::{Envelope, Kind, Outcome};
use common::trace::{self, Share};
use common::{Namespace, Timestamp};
use opentelemetry::trace::{
    Event, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::marks::{Ended, Mark, What};

/// A clock that is further off than this is another one: what it said is moved. Less is the time that a publish takes.
const SAME_CLOCK_MS: u64 = 2_000;

/// Turns what hosts' clocks said into the broker's time, within the life of the message.
struct Times {
    from: u64,
    to: u64,
    /// What is added to what was said, in milliseconds.
    shift: i64,
}

impl Times {
    fn new(stored: Timestamp, ended: &Ended) -> Self {
        let (from, to) = (stored.as_millis(), ended.at.as_millis().max(stored.as_millis()));
        let said = ended.said_at.as_millis();
        let off = i64::try_from(to).unwrap_or(0) - i64::try_from(said).unwrap_or(0);
        let is_same = said <= to && to - said <= SAME_CLOCK_MS;
        Self { from, to, shift: if is_same { 0 } else { off } }
    }

    fn of(&self, said: Timestamp) -> SystemTime {
        let ms = said.as_millis().saturating_add_signed(self.shift).clamp(self.from, self.to);
        time(ms)
    }
}

fn time(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// What the spans of a message have in common.
struct Common {
    trace: TraceId,
    namespace: String,
    agent: String,
}

impl Common {
    fn span(
        &self,
        (id, parent): (u64, u64),
        name: String,
        kind: SpanKind,
        (start, end): (SystemTime, SystemTime),
        mut attributes: Vec<KeyValue>,
    ) -> SpanData {
        attributes.push(KeyValue::new("mozart.namespace", self.namespace.clone()));
        attributes.push(KeyValue::new("gen_ai.agent.name", self.agent.clone()));
        let context = SpanContext::new(
            self.trace,
            SpanId::from(id),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        SpanData {
            span_context: context,
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: false,
            span_kind: kind,
            name: name.into(),
            start_time: start,
            end_time: end.max(start),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: InstrumentationScope::builder("mozart")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

fn number(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// The spans of a message that was stored at `stored` and has ended; none if its trace is not recorded.
pub(crate) fn spans(
    namespace: &Namespace,
    envelope: &Envelope,
    stored: Timestamp,
    ended: &Ended,
    share: Share,
) -> Vec<SpanData> {
    let trace = trace::of(envelope, share);
    if !trace.sampled {
        return Vec::new();
    }
    let key = envelope.key();
    let common = Common {
        trace: TraceId::from(trace.id),
        namespace: namespace.to_string(),
        agent: envelope.agent.to_string(),
    };
    let times = Times::new(stored, ended);
    let (begin, end) = (time(times.from), time(times.to));
    let mut attempts: BTreeMap<u32, Vec<&Mark>> = BTreeMap::new();
    for mark in &ended.marks {
        attempts.entry(mark.attempt).or_default().push(mark);
    }
    let whole = trace::message_span(&key);
    let mut root = common.span(
        (whole, trace.parent.unwrap_or(0)),
        format!("message {}", envelope.agent),
        SpanKind::Consumer,
        (begin, end),
        vec![
            KeyValue::new("messaging.message.id", envelope.message_id.to_string()),
            KeyValue::new("gen_ai.conversation.id", envelope.conversation_id.to_string()),
            KeyValue::new("mozart.sender", envelope.sender.to_string()),
            KeyValue::new("mozart.kind", kind(envelope.kind)),
            KeyValue::new("mozart.outcome", outcome(ended.status)),
            KeyValue::new("mozart.attempts", number(ended.attempts)),
        ],
    );
    root.parent_span_is_remote = trace.parent.is_some();
    root.events.events = vec![
        Event::new("accepted", begin, Vec::new(), 0),
        Event::new("final", end, vec![KeyValue::new("mozart.outcome", outcome(ended.status))], 0),
    ];
    root.status = match ended.status {
        Outcome::Completed => Status::Ok,
        Outcome::Failed | Outcome::Expired => {
            Status::error(ended.reason.clone().unwrap_or_default())
        }
        Outcome::Cancelled => Status::Unset,
    };
    let first = attempts.values().flatten().map(|mark| times.of(mark.at)).min();
    let waited = common.span(
        (trace::queue_span(&key), whole),
        format!("queued {}", envelope.agent),
        SpanKind::Internal,
        (begin, first.unwrap_or(end)),
        Vec::new(),
    );
    let mut spans = vec![root, waited];
    let last = attempts.keys().next_back().copied();
    for (attempt, marks) in &attempts {
        let is_last = Some(*attempt) == last;
        let answered = is_last && ended.status == Outcome::Completed;
        spans.push(turn(&common, envelope, *attempt, marks, &times, answered.then_some(end)));
    }
    spans
}

fn turn(
    common: &Common,
    envelope: &Envelope,
    attempt: u32,
    marks: &[&Mark],
    times: &Times,
    answered: Option<SystemTime>,
) -> SpanData {
    let key = envelope.key();
    let at = |mark: &&&Mark| times.of(mark.at);
    let start = marks.iter().map(|mark| at(&mark)).min().unwrap_or_else(|| time(times.from));
    let end = marks.iter().map(|mark| at(&mark)).max().unwrap_or(start);
    let mut attributes = vec![KeyValue::new("mozart.attempt", number(attempt))];
    let (mut events, mut status) = (Vec::new(), Status::Unset);
    for mark in marks {
        let time = times.of(mark.at);
        let mut event = |name: String| events.push(Event::new(name, time, Vec::new(), 0));
        match &mark.what {
            What::Delivered { incarnation } => {
                attributes.push(KeyValue::new("mozart.incarnation", number(*incarnation)));
                event("delivered".to_owned());
            }
            What::Acknowledged => event("acknowledged".to_owned()),
            What::FirstText => event("first text".to_owned()),
            What::Worker(kind) => event(kind.clone()),
            What::Error(error) => {
                event("error".to_owned());
                status = Status::error(error.clone());
            }
        }
    }
    if answered.is_some() && status == Status::Unset {
        status = Status::Ok;
    }
    let mut span = common.span(
        (trace::turn_span(&key, attempt), trace::message_span(&key)),
        format!("turn {}", envelope.agent),
        SpanKind::Internal,
        (start, answered.unwrap_or(end)),
        attributes,
    );
    (span.events.events, span.status) = (events, status);
    span
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Chat => "chat",
        Kind::Route => "route",
        Kind::Trigger => "trigger",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    common::message::Status::from(outcome).as_str()
}

#[cfg(test)]
mod tests {
    use common::event::{Event, EventBody, sequence};
    use common::message::Final;
    use common::{AgentName, ConversationId, MessageId, SenderName, TraceParent};

    use super::*;
    use crate::marks;

    fn envelope(traceparent: Option<TraceParent>) -> Envelope {
        let message_id = MessageId::new("m").expect("valid");
        Envelope {
            agent: AgentName::new("a").expect("valid"),
            sender: SenderName::new("user").expect("valid"),
            kind: Kind::Chat,
            conversation_id: ConversationId::from(&message_id),
            message_id,
            message: "secret words".into(),
            created_at: ms(0),
            request_id: None,
            deadline: None,
            hops: 0,
            cause: None,
            path: Vec::new(),
            redrive_of: None,
            traceparent,
            scheduled_for: None,
            deliver_at: None,
        }
    }

    fn ms(ms: u64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    fn event(attempt: u32, index: u64, at: u64, body: EventBody) -> Event {
        Event { seq: sequence(attempt, index), at: ms(at), body }
    }

    /// Two attempts: the first one fails, the second one answers.
    fn ended(status: Outcome, heard: u64) -> Ended {
        let text = |text: &str| EventBody::Text { text: text.into() };
        let tail = vec![
            event(1, 1, 1010, EventBody::Delivered { incarnation: 3 }),
            event(1, 2, 1020, EventBody::Error { error: "no luck".into() }),
            event(2, 1, 2010, EventBody::Reset { attempt: 2 }),
            event(2, 2, 2011, EventBody::Delivered { incarnation: 4 }),
            event(2, 3, 2020, EventBody::Acknowledged),
            event(
                2,
                4,
                2030,
                EventBody::Worker { event: serde_json::json!({"type": "tool", "secret": 1}) },
            ),
            event(2, 5, 2040, text("secret")),
            event(2, 6, 2050, text("words")),
        ];
        let final_ = Final {
            status,
            response: Some("secret words".into()),
            reason: None,
            attempts: 2,
            incarnation: Some(4),
            at: ms(2060),
            tail,
        };
        Ended::new(&final_, ms(heard))
    }

    fn told(ended: &Ended, stored: u64, given: Option<TraceParent>) -> Vec<SpanData> {
        let namespace = Namespace::new("n").expect("valid");
        spans(&namespace, &envelope(given), ms(stored), ended, Share::ALL)
    }

    fn millis(time: SystemTime) -> u128 {
        time.duration_since(UNIX_EPOCH).expect("later").as_millis()
    }

    fn names(span: &SpanData) -> Vec<&str> {
        span.events.iter().map(|event| &*event.name).collect()
    }

    #[test]
    fn a_message_is_a_tree_of_its_queue_and_its_attempts() {
        let spans = told(&ended(Outcome::Completed, 2061), 1000, None);
        let [root, queued, first, second] = &*spans else { panic!("{spans:?}") };
        assert_eq!((&*root.name, &*queued.name, &*first.name), ("message a", "queued a", "turn a"));
        assert_eq!((millis(root.start_time), millis(root.end_time)), (1000, 2061));
        assert_eq!((millis(queued.start_time), millis(queued.end_time)), (1000, 1010));
        assert_eq!((millis(first.start_time), millis(first.end_time)), (1010, 1020));
        assert_eq!((millis(second.start_time), millis(second.end_time)), (2011, 2061));
        assert_eq!((&root.status, &second.status), (&Status::Ok, &Status::Ok));
        assert_eq!(first.status, Status::error("no luck"));
        assert_eq!(names(root), ["accepted", "final"]);
        assert_eq!(names(second), ["delivered", "acknowledged", "tool", "first text"]);
        let id = root.span_context.span_id();
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        assert!(spans[1..].iter().all(|span| span.parent_span_id == id));
        let trace = root.span_context.trace_id();
        assert!(spans.iter().all(|span| span.span_context.trace_id() == trace));
        assert!(
            !format!("{spans:?}").contains("secret"),
            "what was said is nobody's business here"
        );
    }

    #[test]
    fn a_sender_with_a_span_is_the_parent_and_decides_whether_it_is_recorded() {
        let given = TraceParent { trace: 7, span: 9, sampled: true };
        let spans = told(&ended(Outcome::Completed, 2061), 1000, Some(given));
        assert_eq!(spans[0].span_context.trace_id(), TraceId::from(7_u128));
        assert_eq!(spans[0].parent_span_id, SpanId::from(9_u64));
        let not = TraceParent { sampled: false, ..given };
        assert_eq!(told(&ended(Outcome::Completed, 2061), 1000, Some(not)), []);
    }

    #[test]
    fn a_host_whose_clock_is_an_hour_off_does_not_turn_time_around() {
        let hour = 3_600_000;
        let spans = told(&ended(Outcome::Completed, hour + 2061), hour + 1000, None);
        let times: Vec<_> =
            spans.iter().map(|span| (millis(span.start_time), millis(span.end_time))).collect();
        let hour = u128::from(hour);
        assert_eq!(times[0], (hour + 1000, hour + 2061));
        assert_eq!(times[2], (hour + 1011, hour + 1021));
        assert!(times.iter().all(|(start, end)| start <= end && *start >= hour + 1000));
    }

    #[test]
    fn what_never_began_is_queued_until_its_end() {
        let final_ = Final {
            status: Outcome::Expired,
            response: None,
            reason: Some("too late".into()),
            attempts: 0,
            incarnation: None,
            at: ms(5000),
            tail: Vec::new(),
        };
        let ended = Ended::new(&final_, ms(5001));
        assert!(ended.is_whole());
        let spans = told(&ended, 1000, None);
        assert_eq!(spans.len(), 2);
        assert_eq!(millis(spans[1].end_time), 5001);
        assert_eq!(spans[0].status, Status::error("too late"));
    }

    #[test]
    fn a_final_state_with_all_events_needs_no_other() {
        assert!(!ended(Outcome::Completed, 1).is_whole(), "an attempt before may have said more");
        let mut one = ended(Outcome::Completed, 1);
        one.attempts = 1;
        assert!(one.is_whole());
        one.marks.remove(0);
        assert!(!one.is_whole());
        let mut many = Vec::new();
        let acks: Vec<_> = (1..2000).map(|n| event(1, n, n, EventBody::Acknowledged)).collect();
        marks::add(&mut many, &acks);
        assert_eq!(many.len(), 512);
    }
}
