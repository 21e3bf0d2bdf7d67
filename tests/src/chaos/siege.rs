//! The blows at the servers of a cluster: one after the other, and each only when all servers have what the others have. Two of three
//! that are down, or that have not caught up, are more than a cluster holds.

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::HOSTS;
use super::ground::Apart;
use super::schedule::{Blow, Deed, LONGEST_STOP, SERVERS, Target};
use super::storm::{Away, Teller, stop};
use super::{Problem, now};
use common::Timestamp;

/// How long a cluster may take to be current, with one server that is back and everything under load.
const CURRENT: Duration = Duration::from_secs(90);

/// How long a link that was cut may seem so to those who have it: until their pings are answered, or they have another one.
const NOTICED: Duration = Duration::from_secs(30);

/// What became of the blows.
#[derive(Debug, Default)]
pub(super) struct Besieged {
    pub(super) kills: usize,
    /// Stops and freezes.
    pub(super) stops: usize,
    pub(super) wipes: usize,
    /// Links that were cut.
    pub(super) cuts: usize,
    /// Incarnations of agents that were killed with their hosts.
    pub(super) hit: Vec<(String, u64)>,
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
        let what = match blow.target {
            Target::Server(number) => strike(apart, number, blow, &mut done, out).await,
            Target::Host(number) => strike_host(apart, number, blow, &mut done, out).await,
            Target::Worker(_)
            | Target::Shim(_)
            | Target::Up
            | Target::Supervisor(_)
            | Target::Node(_)
            | Target::Agent(_)
            | Target::Container(_) => continue,
        };
        if let Err(problem) = what {
            done.faults.push(format!("{blow}: {problem}"));
        }
    }
    done.catch_up(apart).await;
    // With one that had to wait for too long, its kind may be missing.
    let planned = |is: fn(Deed) -> bool| blows.iter().any(|blow| is(blow.deed));
    let kinds = [
        ("killed", done.kills, planned(|deed| matches!(deed, Deed::Kill(_)))),
        ("frozen", done.stops, planned(|deed| matches!(deed, Deed::Stop(_)))),
        ("wiped", done.wipes, planned(|deed| matches!(deed, Deed::Wipe(_)))),
        ("cut off", done.cuts, planned(|deed| matches!(deed, Deed::Isolate(_)))),
    ];
    for (kind, count, is_planned) in kinds {
        if count == 0 && is_planned {
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
        Deed::Replace
        | Deed::Restart
        | Deed::Pause
        | Deed::Disconnect
        | Deed::Remove
        | Deed::Isolate(_)
        | Deed::Exclude(_)
        | Deed::Mute(_)
        | Deed::Deafen(_)
        | Deed::Part(_)
        | Deed::PowerCut(_) => {}
    }
    Ok(())
}

/// Cuts the links or the power of a host, and heals it.
async fn strike_host(
    apart: &Apart,
    host: usize,
    blow: &Blow,
    done: &mut Besieged,
    out: &Teller<'_>,
) -> Result<(), Problem> {
    let net = apart.net.as_ref().ok_or("there are no hosts")?;
    let next = (host + 1) % SERVERS;
    let mut clients = apart.cluster.clients_at(host).await?;
    if let Deed::Part(_) = blow.deed {
        clients.extend(apart.cluster.clients_at(next).await?);
    }
    out.tell(format_args!("{blow}: {} clients", clients.len()))?;
    done.log.push((now(), format!("{blow}: {}", clients.join(", "))));
    let length = blow.length();
    done.away.extend(clients.iter().map(|who| Away::new(who.clone(), length + NOTICED)));
    let cut = |from, to| {
        if from != to {
            net.cut(from, to)
        }
    };
    match blow.deed {
        Deed::Isolate(_) => net.isolate(host),
        Deed::Exclude(_) => (0..SERVERS).for_each(|other| {
            cut(host, other);
            cut(other, host);
        }),
        Deed::Mute(_) => (0..HOSTS).for_each(|other| cut(host, other)),
        Deed::Deafen(_) => (0..HOSTS).for_each(|other| cut(other, host)),
        Deed::Part(_) => {
            cut(host, next);
            cut(next, host);
        }
        Deed::PowerCut(again) => {
            done.kills += 1;
            done.hit.extend(clients.iter().filter_map(|who| incarnation(who)));
            apart.power_cut(host)?;
            sleep(again).await;
            return apart.power_up(host);
        }
        Deed::Kill(_)
        | Deed::Wipe(_)
        | Deed::Stop(_)
        | Deed::Replace
        | Deed::Restart
        | Deed::Pause
        | Deed::Disconnect
        | Deed::Remove => return Ok(()),
    }
    done.cuts += 1;
    sleep(length).await;
    net.heal();
    Ok(())
}

/// The agent and the number of an incarnation whose shim has this connection.
fn incarnation(client: &str) -> Option<(String, u64)> {
    let (agent, number) = client.strip_prefix("shim ")?.rsplit_once('-')?;
    Some((agent.to_owned(), number.parse().ok()?))
}
