//! Souls that do not parse, and what is said about them.

use std::path::Path;

use common::AgentName;
use common::soul::{MAX_FILE, MAX_IDENTITY, MAX_INSTRUCTIONS, MAX_PROBLEMS, parse, parse_bytes};
use miette::{Diagnostic as _, NarratableReportHandler};

use crate::{soul, writer};

fn plain(text: &str) -> String {
    let errors = soul(text).expect_err(text);
    errors.plain()
}

/// `line:column: message` of every problem.
fn brief(text: &str) -> Vec<String> {
    let errors = soul(text).expect_err(text);
    errors.problems().iter().map(|p| format!("{}:{}: {}", p.line, p.column, p.message)).collect()
}

/// What is wrong with a line below a two-line soul.
fn line(line: &str) -> Vec<String> {
    brief(&format!("MODEL m\nSOUL s\n{line}"))
}

#[test]
fn a_misspelled_keyword_is_not_missing_as_well() {
    assert_eq!(
        plain("model test/model\nSUOL test agent"),
        "\
/fleet/writer.soul:1:1: unknown instruction `model`
 1 | model test/model
   | ^^^^^ expected a keyword, such as `MODEL` or `SOUL`
   = help: did you mean `MODEL`? Keywords are written in upper case

/fleet/writer.soul:2:1: unknown instruction `SUOL`
 2 | SUOL test agent
   | ^^^^ expected a keyword, such as `MODEL` or `SOUL`
   = help: did you mean `SOUL`?"
    );
}

#[test]
fn the_habits_of_other_formats_are_known() {
    assert_eq!(
        plain("MODEL: test/model\nSOUL s"),
        "\
/fleet/writer.soul:1:1: unknown instruction `MODEL:`
 1 | MODEL: test/model
   | ^^^^^^ expected a keyword, such as `MODEL` or `SOUL`
   = help: did you mean `MODEL`? A space follows the keyword"
    );
}

#[test]
fn a_sentence_that_goes_on_is_told_how_to() {
    assert_eq!(
        plain("MODEL m\nSOUL You are kind.\nYou help people."),
        "\
/fleet/writer.soul:3:1: unknown instruction `You`
 3 | You help people.
   | ^^^ expected a keyword, such as `MODEL` or `SOUL`
   = help: to continue the previous line, end it with `\\`, or use `<<END`"
    );
}

#[test]
fn what_is_missing_is_pointed_at_the_end() {
    assert_eq!(
        plain("# nothing\n\n"),
        "\
/fleet/writer.soul:1:10: no MODEL in this soul
 1 | # nothing
   |          ^ expected a line `MODEL test/model`

/fleet/writer.soul:1:10: no SOUL in this soul
 1 | # nothing
   |          ^ expected a line `SOUL You are …`"
    );
    assert_eq!(brief(""), ["1:1: no MODEL in this soul", "1:1: no SOUL in this soul"]);
}

#[test]
fn a_duplicate_points_at_both() {
    let errors = soul("MODEL a\nSOUL s\n\nMODEL b").expect_err("twice");
    assert_eq!(
        errors.plain(),
        "\
/fleet/writer.soul:4:1: MODEL is given twice
 4 | MODEL b
   | ^^^^^ expected one MODEL in a soul
   = first given in line 1"
    );
    let labels: Vec<(usize, usize)> = errors.problems()[0]
        .labels()
        .expect("labelled")
        .map(|label| (label.offset(), label.len()))
        .collect();
    assert_eq!(labels, [(16, 5), (0, 5)]);
}

#[test]
fn an_open_heredoc_is_told_from_one_that_is_indented() {
    assert_eq!(
        plain("MODEL m\nSOUL <<END\ntext\n  END"),
        "\
/fleet/writer.soul:2:6: the heredoc is never closed
 2 | SOUL <<END
   |      ^^^^^ expected a line `END` below
   = help: `  END` does not close it: case and indentation matter"
    );
    // What it swallowed may hold the MODEL: that it is missing is not said.
    assert_eq!(brief("SOUL <<END\ntext\nMODEL m"), ["1:6: the heredoc is never closed"]);
}

