//! `key=value` options: `LIMIT`, `TIMEOUT`, `KEEP`, and what `RESTART` shares with them.

use super::value::{age, comment_help, duration, in_range};
use crate::soul::source::{Checked, Problem, Problems};
use crate::soul::suggest::{closest, did_you_mean, one_of, quoted};
use crate::soul::text::Part;
use crate::spec::{Keep, Limits, Timeouts};

/// Less than this is a forgotten unit: no worker starts in it, and Docker refuses it.
const MEMORY_MIN: u64 = 6 << 20;
/// A pebibyte.
const MEMORY_MAX: u64 = 1 << 50;
/// Linux's `PID_MAX_LIMIT`.
const PIDS_MAX: u32 = 1 << 22;
/// Thousandths of a CPU.
const MILLI_CPUS_MAX: u64 = 1_024_000;

/// Goes through `key=value` words, each key once; every word's problem is noted, and the others are still taken.
pub(super) fn each(
    rest: Part<'_>,
    keys: &[&'static str],
    problems: &mut Problems<'_>,
    mut take: impl FnMut(&'static str, Part<'_>) -> Checked<()>,
) {
    if let Some(lonely) = lonely_equals(rest) {
        problems.push(
            Problem::new(lonely.span(), "a space next to `=`", "expected `key=value` in one word")
                .help("leave out the spaces around `=`".to_owned()),
        );
        return;
    }
    let mut given: Vec<(&str, Part<'_>)> = Vec::new();
    for word in rest.words() {
        if problems.is_full() {
            return;
        }
        let (key, value) = match split(word, keys) {
            Ok(option) => option,
            Err(problem) => {
                let stop = word.as_str().starts_with('#');
                problems.push(problem);
                // The words of a comment would all be reported.
                if stop {
                    return;
                }
                continue;
            }
        };
        if let Some((_, first)) = given.iter().find(|(other, _)| *other == key) {
            problems.push(
                Problem::new(
                    word.span(),
                    format!("`{key}` is given twice"),
                    "expected each option once",
                )
                .also(first.span(), "first given"),
            );
            continue;
        }
        given.push((key, word));
        problems.take(take(key, value));
    }
}

/// The first `=` with a space next to it: reported once, since each of the words around it would be wrong as well.
fn lonely_equals(rest: Part<'_>) -> Option<Part<'_>> {
    let is_last = |word: &Part<'_>| word.end().start_in_text() == rest.end().start_in_text();
    let word = rest.words().take_while(|word| !word.as_str().starts_with('#')).find(|word| {
        let text = word.as_str();
        text.starts_with('=') || text.ends_with('=') && !is_last(word)
    })?;
    let at = word.as_str().find('=')?;
    Some(word.sub(at..at + 1))
}

fn split<'t>(word: Part<'t>, keys: &[&'static str]) -> Checked<(&'static str, Part<'t>)> {
    let example = |key: &str| format!("{key}=…");
    let Some((key, value)) = word.split_once('=') else {
        let meant = closest(word.as_str(), keys.iter().copied());
        return Err(Problem::new(
            word.span(),
            format!("{} is not an option", quoted(word.as_str())),
            format!("expected {}", one_of(keys.iter().copied())),
        )
        .help(comment_help(word).or(meant.map(|key| did_you_mean(example(key))))));
    };
    let Some(known) = keys.iter().find(|known| **known == key.as_str()) else {
        let meant = closest(key.as_str(), keys.iter().copied());
        return Err(Problem::new(
            key.span(),
            format!("unknown option {}", quoted(key.as_str())),
            format!("expected {}", one_of(keys.iter().copied())),
        )
        .help(meant.map(did_you_mean)));
    };
    if value.is_empty() {
        return Err(Problem::new(
            value.span(),
            format!("`{known}` without a value"),
            format!("expected `{}`", example(known)),
        ));
    }
    Ok((known, value))
}

pub(super) fn limit(rest: Part<'_>, limits: &mut Limits, problems: &mut Problems<'_>) {
    each(rest, &["memory", "cpus", "pids"], problems, |key, value| {
        match key {
            "memory" => limits.memory = Some(memory(value)?),
            "cpus" => limits.milli_cpus = Some(milli_cpus(value)?),
            _ => limits.pids = Some(pids(value)?),
        }
        Ok(())
    });
}

pub(super) fn timeout(rest: Part<'_>, timeouts: &mut Timeouts, problems: &mut Problems<'_>) {
    each(rest, &["turn", "drain", "ready"], problems, |key, value| {
        let duration = duration(value, false)?;
        match key {
            "turn" => timeouts.turn = duration,
            "drain" => timeouts.drain = duration,
            _ => timeouts.ready = duration,
        }
        Ok(())
    });
}

pub(super) fn keep(rest: Part<'_>, keep: &mut Keep, problems: &mut Problems<'_>) {
    each(rest, &["history", "events", "logs", "steps"], problems, |key, value| {
        let age = age(value)?;
        match key {
            "history" => keep.history = Some(age),
            "events" => keep.events = Some(age),
            "logs" => keep.logs = Some(age),
            _ => keep.steps = Some(age),
        }
        Ok(())
    });
}

fn memory(value: Part<'_>) -> Checked<u64> {
    let text = value.as_str();
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let number: Option<u64> = plain.then(|| digits.parse().ok()).flatten();
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    let problem = |help: Option<String>| {
        Problem::new(
            value.span(),
            format!("memory of {}", quoted(text)),
            "expected a whole number and `k`, `m` or `g`, from 6m on, such as `512m`",
        )
        .help(help)
    };
    match bytes {
        Some(bytes) if (MEMORY_MIN..=MEMORY_MAX).contains(&bytes) => Ok(bytes),
        Some(bytes) if shift == 0 && (6..=MEMORY_MIN).contains(&bytes) => {
            Err(problem(Some(did_you_mean(format!("{digits}m")))))
        }
        Some(_) => Err(problem(None)),
        // `512mb` and `512MiB` are other tools' units.
        None => {
            let small = text.to_ascii_lowercase();
            let bare = small
                .strip_suffix("ib")
                .or_else(|| small.strip_suffix('b'))
                .filter(|bare| bare.len() < 20 && bare.starts_with(|c: char| c.is_ascii_digit()));
            Err(problem(bare.map(did_you_mean)))
        }
    }
}

fn milli_cpus(value: Part<'_>) -> Checked<u64> {
    let text = value.as_str();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.len() <= 6 && text.bytes().all(|b| b.is_ascii_digit());
    let valid = !whole.is_empty()
        && digits(whole)
        && digits(fraction)
        && fraction.len() <= 3
        && !text.ends_with('.');
    let milli = valid.then(|| format!("{whole}{fraction:0<3}").parse::<u64>().ok()).flatten();
    milli.filter(|milli| (1..=MILLI_CPUS_MAX).contains(milli)).ok_or_else(|| {
        Problem::new(
            value.span(),
            format!("cpus of {}", quoted(text)),
            "expected a number of CPUs from 0.001 to 1024, such as `0.5` or `2`",
        )
    })
}

fn pids(value: Part<'_>) -> Checked<u32> {
    in_range(value, 1..=PIDS_MAX).ok_or_else(|| {
        Problem::new(
            value.span(),
            format!("pids of {}", quoted(value.as_str())),
            "expected a whole number from 1 to 4194304",
        )
    })
}
