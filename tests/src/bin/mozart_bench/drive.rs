//! The load, the same for every side.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use hdrhistogram::Histogram;

use crate::cpu::Meter;
use crate::outcome::Result;

/// The text of every chat, in bytes.
pub(crate) const PAYLOAD: usize = 256;

/// The longest latency that is told from longer ones, in nanoseconds.
const LONGEST: u64 = 60_000_000_000;

/// Something that answers chats.
pub(crate) trait Side {
    /// One chat, from the question to the whole answer.
    async fn chat(&self, agent: usize, text: &str) -> Result<()>;
}

/// How much at once, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Spread over agents `0..agents`.
    pub(crate) agents: usize,
    pub(crate) in_flight: usize,
    pub(crate) window: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Answers per second.
    pub(crate) rate: f64,
    /// All chats, those too that ended after the window.
    chats: u32,
    latencies: Histogram<u64>,
}

impl Measured {
    /// A latency in microseconds that `share` of the chats did not exceed.
    #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ns")]
    pub(crate) fn micros(&self, share: f64) -> f64 {
        self.latencies.value_at_quantile(share) as f64 / 1000.0
    }
}

/// Drives, and says what a chat costs in CPU time, in microseconds.
pub(crate) async fn drive_metered(
    side: &impl Side,
    load: Load,
    meter: &Meter,
) -> Result<(Measured, f64)> {
    let before = meter.micros();
    let measured = drive(side, load).await?;
    let cost = (meter.micros() - before) / f64::from(measured.chats);
    Ok((measured, cost))
}

/// A text that differs from chat to chat, and is always [`PAYLOAD`] long.
pub(crate) fn text(number: u64) -> String {
    format!("{number:0>PAYLOAD$}")
}

/// Keeps `in_flight` chats going for the window. Those that begin in it are finished, and count only if they end in it.
pub(crate) async fn drive(side: &impl Side, load: Load) -> Result<Measured> {
    let latencies = RefCell::new(Histogram::<u64>::new_with_bounds(1, LONGEST, 3)?);
    let (next, done) = (Cell::new(0_usize), Cell::new(0_u32));
    let began = Instant::now();
    let end = began + load.window;
    let lanes = (0..load.in_flight).map(|_| async {
        loop {
            let start = Instant::now();
            if start >= end {
                return Ok(());
            }
            let number = next.replace(next.get() + 1);
            side.chat(number % load.agents, &text(number as u64)).await?;
            if Instant::now() < end {
                done.set(done.get() + 1);
            }
            let took = u64::try_from(start.elapsed().as_nanos())?;
            latencies.borrow_mut().saturating_record(took);
        }
    });
    let finished: Result<Vec<()>> = try_join_all(lanes).await;
    finished?;
    let rate = f64::from(done.get()) / load.window.as_secs_f64();
    let chats = u32::try_from(next.get())?;
    Ok(Measured { rate, chats, latencies: latencies.into_inner() })
}

/// One chat to each agent: connections are made, caches are warm.
pub(crate) async fn warm_up(side: &impl Side, agents: usize) -> Result<()> {
    for agent in 0..agents {
        side.chat(agent, &text(0)).await?;
    }
    let window = Duration::from_millis(300);
    drive(side, Load { agents, in_flight: agents, window }).await.map(drop)
}