#[test]
fn a_cron_expression_is_wrong_in_one_of_its_fields() {
    assert_eq!(
        plain("MODEL m\nSOUL s\nSCHEDULE \"0 8 * * MOM\" TZ berlin hello"),
        "\
/fleet/writer.soul:3:19: `MOM` as the day of the week
 3 | SCHEDULE \"0 8 * * MOM\" TZ berlin hello
   |                   ^^^ expected 0 to 7, `SUN` to `SAT`, `*`, lists, ranges or steps
   = help: did you mean `MON`?

/fleet/writer.soul:3:27: unknown time zone `berlin`
 3 | SCHEDULE \"0 8 * * MOM\" TZ berlin hello
   |                           ^^^^^^ expected a name of the IANA database, such as `Europe/Berlin` or `UTC`
   = help: did you mean `Europe/Berlin`?"
    );
}

#[test]
fn a_cron_expression_without_quotes_is_shown_with_them() {
    assert_eq!(
        plain("MODEL m\nSOUL s\nSCHEDULE 0 8 * * * hello"),
        "\
/fleet/writer.soul:3:10: SCHEDULE without a quoted cron expression
 3 | SCHEDULE 0 8 * * * hello
   |          ^ expected `SCHEDULE \"<cron>\" [TZ <zone>] [OPTIONS <key>=<value> …] <prompt>`
   = help: did you mean `\"0 8 * * *\"`?"
    );
}

#[test]
fn every_option_of_a_line_is_checked() {
    assert_eq!(
        plain("MODEL m\nSOUL s\nLIMIT memory=512 cpu=1 pids=0"),
        "\
/fleet/writer.soul:3:14: memory of `512`
 3 | LIMIT memory=512 cpu=1 pids=0
   |              ^^^ expected a whole number and `k`, `m` or `g`, from 6m on, such as `512m`
   = help: did you mean `512m`?

/fleet/writer.soul:3:18: unknown option `cpu`
 3 | LIMIT memory=512 cpu=1 pids=0
   |                  ^^^ expected `memory`, `cpus` or `pids`
   = help: did you mean `cpus`?

/fleet/writer.soul:3:29: pids of `0`
 3 | LIMIT memory=512 cpu=1 pids=0
   |                             ^ expected a whole number from 1 to 4194304"
    );
}

#[test]
fn a_problem_in_a_continued_line_is_shown_in_that_line() {
    assert_eq!(
        plain("MODEL m\nSOUL s\nRESTART always \\\n  max=10/10m \\\n  backoff=60s..1s"),
        "\
/fleet/writer.soul:5:11: a backoff that shrinks
 5 |   backoff=60s..1s
   |           ^^^^^^^ expected the shorter delay first, such as `1s..60s`"
    );
}

#[test]
fn single_quotes_are_no_json() {
    assert_eq!(
        plain("MODEL m\nSOUL s\nWORKER ['python3', 'w.py']"),
        "\
/fleet/writer.soul:3:9: a malformed WORKER
 3 | WORKER ['python3', 'w.py']
   |         ^ expected a JSON array of strings, such as `[\"python3\", \"worker.py\"]`
   = help: did you mean `[\"python3\", \"w.py\"]`?"
    );
}

#[test]
fn a_caret_stands_below_its_character_behind_tabs_and_other_scripts() {
    assert_eq!(
        plain("MODEL m\nSOUL s\nSANCTUM\tdätä:wörk"),
        "\
/fleet/writer.soul:3:14: `wörk` is not absolute
 3 | SANCTUM dätä:wörk
   |              ^^^^ expected a path in the container that starts with `/`
   = help: did you mean `/wörk`?"
    );
}

#[test]
fn a_long_line_is_cut_around_the_place() {
    let spaces = "x".repeat(500);
    let text = plain(&format!("MODEL m\nSOUL {spaces}\u{7}{spaces}"));
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], "/fleet/writer.soul:2:506: control character U+0007");
    assert_eq!(lines[1], format!(" 2 | …{}�{}…", "x".repeat(60), "x".repeat(59)));
    assert_eq!(lines[2].find('^'), Some(66), "{text}");
}

#[test]
fn control_characters_never_reach_a_terminal() {
    let text = plain("MODEL m\nSOUL \u{1b}[31mred\n\u{1b}c\rx y");
    assert!(!text.contains('\u{1b}') && !text.contains('\r'), "{text:?}");
    assert_eq!(
        line("LABEL a=\0"),
        ["3:9: control character U+0000", "3:9: LABEL with a value that no node can have"]
    );
    assert_eq!(brief("MODEL m\rSOUL s\n")[0], "1:8: control character U+000D");
}

