//! What this machine can do at best, shown beside the figures.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::figure::median;
use crate::outcome::{Result, fail};

/// A floor's name, its median and unit.
pub(crate) type Floor = (&'static str, f64, &'static str);

/// Measures all of them; `folder` says which disk.
pub(crate) fn measure(folder: &Path) -> Result<Vec<Floor>> {
    Ok(vec![
        ("fdatasync of 256 B appended, p50", micros(sync(folder)?), "us"),
        ("loopback TCP round trip, p50", micros(loopback()?), "us"),
        ("pipe round trip to a child, p50", micros(pipe()?), "us"),
        ("spawn, exec, wait, p50", micros(spawn()?), "us"),
    ])
}

fn micros(times: Vec<Duration>) -> f64 {
    median(times.iter().map(|time| time.as_secs_f64() * 1e6).collect())
}

fn times(count: usize, mut what: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    (0..count)
        .map(|_| {
            let start = Instant::now();
            what()?;
            Ok(start.elapsed())
        })
        .collect()
}

fn sync(folder: &Path) -> Result<Vec<Duration>> {
    let mut file: File = tempfile::tempfile_in(folder)?;
    times(500, || {
        file.write_all(&[b'x'; 256])?;
        Ok(file.sync_data()?)
    })
}

fn loopback() -> Result<Vec<Duration>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    std::thread::scope(|scope| {
        let echo = scope.spawn(move || {
            let mut bytes = [0; 256];
            while far.read_exact(&mut bytes).is_ok() && far.write_all(&bytes).is_ok() {}
        });
        let result = times(3000, || ping(&mut near.try_clone()?, &mut near));
        drop(near);
        match echo.join() {
            Ok(()) => result,
            Err(_) => fail("the echo thread ended badly"),
        }
    })
}

fn pipe() -> Result<Vec<Duration>> {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let (Some(mut stdin), Some(mut stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return fail("no pipes to cat");
    };
    let result = times(3000, || ping(&mut stdin, &mut stdout));
    drop(stdin);
    child.wait()?;
    result
}

fn ping(to: &mut impl Write, from: &mut impl Read) -> Result<()> {
    let mut bytes = [b'x'; 256];
    to.write_all(&bytes)?;
    Ok(from.read_exact(&mut bytes)?)
}

fn spawn() -> Result<Vec<Duration>> {
    times(100, || match Command::new("true").status()?.success() {
        true => Ok(()),
        false => fail("`true` failed"),
    })
}
