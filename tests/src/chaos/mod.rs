//! The chaos campaign: a fleet under load, blows at random moments, and then the journal's verdict.

mod clocks;
mod containers;
mod copies;
mod ends;
mod garbage;
mod ground;
mod history;
mod load;
mod schedule;
mod siege;
mod storm;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use ::chaos::Random;
use broker::Broker;
use checker::{Facts, Fault, Verdict, judge_at_rest, settled, witnessed};
use common::Timestamp;
use common::message::MessageKey;
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::harness::Runtime;
pub use clocks::JumpingClock;
use containers::Strangers;
use copies::Copied;
use ground::{Ground, agent_name};
use load::{Ledger, Sender};
pub use schedule::{Blow, Deed, Target, cluster, schedule};
use siege::Besieged;
use storm::{Struck, Teller};

/// Whatever keeps a campaign from its end.
pub type Problem = Box<dyn std::error::Error + Send + Sync>;

/// How long everything may take to become final: twice the consumers' ack wait, the sweeper's 60 s, and a margin.
const REST: Duration = Duration::from_secs(180);
/// An answer that takes longer waited for a redelivery, not for its turn: its history is told as well.
const SLOW: Duration = Duration::from_secs(30);
/// How long a command may take that needs a leader, in a fleet that has come to rest: to find one, to start an incarnation and to end
/// another.
const LED: Duration = Duration::from_secs(15);
/// Messages whose history is told, at most.
const TOLD: usize = 8;

/// What a campaign is like.
#[derive(Debug, Clone)]
pub struct Options {
    /// What agents run in; on a cluster, processes.
    pub runtime: Runtime,
    /// Whether the roles are processes of their own, over a cluster of three servers; `mozart up`, otherwise.
    pub cluster: bool,
    /// How long blows fall.
    pub length: Duration,
    /// Decides when which blow falls, and what is sent.
    pub seed: u64,
    /// How many agents there are.
    pub agents: usize,
    /// Messages a second, all agents together.
    pub rate: f64,
    /// For how long processes are frozen, beside the seconds of other blows; 25 s and more may end a shim.
    pub freezes: Vec<Duration>,
    /// How long finished messages stay in the journal, if not as usual.
    pub hot: Option<Duration>,
    /// Whether requests are injected that nobody can read.
    pub garbage: bool,
    /// Whether copies of the data folder are started beside the original: of `mozart up`, with agents that are processes.
    pub copies: bool,
    /// The network of so many hosts ([`HOSTS`]) that servers and roles are on, each server on one, by the name of its namespaces; this process
    /// is on the last one.
    pub hosts: Option<String>,
    /// Whether every process but the servers has another wall clock.
    pub clocks: bool,
    /// A folder that is empty or not there yet.
    pub folder: PathBuf,
    /// Whether the histories of odd messages are told, too: slow ones, and those that were charged more than they ran.
    pub curious: bool,
}