#[test]
fn what_is_not_utf_8_is_pointed_at() {
    let path = Path::new("w.soul");
    let errors = parse_bytes(writer(), path, b"\xef\xbb\xbfMODEL m\nSOUL a\xffb\xc3\nX\n");
    assert_eq!(
        errors.expect_err("no text").plain(),
        "\
w.soul:2:7: byte 0xff is not UTF-8
 2 | SOUL a�b�
   |       ^ expected text in UTF-8

w.soul:2:9: byte 0xc3 is not UTF-8
 2 | SOUL a�b�
   |         ^ expected text in UTF-8

w.soul:3:1: unknown instruction `X`
 3 | X
   | ^ expected a keyword, such as `MODEL` or `SOUL`"
    );
}

#[test]
fn every_bound_is_checked() {
    let large = format!("MODEL m\nSOUL s\n#{}", "x".repeat(MAX_FILE));
    assert_eq!(brief(&large), ["1:1: the file is too large"]);
    let bytes = vec![0xff; 4 * MAX_FILE];
    let errors = parse_bytes(writer(), Path::new("w.soul"), &bytes).expect_err("too large");
    assert_eq!(errors.problems().len(), 1);

    let wordy = format!("MODEL m\nSOUL {}", "x".repeat(MAX_IDENTITY + 1));
    assert_eq!(brief(&wordy), ["2:6: the identity is 128 KiB long"]);
    let wordy = format!("MODEL m\nSOUL <<E\n{}\nE", "x".repeat(MAX_IDENTITY + 1));
    assert_eq!(brief(&wordy), ["2:6: the identity is 128 KiB long"]);

    let many = format!("MODEL m\nSOUL s\n{}", "IF a THEN b\n".repeat(MAX_INSTRUCTIONS));
    assert_eq!(brief(&many), ["1001:1: too many instructions"]);
    assert!(soul(&many[..many.len() - 24]).is_ok());

    let wrong = "X\n".repeat(MAX_PROBLEMS + 50);
    assert_eq!(brief(&wrong).len(), MAX_PROBLEMS);

    // Each path is short in the file, and long once it is resolved.
    let skills: String = (0..900).map(|n| format!("SKILL {n}\n")).collect();
    let deep = format!("/{}/w.soul", "d".repeat(2000));
    let errors = parse(writer(), Path::new(&deep), &format!("MODEL m\nSOUL s\n{skills}"));
    let message = errors.expect_err("too large").problems()[0].message.clone();
    assert!(message.starts_with("the agent's spec is 17"), "{message}");
}

#[test]
fn no_agent_is_called_as_people_are() {
    let name = AgentName::new("user").expect("a valid name");
    let errors = parse(name, Path::new("user.soul"), "MODEL m\nSOUL s").expect_err("reserved");
    assert_eq!(
        errors.plain(),
        "\
user.soul:1:1: no agent can be called `user`
 1 | MODEL m
   | ^ expected another name for the file: messages from people use this one"
    );
}

#[test]
fn miette_renders_every_problem_with_its_line() {
    for text in ["", "x", "MODEL m\nSOUL s\nMODEL n\nSANCTUM a", "MODEL m\nSOUL <<E\n", "\u{0}"] {
        let errors = soul(text).expect_err(text);
        let mut out = String::new();
        NarratableReportHandler::new().render_report(&mut out, &*errors).expect("rendered");
        for problem in errors.problems() {
            assert!(out.contains(&problem.message), "{out}");
            assert!(out.contains(&problem.label), "{out}");
        }
        assert!(!out.contains("Failed to read"), "{out}");
    }
}

#[test]
fn a_problem_is_json() {
    let errors = soul("MODEL m\nSOUL s\nMODEL n").expect_err("twice");
    assert_eq!(
        serde_json::to_string(errors.problems()).expect("plain"),
        r#"[{"file":"/fleet/writer.soul","line":3,"column":1,"message":"MODEL is given twice","expected":"expected one MODEL in a soul","also":{"line":1,"label":"first given"}}]"#
    );
    assert_eq!(errors.to_string(), "/fleet/writer.soul has 1 problem");
}

