//! After a suspension: a stopped process, a closed lid, a frozen machine. The node neither sent nor received anything; what was sent
//! to it meanwhile waits in its queues, and may be outdated.

use std::time::{Duration, Instant};

use broker::{Moment, Subscription};
use futures_util::FutureExt as _;

use super::{GRACE, Node};

/// A node that did not run for this long was suspended: it reports every second.
const STOOD_STILL: Duration = Duration::from_secs(5);

/// How long the broker may take to tell the current term, before other events are handled again.
const ASKED: Duration = Duration::from_secs(2);

impl Node {
    /// It runs; the result is whether it stood still before. Then those that were to stop meanwhile stood still as well, or could
    /// not be heard: what ran out is given anew, once.
    pub(super) fn awake(&mut self) -> bool {
        let now = Moment::now();
        let slept = now.since(std::mem::replace(&mut self.awake, now));
        if slept < STOOD_STILL {
            return false;
        }
        tracing::warn!("the node was suspended for {}s", slept.as_secs());
        let now = Instant::now();
        for kill_at in self.running.values_mut().filter_map(|one| one.kill_at.as_mut()) {
            *kill_at = anew(*kill_at, now);
        }
        self.stale = true;
        true
    }

    /// Takes what was said while it stood still out of its queues: once the broker has answered, all of that is there. Tried
    /// again with whatever comes next if it does not.
    pub(super) async fn catch_up(&mut self, queues: [&mut Subscription; 2]) {
        if !self.broker.link().borrow().up {
            return;
        }
        match tokio::time::timeout(ASKED, self.broker.newest_term()).await {
            Ok(Ok(term)) => self.term = self.term.max(term),
            Ok(Err(error)) => return tracing::debug!("which term it is: {error}"),
            Err(_) => return,
        }
        for queue in queues {
            while let Some(Some(message)) = queue.next().now_or_never() {
                self.command(&message.payload).await;
            }
        }
        self.stale = false;
    }
}

/// A deadline after a suspension: time that passed meanwhile does not count.
fn anew(deadline: Instant, now: Instant) -> Instant {
    deadline.max(now + GRACE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ran_out_during_a_standstill_is_given_anew_and_nothing_is_cut_short() {
        let now = Instant::now() + Duration::from_secs(60);
        assert_eq!(anew(now - Duration::from_secs(50), now), now + GRACE);
        assert_eq!(anew(now + 2 * GRACE, now), now + 2 * GRACE);
    }
}
