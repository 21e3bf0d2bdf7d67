//! Souls that parse, and what they parse to.

use std::path::Path;
use std::time::Duration;

use common::soul::{parse, parse_bytes, render};
use common::spec::{
    AgentSpec, IfThen, Keep, Limits, OnMiss, Overlap, Replace, Restart, RestartPolicy, Sanctum,
    Schedule, ScheduleOptions, Timeouts,
};

use crate::{soul, writer};

fn parsed(text: &str) -> AgentSpec {
    soul(text).unwrap_or_else(|errors| panic!("{}", errors.plain()))
}

/// The spec of a two-line soul and some more lines.
fn with(lines: &str) -> AgentSpec {
    parsed(&format!("MODEL test/model\nSOUL test agent\n{lines}"))
}

fn two_lines() -> AgentSpec {
    let mut spec = AgentSpec::new(writer(), "test/model", "test agent");
    spec.source_path = "/fleet/writer.soul".into();
    spec
}

#[test]
fn two_lines_are_an_agent() {
    assert_eq!(parsed("MODEL test/model\nSOUL test agent"), two_lines());
}

#[test]
fn blank_lines_comments_and_indents_mean_nothing() {
    let text = "\n# who\n  MODEL\ttest/model  \n\n   # what\n\tSOUL   test agent\t\n\n";
    assert_eq!(parsed(text), two_lines());
}

#[test]
fn a_byte_order_mark_and_crlf_mean_nothing() {
    let text = "\u{feff}MODEL test/model\r\nSOUL <<END\r\ntest agent\r\nEND\r\n";
    assert_eq!(parsed(text), two_lines());
    let path = Path::new("/fleet/writer.soul");
    let spec = parse_bytes(writer(), path, text.as_bytes()).expect("the same as bytes");
    assert_eq!(spec, two_lines());
}

#[test]
fn order_does_not_matter() {
    assert_eq!(parsed("SOUL test agent\nMODEL test/model"), two_lines());
}

#[test]
fn continued_lines_are_joined_by_one_space() {
    let spec = parsed("MODEL m\nSOUL You write,   \\\n     and \\  \n# is text here\n");
    assert_eq!(spec.identity, "You write, and # is text here");
    assert_eq!(parsed("MODEL m\nSOUL C:\\\\\n").identity, "C:\\");
}

#[test]
fn a_heredoc_is_taken_as_it_is() {
    let spec = parsed("MODEL m\nSOUL <<END\n# Rules\n\n  a \\\n\tb <<X\nEND \nIF x THEN y");
    assert_eq!(spec.identity, "# Rules\n\n  a \\\n\tb <<X");
    assert_eq!(spec.if_then.len(), 1, "the file goes on behind it");
}

#[test]
fn other_writing_systems_are_text() {
    let spec = parsed("MODEL m\nSOUL Du bist höflich. 你好 👋🏽\u{a0}שלום");
    assert_eq!(spec.identity, "Du bist höflich. 你好 👋🏽\u{a0}שלום");
}

#[test]
fn rules_keep_their_order() {
    let spec = with("IF asked THEN answer\nIF THENCE comes THEN say THEN\nIF c THEN <<E\na\nb\nE");
    let rule = |condition: &str, reaction: &str| IfThen {
        condition: condition.into(),
        reaction: reaction.into(),
    };
    let expected = [rule("asked", "answer"), rule("THENCE comes", "say THEN"), rule("c", "a\nb")];
    assert_eq!(spec.if_then, expected);
}

#[test]
fn schedules_have_a_cron_expression_perhaps_a_zone_and_a_prompt() {
    let schedule = |line: &str| with(&format!("SCHEDULE {line}")).schedule.remove(0);
    let expected = |cron: &str, tz: Option<&str>, prompt: &str| Schedule {
        cron: cron.into(),
        tz: tz.map(Into::into),
        prompt: prompt.into(),
        options: ScheduleOptions::default(),
    };
    assert_eq!(
        schedule("\"0 8 * * MON-FRI\" TZ Europe/Berlin Good morning, \"you\"."),
        expected("0 8 * * MON-FRI", Some("Europe/Berlin"), "Good morning, \"you\".")
    );
    assert_eq!(schedule("\"@daily\" tz of home?"), expected("@daily", None, "tz of home?"));
    assert_eq!(
        schedule("\"*/15 8-18/2 1,15 * *\" <<E\nx\nE"),
        expected("*/15 8-18/2 1,15 * *", None, "x")
    );
    assert_eq!(
        schedule("\"@daily\" TZ UTC OPTIONS jitter=30s overlap=queue on-miss=all within=1h count"),
        Schedule {
            options: ScheduleOptions {
                jitter: Duration::from_secs(30),
                overlap: Overlap::Queue,
                on_miss: OnMiss::All,
                within: Duration::from_secs(3600),
            },
            ..expected("@daily", Some("UTC"), "count")
        }
    );
    assert_eq!(
        schedule("\"@daily\" options of a phone"),
        expected("@daily", None, "options of a phone")
    );
    let queued = schedule("\"@daily\" OPTIONS overlap=queue <<E\na=b\nE");
    assert_eq!((queued.prompt.as_str(), queued.options.overlap), ("a=b", Overlap::Queue));
    for cron in [
        "0 0 L * *",
        "0 0 29 2 *",
        "0 0 30 2 MON",
        "59 23 31 dec fri",
        "0 0 ? * 5L",
        "0 0 1 JAN-MAR 7",
    ] {
        assert_eq!(schedule(&format!("\"{cron}\" x")), expected(cron, None, "x"));
    }
}