#[test]
fn texts() {
    for (text, expected) in [
        ("MODEL", "1:6: MODEL without a value"),
        ("MODEL a b", "1:9: MODEL takes one word"),
        ("MODEL a # b", "1:9: MODEL takes one word"),
        ("MODEL m\nSOUL", "2:5: SOUL without a value"),
        ("MODEL m\nSOUL <<E\n \nE", "2:6: the heredoc is empty"),
        ("MODEL m\nSOUL a <<E\nb\nE", "2:6: SOUL with text in front of a heredoc"),
        ("MODEL m\nSOUL <<'E'\nb\nE", "2:6: `<<'E'` opens no heredoc"),
        ("MODEL m\nSOUL <<\n", "2:6: `<<` opens no heredoc"),
        ("MODEL m\nSOUL a \\", "2:8: the continued line has no next line"),
        ("MODEL m\nSOUL a \\\n\nIF a THEN b", "2:8: the continued line has no next line"),
    ] {
        assert_eq!(brief(text)[0], expected, "{text:?}");
    }
    let long = format!("MODEL {}\nSOUL s", "m".repeat(257));
    assert_eq!(brief(&long), ["1:7: the model's name is too long"]);
}

/// One line, one problem.
const LINES: &[(&str, &str)] = &[
    ("IF a", "3:5: IF without THEN"),
    ("IF a then b", "3:6: IF without THEN"),
    ("IF THEN b", "3:4: IF without a condition"),
    ("IF a THEN", "3:10: THEN without a reaction"),
    ("IF a THEN <<E\nE", "3:11: the heredoc is empty"),
    ("IF a THEN b <<E\nc\nE", "3:11: THEN with text in front of a heredoc"),
    ("if a THEN b", "3:1: unknown instruction `if`"),
    ("SCHEDULE \"0 8 * * *", "3:10: the cron expression's quote is never closed"),
    ("SCHEDULE x \"0 8 * * *\" y", "3:10: SCHEDULE without a quoted cron expression"),
    ("SCHEDULE \"60 8 * * *\" x", "3:11: `60` as the minute"),
    ("SCHEDULE \"0 8-25 * * *\" x", "3:13: `8-25` as the hour"),
    ("SCHEDULE \"0 8 0 * *\" x", "3:15: `0` as the day of the month"),
    ("SCHEDULE \"0 8 * FBE *\" x", "3:17: `FBE` as the month"),
    ("SCHEDULE \"FEB 8 * * *\" x", "3:11: `FEB` as the minute"),
    ("SCHEDULE \"*/0 8 * * *\" x", "3:11: `*/0` as the minute"),
    ("SCHEDULE \"1,,2 8 * * *\" x", "3:11: `1,,2` as the minute"),
    ("SCHEDULE \"0-99999/1 8 * * *\" x", "3:11: `0-99999/1` as the minute"),
    ("SCHEDULE \"0 0 8 * * *\" x", "3:11: a cron expression of 6 fields"),
    ("SCHEDULE \"\" x", "3:11: a cron expression of 0 fields"),
    ("SCHEDULE \"0 8 30 2 *\" x", "3:15: a schedule that never fires"),
    ("SCHEDULE \"0 8 31 4,6 *\" x", "3:15: a schedule that never fires"),
    ("SCHEDULE \"@reboot\" x", "3:11: unknown schedule `@reboot`"),
    ("SCHEDULE \"0 8 * * *\"", "3:21: SCHEDULE without a prompt"),
    ("SCHEDULE \"0 8 * * *\" TZ", "3:24: TZ without a time zone"),
    ("SCHEDULE \"0 8 * * *\" TZ UTC", "3:28: SCHEDULE without a prompt"),
    ("SCHEDULE \"0 8 * * *\" TZ Mars/Base x", "3:25: unknown time zone `Mars/Base`"),
    ("SCHEDULE \"0 8 * * *\" tz UTC x", "3:22: a time zone after `tz`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS x", "3:29: OPTIONS without an option"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS jitter=1m", "3:39: SCHEDULE without a prompt"),
    ("SCHEDULE \"0 8 * * *\" options jitter=1m x", "3:22: an option after `options`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS jiter=1m x", "3:30: unknown option `jiter`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS jitter=soon x", "3:37: a duration of `soon`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS overlap=wait x", "3:38: overlap of `wait`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS on-miss=twice x", "3:38: on-miss of `twice`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS within=30s x", "3:37: within of `30s`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS within=1h within=2h x", "3:40: `within` is given twice"),
    (
        "SCHEDULE \"0 8 * * *\" OPTIONS on-miss=skip within=1h x",
        "3:50: `within` and `on-miss=skip`",
    ),
    ("SCHEDULE \"0 8 * * *\" OPTIONS on-miss=all x", "3:38: `on-miss=all` without `overlap=queue`"),
    ("SCHEDULE \"0 8 * * *\" OPTIONS jitter=1m TZ UTC x", "3:40: a time zone after OPTIONS"),
    ("SKILL ~/x", "3:7: a path that a shell would expand"),
    ("SKILL $HOME/x", "3:7: a path that a shell would expand"),
    ("SKILL \"\"", "3:7: an empty path"),
    ("SKILL a\nSKILL ./a", "4:7: SKILL `/fleet/a` is given twice"),
    ("SANCTUM data", "3:13: SANCTUM without a path in the container"),
    ("SANCTUM :/data", "3:9: SANCTUM without a folder on the host"),
    ("SANCTUM data:data", "3:14: `data` is not absolute"),
    ("SANCTUM data:/", "3:14: the container's root as a sanctum"),
    ("SANCTUM data:/a/../b", "3:14: a path with `..`"),
    ("SANCTUM data:/data:or", "3:20: unknown mode `or`"),
    ("SANCTUM data:/data share", "3:20: unknown word `share`"),
    ("SANCTUM a:/b:ro:c", "3:9: SANCTUM with too many `:`"),
    ("SANCTUM a:/x\nSANCTUM b:/x/", "4:11: the folder `/x` is given twice"),
    ("WORKER []", "3:8: WORKER without a program"),
    ("WORKER [\"\"]", "3:8: WORKER with an empty program"),
    ("WORKER [\"a\", 1]", "3:14: a malformed WORKER"),
    ("WORKER [\"a\"", "3:11: a malformed WORKER"),
    ("WORKER [\"a\"] b", "3:14: a malformed WORKER"),
    ("WORKER [\"a\\u0000\"]", "3:8: a NUL in WORKER"),
    ("WORKER cat <<E\nx\nE", "3:12: WORKER takes no heredoc"),
    ("IMAGE Python:3", "3:7: `Python:3` is not an image"),
    ("IMAGE a b", "3:9: IMAGE takes one word"),
    ("IMAGE a@sha256:1", "3:7: `a@sha256:1` is not an image"),
    ("ENV A", "3:5: ENV without `=`"),
    ("ENV A = b", "3:5: ENV without `=`"),
    ("ENV =b", "3:5: ENV without a name"),
    ("ENV A= b", "3:7: a space after `=`"),
    ("ENV A=b c", "3:9: ENV with more than one value"),
    ("ENV A=b C=d", "3:9: ENV with more than one value"),
    ("ENV 1A=b", "3:5: `1A` cannot name a variable"),
    ("ENV Ä=b", "3:5: `Ä` cannot name a variable"),
    ("ENV MOZART_DIR=b", "3:5: `MOZART_DIR` is reserved for Mozart"),
    ("ENV A=\"b", "3:7: a malformed quoted value"),
    ("ENV A='b'c'", "3:7: a malformed quoted value"),
    ("ENV A=\"\\u0000\"", "3:7: a NUL in a quoted value"),
    ("ENV A=1\nENV A=2", "4:5: the variable `A` is given twice"),
    ("ENV A=1\nSECRET A", "4:8: the variable `A` is given twice"),
    ("SECRET A=b", "3:8: SECRET with a value"),
    ("SECRET A B", "3:10: SECRET with more than one name"),
    ("SECRET MOZART_KEY", "3:8: `MOZART_KEY` is reserved for Mozart"),
    ("LIMIT memory=512mb", "3:14: memory of `512mb`"),
    ("LIMIT memory=1k", "3:14: memory of `1k`"),
    ("LIMIT memory=18446744073709551615g", "3:14: memory of `18446744073709551615g`"),
    ("LIMIT cpus=0", "3:12: cpus of `0`"),
    ("LIMIT cpus=-1", "3:12: cpus of `-1`"),
    ("LIMIT cpus=0.0001", "3:12: cpus of `0.0001`"),
    ("LIMIT cpus=1. pids=1", "3:12: cpus of `1.`"),
    ("LIMIT pids=5000000", "3:12: pids of `5000000`"),
    ("LIMIT memory=", "3:14: `memory` without a value"),
    ("LIMIT memory", "3:7: `memory` is not an option"),
    ("LIMIT pids=1 pids=2", "3:14: `pids` is given twice"),
    ("LIMIT pids=1 # one", "3:14: `#` is not an option"),
    ("CONCURRENCY 0", "3:13: CONCURRENCY of `0`"),
    ("CONCURRENCY 1001", "3:13: CONCURRENCY of `1001`"),
    ("CONCURRENCY +1", "3:13: CONCURRENCY of `+1`"),
    ("CONCURRENCY 1 2", "3:15: CONCURRENCY takes one word"),
    ("ATTEMPTS 101", "3:10: ATTEMPTS of `101`"),
    ("ATTEMPTS three", "3:10: ATTEMPTS of `three`"),
    ("TIMEOUT turn=10", "3:14: a duration of `10`"),
    ("TIMEOUT turn=10M", "3:14: a duration of `10M`"),
    ("TIMEOUT drain=0s", "3:15: a duration of `0s`"),
    ("TIMEOUT ready=24h1s", "3:15: a duration of `24h1s`"),
    ("TIMEOUT ready=1us", "3:15: a duration of `1us`"),
    ("TIMEOUT turn = 10m", "3:14: a space next to `=`"),
    ("TIMEOUT trun=10m", "3:9: unknown option `trun`"),
    ("KEEP history=30", "3:14: a time of `30`"),
    ("KEEP logs=11y", "3:11: a time of `11y`"),
    ("KEEP logs=-1d", "3:11: a time of `-1d`"),
    ("KEEP histroy=1d", "3:6: unknown option `histroy`"),
    ("KEEP history=1d history=2d", "3:17: `history` is given twice"),
    ("RESTART alway", "3:9: unknown restart policy `alway`"),
    ("RESTART max=3 always", "3:15: `always` is not an option"),
    ("RESTART max=x/10m", "3:13: max of `x`"),
    ("RESTART max=10/", "3:16: a duration of ``"),
    ("RESTART backoff=60s..1s", "3:17: a backoff that shrinks"),
    ("RESTART backoff=1s..", "3:21: a duration of ``"),
    ("REPLACE startfirst", "3:9: unknown way to replace `startfirst`"),
    ("LABEL a", "3:7: LABEL without `=`"),
    ("LABEL -a=b", "3:7: LABEL of the name `-a`"),
    ("LABEL a=b\nLABEL a=c", "4:7: LABEL `a` is given twice"),
    ("LABEL a=\"b\\n\"", "3:9: LABEL with a value that no node can have"),
    ("REQUIRE zone=eu # x", "3:17: REQUIRE with more than one value"),
    ("LIMIT pids=1\nLIMIT cpus=1", "4:1: LIMIT is given twice"),
    ("VERSION 1", "3:1: unknown instruction `VERSION`"),
];

#[test]
fn lines() {
    for (bad, expected) in LINES {
        assert_eq!(line(bad), [*expected], "{bad:?}");
    }
}

#[test]
fn what_was_meant() {
    let help = |line: &str| {
        let errors = soul(&format!("MODEL m\nSOUL s\n{line}")).expect_err(line);
        errors.problems()[0].help.clone().unwrap_or_default()
    };
    for (bad, meant) in [
        ("CONCURENCY 4", "CONCURRENCY"),
        ("ENVIRONMENT A=b", ""),
        ("LIMIT mem=1g", ""),
        ("LIMIT memroy=1g", "memory"),
        ("LIMIT memory=512MiB", "512m"),
        ("TIMEOUT turn=10", "10s"),
        ("KEEP history=30", "30d"),
        ("TIMEOUT turn=10M", "10m"),
        ("RESTART onfailure", "on-failure"),
        ("RESTART Always", "always"),
        ("REPLACE stop_first", "stop-first"),
        ("SCHEDULE \"@Hourly\" x", "@hourly"),
        ("SCHEDULE \"0 8 * * *\" TZ America/NewYork x", "America/New_York"),
        ("SCHEDULE \"0 8 * * *\" TZ new_york x", "America/New_York"),
        ("SANCTUM a:/a:RO", "ro"),
        ("IMAGE Python:3", "python:3"),
        ("ENV A b", "A=b"),
    ] {
        let expected =
            if meant.is_empty() { String::new() } else { format!("did you mean `{meant}`?") };
        let help = help(bad);
        assert!(
            help.starts_with(&expected) && help.is_empty() == meant.is_empty(),
            "{bad}: {help}"
        );
    }
}
