//! What each stream of a namespace is to be like.

use serde_json::{Value, json};

use super::{
    FORMAT, FORMAT_KEY, GROWS, GROWS_KEY, HOUR, LATER_RECORDS, LONGEST_KEPT, MAX_CONSUMERS, Plan,
    SCHEDULE_RECORDS, SECOND, SHARDS_KEY,
};

impl Plan {
    pub(super) fn stream(&self, name: String, subjects: &[String], rest: Value) -> Value {
        let mut config = json!({
            "name": name,
            "subjects": subjects,
            "retention": "limits",
            "storage": "file",
            "num_replicas": self.replicas,
            "allow_direct": true,
            "max_consumers": MAX_CONSUMERS,
            "metadata": {
                FORMAT_KEY: FORMAT.to_string(),
                SHARDS_KEY: self.subjects.shards().to_string(),
            },
        });
        if self.grows {
            config["metadata"][GROWS_KEY] = GROWS.into();
        }
        if let (Some(config), Value::Object(rest)) = (config.as_object_mut(), rest) {
            config.extend(rest);
        }
        config
    }

    pub(super) fn is_replicated(&self) -> bool {
        self.clustered || self.replicas > 1
    }

    pub(super) fn control(&self) -> Value {
        let settings = json!({ "discard": "new", "duplicate_window": 600 * SECOND });
        let subjects = [self.subjects.control_filter()];
        self.stream(self.subjects.stream("CONTROL"), &subjects, settings)
    }

    /// Written by a leader after every some thousand records, in chunks; it removes all but the newest.
    pub(super) fn snapshots(&self) -> Value {
        let settings = json!({ "discard": "new", "duplicate_window": 120 * SECOND });
        let subjects = [self.subjects.snapshot_filter()];
        self.stream(self.subjects.stream("SNAPSHOTS"), &subjects, settings)
    }

    /// Written by clients before what they apply names it, in chunks, by compare-and-set; the leader removes what nothing needs.
    pub(super) fn files(&self) -> Value {
        let settings = json!({
            "discard": "new",
            "duplicate_window": SECOND,
            "max_msgs_per_subject": 1,
        });
        let subjects = [self.subjects.files_filter()];
        self.stream(self.subjects.stream("FILES"), &subjects, settings)
    }

    pub(super) fn journal(&self, shard: u32) -> Value {
        let settings = json!({
            "discard": "new",
            "duplicate_window": 600 * SECOND,
            "republish": {
                "src": self.subjects.republish_source(shard),
                "dest": self.subjects.republish_destination(),
            },
        });
        let subjects = [self.subjects.journal_filter(shard)];
        self.stream(self.subjects.journal_stream(shard), &subjects, settings)
    }

    /// What a power cut may take, and of what was answered less than 20 ms before it, the server's kill -9 as well: not
    /// synced on one host, in memory on a cluster.
    pub(super) fn events(&self) -> Value {
        let mut settings = json!({
            "discard": "old",
            "duplicate_window": 120 * SECOND,
            "max_age": LONGEST_KEPT.as_secs() * SECOND,
            "max_bytes": 1_u64 << 30,
        });
        if !self.is_replicated() {
            settings["persist_mode"] = "async".into();
        } else {
            settings["storage"] = "memory".into();
            settings["max_bytes"] = (128_u64 << 20).into();
        }
        let subjects = [self.subjects.events_filter()];
        self.stream(self.subjects.stream("EVENTS"), &subjects, settings)
    }

    /// What must survive as final states do, but a third synced write a message would cost more than the attempt that a power
    /// cut may forget: not synced on one host, synced by the group on a cluster.
    pub(super) fn attempts(&self) -> Value {
        let mut settings = json!({
            "discard": "new",
            "duplicate_window": SECOND,
            "max_age": 30 * 24 * HOUR,
            "max_msgs_per_subject": 64,
            "allow_msg_ttl": true,
            "allow_rollup_hdrs": true,
        });
        if !self.is_replicated() {
            settings["persist_mode"] = "async".into();
        }
        let subjects = [self.subjects.attempts_filter()];
        self.stream(self.subjects.stream("ATTEMPTS"), &subjects, settings)
    }

    /// STEPS and QUESTIONS: as safe as the journal, and refused before it is full. Records go when their message leaves the journal.
    pub(super) fn of_turns(&self, name: &str, filter: String) -> Value {
        let settings = json!({ "discard": "new", "duplicate_window": SECOND });
        self.stream(self.subjects.stream(name), &[filter], settings)
    }

