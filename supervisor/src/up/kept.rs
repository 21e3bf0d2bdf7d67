//! What the streams of this folder's nats-server held when they were last seen. A server whose files were removed while it did not run starts
//! without what was in them, and says nothing.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use broker::{Broker, Mark};
use common::api::ApiError;
use common::words::count;
use runtime::home::{Home, LOST};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

/// The file with what was seen.
const FILE: &str = "streams.json";
/// How often the streams are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// How long they may take to answer at the end.
const LAST: Duration = Duration::from_secs(2);

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Noted {
    fleet: String,
    /// Whether nothing was stored or removed afterwards.
    ended: bool,
    streams: BTreeMap<String, Mark>,
    /// What streams held that have lost it since.
    #[serde(default)]
    lost: BTreeMap<String, Mark>,
}

impl Noted {
    fn read(home: &Home) -> Option<Self> {
        serde_json::from_slice(&fs::read(home.dir.join(FILE)).ok()?).ok()
    }

    fn write(&self, home: &Home) {
        let written = serde_json::to_vec(self).map_err(std::io::Error::from);
        if let Err(error) = written.and_then(|text| home.put(FILE, &text)) {
            tracing::debug!("cannot note what the streams hold: {error}");
        }
    }
}

/// What a stream has lost since it was noted, in words; none if nothing. `ended`: nothing has come or gone since.
fn loss(before: Mark, now: Option<Mark>, ended: bool) -> Option<String> {
    let had = || count(before.records, "record", "records");
    match now {
        _ if before.last == 0 => None,
        None => Some(format!("its {} are gone", had())),
        Some(now) if now.created > before.created => {
            Some(format!("it was made anew, and had {}", had()))
        }
        Some(now) if now.last < before.last => {
            Some(format!("it ends with record {}, and ended with record {}", now.last, before.last))
        }
        Some(now) if ended && now.records < before.records => {
            Some(format!("it has {} of its {}", now.records, had()))
        }
        Some(_) => None,
    }
}

/// Compares what the streams hold with what they held, says what is lost, and notes both.
pub(super) async fn compare(home: &Home, fleet: &str, broker: &Broker) {
    let streams = match broker.marks().await {
        Ok(streams) => streams,
        Err(error) => {
            tracing::debug!("what the streams hold: {error}");
            return;
        }
    };
    let before = Noted::read(home).filter(|noted| noted.fleet == fleet).unwrap_or_default();
    let (noted, said) = judge(before, fleet, streams, home.dir.join(LOST).exists());
    noted.write(home);
    if said.is_empty() {
        forget_losses(home);
        return;
    }
    for line in &said {
        tracing::warn!(
            "{line}; try: `mozart down`; put the data back from a backup; `mozart up`; or `rm {}` if it is to be lost",
            home.dir.join(LOST).display()
        );
    }
    if let Err(error) = home.put(LOST, format!("{}\n", said.join("\n")).as_bytes()) {
        tracing::warn!("cannot note what is lost: {error}");
    }
}

/// What is to be noted, and what is lost: a line for each stream. `is_open`: nobody has accepted the losses that are noted.
fn judge(
    before: Noted,
    fleet: &str,
    streams: BTreeMap<String, Mark>,
    is_open: bool,
) -> (Noted, Vec<String>) {
    let Noted { ended, streams: had, lost: open, .. } = before;
    // What had been lost, and is not back.
    let mut lost = if is_open { open } else { BTreeMap::new() };
    lost.retain(|stream, mark| loss(*mark, streams.get(stream).copied(), true).is_some());
    for (stream, mark) in had {
        if loss(mark, streams.get(&stream).copied(), ended).is_some() {
            lost.entry(stream).or_insert(mark);
        }
    }
    let said = lost.iter().filter_map(|(stream, mark)| {
        let why = loss(*mark, streams.get(stream).copied(), true)?;
        Some(format!("records of stream {stream} are lost since it was last seen: {why}"))
    });
    let said = said.collect();
    (Noted { fleet: fleet.to_owned(), ended: false, streams, lost }, said)
}

/// Notes what the streams hold until `stop`.
///
/// # Errors
/// None: what cannot be noted is tried again.
pub(super) async fn keep(
    home: Home,
    broker: Broker,
    stop: CancellationToken,
) -> Result<(), ApiError> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => note(&home, &broker, false).await,
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Notes what they hold when nothing comes or goes any more.
pub(super) async fn end(home: &Home, broker: &Broker) {
    let noted = tokio::time::timeout(LAST, note(home, broker, true)).await;
    if noted.is_err() {
        tracing::debug!("what the streams hold was not told in time");
    }
}

async fn note(home: &Home, broker: &Broker, ended: bool) {
    let Some(before) = Noted::read(home) else { return };
    // Of a server that cannot store anything, what it says it holds is not what it will find.
    let Ok(streams) = broker.marks().await else { return };
    let noted = Noted { ended, streams, ..before.clone() };
    if noted != before {
        noted.write(home);
    }
}

/// Forgets what was there: it was removed or replaced on purpose.
pub(super) fn forget(home: &Home) {
    let _gone = fs::remove_file(home.dir.join(FILE));
    forget_losses(home);
}

fn forget_losses(home: &Home) {
    let _gone = fs::remove_file(home.dir.join(LOST));
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Timestamp;

    fn mark(created: u64, last: u64, records: u64) -> Mark {
        Mark { created: Timestamp::from_millis(created), last, records }
    }

    #[test]
    fn what_is_gone_is_a_loss_and_what_was_removed_in_order_is_none() {
        let before = mark(5, 9, 4);
        let lost = |now, ended| loss(before, Some(now), ended).is_some();
        assert!(lost(mark(6, 9, 4), false), "another one");
        assert!(lost(mark(5, 8, 4), false), "its end is gone");
        assert!(!lost(mark(5, 9, 0), false), "archived meanwhile");
        assert!(lost(mark(5, 9, 3), true), "nothing ran");
        assert!(!lost(mark(5, 12, 5), true));
        assert!(!lost(mark(4, 9, 4), true), "what was there before is back");
        assert!(loss(before, None, false).is_some());
        assert!(loss(mark(5, 0, 0), Some(mark(6, 0, 0)), true).is_none(), "it was empty");
    }

    #[test]
    fn a_loss_is_told_until_it_is_accepted_or_mended() {
        let of = |mark| BTreeMap::from([("J".to_owned(), mark)]);
        let there = Noted { ended: true, streams: of(mark(5, 9, 4)), ..Noted::default() };
        let (noted, said) = judge(there, "f", of(mark(6, 0, 0)), false);
        assert_eq!(
            said,
            [
                "records of stream J are lost since it was last seen: it was made anew, and had 4 records"
            ]
        );
        // The next start.
        let (again, said) = judge(noted.clone(), "f", of(mark(6, 2, 2)), true);
        assert_eq!((said.len(), &again.lost), (1, &noted.lost));
        let (accepted, said) = judge(again.clone(), "f", of(mark(6, 3, 3)), false);
        assert_eq!((said.len(), accepted.lost.len()), (0, 0));
        let (mended, said) = judge(again, "f", of(mark(5, 9, 4)), true);
        assert_eq!((said.len(), mended.lost.len()), (0, 0));
    }
}
