//! Free space in the journal: new messages are refused before it is full, so that those which are open can still get their final
//! states.
//!
//! The bounds are those of the stream, of the account, and of the server's disk, if a process runs there that answers (`disk.rs`).
//!
//! How full it is, is asked of the stream's leader: once in a while, and sooner the less room is left. In between a sender counts what
//! it stores itself. So several senders can pass the watermark together, by what they send in that time.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use common::AgentName;
use common::frame::ask::ShimAsk;
use common::storage::{Disk, REFUSE};
use common::words::bytes;
use serde::Deserialize;
use tokio::time::Instant;

use crate::api::StreamInfo;
use crate::asked::{self, Answered};
use crate::connection::Broker;
use crate::error::{BrokerError, DISK, Result};

/// The least that is set aside for the final state of each open message.
const FINAL: u64 = 1024;

/// What a record takes beyond its payload, about: its subject and headers.
const FRAME: u64 = 256;

/// How long what is known holds,
const KNOWN: Duration = Duration::from_secs(5);

/// and that there is no room.
const REFUSED: Duration = Duration::from_secs(1);

/// How long the broker may take to tell; if it does not, the publish shows whether there is room.
const WITHIN: Duration = Duration::from_secs(1);

/// How long the process on the broker's machine may take to tell how full its disk is: a sender waits for it.
const TOLD: Duration = Duration::from_millis(250);

/// The room in one journal stream, as far as this connection knows.
#[derive(Debug, Default)]
pub(crate) struct Room {
    known: Mutex<Option<Known>>,
    /// Held while the broker is asked; other callers wait for the answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    space: Space,
    /// Stored by this connection since then.
    taken: u64,
}

/// What a journal has left for requests.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Space {
    left: u64,
    /// Why it is not more.
    cause: String,
}

impl Space {
    fn unlimited() -> Self {
        Self { left: u64::MAX, cause: String::new() }
    }
}

/// One of the bounds that a journal has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound {
    of: &'static str,
    limit: u64,
    used: u64,
    /// What is kept free of requests.
    margin: u64,
}

impl Bound {
    fn new(of: &'static str, limit: i64, used: u64) -> Option<Self> {
        let limit = u64::try_from(limit).ok().filter(|limit| *limit > 0)?;
        Some(Self { of, limit, used, margin: limit - limit / 100 * REFUSE })
    }

    fn disk(disk: Disk) -> Self {
        let margin = disk.margin();
        Self { of: DISK, limit: disk.total, used: disk.used(), margin }
    }

    /// What is left for requests if so many bytes are set aside for final states.
    fn left(&self, aside: u64) -> u64 {
        self.limit.saturating_sub(self.used).saturating_sub(aside.max(self.margin))
    }
}

/// The account's figures, as far as they are needed here.
#[derive(Debug, Default, Deserialize)]
struct Account {
    #[serde(default)]
    storage: u64,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
struct Limits {
    #[serde(default)]
    max_storage: i64,
}

impl Room {
    /// Takes room for a record, if it is known whether there is.
    fn take(&self, size: u64) -> Option<Result<()>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_mut()?;
        let age = known.at.elapsed();
        if known.space.left < size {
            let full = || BrokerError::Full(known.space.cause.clone());
            return (age < REFUSED).then(|| Err(full()));
        }
        // Others send as well: with little room left it is looked at again soon.
        if age > KNOWN || (known.taken > 0 && known.taken + size > known.space.left / 4) {
            return None;
        }
        known.taken += size;
        Some(Ok(()))
    }

    /// What is left, if that was asked for a moment ago.
    fn known(&self) -> Option<Space> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.as_ref().filter(|known| known.at.elapsed() < REFUSED)?;
        let Space { left, cause } = known.space.clone();
        Some(Space { left: left.saturating_sub(known.taken), cause })
    }

    fn learn(&self, space: Space) {
        let known = Known { at: Instant::now(), space, taken: 0 };
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = Some(known);
    }
}

