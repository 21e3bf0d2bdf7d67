//! Back from a spec to the text of a soul: what leaves this host with an agent must be readable, and parse to the same spec there.

use std::fmt::Write as _;
use std::time::Duration;

use crate::spec::{
    AgentSpec, IfThen, Keep, OnMiss, Overlap, Replace, Restart, RestartPolicy, Sanctum, Schedule,
    ScheduleOptions,
};

/// Writes a spec as a soul, which [`parse`](super::parse) reads as the same spec, given the same name and path. Nothing is left
/// to the parser's defaults, except what has none. Paths are written as they are: relative ones are from the soul's folder.
///
/// A spec that no soul parses to, such as one with a `:` in a SANCTUM's folder, has no such text: what it becomes is refused by
/// the parser, or is another spec.
#[must_use]
pub fn render(spec: &AgentSpec) -> String {
    let mut out = Text::default();
    // A line that ends with `<<WORD` is plain only if no line below it is that WORD: heredocs come first.
    let is_plain = !spec.model.starts_with("<<");
    if is_plain {
        out.line("MODEL", &spec.model);
    }
    out.text("SOUL", &spec.identity, &[]);
    for IfThen { condition, reaction } in &spec.if_then {
        out.text(&format!("IF {condition} THEN"), reaction, &[]);
    }
    for Schedule { cron, tz, prompt, options } in &spec.schedule {
        let zone = tz.as_ref().map(|tz| format!(" TZ {tz}")).unwrap_or_default();
        let options = schedule_options(options);
        let not_first: &[&str] = match (tz, options.is_empty()) {
            (None, true) => &["TZ", "OPTIONS"],
            (Some(_), true) => &["OPTIONS"],
            (_, false) => &["TZ"],
        };
        let is_option = !options.is_empty()
            && prompt.split_whitespace().next().is_some_and(|word| word.contains('='));
        let before = format!("SCHEDULE \"{cron}\"{zone}{options}");
        match is_option {
            true => out.heredoc(&before, prompt),
            false => out.text(&before, prompt, not_first),
        }
    }
    if !is_plain {
        out.line("MODEL", &spec.model);
    }
    for path in &spec.skills {
        out.line("SKILL", &word(path));
    }
    for Sanctum { host, path, read_only, shared } in &spec.sanctums {
        let mode = if *read_only { ":ro" } else { "" };
        let shared = if *shared { " shared" } else { "" };
        out.line("SANCTUM", &format!("{}{shared}", word(&format!("{host}:{path}{mode}"))));
    }
    process(&mut out, spec);
    life(&mut out, spec);
    for (name, value) in &spec.labels {
        out.line("LABEL", &format!("{name}={}", word(value)));
    }
    for (name, value) in &spec.require {
        out.line("REQUIRE", &format!("{name}={}", word(value)));
    }
    out.0
}

/// All of them, where one is not what it is without a word.
fn schedule_options(options: &ScheduleOptions) -> String {
    if options.is_default() {
        return String::new();
    }
    let ScheduleOptions { jitter, overlap, on_miss, within } = *options;
    let overlap = match overlap {
        Overlap::Skip => "skip",
        Overlap::Queue => "queue",
    };
    let on_miss = match on_miss {
        OnMiss::Skip => "skip".to_owned(),
        OnMiss::Once => format!("once within={}", duration(within)),
        OnMiss::All => format!("all within={}", duration(within)),
    };
    format!(" OPTIONS jitter={} overlap={overlap} on-miss={on_miss}", duration(jitter))
}

fn process(out: &mut Text, spec: &AgentSpec) {
    if let Some(worker) = &spec.worker {
        let words: Vec<String> = worker.iter().map(|word| quoted(word)).collect();
        out.line("WORKER", &format!("[{}]", words.join(", ")));
    }
    if let Some(image) = &spec.image {
        out.line("IMAGE", image);
    }
    for (name, value) in &spec.env {
        out.line("ENV", &format!("{name}={}", word(value)));
    }
    for name in &spec.secrets {
        out.line("SECRET", name);
    }
    let limits = [
        spec.limits.memory.map(|bytes| format!("memory={}", size(bytes))),
        spec.limits.milli_cpus.map(|milli| format!("cpus={}.{:03}", milli / 1000, milli % 1000)),
        spec.limits.pids.map(|pids| format!("pids={pids}")),
    ];
    let limits: Vec<String> = limits.into_iter().flatten().collect();
    if !limits.is_empty() {
        out.line("LIMIT", &limits.join(" "));
    }
}

