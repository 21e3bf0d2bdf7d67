//! What holds for every soul.

use common::soul::{SoulErrors, parse_bytes, render};
use common::spec::{
    AgentSpec, IfThen, Limits, OnMiss, Overlap, Replace, Restart, RestartPolicy, Sanctum, Schedule,
    ScheduleOptions, Timeouts,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

use crate::{soul, writer};

/// What every error keeps to, whatever the text.
fn check(errors: &SoulErrors, text: &str) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    assert!(!errors.problems().is_empty());
    for problem in errors.problems() {
        let start = problem.span.offset();
        let inside = text.get(start..start + problem.span.len());
        assert!(inside.is_some(), "{problem:?} is not in {text:?}");
        let before = &text[..start];
        assert_eq!(problem.line, before.matches('\n').count() + 1);
        let line = before.rsplit('\n').next().unwrap_or_default();
        assert_eq!(problem.column, line.chars().count() + 1);
    }
    let plain = errors.plain();
    assert!(plain.chars().all(|c| c == '\n' || !c.is_control()), "{plain:?}");
}

/// Pieces that souls are made of, right and wrong.
fn fragment() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "MODEL",
        "SOUL",
        "IF",
        "THEN",
        "SCHEDULE",
        "TZ",
        "SKILL",
        "SANCTUM",
        "WORKER",
        "IMAGE",
        "ENV",
        "SECRET",
        "LIMIT",
        "CONCURRENCY",
        "ATTEMPTS",
        "TIMEOUT",
        "RESTART",
        "REPLACE",
        "KEEP",
        "LABEL",
        "REQUIRE",
        "model",
        "SUOL",
        "<<END",
        "<<",
        "END",
        "\nEND\n",
        "\\",
        "\\\n",
        "\\\\\n",
        "\r\n",
        "\n",
        "\t",
        " ",
        "#",
        "=",
        "\"",
        "'",
        "[",
        "]",
        ",",
        ":",
        "/",
        "..",
        "a",
        "m",
        "\"0 8 * * *\"",
        "\"@daily\"",
        "Europe/Berlin",
        "data:/data:ro",
        "[\"a\", \"b\"]",
        "memory=512m",
        "cpus=1.5",
        "pids=1",
        "turn=10m",
        "max=10/10m",
        "backoff=1s..60s",
        "always",
        "stop-first",
        "A=b",
        "0",
        "1000",
        "é",
        "\u{2028}",
        "\u{feff}",
        "\u{0}",
        "\u{1b}",
        "99999999999999999999",
        "*/0",
        "L",
        "#L",
        "-",
    ]);
    prop_oneof![6 => known.prop_map(str::to_owned), 1 => ".{0,4}", 1 => Just(" ".to_owned())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_bytes_give_an_answer(bytes in vec(any::<u8>(), 0..300)) {
        let parsed = parse_bytes(writer(), Path::new("w.soul"), &bytes);
        if let Err(errors) = parsed {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            check(&errors, &text);
        }
    }

    #[test]
    fn any_text_gives_an_answer(pieces in vec(fragment(), 0..60), spaced in any::<bool>()) {
        let text = pieces.join(if spaced { " " } else { "" });
        if let Err(errors) = soul(&text) {
            check(&errors, &text);
        }
    }

    #[test]
    fn what_is_written_is_read(spec in spec()) {
        let text = written(&spec);
        match soul(&text) {
            Ok(read) => prop_assert_eq!(read, spec, "{}", text),
            Err(errors) => prop_assert!(false, "{}\n{}", text, errors.plain()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_rendered_is_read(spec in spec(), odd in odd()) {
        let spec = oddly(spec, odd);
        let text = render(&spec);
        match soul(&text) {
            Ok(read) => prop_assert_eq!(read, spec, "{}", text),
            Err(errors) => prop_assert!(false, "{}\n{}", text, errors.plain()),
        }
    }

    #[test]
    fn what_is_read_is_rendered(pieces in vec(fragment(), 0..40), more in vec(fragment(), 0..20)) {
        let text = format!("MODEL m\nSOUL s\n{}\nIF {}", pieces.join(" "), more.join(" "));
        if let Ok(spec) = soul(&text) {
            let rendered = render(&spec);
            match soul(&rendered) {
                Ok(read) => prop_assert_eq!(read, spec, "{}", rendered),
                Err(errors) => prop_assert!(false, "{}\n{}", rendered, errors.plain()),
            }
        }
    }
}

/// Texts that look like something else to a parser.
fn odd() -> impl Strategy<Value = [String; 3]> {
    let piece = prop::sample::select(vec![
        "END", "<<END", "END_2", "THEN", "TZ", "tz UTC", "\\", "\\\\", "#", "\"", "'", "=", " ",
        "  ", "\n", "\t", "SOUL", "MODEL x", "\u{2028}", "\u{feff}", "é", "[", "]", "<<", "a",
    ]);
    let text = vec(piece, 1..8).prop_map(|pieces| pieces.concat());
    [text.clone(), text.clone(), text]
}

/// A spec with such texts wherever a soul can have them.
fn oddly(mut spec: AgentSpec, [identity, reaction, value]: [String; 3]) -> AgentSpec {
    let is_text = |text: &String| !text.trim().is_empty();
    let value_word: String = value.split_whitespace().collect();
    if !value_word.is_empty() {
        spec.model.clone_from(&value_word);
    }
    if is_text(&identity) {
        spec.identity = identity;
    }
    if is_text(&reaction) {
        for rule in &mut spec.if_then {
            rule.reaction.clone_from(&reaction);
        }
        for schedule in &mut spec.schedule {
            schedule.prompt.clone_from(&reaction);
        }
    }
    spec.skills.push(format!("/skill {value_word}"));
    spec.env.insert("ODD".to_owned(), value.clone());
    spec.worker = Some(vec!["run".to_owned(), value]);
    spec
}

fn spec() -> impl Strategy<Value = AgentSpec> {
    let word = || "[a-zA-Z0-9é./_-]{1,12}";
    // Lines of anything but control characters; the last one with something in it.
    let text = || "([^\\p{Cc}]{0,20}\n){0,3}[^\\p{Cc}\\s]{1,20}";
    let path = || "(/[a-z0-9 _-]{0,6}[a-z0-9_-]){1,3}";
    let variable = || "[A-LN-Z_][A-Z0-9_]{0,8}";
    let duration = || (1_u64..86_400_000).prop_map(Duration::from_millis);
    let rules = vec(
        ("[a-z]{1,8}( [a-z]{1,8}){0,3}", text())
            .prop_map(|(condition, reaction)| IfThen { condition, reaction }),
        0..3,
    );
    let zones = prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York"]);
    let crons = prop::sample::select(vec!["0 8 * * *", "@daily", "*/5 1-3 L * MON"]);
    let options = (0_u64..90_000, any::<bool>(), 0..3_u8, 60_000_u64..86_400_000).prop_map(
        |(jitter, queue, on_miss, within)| {
            let (jitter, within) = (Duration::from_millis(jitter), Duration::from_millis(within));
            let usual = ScheduleOptions::default();
            let overlap = if queue { Overlap::Queue } else { Overlap::Skip };
            match on_miss {
                0 => ScheduleOptions { jitter, overlap, on_miss: OnMiss::Skip, ..usual },
                1 => ScheduleOptions { jitter, overlap, on_miss: OnMiss::Once, within },
                _ if queue => ScheduleOptions { jitter, overlap, on_miss: OnMiss::All, within },
                _ => usual,
            }
        },
    );
    let schedules = vec(
        (crons, option::of(zones), text(), options).prop_map(|(cron, tz, prompt, options)| {
            Schedule { cron: cron.into(), tz: tz.map(Into::into), prompt, options }
        }),
        0..3,
    )
    .prop_map(|schedules| {
        // The same content twice is refused, and another test gives all of them one prompt.
        let zone = |one: &Schedule| one.tz.clone().unwrap_or_else(|| "UTC".to_owned());
        let mut distinct: Vec<Schedule> = Vec::new();
        for one in schedules {
            let is_new = |known: &Schedule| known.cron != one.cron || zone(known) != zone(&one);
            if distinct.iter().all(is_new) {
                distinct.push(one);
            }
        }
        distinct
    });
    let sanctums = btree_map(path(), (path(), any::<(bool, bool)>()), 0..3).prop_map(|map| {
        let sanctum =
            |(path, (host, (read_only, shared)))| Sanctum { host, path, read_only, shared };
        map.into_iter().map(sanctum).collect::<Vec<_>>()
    });
    let limits = (
        option::of((6_u64 << 20)..(1 << 40)),
        option::of(1_u64..1_024_000),
        option::of(1_u32..4_000_000),
    )
        .prop_map(|(memory, milli_cpus, pids)| Limits { memory, milli_cpus, pids });
    let timeouts = (duration(), duration(), duration()).prop_map(|(turn, drain, ready)| Timeouts {
        turn,
        drain,
        ready,
    });
    let policies = prop::sample::select(vec![
        RestartPolicy::Always,
        RestartPolicy::OnFailure,
        RestartPolicy::Never,
    ]);
    let restart = (policies, 0_u32..1_000_000, duration(), 0_u64..40_000, 0_u64..40_000).prop_map(
        |(policy, max, period, first, more)| Restart {
            policy,
            max,
            period,
            backoff_first: Duration::from_millis(first),
            backoff_max: Duration::from_millis(first + more),
        },
    );
    let modes = option::of(prop::sample::select(vec![Replace::StartFirst, Replace::StopFirst]));
    let worker =
        option::of(("[a-z]{1,5}", vec("[^\0]{0,10}", 0..3)).prop_map(|(program, mut rest)| {
            rest.insert(0, program);
            rest
        }));
    let labels = || btree_map("[a-z0-9][a-z0-9._/-]{0,10}", "[^\\p{Cc}]{0,20}", 0..3);
    let env = btree_map(variable(), "[^\0]{0,20}", 0..3);
    let secrets = btree_set(variable(), 0..3);
    let image = option::of("[a-z0-9]{1,9}(/[a-z0-9]{1,9}){0,2}(:[A-Za-z0-9_][A-Za-z0-9._-]{0,9})?");
    (
        (word(), text(), rules, schedules, btree_set(path(), 0..3), sanctums),
        (worker, image, env, secrets, limits, 1_u32..=1000, 1_u32..=100),
        (timeouts, restart, modes, labels(), labels()),
    )
        .prop_map(|(who, how, life)| {
            let mut spec = AgentSpec::new(writer(), who.0, who.1);
            spec.source_path = "/fleet/writer.soul".into();
            (spec.if_then, spec.schedule, spec.sanctums) = (who.2, who.3, who.5);
            spec.skills = who.4.into_iter().collect();
            (spec.worker, spec.image, spec.env, spec.limits) = (how.0, how.1, how.2, how.4);
            let env = &spec.env;
            spec.secrets = how.3.into_iter().filter(|name| !env.contains_key(name)).collect();
            (spec.concurrency, spec.attempts) = (how.5, how.6);
            (spec.timeout, spec.restart, spec.replace) = (life.0, life.1, life.2);
            (spec.labels, spec.require) = (life.3, life.4);
            spec
        })
}

/// A soul that says all of a spec.
fn written(spec: &AgentSpec) -> String {
    let quoted = |text: &str| serde_json::to_string(text).expect("a string");
    let millis = |duration: Duration| format!("{}ms", duration.as_millis());
    // No generated line can be this.
    let heredoc = |text: &str| format!("<<THE_END_OF_IT\n{text}\nTHE_END_OF_IT");
    let mut lines = vec![
        format!("MODEL {}", spec.model),
        format!("SOUL {}", heredoc(&spec.identity)),
        format!("CONCURRENCY {}", spec.concurrency),
        format!("ATTEMPTS {}", spec.attempts),
    ];
    for rule in &spec.if_then {
        lines.push(format!("IF {} THEN {}", rule.condition, heredoc(&rule.reaction)));
    }
    for schedule in &spec.schedule {
        let zone = schedule.tz.iter().map(|tz| format!("TZ {tz} ")).collect::<String>();
        let options = options_of(&schedule.options);
        let prompt = heredoc(&schedule.prompt);
        lines.push(format!("SCHEDULE \"{}\" {zone}{options}{prompt}", schedule.cron));
    }
    lines.extend(spec.skills.iter().map(|path| format!("SKILL {path}")));
    for Sanctum { host, path, read_only, shared } in &spec.sanctums {
        let mode = if *read_only { "ro" } else { "rw" };
        let shared = if *shared { " shared" } else { "" };
        lines.push(format!("SANCTUM {host}:{path}:{mode}{shared}"));
    }
    if let Some(worker) = &spec.worker {
        // JSON leaves DEL and the C1 controls as they are; a soul does not take them.
        let json = serde_json::to_string(worker).expect("strings");
        lines.push(format!("WORKER {}", escaped(&json)));
    }
    lines.extend(spec.image.iter().map(|image| format!("IMAGE {image}")));
    let pair = |(key, value): (&String, &String)| format!("{key}={}", escaped(&quoted(value)));
    lines.extend(spec.env.iter().map(|entry| format!("ENV {}", pair(entry))));
    lines.extend(spec.secrets.iter().map(|name| format!("SECRET {name}")));
    lines.extend(spec.labels.iter().map(|entry| format!("LABEL {}", pair(entry))));
    lines.extend(spec.require.iter().map(|entry| format!("REQUIRE {}", pair(entry))));
    let Limits { memory, milli_cpus, pids } = spec.limits;
    let limits: Vec<String> = [
        memory.map(|bytes| format!("memory={bytes}")),
        milli_cpus.map(|milli| format!("cpus={}.{:03}", milli / 1000, milli % 1000)),
        pids.map(|pids| format!("pids={pids}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !limits.is_empty() {
        lines.push(format!("LIMIT {}", limits.join(" ")));
    }
    let Timeouts { turn, drain, ready } = spec.timeout;
    lines.push(format!(
        "TIMEOUT turn={} drain={} ready={}",
        millis(turn),
        millis(drain),
        millis(ready)
    ));
    let policy = match spec.restart.policy {
        RestartPolicy::Always => "always",
        RestartPolicy::OnFailure => "on-failure",
        RestartPolicy::Never => "never",
    };
    let Restart { max, period, backoff_first, backoff_max, .. } = spec.restart;
    lines.push(format!(
        "RESTART {policy} max={max}/{} \\\n  backoff={}..{}",
        millis(period),
        millis(backoff_first),
        millis(backoff_max)
    ));
    lines.extend(spec.replace.map(|mode| match mode {
        Replace::StartFirst => "REPLACE start-first".to_owned(),
        Replace::StopFirst => "REPLACE stop-first".to_owned(),
    }));
    lines.join("\n")
}

fn escaped(json: &str) -> String {
    json.chars()
        .map(|c| if c.is_control() { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
        .collect()
}

fn options_of(options: &ScheduleOptions) -> String {
    if *options == ScheduleOptions::default() {
        return String::new();
    }
    let overlap = match options.overlap {
        Overlap::Skip => "skip",
        Overlap::Queue => "queue",
    };
    let within = format!(" within={}ms", options.within.as_millis());
    let on_miss = match options.on_miss {
        OnMiss::Skip => "skip".to_owned(),
        OnMiss::Once => format!("once{within}"),
        OnMiss::All => format!("all{within}"),
    };
    let jitter = options.jitter.as_millis();
    format!("OPTIONS jitter={jitter}ms overlap={overlap} on-miss={on_miss} ")
}
