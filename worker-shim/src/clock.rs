//! The process's clocks, and how they differ.

use std::time::{Duration, Instant, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::book::Now;

/// What time it is, since this was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// For turns: it does not go on while the machine is suspended, and neither do workers.
    pub(crate) fn now(&self) -> Now {
        Now { us: micros(self.started.elapsed()), at: SystemTime::now().into() }
    }

    /// A moment of [`Self::now`], for a timer.
    pub(crate) fn instant(&self, us: u64) -> Instant {
        self.started + Duration::from_micros(us.min(1 << 50))
    }
}

/// For what others do meanwhile: it goes on while the machine is suspended. Microseconds since it was booted.
pub(crate) fn boot_us() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    seconds * 1_000_000 + nanos / 1000
}

/// The same in milliseconds.
pub(crate) fn boot_ms() -> u64 {
    boot_us() / 1000
}

/// A duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
