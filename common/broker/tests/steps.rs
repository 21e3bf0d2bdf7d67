//! What a worker has stored in the course of a turn: once for each key, in order, by whoever has the message.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use broker::{Archiver, Broker, Except, Recalled, StepEnd, Stepped, StepsOf};
use common::message::MessageKey;
use common::step::{Json, Step};

use crate::history::{AT_ONCE, archive, finish, send};
use crate::support::{SOON, Server, agent, envelope, is_alone, key, soon};

fn of(id: &str, incarnation: u64, attempt: u32) -> StepsOf {
    let conversation = envelope("a", id).conversation_id;
    StepsOf { key: key("a", id), conversation, attempt, incarnation }
}

fn step(name: &str, result: &str) -> Step {
    Step { key: name.to_owned(), result: Json::new(result.to_owned()).expect("JSON") }
}

async fn store(broker: &Broker, of: &StepsOf, name: &str, after: u64) -> Stepped {
    let result = format!("\"{name} of {}\"", of.incarnation);
    soon(broker.store_step(of, &step(name, &result), after, SOON)).await.expect("an answer")
}

async fn recall(broker: &Broker, of: &StepsOf) -> Recalled {
    soon(broker.recall_steps(of, SOON)).await.expect("an answer")
}

fn names(recalled: &Recalled) -> Vec<&str> {
    recalled.steps.iter().map(|step| step.key.as_str()).collect()
}

/// The names of what is stored of a message, with the sizes.
async fn stored(broker: &Broker, key: &MessageKey) -> Vec<(String, u64)> {
    let steps = soon(broker.steps(key, false)).await.expect("an answer");
    steps.into_iter().map(|step| (step.key, step.bytes)).collect()
}

#[tokio::test]
async fn steps_come_back_in_order_and_the_next_incarnation_shuts_the_last_one_out() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (old, new) = (of("m", 1, 1), of("m", 2, 2));
    assert_eq!(recall(&broker, &old).await, Recalled::default(), "nothing is written for nothing");
    let mut last = 0;
    for name in ["one", "two"] {
        let Stepped { last: seq, found, end } = store(&broker, &old, name, last).await;
        assert_eq!((found, end), (Vec::new(), StepEnd::Stored));
        last = seq;
    }
    // Its own next attempt needs no fence.
    assert_eq!(recall(&broker, &of("m", 1, 2)).await.last, last);

    let recalled = recall(&broker, &new).await;
    assert_eq!(names(&recalled), ["one", "two"]);
    assert_eq!(recalled.steps[1].result.text(), "\"two of 1\"");
    assert!(recalled.last > last);
    let late = store(&broker, &old, "three", last).await;
    assert_eq!(late.end, StepEnd::Fenced(2));
    assert_eq!(store(&broker, &new, "three", recalled.last).await.end, StepEnd::Stored);
    let all = ["one", "two", "three"].map(|name| (name.to_owned(), name.len() as u64 + 7));
    assert_eq!(stored(&broker, &old.key).await, all);
    // Another message, another sender of the same id: nothing in common.
    assert_eq!(recall(&broker, &of("other", 2, 1)).await, Recalled::default());
}

#[tokio::test]
async fn of_two_with_one_key_the_first_counts() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (old, new) = (of("m", 1, 1), of("m", 2, 2));
    // Nothing was stored when the later one looked; the earlier one was not through yet.
    assert_eq!(recall(&broker, &new).await.last, 0);
    let first = store(&broker, &old, "pay", 0).await;
    let second = store(&broker, &old, "mail", first.last).await;
    let told = store(&broker, &new, "pay", 0).await;
    let result = Json::new("\"pay of 1\"".to_owned()).expect("JSON");
    assert_eq!(told.end, StepEnd::Already(result));
    assert_eq!((told.last, &told.found[..]), (second.last, &[("mail".to_owned(), 15)][..]));
    let third = store(&broker, &new, "bill", told.last).await;
    assert_eq!(third.end, StepEnd::Stored);
    assert_eq!(store(&broker, &old, "more", second.last).await.end, StepEnd::Fenced(2));
    // An answer that was lost: the same call again finds what it stored.
    let again = store(&broker, &new, "bill", told.last).await;
    assert_eq!((again.end, again.last), (StepEnd::Stored, third.last));
    assert_eq!(stored(&broker, &new.key).await.len(), 3);
}

#[tokio::test]
async fn many_at_once_store_each_key_once() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let tries = (1..=8).map(|attempt| {
        let broker = broker.clone();
        async move { store(&broker, &of("m", 5, attempt), "only", 0).await.end }
    });
    let ends = futures_util::future::join_all(tries).await;
    let stores = ends.iter().filter(|end| **end == StepEnd::Stored).count();
    assert_eq!(stores, 1, "{ends:?}");
    assert!(
        ends.iter().all(|end| matches!(end, StepEnd::Stored | StepEnd::Already(_))),
        "{ends:?}"
    );
    assert_eq!(stored(&broker, &key("a", "m")).await.len(), 1);
}