/// The hosts of a campaign over hosts: those of the servers, and the one from which it is looked at.
pub const HOSTS: usize = 4;

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Runs a campaign; whether all is well. Tells what happens as it does.
///
/// # Errors
/// When the fleet does not start, does not heal, or cannot be read.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<bool, Problem> {
    let Options { runtime, length, seed, agents, rate, freezes, garbage, folder, curious, .. } =
        options;
    writeln!(out, "chaos: seed {seed}, {length:?}, {agents} agents, in {}", folder.display())?;
    let strangers = match runtime {
        Runtime::Docker(engine) => Some(Strangers::start(engine, &agent_name(0)).await?),
        Runtime::Process => None,
    };
    let ground = Ground::prepare(options)?;
    // Nothing is hit yet: what does not start now, never will.
    ground.start(Duration::ZERO).await?;
    ground.clocks_differ()?;
    let broker = ground.connect().await?;
    // From them it is learned what to look for at the end.
    let _containers = ground.containers().await;
    let (blows, at_servers) = match ground.apart() {
        Some(apart) => cluster(*seed, *length, *agents, freezes, apart.net.is_some()),
        None => (schedule(*seed, *length, *agents, strangers.is_some(), freezes), Vec::new()),
    };
    let (stop, stopped) = watch::channel(false);
    let every = Duration::from_secs_f64(*agents as f64 / rate.max(0.1));
    let names = ground.agents()?;
    let senders = (0..).zip(names.iter().cloned()).map(|(number, agent)| {
        let asks = names.iter().find(|name| **name > agent).cloned();
        let random = Random::new(seed.wrapping_mul(1000).wrapping_add(number));
        let (ground, broker) = (&ground, &broker);
        Sender { ground, broker, agent, asks, random, every }.run(stopped.clone())
    });
    let teller = Teller::new(out);
    let raging = async {
        let until = teller.began() + *length;
        let struck = tokio::join!(storm::rage(&ground, &blows, &teller), async {
            match ground.apart() {
                Some(apart) => siege::besiege(apart, &at_servers, until, &teller).await,
                None => Ok(Besieged::default()),
            }
        });
        let healed = storm::heal(&ground).await;
        // Also after a problem: else the senders would never end.
        stop.send_replace(true);
        healed.and(match struck {
            (Ok(struck), Ok(besieged)) => Ok((struck, besieged)),
            (Err(problem), _) | (_, Err(problem)) => Err(problem),
        })
    };
    let keeping = async {
        match ground.apart() {
            Some(apart) => apart.keep(stopped.clone()).await,
            None => Ok(Vec::new()),
        }
    };
    let injecting = async {
        let random = Random::new(seed.wrapping_mul(1000).wrapping_sub(1));
        match garbage {
            true => garbage::inject(&broker, &names, random, stopped.clone()).await,
            false => Ok(BTreeMap::new()),
        }
    };
    let copying = async {
        match options.copies {
            true => copies::copy(&ground, &teller, stopped.clone()).await,
            false => Ok(Copied::default()),
        }
    };
    let (struck, ledgers, injected, ended, copied) =
        tokio::join!(raging, try_join_all(senders), injecting, keeping, copying);
    let ((mut struck, besieged), ledgers, injected, ended) = (struck?, ledgers?, injected?, ended?);
    let copied = copied?;
    let mut faults = struck.merge(besieged);
    faults.extend(copied.faults);
    let healed = Instant::now();
    writeln!(out, "healed; waiting for the last answers")?;
    let (facts, verdict) = rest(&ground, &broker, &ledgers, &injected).await?;
    report(out, &ledgers, &struck, &verdict, healed.elapsed())?;
    if options.copies {
        writeln!(out, "copies:   {} ran beside the original", copied.ran)?;
    }
    if !ended.is_empty() {
        writeln!(out, "ended by themselves, and started again: {}", ended.join(", "))?;
    }
    for fault in &verdict.faults {
        writeln!(out, "FAULT: {fault}")?;
    }
    let mut told: Vec<_> = verdict.faults.iter().flat_map(Fault::messages).collect();
    told.dedup();
    // Not a fault, but worth a look.
    if let Some((took, slowest)) = facts.slowest() {
        writeln!(out, "slowest:  {took:?}, message {} to {}", slowest.message_id, slowest.agent)?;
        if took > SLOW && *curious {
            told.push((slowest.agent.clone(), slowest.message_id.clone()));
        }
    }
    if *curious {
        let odd = verdict.unwitnessed.iter();
        told.extend(odd.map(|key| (key.agent.clone(), key.message_id.clone())));
    }
    for message in told.iter().take(TOLD) {
        history::tell(out, &broker, &facts, &struck, message).await?;
    }
    let mut well = verdict.faults.is_empty();
    for problem in ledgers.iter().flat_map(|ledger| &ledger.problems).chain(&faults) {
        writeln!(out, "FAULT: {problem}")?;
        well = false;
    }
    if let Err(problem) = led(&ground, &mut struck).await? {
        writeln!(out, "FAULT: {problem}")?;
        well = false;
    }
    for freeze in &struck.unfrozen {
        writeln!(out, "FAULT: nobody was there to be frozen: {freeze}")?;
        well = false;
    }
    let log = ends::control(&broker, None).await?;
    let repeated = ends::repeated(&log);
    if !repeated.is_empty() {
        // No fault: the fold counts them once.
        writeln!(out, "control:  {} records are stored twice, such as", repeated.len())?;
        repeated.iter().take(TOLD).try_for_each(|one| writeln!(out, "          {one}"))?;
    }
    for problem in ends::needless(&log, &names, &struck) {
        writeln!(out, "FAULT: {problem}")?;
        well = false;
    }
    let untouched = async |strangers: Option<&Strangers>| match strangers {
        Some(strangers) => strangers.check().await,
        None => Ok(()),
    };
    for left in [ground.down().await, untouched(strangers.as_ref()).await] {
        if let Err(error) = left {
            writeln!(out, "FAULT: {error}")?;
            well = false;
        }
    }
    writeln!(out, "seed {seed}: {}", if well { "all is well" } else { "NOT WELL" })?;
    Ok(well)
}

