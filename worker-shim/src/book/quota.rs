//! How much an agent may say besides its answers: the events of all agents share one stream, and no agent may push out those of others.

use super::Now;

/// What may be said at once, in bytes: an eighth of what a cluster keeps of all agents, in memory.
const AT_ONCE: u64 = 16 << 20;
/// And what comes back a second.
const A_SECOND: u64 = 64 << 10;

/// A supply that comes back with time.
#[derive(Debug)]
pub(super) struct Quota {
    bytes: u64,
    filled_us: u64,
}

impl Quota {
    pub(super) fn full() -> Self {
        Self { bytes: AT_ONCE, filled_us: 0 }
    }

    /// Takes so many bytes, if they are there.
    pub(super) fn take(&mut self, now: Now, bytes: usize) -> bool {
        let passed = now.us.saturating_sub(self.filled_us);
        let back = passed.saturating_mul(A_SECOND) / 1_000_000;
        if back > 0 {
            self.bytes = self.bytes.saturating_add(back).min(AT_ONCE);
            self.filled_us = now.us;
        }
        let left = self.bytes.checked_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }
}
