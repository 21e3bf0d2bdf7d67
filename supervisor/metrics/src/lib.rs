//! The numbers of Mozart's roles, and the listener from which Prometheus gets them.
//!
//! Whoever has a number adds it to a handle of its role; nothing here asks anybody for anything. A scrape reads what is there.

mod durations;
mod fleet;
mod http;
mod listen;
mod node;
mod shown;
mod spans;

use std::fmt;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use fleet::{Cause, Fleet};
pub use http::{Door, Http};
pub use listen::{bind, serve};
pub use node::Node;
pub use shown::{Backlog, Shown, Stream};
pub use spans::{Dropped, Spans};

/// One label with one of a few fixed values.
type Label = [(&'static str, &'static str); 1];

/// Counters that one label tells apart.
type Counters = Family<Label, Counter>;

/// Adds to one of them.
fn add(counters: &Counters, label: &'static str, value: &'static str, count: u64) {
    counters.get_or_create(&[(label, value)]).inc_by(count);
}

/// All numbers of a process.
#[derive(Default)]
pub struct Metrics {
    registry: Mutex<Registry>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// In which form numbers are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// OpenMetrics 1.0.
    Open,
    /// The older text format of Prometheus.
    Plain,
}

impl Form {
    /// What a client accepts, by its header: OpenMetrics, unless it does not name it.
    fn of(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::Open } else { Self::Plain }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Open => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

impl Metrics {
    /// Numbers of a process of this version, and nothing else yet. `role`: what it was started as.
    #[must_use]
    pub fn new(version: &'static str, role: &'static str) -> Self {
        let metrics = Self::default();
        metrics.with(|registry| {
            let build = Info::new([("version", version), ("role", role)]);
            registry.register("mozart_build", "The version of this process, and its role", build);
        });
        metrics
    }

    fn with<T>(&self, change: impl FnOnce(&mut Registry) -> T) -> T {
        change(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds those of a supervisor.
    #[must_use]
    pub fn fleet(&self) -> Fleet {
        self.with(Fleet::register)
    }

    /// Adds those of a node.
    #[must_use]
    pub fn node(&self) -> Node {
        self.with(Node::register)
    }

    /// Adds those of the API.
    #[must_use]
    pub fn http(&self) -> Http {
        self.with(Http::register)
    }

    /// Adds those of exported traces.
    #[must_use]
    pub fn spans(&self) -> Spans {
        self.with(Spans::register)
    }

    /// All of them as text.
    pub(crate) fn text(&self, form: Form) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 * 1024);
        self.with(|registry| match form {
            Form::Open => text::encode(&mut text, registry),
            Form::Plain => prometheus_text::encode(&mut text, registry),
        })?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use common::figures::Figures;
    use common::schedule::{Fate, Occurrences, SkipReason};
    use common::security::Refusal;
    use common::{MessageId, Timestamp};

    use super::*;

    fn told() -> Metrics {
        let metrics = Metrics::new("1.2.3", "up");
        let fleet = metrics.fleet();
        let mut figures = Figures { started: 3, completed: 2, failed: 1, ..Figures::default() };
        for ms in [7, 30, 30, 4_000_000] {
            figures.whole.add(Duration::from_millis(ms));
        }
        fleet.count(&figures);
        fleet.count(&figures);
        fleet.refused(Refusal::Login);
        let ran = || Fate::Ran { message_id: MessageId::new("m").expect("valid") };
        let overlap = Fate::Skipped { reason: SkipReason::Overlap, detail: None };
        let requested = Fate::Requested { message_id: MessageId::new("m").expect("valid") };
        // What stands for two that were missed; the same once more, as its message is stored; and others.
        for (fate, count, stored) in
            [(ran(), 3, false), (ran(), 3, true), (overlap, 2, true), (requested, 1, true)]
        {
            fleet.scheduled(&Occurrences {
                nominal: Some(Timestamp::from_millis(1_000)),
                from: None,
                count,
                more: false,
                fate,
                last: None,
                stored,
                at: Timestamp::from_millis(3_000),
                term: Some(7),
                author: "n1".into(),
            });
        }
        fleet.leads(Some(7));
        let backlog = Backlog { agent: "slow\"\n".into(), messages: 3, oldest_ms: 1500 };
        fleet.show(Some(Shown { backlogs: vec![backlog], queue: 3, ..Shown::default() }));
        let _node = metrics.node();
        metrics.http().answered(429, Duration::from_millis(3));
        let _spans = metrics.spans();
        metrics
    }

    #[test]
    fn what_shims_tell_is_summed_up() {
        let text = told().text(Form::Open).expect("it is encoded");
        for line in [
            "mozart_messages_started_total 6",
            "mozart_messages_finished_total{outcome=\"completed\"} 4",
            "mozart_messages_finished_total{outcome=\"cancelled\"} 0",
            "mozart_message_duration_seconds_count 8",
            "mozart_message_duration_seconds_bucket{le=\"0.01\"} 2",
            "mozart_message_duration_seconds_bucket{le=\"0.05\"} 6",
            "mozart_message_duration_seconds_bucket{le=\"1800.0\"} 6",
            "mozart_message_duration_seconds_bucket{le=\"+Inf\"} 8",
            "mozart_refusals_total{kind=\"login\"} 1",
            "mozart_schedule_runs_total 1",
            "mozart_schedule_skips_total{reason=\"merged\"} 2",
            "mozart_schedule_skips_total{reason=\"overlap\"} 2",
            "mozart_schedule_skips_total{reason=\"paused\"} 0",
            "mozart_schedule_lateness_seconds_sum 2.0",
            "mozart_schedule_lateness_seconds_count 1",
            "mozart_leader 1",
            "mozart_api_requests_total{status=\"4xx\"} 1",
            "mozart_api_request_duration_seconds_bucket{le=\"0.005\"} 1",
            "mozart_leader_term 7",
            "mozart_queue_messages 3",
            "mozart_agent_queue_oldest_seconds{agent=\"slow\\\"\\n\"} 1.5",
            "mozart_build_info{version=\"1.2.3\",role=\"up\"} 1",
            "# UNIT mozart_message_duration_seconds seconds",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn what_only_a_leader_knows_is_gone_with_its_leadership() {
        let metrics = Metrics::new("1", "supervisor");
        let fleet = metrics.fleet();
        fleet.show(Some(Shown { queue: 3, ..Shown::default() }));
        fleet.leads(None);
        fleet.show(None);
        let text = metrics.text(Form::Open).expect("it is encoded");
        assert!(!text.contains("mozart_queue_messages") && text.contains("mozart_leader 0"));
    }

    #[test]
    fn every_number_says_what_it_is_in_either_form() {
        for form in [Form::Open, Form::Plain] {
            let text = told().text(form).expect("it is encoded");
            let types = text.lines().filter(|line| line.starts_with("# TYPE "));
            let helps: Vec<_> =
                text.lines().filter_map(|line| line.strip_prefix("# HELP ")).collect();
            assert_eq!(types.count(), helps.len());
            for help in helps {
                let (name, words) = help.split_once(' ').expect("words");
                assert!(name.starts_with("mozart_") && words.len() > 10, "{help}");
            }
        }
    }
}