/// Whether somebody leads a fleet that has come to rest: a new incarnation needs a leader.
async fn led(ground: &Ground, struck: &mut Struck) -> Result<Result<(), String>, Problem> {
    let name = agent_name(0);
    struck.reasons.entry(name.clone()).or_default().asked += 1;
    let began = Instant::now();
    let (code, said) = ground.cli(&["replace", &name]).await?;
    Ok(answered(code, &said, began.elapsed()))
}

/// What is wrong with a command that needed a leader, if anything is.
fn answered(code: i32, said: &str, took: Duration) -> Result<(), String> {
    if code != 0 {
        return Err(format!("nobody leads at rest: `mozart replace` ends with {code}: {said}"));
    }
    if took > LED {
        return Err(format!("at rest `mozart replace` took {took:?}, and {LED:?} are allowed"));
    }
    Ok(())
}

/// Waits until everything is final, and judges.
async fn rest(
    ground: &Ground,
    broker: &Broker,
    ledgers: &[Ledger],
    injected: &BTreeMap<MessageKey, bool>,
) -> Result<(Facts, Verdict), Problem> {
    let until = Instant::now() + ground.patience(REST);
    let agents = ground.agents()?;
    let open = settled(broker, &agents, until).await;
    open.map_err(|error| format!("what is open: {error}"))?;
    let collect = async || {
        let accepted = ledgers.iter().flat_map(|ledger| ledger.accepted.clone()).collect();
        let witnessed = witnessed(&ground.witness())?;
        let (attempts, injected) = (ground.attempts()?, injected.clone());
        let began = Instant::now();
        let facts = Facts::collect(broker, accepted, attempts, injected, witnessed).await;
        facts.map_err(|error| {
            Problem::from(format!(
                "reading all that is stored, after {:.1?}: {error}",
                began.elapsed()
            ))
        })
    };
    judge_at_rest(until, collect).await
}

fn report(
    out: &mut impl Write,
    ledgers: &[Ledger],
    struck: &Struck,
    verdict: &Verdict,
    rested: Duration,
) -> Result<(), Problem> {
    let Struck { kills, stops, wipes, cuts, handovers, containers, missed, slowest, .. } = struck;
    let Verdict { accepted, stored, completed, failed, refused, repeated, unwitnessed, .. } =
        verdict;
    let by_cli: usize = ledgers.iter().map(|ledger| ledger.by_cli).sum();
    let retries: usize = ledgers.iter().map(|ledger| ledger.retries).sum();
    writeln!(
        out,
        "blows:    {kills} kills, {stops} stops, {wipes} wipes, {cuts} cuts, {handovers} handovers, {containers} at containers, {missed} found nobody"
    )?;
    if *wipes > 0 {
        writeln!(out, "cluster:  current {slowest:.1?} after a server was back, at the latest")?;
    }
    writeln!(
        out,
        "load:     {accepted} accepted ({by_cli} by the command line), {retries} tries said again"
    )?;
    writeln!(
        out,
        "journal:  {stored} stored, {completed} completed, {failed} failed, {refused} refused"
    )?;
    writeln!(
        out,
        "runs:     {repeated} messages ran more than once, {} have attempts without a worker's note",
        unwitnessed.len()
    )?;
    writeln!(out, "at rest:  {rested:.1?} after the last blow was healed")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_finds_no_leader_or_finds_it_late_is_seen() {
        assert_eq!(answered(0, "", Duration::from_secs(3)), Ok(()));
        assert!(answered(6, "no supervisor leads", Duration::from_secs(3)).is_err());
        assert!(answered(0, "", LED + Duration::from_millis(1)).is_err());
    }
}
