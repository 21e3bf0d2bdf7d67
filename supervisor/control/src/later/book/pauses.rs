//! Parts of the journal that take nothing for now: without a leader, or full. One message at a time tries each of them, ever more patiently;
//! what else is due there waits, and takes nobody's place.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use common::Timestamp;

use super::{Job, Place};

/// The first pause; doubled up to the longest.
const FIRST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(16);

/// Those that pause, by shard.
#[derive(Debug, Default)]
pub(super) struct Pauses(HashMap<u32, Pause>);

#[derive(Debug, Default)]
struct Pause {
    /// Tries that failed, one after the other.
    times: u32,
    /// When the next one is due; none while it is under way.
    until: Option<Timestamp>,
    /// What has failed; each keeps the place of its conversation.
    failed: VecDeque<Job>,
    /// What has become due since.
    parked: BTreeMap<Place, Job>,
}

impl Pauses {
    /// A message was not taken.
    pub(super) fn failed(&mut self, job: Job, now: Timestamp) {
        let pause = self.0.entry(job.shard).or_default();
        // Of those that were on their way at once, the first counts.
        if pause.until.is_none() {
            let pauses = FIRST.saturating_mul(1 << pause.times.min(8)).min(LONGEST);
            pause.until = Some(now.after(pauses));
            pause.times += 1;
            pause.failed.push_front(job);
        } else {
            pause.failed.push_back(job);
        }
    }

    /// A message was taken, or something was said of it: what had failed, and what is due.
    pub(super) fn answered(&mut self, shard: u32) -> (VecDeque<Job>, BTreeMap<Place, Job>) {
        self.0.remove(&shard).map(|pause| (pause.failed, pause.parked)).unwrap_or_default()
    }

    /// One that may be tried.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<Job> {
        let is_due = |pause: &&mut Pause| pause.until.is_some_and(|until| until <= now);
        let pause = self.0.values_mut().find(is_due)?;
        pause.until = None;
        pause.failed.pop_front()
    }

    /// Keeps what is due in a part that pauses; gives back what is of another.
    pub(super) fn park(&mut self, place: Place, job: Job) -> Option<Job> {
        match self.0.get_mut(&job.shard) {
            Some(pause) => {
                pause.parked.insert(place, job);
                None
            }
            None => Some(job),
        }
    }

    /// A message that waits there was cancelled.
    pub(super) fn remove(&mut self, place: &Place) -> Option<Job> {
        self.0.values_mut().find_map(|pause| pause.parked.remove(place))
    }

    /// When the next one is to be tried.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.values().filter_map(|pause| pause.until).min()
    }
}
