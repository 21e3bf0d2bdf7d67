//! When the worker starts again, and how it is replaced: `RESTART`, `REPLACE`.

use super::options::each;
use super::value::{duration, in_range, number, only_word};
use crate::soul::keyword::Keyword;
use crate::soul::source::{Checked, Problem, Problems};
use crate::soul::suggest::{closest, did_you_mean, one_of, quoted};
use crate::soul::text::Part;
use crate::spec::{AgentSpec, Replace, Restart, RestartPolicy};

const POLICIES: [(&str, RestartPolicy); 3] = [
    ("always", RestartPolicy::Always),
    ("on-failure", RestartPolicy::OnFailure),
    ("never", RestartPolicy::Never),
];
const MODES: [(&str, Replace); 2] =
    [("start-first", Replace::StartFirst), ("stop-first", Replace::StopFirst)];

pub(super) fn restart(rest: Part<'_>, restart: &mut Restart, problems: &mut Problems<'_>) {
    let (first, more) = rest.split_word();
    let options = if first.as_str().contains('=') {
        rest
    } else {
        if let Some(policy) = problems.take(word_of(first, "restart policy", POLICIES)) {
            restart.policy = policy;
        }
        more
    };
    each(options, &["max", "backoff"], problems, |key, value| {
        if key == "max" {
            (restart.max, restart.period) = max(value, restart.period)?;
        } else {
            (restart.backoff_first, restart.backoff_max) = backoff(value)?;
        }
        Ok(())
    });
}

/// `5`, or `5 backoff=1s..5m`.
pub(super) fn attempts(
    rest: Part<'_>,
    spec: &mut AgentSpec,
    problems: &mut Problems<'_>,
) -> Checked<()> {
    let (count, options) = rest.split_word();
    spec.attempts = number(count, Keyword::Attempts, 1..=100)?;
    each(options, &["backoff"], problems, |_, value| {
        (spec.retry.first, spec.retry.max) = backoff(value)?;
        Ok(())
    });
    Ok(())
}

pub(super) fn replace(rest: Part<'_>) -> Checked<Replace> {
    word_of(only_word(rest, Keyword::Replace)?, "way to replace", MODES)
}

/// Whether it remembers.
pub(super) fn memory(rest: Part<'_>) -> Checked<bool> {
    let known = [("journal", true), ("none", false)];
    word_of(only_word(rest, Keyword::Memory)?, "memory", known)
}

fn word_of<T, const N: usize>(
    word: Part<'_>,
    what: &str,
    known: [(&'static str, T); N],
) -> Checked<T> {
    let names = known.each_ref().map(|(name, _)| *name);
    let found = known.into_iter().find(|(name, _)| *name == word.as_str());
    found.map(|(_, value)| value).ok_or_else(|| {
        Problem::new(
            word.span(),
            format!("unknown {what} {}", quoted(word.as_str())),
            format!("expected {}", one_of(names)),
        )
        .help(closest(word.as_str(), names).map(did_you_mean))
    })
}

/// `10/10m`, or `10` with the usual period.
fn max(value: Part<'_>, usual: std::time::Duration) -> Checked<(u32, std::time::Duration)> {
    let (count, period) = match value.split_once('/') {
        Some((count, period)) => (count, duration(period, false)?),
        None => (value, usual),
    };
    let count = in_range(count, 0..=1_000_000).ok_or_else(|| {
        Problem::new(
            count.span(),
            format!("max of {}", quoted(count.as_str())),
            "expected restarts in a period, such as `10/10m`; 0 means no limit",
        )
    })?;
    Ok((count, period))
}

/// `1s..60s`, or `1s` for a delay that does not grow.
fn backoff(value: Part<'_>) -> Checked<(std::time::Duration, std::time::Duration)> {
    let Some(at) = value.as_str().find("..") else {
        let delay = duration(value, true)?;
        return Ok((delay, delay));
    };
    let (first, rest) = value.split_at(at);
    let (_, longest) = rest.split_at("..".len());
    let (from, to) = (duration(first, true)?, duration(longest, true)?);
    if from > to {
        return Err(Problem::new(
            value.span(),
            "a backoff that shrinks",
            "expected the shorter delay first, such as `1s..60s`",
        ));
    }
    Ok((from, to))
}