#[tokio::test]
async fn steps_leave_the_journal_with_their_message_and_their_names_stay() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (done, open) = (of("done", 1, 1), of("open", 1, 1));
    let mut requests = Vec::new();
    for of in [&done, &open] {
        requests.push(send(&broker, "a", of.key.message_id.as_str()).await);
        let first = store(&broker, of, "one", 0).await;
        store(&broker, of, "two", first.last).await;
    }
    finish(&broker, &requests[0]).await;
    assert_eq!(archive(&broker).await, 1);
    assert_eq!(stored(&broker, &done.key).await, []);
    assert_eq!(stored(&broker, &open.key).await.len(), 2);
    let archived = broker.archived_of(&done.key).await.expect("an answer").expect("archived");
    let names: Vec<_> = archived.steps.iter().map(|step| (step.key.as_str(), step.bytes)).collect();
    assert_eq!(names, [("one", 10), ("two", 10)]);
    // What comes too late for a message that has left is refused; of a first one nobody knows that it is late, and it is swept.
    assert_eq!(store(&broker, &done, "three", 2).await.end, StepEnd::Gone);
    assert_eq!(store(&broker, &done, "late", 0).await.end, StepEnd::Stored);
    assert_eq!(archive(&broker).await, 0);
    assert_eq!(stored(&broker, &done.key).await, []);
    assert_eq!(stored(&broker, &open.key).await.len(), 2);
}

#[tokio::test]
async fn results_that_are_kept_stay_until_they_are_old_and_their_message_has_left() {
    let server = Server::start().await;
    let broker = server.broker().await;
    let (done, open) = (of("done", 1, 1), of("open", 1, 1));
    let mut requests = Vec::new();
    for of in [&done, &open] {
        requests.push(send(&broker, "a", of.key.message_id.as_str()).await);
        store(&broker, of, "one", 0).await;
    }
    finish(&broker, &requests[0]).await;
    let keeps = Except { steps: BTreeSet::from([agent("a")]), ..Except::default() };
    // The second one sweeps what the first has left.
    for archived in [1, 0] {
        let mut archiver = Archiver::new(broker.clone(), AT_ONCE);
        archiver.except(keeps.clone());
        assert_eq!(soon(archiver.round()).await.expect("a round").archived, archived);
    }
    let kept = soon(broker.steps(&done.key, true)).await.expect("an answer");
    let results: Vec<_> =
        kept.iter().filter_map(|step| Some(step.result.as_ref()?.text())).collect();
    assert_eq!(results, ["\"one of 1\""]);
    let drop =
        async |older| soon(broker.drop_old_steps(&agent("a"), older)).await.expect("dropped");
    assert_eq!(drop(Duration::from_secs(3600)).await, 0);
    assert_eq!(stored(&broker, &done.key).await.len(), 1);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(drop(Duration::from_millis(1)).await, 1);
    assert_eq!(stored(&broker, &done.key).await, []);
    assert_eq!(stored(&broker, &open.key).await.len(), 1);
}

#[tokio::test]
async fn what_was_confirmed_is_there_after_the_servers_death() {
    if !is_alone() {
        return;
    }
    let mut server = Server::start_configured(SYNCED).await;
    let broker = server.broker().await;
    let of = of("m", 1, 1);
    let mut last = 0;
    for n in 0..20 {
        last = store(&broker, &of, &format!("step {n}"), last).await.last;
        if n % 5 == 4 {
            server.kill().await;
            server.revive().await;
        }
    }
    assert_eq!(stored(&broker, &of.key).await.len(), 20);
    assert_eq!(recall(&broker, &of).await.last, last);
}

/// As `up` has it.
const SYNCED: &str = "jetstream { sync_interval: always }";

/// A file system in a file: what is in that file is what a disk has that loses its power.
struct Disk {
    file: PathBuf,
    at: PathBuf,
}

impl Disk {
    /// None where that is not allowed.
    fn make(file: PathBuf, at: &Path) -> Option<Self> {
        std::fs::File::create(&file).ok()?.set_len(128 << 20).ok()?;
        run("mkfs.ext4", &["-q".as_ref(), &file])?;
        Self { file, at: at.to_owned() }.mount()
    }

    fn mount(self) -> Option<Self> {
        run("mount", &["-o".as_ref(), "loop".as_ref(), &self.file, &self.at]).map(|()| self)
    }

    /// The disk as it would be found after its power was cut now.
    fn cut(&self, to: PathBuf) -> Self {
        std::fs::copy(&self.file, &to).expect("a copy");
        Self { file: to, at: self.at.clone() }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _unmounted = run("umount", &["-l".as_ref(), &self.at]);
    }
}

fn run(program: &str, args: &[&Path]) -> Option<()> {
    Command::new(program).args(args).status().ok()?.success().then_some(())
}

#[tokio::test]
async fn a_power_cut_takes_no_step_that_was_confirmed() {
    if !is_alone() {
        return;
    }
    let images = tempfile::tempdir().expect("a folder");
    let mut server = Server::start_configured(SYNCED).await;
    server.kill().await;
    let at = server.store();
    std::fs::create_dir_all(&at).expect("a folder");
    let Some(mut disk) = Disk::make(images.path().join("disk"), &at) else {
        eprintln!("SKIPPED, since it needs root and loop devices");
        return;
    };
    server.revive().await;
    let broker = server.broker().await;
    let of = of("m", 1, 1);
    let mut last = 0;
    for round in 0..4 {
        let writing = async {
            loop {
                last = store(&broker, &of, &format!("step {last} of {round}"), last).await.last;
            }
        };
        let _cut = tokio::time::timeout(Duration::from_millis(150 + 70 * round), writing).await;
        server.freeze();
        let found = disk.cut(images.path().join(format!("disk {round}")));
        server.kill().await;
        drop(disk);
        disk = found.mount().expect("a file system");
        server.revive().await;
        // One may have been stored whose answer did not come.
        let there = recall(&broker, &of).await;
        assert!(there.last >= last && there.last <= last + 1, "{} after {last}", there.last);
        assert_eq!(there.steps.len() as u64, there.last);
        last = there.last;
    }
    assert!(last > 4, "{last} steps");
    server.kill().await;
}
