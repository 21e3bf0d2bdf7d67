//! What a run has come to.

use std::time::Duration;

use checker::{Accepted, Facts, Verdict};
use common::Namespace;
use common::message::MessageKey;
use serde::{Deserialize, Serialize};

use crate::kind::Kind;
use crate::storm::{Counts, Entry};

/// What is known of a run beside its journal. Kept in its folder with `--keep`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// The throwaway namespace.
    pub namespace: Namespace,
    /// What decided over everything that is random.
    pub seed: u64,
    /// How long faults happened, in seconds.
    pub seconds: f64,
    /// The kinds of faults.
    pub kinds: Vec<Kind>,
    /// How many agents there were.
    pub agents: usize,
    /// Messages a second, all agents together.
    pub rate: f64,
    /// What was done how often.
    pub counts: Counts,
    /// What was done when.
    pub log: Vec<Entry>,
    /// What senders were told that should never be said to them.
    pub problems: Vec<String>,
    /// What senders were told is stored.
    pub accepted: Vec<Accepted>,
}

/// The verdict over a run.
#[derive(Debug, Clone)]
pub struct Report {
    /// The run.
    pub ledger: Ledger,
    /// The journal's verdict.
    pub verdict: Verdict,
    /// The message that took longest, and how long.
    pub slowest: Option<(Duration, MessageKey)>,
    /// Whether its streams are still there.
    pub kept: bool,
}

/// A report, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown<'a> {
    verdict: &'static str,
    faults: Vec<String>,
    namespace: &'a Namespace,
    seed: u64,
    seconds: f64,
    kinds: &'a [Kind],
    agents: usize,
    rate: f64,
    accepted: usize,
    stored: usize,
    completed: usize,
    dead: usize,
    repeated: usize,
    slowest_ms: Option<u64>,
    slowest_message: Option<&'a str>,
    #[serde(flatten)]
    counts: &'a Counts,
    kept: bool,
    log: &'a [Entry],
}

impl Report {
    pub(crate) fn new(ledger: Ledger, facts: &Facts, verdict: Verdict, kept: bool) -> Self {
        let slowest = facts.slowest().map(|(took, key)| (took, key.clone()));
        Self { ledger, verdict, slowest, kept }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict.faults.is_empty() && self.ledger.problems.is_empty()
    }

    /// What is wrong, in words.
    pub fn faults(&self) -> impl Iterator<Item = String> {
        let faults = self.verdict.faults.iter().map(ToString::to_string);
        faults.chain(self.ledger.problems.iter().cloned())
    }

    /// For programs.
    #[must_use]
    pub fn shown(&self) -> Shown<'_> {
        let Self { ledger, verdict, slowest, kept } = self;
        let took = slowest.as_ref().map(|(took, _)| took.as_millis());
        Shown {
            verdict: if self.is_good() { "good" } else { "bad" },
            faults: self.faults().collect(),
            namespace: &ledger.namespace,
            seed: ledger.seed,
            seconds: ledger.seconds,
            kinds: &ledger.kinds,
            agents: ledger.agents,
            rate: ledger.rate,
            accepted: verdict.accepted,
            stored: verdict.stored,
            completed: verdict.completed,
            dead: verdict.failed,
            repeated: verdict.repeated,
            slowest_ms: took.map(|took| u64::try_from(took).unwrap_or(u64::MAX)),
            slowest_message: slowest.as_ref().map(|(_, key)| key.message_id.as_str()),
            counts: &ledger.counts,
            kept: *kept,
            log: &ledger.log,
        }
    }

    /// For people: a line each, without the log.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let Verdict { accepted, stored, completed, failed, repeated, .. } = &self.verdict;
        let Counts { kills, freezes, cuts, restarts, replaces, missed, ended } =
            &self.ledger.counts;
        let kills: Vec<_> = kills.iter().map(|(whom, count)| format!("{count} {whom}")).collect();
        let kills = if kills.is_empty() { "none".to_owned() } else { kills.join(", ") };
        let mut lines = vec![
            format!("kills:     {kills}"),
            format!(
                "others:    {freezes} freezes, {cuts} cuts, {restarts} restarts, {replaces} replacements; {missed} found nobody"
            ),
            format!(
                "messages:  {accepted} accepted, {stored} stored, {completed} completed, {failed} dead, {repeated} ran more than once"
            ),
        ];
        if *ended > 0 {
            lines.push(format!("restarted: {ended} supervisors or nodes that ended by themselves"));
        }
        if let Some((took, key)) = &self.slowest {
            lines.push(format!(
                "slowest:   {:.1} s, message {} to {}",
                took.as_secs_f64(),
                key.message_id,
                key.agent
            ));
        }
        lines.extend(self.faults().map(|fault| format!("FAULT:     {fault}")));
        let verdict = match self.is_good() {
            true => "good: nothing lost, nothing answered twice, nothing out of order".to_owned(),
            false => format!("BAD: {} faults", self.faults().count()),
        };
        lines.push(format!("verdict:   {verdict} (seed {})", self.ledger.seed));
        lines
    }
}