#[test]
fn relative_paths_are_from_the_file() {
    let spec =
        with("SKILL skills/cite\nSKILL ../shared/./x\nSKILL /abs//y/\nSKILL \"my skills/z\"");
    let expected = ["/fleet/skills/cite", "/shared/x", "/abs/y", "/fleet/my skills/z"];
    assert_eq!(spec.skills, expected);

    let relative =
        parse(writer(), Path::new("souls/writer.soul"), "MODEL m\nSOUL s\nSKILL a\nSKILL ../../b");
    let spec = relative.expect("a relative path is fine");
    assert_eq!(spec.skills, ["souls/a", "../b"]);
    assert_eq!(spec.source_path, "souls/writer.soul");
}

#[test]
fn sanctums_are_writable_unless_they_say_ro_and_pin_unless_they_are_shared() {
    let spec = with(
        "SANCTUM /var/lib/x:/x:ro\nSANCTUM ..:/up:rw  shared\nSANCTUM \"a b:/my shared\" shared\nSANCTUM data:/data/",
    );
    let sanctum = |host: &str, path: &str, read_only, shared| Sanctum {
        host: host.into(),
        path: path.into(),
        read_only,
        shared,
    };
    let expected = [
        sanctum("/var/lib/x", "/x", true, false),
        sanctum("/", "/up", false, true),
        sanctum("/fleet/a b", "/my shared", false, true),
        sanctum("/fleet/data", "/data", false, false),
    ];
    assert_eq!(spec.sanctums, expected);
    assert_eq!(spec.pins(), Some(&expected[3]));
    assert_eq!(with("SANCTUM a:/a shared\nSANCTUM b:/b:ro").pins(), None);
    // A word of the path, where there is no other place for it.
    let spec = with("SANCTUM my shared:/data\nSANCTUM \"x:/my shared\"");
    let found: Vec<_> = spec.sanctums.iter().map(|one| (one.path.as_str(), one.shared)).collect();
    assert_eq!(found, [("/data", false), ("/my shared", false)]);
}

