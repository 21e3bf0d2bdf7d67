//! Which streams a namespace has.

/// The streams besides the journals, by their names in the namespace; without the lease's bucket, which holds secrets. What shows their use, reads
/// them or empties them goes by this list.
pub(crate) const STREAMS: [&str; 15] = [
    "HISTORY",
    "INDEX",
    "EVENTS",
    "ATTEMPTS",
    "STEPS",
    "QUESTIONS",
    "CONTROL",
    "SNAPSHOTS",
    "FILES",
    "DEAD",
    "LOGS",
    "SECURITY",
    "REPLIES",
    "SCHEDULES",
    "LATER",
];

#[cfg(test)]
mod tests {
    use common::Namespace;
    use common::subject::Subjects;
    use serde_json::Value;

    use super::STREAMS;
    use crate::streams::Plan;

    #[test]
    fn every_stream_is_in_the_list() {
        let namespace = Namespace::new("t").expect("valid");
        let subjects = Subjects::new(namespace, 1);
        let plan = Plan { subjects: subjects.clone(), replicas: 1, clustered: false, grows: false };
        let name = |config: Value| config["name"].as_str().unwrap_or_default().to_owned();
        let mut made: Vec<String> =
            plan.others().into_iter().chain([plan.control()]).map(name).collect();
        let mut listed: Vec<String> = STREAMS.map(|name| subjects.stream(name)).into();
        listed.push(subjects.journal_stream(0));
        listed.push(format!("KV_{}", subjects.lease_bucket()));
        made.sort();
        listed.sort();
        assert_eq!(made, listed);
    }
}