    pub(super) fn logs(&self) -> Value {
        let mut settings = json!({
            "discard": "old",
            "duplicate_window": 120 * SECOND,
            "max_age": LONGEST_KEPT.as_secs() * SECOND,
            "max_bytes": 256_u64 << 20,
            "max_msgs_per_subject": 10_000,
        });
        if !self.is_replicated() {
            settings["persist_mode"] = "async".into();
        }
        let subjects = [self.subjects.logs_filter()];
        self.stream(self.subjects.stream("LOGS"), &subjects, settings)
    }

    /// Written by supervisors at a limited rate.
    pub(super) fn security(&self) -> Value {
        let settings = json!({
            "discard": "old",
            "duplicate_window": SECOND,
            "max_age": 30 * 24 * HOUR,
            "max_bytes": 16_u64 << 20,
            "max_msgs_per_subject": 10_000,
        });
        let subjects = [self.subjects.security_filter()];
        self.stream(self.subjects.stream("SECURITY"), &subjects, settings)
    }

    /// The last piece of each answer that is on its way to an inbox. The server republishes what it has stored.
    pub(super) fn replies(&self) -> Value {
        let mut settings = json!({
            "discard": "new",
            "duplicate_window": SECOND,
            "max_age": crate::replies::KEPT.as_secs() * SECOND,
            // No bound in bytes, which the server would set aside at once.
            "max_msgs": 10_000,
            "max_msgs_per_subject": 1,
            "republish": {
                "src": self.subjects.replies_filter(),
                "dest": self.subjects.replies_destination(),
            },
        });
        if !self.is_replicated() {
            settings["persist_mode"] = "async".into();
        }
        let subjects = [self.subjects.replies_filter()];
        self.stream(self.subjects.stream("REPLIES"), &subjects, settings)
    }

    pub(super) fn dead(&self) -> Value {
        // A redriven letter replaces the one before it.
        let settings = json!({
            "discard": "new",
            "duplicate_window": 120 * SECOND,
            "max_msgs_per_subject": 1,
        });
        let subjects = [self.subjects.dead_filter()];
        self.stream(self.subjects.stream("DEAD"), &subjects, settings)
    }

    /// What has become of the occurrences of schedules. By its last record a schedule goes on: none of them ever expires, and of each schedule
    /// some are kept.
    pub(super) fn schedules(&self) -> Value {
        let settings = json!({
            "discard": "new",
            "duplicate_window": SECOND,
            "max_msgs_per_subject": SCHEDULE_RECORDS,
        });
        let subjects = [self.subjects.schedule_filter()];
        self.stream(self.subjects.stream("SCHEDULES"), &subjects, settings)
    }

    /// As safe as the journal, and refused before it is full. A message has its request here, then the decision to give it to the journal, or the
    /// final state of one that was cancelled, which is announced as those of the journal are.
    pub(super) fn later(&self) -> Value {
        let settings = json!({
            "discard": "new",
            "duplicate_window": SECOND,
            "max_msgs": LATER_RECORDS,
            "republish": {
                "src": self.subjects.later_finals(),
                "dest": self.subjects.republish_destination(),
            },
        });
        let subjects = [self.subjects.later_filter()];
        self.stream(self.subjects.stream("LATER"), &subjects, settings)
    }

    /// As the client's KV would make it, with times to live.
    pub(super) fn lease(&self) -> Value {
        let bucket = self.subjects.lease_bucket();
        let settings = json!({
            "discard": "new",
            "duplicate_window": 120 * SECOND,
            "max_msgs_per_subject": 1,
            "allow_msg_ttl": true,
            "allow_rollup_hdrs": true,
            "deny_delete": true,
        });
        let subjects = [format!("$KV.{bucket}.>")];
        self.stream(format!("KV_{bucket}"), &subjects, settings)
    }

    /// Written in atomic batches with a compare-and-set, each of them synced once: no message ids.
    pub(super) fn archived(&self, name: &str, subjects: String) -> Value {
        let settings = json!({
            "discard": "new",
            "duplicate_window": SECOND,
            "allow_atomic": true,
        });
        self.stream(self.subjects.stream(name), &[subjects], settings)
    }

    pub(super) fn others(&self) -> Vec<Value> {
        let journals = (0..self.subjects.shards()).map(|shard| self.journal(shard));
        let rest = [
            self.archived("HISTORY", self.subjects.history_filter()),
            self.archived("INDEX", self.subjects.index_filter()),
            self.snapshots(),
            self.files(),
            self.events(),
            self.attempts(),
            self.of_turns("STEPS", self.subjects.steps_filter()),
            self.of_turns("QUESTIONS", self.subjects.question_filter()),
            self.logs(),
            self.dead(),
            self.security(),
            self.replies(),
            self.schedules(),
            self.later(),
            self.lease(),
        ];
        journals.chain(rest).collect()
    }
}