impl Broker {
    /// Takes room for a request of so many bytes in an agent's journal, or says that it is full.
    pub(crate) async fn take_room(&self, shard: u32, bytes: usize) -> Result<()> {
        let size = bytes as u64 + FRAME + FINAL;
        let Some(room) = self.room(shard) else { return Ok(()) };
        if let Some(taken) = room.take(size) {
            return taken;
        }
        let _asking = room.asking.lock().await;
        if let Some(taken) = room.take(size) {
            return taken;
        }
        let space = self.measure(shard).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "how full the journal is");
            Space::unlimited()
        });
        room.learn(space);
        room.take(size).unwrap_or(Ok(()))
    }

    /// How many bytes of requests a journal stream takes, and why not more.
    pub(crate) async fn room_left(&self, shard: u32) -> Result<(u64, String)> {
        // Whoever asks for shims asks for many: what is known is good enough for each.
        let Some(room) = self.room(shard) else { return Ok((u64::MAX, String::new())) };
        let _asking = room.asking.lock().await;
        if let Some(Space { left, cause }) = room.known() {
            return Ok((left, cause));
        }
        let space = self.measure(shard).await?;
        room.learn(space.clone());
        Ok((space.left, space.cause))
    }

    /// Why new messages to an agent, or to any, are refused for want of space; none if they are not, or if the broker does not tell.
    pub async fn refuses(&self, agent: Option<&AgentName>) -> Option<BrokerError> {
        let shard = agent.map_or(0, |agent| self.subjects().shard(agent));
        let space = self.measure(shard).await.ok()?;
        (space.left < FRAME + FINAL).then_some(BrokerError::Full(space.cause))
    }

    async fn measure(&self, shard: u32) -> Result<Space> {
        match self.asked_if_anyone(|| ShimAsk::Room(shard)).await? {
            Answered::ByItself => {}
            // The publish shows whether there is room.
            Answered::Nobody => return Ok(Space::unlimited()),
            Answered::Told(told) => {
                let (left, cause) = asked::room(told)?;
                return Ok(Space { left, cause });
            }
        }
        let stream = self.subjects().journal_stream(shard);
        let none = serde_json::json!({});
        let (info, account, disk) = tokio::join!(
            self.wire().stream_info(&stream, WITHIN),
            self.wire().api::<Account>("INFO", &none, WITHIN),
            self.disk(TOLD)
        );
        // An account without limits of its own is bounded by its servers, which tell that to operators alone.
        let account = account.ok().and_then(std::result::Result::ok).unwrap_or_default();
        if let Some(fault) = disk.and_then(|disk| disk.fault) {
            return Ok(Space { left: 0, cause: fault.to_string() });
        }
        let info = info??;
        let mut bounds = bounds(&info, &account);
        bounds.extend(disk.map(Bound::disk));
        let reserve = FINAL.max(info.state.bytes / info.state.messages.max(1));
        let Some(least) = space(&bounds, info.state.messages, reserve) else {
            return Ok(Space::unlimited());
        };
        // As if all of them were open. That is easily too many: then the final states are counted.
        if space(&bounds, 0, reserve).is_some_and(|most| most.left == least.left) {
            return Ok(least);
        }
        let finals = self.subjects().republish_source(shard);
        let finals = self.wire().first(&stream, &finals, 1).await?.map_or(0, |(_, more)| more + 1);
        let open = info.state.messages.saturating_sub(2 * finals);
        Ok(space(&bounds, open, reserve).unwrap_or(least))
    }
}

fn bounds(info: &StreamInfo, account: &Account) -> Vec<Bound> {
    let max_bytes = info.config["max_bytes"].as_i64().unwrap_or(-1);
    [
        Bound::new("the journal", max_bytes, info.state.bytes),
        Bound::new("the account", account.limits.max_storage, account.storage),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The least that any of them leaves to requests; none if there are no bounds.
fn space(bounds: &[Bound], open: u64, reserve: u64) -> Option<Space> {
    let aside = open.saturating_mul(reserve);
    let least = bounds.iter().min_by_key(|bound| bound.left(aside))?;
    let Bound { of, limit, used, margin } = least;
    let why = if aside > *margin {
        format!("what is left is reserved for the answers to {open} open messages")
    } else {
        format!("{} are reserved for answers and the control log", bytes(*margin))
    };
    Some(Space {
        left: least.left(aside),
        cause: format!("{of} holds {} of {}, {why}", bytes(*used), bytes(*limit)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn bound(of: &'static str, limit: u64, used: u64) -> Bound {
        Bound::new(of, limit.try_into().expect("small"), used).expect("it is one")
    }

    fn left(limit: u64, used: u64, open: u64) -> u64 {
        let bound = bound("the journal", limit, used);
        space(&[bound], open, FINAL).expect("a bound").left
    }

    #[test]
    fn requests_end_at_the_watermark_and_earlier_where_many_are_open() {
        assert!(left(100 * MIB, 0, 0) > 94 * MIB);
        assert!(left(100 * MIB, 94 * MIB, 0) > 0);
        assert_eq!(left(100 * MIB, 96 * MIB, 0), 0);
        // Each of the open ones needs a KiB: more than 5 % of all.
        assert_eq!(left(100 * MIB, 80 * MIB, 20 * 1024), 0);
        assert!(left(100 * MIB, 80 * MIB, 15 * 1024) > 4 * MIB);
        assert_eq!(left(100 * MIB, 200 * MIB, u64::MAX), 0);
    }

    #[test]
    fn the_tightest_bound_counts() {
        let wide = bound("the journal", 100 * MIB, MIB);
        let tight = bound("the account", 100 * MIB, 99 * MIB);
        let space = |open| super::space(&[wide, tight], open, FINAL).expect("bounds");
        assert_eq!(space(3).left, 0);
        assert!(space(3).cause.starts_with("the account holds"));
        assert!(
            space(3).cause.ends_with("5 MiB are reserved for answers and the control log"),
            "{}",
            space(3).cause
        );
        let disk = Bound::disk(Disk { total: 100 * MIB, free: 17 * MIB, fault: None });
        assert_eq!(super::space(&[wide, disk], 0, FINAL).expect("bounds").left, MIB);
        assert!(space(6000).cause.ends_with("6000 open messages"));
        assert_eq!(super::space(&[], 1, FINAL), None);
        assert_eq!(Bound::new("the journal", -1, 1), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_holds_for_a_while_and_for_a_part_of_the_room() {
        let room = Room::default();
        let space = |left| Space { left, cause: "why".into() };
        assert!(room.take(1).is_none(), "nothing is known");
        room.learn(space(1000));
        assert!(matches!(room.take(200), Some(Ok(()))));
        assert!(room.take(200).is_none(), "a quarter is taken");
        // One alone is taken whatever it is, if it fits.
        room.learn(space(1000));
        assert!(matches!(room.take(1000), Some(Ok(()))));
        room.learn(space(Space::unlimited().left));
        assert!(matches!(room.take(1 << 40), Some(Ok(()))));
        tokio::time::advance(KNOWN + Duration::from_millis(1)).await;
        assert!(room.take(1).is_none(), "it is old");
        room.learn(space(10));
        assert!(matches!(room.take(11), Some(Err(BrokerError::Full(_)))));
        tokio::time::advance(REFUSED).await;
        assert!(room.take(11).is_none(), "there may be room by now");
    }
}
