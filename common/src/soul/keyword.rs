//! The keywords of a soul.

use super::suggest::closest;

/// A keyword, which is the first word of its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Keyword {
    Model,
    Soul,
    If,
    Schedule,
    Skill,
    Sanctum,
    Worker,
    Image,
    Env,
    Secret,
    Limit,
    Concurrency,
    Attempts,
    Timeout,
    Restart,
    Replace,
    Keep,
    Memory,
    Label,
    Require,
}

use Keyword::{
    Attempts, Concurrency, Env, If, Image, Keep, Label, Limit, Memory, Model, Replace, Require,
    Restart, Sanctum, Schedule, Secret, Skill, Soul, Timeout, Worker,
};

impl Keyword {
    pub(super) const ALL: [Self; 20] = [
        Model,
        Soul,
        If,
        Schedule,
        Skill,
        Sanctum,
        Worker,
        Image,
        Env,
        Secret,
        Limit,
        Concurrency,
        Attempts,
        Timeout,
        Restart,
        Replace,
        Keep,
        Memory,
        Label,
        Require,
    ];

    pub(super) fn word(self) -> &'static str {
        match self {
            Model => "MODEL",
            Soul => "SOUL",
            If => "IF",
            Schedule => "SCHEDULE",
            Skill => "SKILL",
            Sanctum => "SANCTUM",
            Worker => "WORKER",
            Image => "IMAGE",
            Env => "ENV",
            Secret => "SECRET",
            Limit => "LIMIT",
            Concurrency => "CONCURRENCY",
            Attempts => "ATTEMPTS",
            Timeout => "TIMEOUT",
            Restart => "RESTART",
            Replace => "REPLACE",
            Keep => "KEEP",
            Memory => "MEMORY",
            Label => "LABEL",
            Require => "REQUIRE",
        }
    }

    /// The usage of the keyword, for messages.
    pub(super) fn usage(self) -> &'static str {
        match self {
            Model => "MODEL test/model",
            Soul => "SOUL You are …",
            If => "IF <condition> THEN <reaction>",
            Schedule => "SCHEDULE \"<cron>\" [TZ <zone>] [OPTIONS <key>=<value> …] <prompt>",
            Skill => "SKILL <path>",
            Sanctum => "SANCTUM <host path>:<path>[:ro]",
            Worker => "WORKER [\"python3\", \"worker.py\"]",
            Image => "IMAGE python:3.13-slim",
            Env => "ENV NAME=value",
            Secret => "SECRET NAME",
            Limit => "LIMIT memory=512m cpus=1 pids=128",
            Concurrency => "CONCURRENCY 1",
            Attempts => "ATTEMPTS 3 backoff=1s..30s",
            Timeout => "TIMEOUT turn=10m drain=30s ready=60s",
            Restart => "RESTART always max=10/10m backoff=1s..60s",
            Replace => "REPLACE start-first",
            Keep => "KEEP history=90d events=72h logs=24h steps=7d",
            Memory => "MEMORY journal|none",
            Label => "LABEL name=value",
            Require => "REQUIRE name=value",
        }
    }

    pub(super) fn is_repeatable(self) -> bool {
        match self {
            If | Schedule | Skill | Sanctum | Env | Secret | Label | Require => true,
            Model | Soul | Worker | Image | Limit | Concurrency | Attempts | Timeout | Restart
            | Replace | Keep | Memory => false,
        }
    }

    /// Whether its text may stand in a heredoc.
    pub(super) fn takes_heredoc(self) -> bool {
        matches!(self, Soul | If | Schedule)
    }

    pub(super) fn find(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|keyword| keyword.word() == word)
    }

    /// The keyword that was probably meant.
    pub(super) fn meant_by(word: &str) -> Option<Self> {
        // `MODEL=x` and `MODEL: x` are the habits of other formats.
        let bare = word.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        let named = |word: &str| closest(word, Self::ALL.map(Self::word)).and_then(Self::find);
        // Two letters are too few to be a misspelling of anything but themselves.
        if bare.len() < 3 {
            return Self::ALL.into_iter().find(|k| k.word().eq_ignore_ascii_case(bare));
        }
        named(bare)
    }
}