fn life(out: &mut Text, spec: &AgentSpec) {
    out.line("CONCURRENCY", &spec.concurrency.to_string());
    let backoff = if spec.retry.is_default() {
        String::new()
    } else {
        format!(" backoff={}..{}", duration(spec.retry.first), duration(spec.retry.max))
    };
    out.line("ATTEMPTS", &format!("{}{backoff}", spec.attempts));
    let [turn, drain, ready] =
        [spec.timeout.turn, spec.timeout.drain, spec.timeout.ready].map(duration);
    out.line("TIMEOUT", &format!("turn={turn} drain={drain} ready={ready}"));
    let Restart { policy, max, period, backoff_first, backoff_max } = spec.restart;
    let policy = match policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "never",
    };
    let [period, first, longest] = [period, backoff_first, backoff_max].map(duration);
    out.line("RESTART", &format!("{policy} max={max}/{period} backoff={first}..{longest}"));
    match spec.replace {
        Some(Replace::StartFirst) => out.line("REPLACE", "start-first"),
        Some(Replace::StopFirst) => out.line("REPLACE", "stop-first"),
        None => {}
    }
    keep(out, spec.keep);
    if !spec.memory {
        out.line("MEMORY", "none");
    }
}

fn keep(out: &mut Text, Keep { history, events, logs, steps }: Keep) {
    let kept = [("history", history), ("events", events), ("logs", logs), ("steps", steps)];
    let words: Vec<String> = kept
        .into_iter()
        .filter_map(|(name, age)| {
            let age = age?;
            let age = if age.is_zero() { "0".to_owned() } else { duration(age) };
            Some(format!("{name}={age}"))
        })
        .collect();
    if !words.is_empty() {
        out.line("KEEP", &words.join(" "));
    }
}

/// The lines so far.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, keyword: &str, value: &str) {
        // One backslash at the end would go on with the next line.
        let end = if value.ends_with('\\') { "\\" } else { "" };
        // Writing to a string does not fail.
        let _written = writeln!(self.0, "{keyword} {value}{end}");
    }

    /// Text behind an instruction: in its line if it can stand there, which it cannot if its first word would be read as one of
    /// `not_first`; else in a heredoc.
    fn text(&mut self, before: &str, text: &str, not_first: &[&str]) {
        let mut words = text.split_whitespace();
        let first = words.next().unwrap_or_default();
        let last = words.next_back().unwrap_or(first);
        let is_plain = !text.contains('\n')
            && !text.is_empty()
            && text.trim() == text
            && !last.starts_with("<<")
            && !not_first.iter().any(|word| first.eq_ignore_ascii_case(word));
        if is_plain {
            return self.line(before, text);
        }
        self.heredoc(before, text);
    }

    fn heredoc(&mut self, before: &str, text: &str) {
        let mark = mark(text);
        let _written = writeln!(self.0, "{before} <<{mark}\n{text}\n{mark}");
    }
}

/// A word that no line of a text could close a heredoc with.
fn mark(text: &str) -> String {
    let taken = |mark: &str| text.lines().any(|line| line.trim_end() == mark);
    let mut mark = "END".to_owned();
    let mut number = 2_u64;
    while taken(&mark) {
        mark = format!("END_{number}");
        number += 1;
    }
    mark
}

/// A value as it is, or in quotes where anything in it could be read as something else.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._/:@+,-".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text.to_owned() } else { quoted(text) }
}

/// As JSON, without the control characters that JSON leaves as they are and a soul refuses.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _written = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// In the largest unit that says it exactly.
fn size(bytes: u64) -> String {
    for (shift, unit) in [(30, "g"), (20, "m"), (10, "k")] {
        if bytes >> shift > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    bytes.to_string()
}

fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}
