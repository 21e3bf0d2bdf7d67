//! The blows at the servers of a cluster: one after the other, and each only when all servers have what the others have. Two of three
//! that are down, or that have not caught up, are more than a cluster holds.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::ground::Apart;
use super::schedule::{Blow, Deed, LONGEST_STOP, Target};
use super::storm::{Away, Teller, stop};
use super::{Problem, now};
use common::Timestamp;

/// How long a cluster may take to be current, with one server that is back and everything under load.
const CURRENT: Duration = Duration::from_secs(90);

/// What became of the blows.
#[derive(Debug, Default)]
pub(super) struct Besieged {
    pub(super) kills: usize,
    /// Stops and freezes.
    pub(super) stops: usize,
    pub(super) wipes: usize,
    /// Who was connected to a server that hung, and when.
    pub(super) away: Vec<Away>,
    /// What the campaign was to do and did not, and servers that did not catch up.
    pub(super) faults: Vec<String>,
    pub(super) log: Vec<(Timestamp, String)>,
    /// The longest that the others had to wait for a server that was back.
    pub(super) slowest: Duration,
}

/// Lets the blows fall until `until`.
pub(super) async fn besiege(
    apart: &Apart,
    blows: &[Blow],
    until: Instant,
    out: &Teller<'_>,
) -> Result<Besieged, Problem> {
    let mut done = Besieged::default();
    let mut late = Vec::new();
    for blow in blows {
        sleep_until(out.began() + blow.at).await;
        done.catch_up(apart).await;
        if Instant::now() + blow.length() > until {
            late.push(blow);
            continue;
        }
        let Target::Server(number) = blow.target else { continue };
        let what = strike(apart, number, blow, &mut done, out).await;
        if let Err(problem) = what {
            done.faults.push(format!("{blow}: {problem}"));
        }
    }
    done.catch_up(apart).await;
    // With one that had to wait for too long, its kind may be missing.
    for (kind, count) in [("killed", done.kills), ("frozen", done.stops), ("wiped", done.wipes)] {
        if count == 0 && !blows.is_empty() {
            done.faults.push(format!("no server was {kind}: {} blows came too late", late.len()));
        }
    }
    Ok(done)
}

impl Besieged {
    /// Waits until the servers have what the others have.
    async fn catch_up(&mut self, apart: &Apart) {
        let began = Instant::now();
        if let Err(problem) = apart.cluster.current(CURRENT).await {
            self.faults.push(problem);
        }
        self.slowest = self.slowest.max(began.elapsed());
    }
}

async fn strike(
    apart: &Apart,
    number: usize,
    blow: &Blow,
    done: &mut Besieged,
    out: &Teller<'_>,
) -> Result<(), Problem> {
    let server = apart.cluster.part(number);
    let pid = server.pid().ok_or("nobody is there")?;
    let clients = apart.cluster.clients(number).await?;
    out.tell(format_args!("{blow}: process {pid}, with {} clients", clients.len()))?;
    done.log.push((now(), format!("{blow}: process {pid}, of {}", clients.join(", "))));
    match blow.deed {
        Deed::Stop(length) => {
            done.stops += 1;
            if length > LONGEST_STOP {
                done.away.extend(clients.into_iter().map(|who| Away::new(who, length)));
            }
            stop(pid, length).await?;
        }
        Deed::Kill(again) => {
            done.kills += 1;
            server.kill()?;
            sleep(again).await;
            server.start()?;
        }
        Deed::Wipe(again) => {
            done.wipes += 1;
            server.kill()?;
            apart.cluster.wipe(number)?;
            sleep(again).await;
            server.start()?;
        }
        Deed::Replace | Deed::Restart | Deed::Pause | Deed::Disconnect | Deed::Remove => {}
    }
    Ok(())
}
