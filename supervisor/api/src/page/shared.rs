//! What several pages show at once is read once for all of them, however many there are.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use common::api::ApiError;
use futures_util::FutureExt as _;
use futures_util::future::Shared;
use tokio::time::Instant;

use super::screen::Loaded;

/// Reads that are remembered, at most.
const MOST: usize = 256;
/// For so long. A screen that nobody looks at any more takes no memory.
const KEPT: Duration = Duration::from_secs(10);

/// What a read gives.
pub(super) type Answer = Result<Arc<Loaded>, ApiError>;
/// A read under way: whoever waits for it drives it, and it ends when nobody does.
pub(super) type Reading<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The reads of the pages that a process keeps up to date.
#[derive(Debug, Default)]
pub(crate) struct Reads(pub(super) Joins<Answer>);

/// Reads in which any number of readers take part.
pub(super) struct Joins<T>(Mutex<BTreeMap<String, Read<T>>>);

/// When it began, and itself.
type Read<T> = (Instant, Shared<Reading<T>>);

impl<T> Default for Joins<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> fmt::Debug for Joins<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Joins")
    }
}

impl<T: Clone + Send + Sync + 'static> Joins<T> {
    /// What `key` names, as it is at `since` or later: of a read that began no earlier, or else of a new one.
    pub(super) fn join(
        &self,
        key: String,
        since: Instant,
        now: Instant,
        begin: impl FnOnce() -> Reading<T>,
    ) -> Shared<Reading<T>> {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reads.retain(|_, (began, _)| now.saturating_duration_since(*began) < KEPT);
        if let Some((_, read)) = reads.get(&key).filter(|(began, _)| *began >= since) {
            return read.clone();
        }
        if reads.len() >= MOST {
            // Those who wait for one have it.
            reads.clear();
        }
        let read = begin().shared();
        reads.insert(key, (now, read.clone()));
        read
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_read_since_something_happened_is_not_read_again() {
        let (reads, begun) = (Joins::<u32>::default(), Arc::new(AtomicU32::new(0)));
        let read = |key: &str, since| {
            let begun = Arc::clone(&begun);
            reads.join(key.to_owned(), since, Instant::now(), move || {
                Box::pin(async move {
                    let nth = begun.fetch_add(1, Ordering::Relaxed) + 1;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    nth
                })
            })
        };
        let start = Instant::now();
        // Any number of pages at once, also those that come while it is under way.
        let (first, second) = (read("a", start), read("a", start));
        assert_eq!(tokio::join!(first, second), (1, 1));
        assert_eq!(read("a", start).await, 1, "nothing has happened since it began");
        assert_eq!(read("b", start).await, 2, "another screen");
        let happened = Instant::now();
        assert_eq!(read("a", happened).await, 3, "it began before that happened");
        assert_eq!(read("a", happened).await, 3);
        // One whose reader has left goes on for the next one.
        let since = Instant::now();
        drop(read("c", since));
        assert_eq!(read("c", since).await, 4);
        tokio::time::advance(KEPT).await;
        assert_eq!(read("d", Instant::now()).await, 5);
        assert_eq!(reads.0.lock().expect("nobody panicked").len(), 1, "the others are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn the_reads_that_are_remembered_are_bounded() {
        let reads = Joins::<u32>::default();
        let now = Instant::now();
        for nth in 0..3 * MOST {
            let _read = reads.join(nth.to_string(), now, now, || Box::pin(async { 1 }));
        }
        assert!(reads.0.lock().expect("nobody panicked").len() <= MOST);
    }
}