#[test]
fn a_worker_is_an_exec_array_or_a_shell_command() {
    let worker = |line: &str| with(&format!("WORKER {line}")).worker.expect("given");
    assert_eq!(worker(r#"["python3", "wör \"k\".py", ""]"#), ["python3", "wör \"k\".py", ""]);
    assert_eq!(worker("[ \"a\", \\\n \"b\" ]"), ["a", "b"]);
    assert_eq!(worker("exec node 'w.js' # x"), ["/bin/sh", "-c", "exec node 'w.js' # x"]);
    assert_eq!(with("").worker, None);
}

#[test]
fn images_are_references() {
    let digest = format!("ghcr.io/a/b@sha256:{}", "0f".repeat(32));
    for image in [
        "python",
        "python:3.13-slim",
        "a/b_c",
        "localhost:5000/x:Y_1",
        "r.example/a/b/c:1",
        &digest,
    ] {
        assert_eq!(with(&format!("IMAGE {image}")).image.as_deref(), Some(image));
        assert_eq!(common::soul::image(image).as_deref(), Ok(image));
    }
}

#[test]
fn an_image_alone_is_refused_as_in_a_soul() {
    for (bad, why) in [
        ("", "`` is not an image: expected `[registry/]name[:tag][@sha256:…]`"),
        ("a b", "IMAGE takes one word: expected nothing after `a`"),
        (
            "Python:3",
            "`Python:3` is not an image: expected `[registry/]name[:tag][@sha256:…]`; \
             did you mean `python:3`? Names are written in lower case",
        ),
    ] {
        assert_eq!(common::soul::image(bad), Err(why.to_owned()));
    }
}

#[test]
fn variables_may_be_quoted() {
    let spec = with(
        "ENV A=plain=x#y\nENV _b=\"two words\\n\"\nENV C='it is \"raw\\n\"'\nENV D=\nSECRET API_KEY",
    );
    let expected =
        [("A", "plain=x#y"), ("C", "it is \"raw\\n\""), ("D", ""), ("_b", "two words\n")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(spec.env, expected.into());
    assert_eq!(spec.secrets, ["API_KEY"]);
}

#[test]
fn bounds_have_units() {
    let spec = with("LIMIT pids=128 cpus=1.5 memory=512m\nCONCURRENCY 1000\nATTEMPTS 1");
    let expected = Limits { memory: Some(512 << 20), milli_cpus: Some(1500), pids: Some(128) };
    assert_eq!(spec.limits, expected);
    assert_eq!((spec.concurrency, spec.attempts), (1000, 1));
    for (text, memory) in
        [("8192k", 8 << 20), ("6M", 6 << 20), ("2G", 2 << 30), ("6291456", 6 << 20)]
    {
        assert_eq!(with(&format!("LIMIT memory={text}")).limits.memory, Some(memory));
    }
    for (text, milli) in [("1", 1000), ("0.001", 1), ("0.25", 250), ("1024", 1_024_000)] {
        assert_eq!(with(&format!("LIMIT cpus={text}")).limits.milli_cpus, Some(milli));
    }
}

#[test]
fn what_is_kept_is_said_in_times_and_read_back() {
    let spec = with("KEEP history=90d events=36h steps=7d");
    let keep = Keep {
        history: Some(Duration::from_secs(90 * 24 * 3600)),
        events: Some(Duration::from_secs(36 * 3600)),
        logs: None,
        steps: Some(Duration::from_secs(7 * 24 * 3600)),
    };
    assert_eq!(spec.keep, keep);
    assert_eq!(with("KEEP history=0").keep.history, Some(Duration::ZERO));
    assert!(with("ATTEMPTS 3").keep.is_default());
    for line in ["KEEP history=0 logs=7d", "KEEP events=1y"] {
        let spec = with(line);
        let again = parse(spec.name.clone(), Path::new("/x/a.soul"), &render(&spec));
        assert_eq!(again.expect("it parses").keep, spec.keep, "{line}");
        let json = serde_json::to_string(&spec).expect("plain");
        assert_eq!(serde_json::from_str::<AgentSpec>(&json).expect("what we wrote"), spec);
    }
}

#[test]
fn what_a_timeout_does_not_say_stays_as_usual() {
    let spec = with("TIMEOUT drain=1h30m turn=500ms");
    let expected = Timeouts {
        turn: Duration::from_millis(500),
        drain: Duration::from_secs(5400),
        ..Timeouts::default()
    };
    assert_eq!(spec.timeout, expected);
}

#[test]
fn every_part_of_a_restart_is_optional() {
    let restart = |line: &str| with(&format!("RESTART {line}")).restart;
    let seconds = Duration::from_secs;
    assert_eq!(restart("always max=10/10m backoff=1s..60s"), Restart::default());
    assert_eq!(
        restart("on-failure backoff=0s max=0/1h"),
        Restart {
            policy: RestartPolicy::OnFailure,
            max: 0,
            period: seconds(3600),
            backoff_first: Duration::ZERO,
            backoff_max: Duration::ZERO,
        }
    );
    assert_eq!(restart("backoff=0s..0s").backoff_max, Duration::ZERO);
    assert_eq!(restart("backoff=100ms..2s").backoff_first, Duration::from_millis(100));
    assert_eq!(restart("max=3"), Restart { max: 3, ..Restart::default() });
    assert_eq!(restart("never").policy, RestartPolicy::Never);
}

#[test]
fn replacing_and_labels() {
    let spec =
        with("REPLACE stop-first\nLABEL team=a\nLABEL example.com/x=\"b c\"\nREQUIRE zone=eu");
    assert_eq!(spec.replace, Some(Replace::StopFirst));
    assert_eq!(spec.labels["team"], "a");
    assert_eq!(spec.labels["example.com/x"], "b c");
    assert_eq!(spec.require["zone"], "eu");
}

#[test]
fn the_largest_identity_fits() {
    let identity = "é".repeat(common::soul::MAX_IDENTITY / 2);
    assert_eq!(parsed(&format!("MODEL m\nSOUL {identity}")).identity, identity);
}
