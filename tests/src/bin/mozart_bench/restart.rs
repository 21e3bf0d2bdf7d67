//! Goal 7: from a crash to the next process's main, and to the next message that it is given.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::beacon::Beacon;
use crate::drive::{Side, text};
use crate::figure::{Goal, Pairs, Report, median};
use crate::ours::Ours;
use crate::outcome::Result;
use crate::process::{self, Owned, signal};
use crate::rig::{Plan, Rig};
use crate::server::Sync;
use crate::{roles, worker};

/// Crashes in one measurement.
const CRASHES: usize = 10;

/// No delay, no limit.
const AT_ONCE: &str = "RESTART always max=0/1m backoff=0s..0s";

pub(crate) async fn run(plan: &Plan, report: &mut Report) -> Result<()> {
    let rig = Rig::new(plan, Sync::Always).await?;
    let (near, far) =
        (rig.folder.path().join("our-workers"), rig.folder.path().join("their-workers"));
    let (mut our_beacon, mut their_beacon) = (Beacon::new(&near)?, Beacon::new(&far)?);
    let (_fleet, ours) = rig.ours(1, &worker::soul(Some(&near), AT_ONCE)?).await?;
    let mut ours = Crashing { ours, pid: our_beacon.main().await?.2, beacon: our_beacon };

    let mut respawn = process::role("respawn")?;
    respawn.arg(std::env::current_exe()?).args([roles::ROLE, "worker"]).arg(&far);
    // Workers read to the end of their stdin: they need one that does not end.
    let _loop = Owned::start(respawn.stdin(Stdio::piped()).stdout(Stdio::null()))?;
    let mut pid = their_beacon.main().await?.2;

    let (mut mains, mut messages) = (Pairs::default(), Pairs::default());
    for _ in 0..plan.pairs {
        let (mut main, mut message, mut bare, mut floor) = (vec![], vec![], vec![], vec![]);
        for _ in 0..CRASHES {
            let (began, given) = ours.crash().await?;
            main.push(millis(began));
            message.push(millis(given));
            let killed = Instant::now();
            signal(pid, Signal::KILL);
            let began;
            (began, _, pid) = their_beacon.main().await?;
            bare.push(millis(began - killed));
            let start = Instant::now();
            Command::new("true").status()?;
            floor.push(millis(start.elapsed()));
        }
        mains.push(median(main), median(bare));
        messages.push(median(message), median(floor));
    }
    let name = "crash to the next main, no delay, always: tokio spawn loop";
    report.add(mains.figure(7, name, "ms", Goal::AtMost(2.0)))?;
    let name = "crash to the next message, always: one spawn";
    report.add(messages.figure(7, name, "ms", Goal::AtMost(10.0)))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

struct Crashing {
    ours: Ours,
    beacon: Beacon,
    pid: u32,
}

impl Crashing {
    /// Kills the worker; how long until the next one's main, and until it is given a chat that was sent meanwhile.
    async fn crash(&mut self) -> Result<(Duration, Duration)> {
        // It runs, and has nothing open.
        self.ours.chat(0, &text(0)).await?;
        self.beacon.drain();
        let killed = Instant::now();
        signal(self.pid, Signal::KILL);
        let waiter = self.ours.send(&self.ours.envelope(0, &text(1))?).await?;
        let (began, _, pid) = self.beacon.main().await?;
        self.pid = pid;
        let given = self.beacon.chat().await?;
        waiter.answer().await?;
        Ok((began - killed, given - killed))
    }
}
