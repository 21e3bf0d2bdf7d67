//! `mozart validate` and `mozart apply`: from files to souls.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use common::AgentName;
use common::api::{ApiError, Applied, Query, SoulSource};
use common::soul::{self, SoulErrors, SoulProblem};
use common::spec::AgentSpec;
use miette::{GraphicalReportHandler, GraphicalTheme};
use runtime::home::Home;
use serde::Serialize;

use super::client::{Client, now};
use super::schedule::Upcoming;
use super::start::wait_running;
use super::{content, diff, files, hints, output, table};
use crate::args::{Global, Output, duration};
use common::failure;

/// `mozart validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Soul files, or folders with `<agent>.soul` or `<agent>/agent.soul`
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

/// `mozart apply`.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    /// Soul files, or folders with `<agent>.soul` or `<agent>/agent.soul`
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Create new generations even if nothing changed
    #[arg(long)]
    force: bool,
    /// Show what would change, and change nothing
    #[arg(long, conflicts_with_all = ["wait", "force"])]
    diff: bool,
    /// Remove agents that were applied from these folders but no longer have a soul there
    #[arg(long)]
    prune: bool,
    /// Wait until these generations are running
    #[arg(long)]
    wait: bool,
    /// How long --wait waits
    #[arg(long, default_value = "60s", value_parser = duration, value_name = "TIME", requires = "wait")]
    timeout: Duration,
}

/// What `validate` says about one file in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Verdict<'a> {
    path: &'a Path,
    agent: &'a AgentName,
    valid: bool,
    problems: &'a [SoulProblem],
    warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    spec: Option<&'a AgentSpec>,
    schedules: Vec<Upcoming>,
}

/// A file that was read and parsed.
struct Read {
    path: PathBuf,
    name: AgentName,
    bytes: Vec<u8>,
    parsed: Result<AgentSpec, Box<SoulErrors>>,
}

impl Read {
    /// What it says that will not do what its author may expect.
    fn warnings(&self) -> Vec<String> {
        self.parsed.as_ref().map_or(Vec::new(), |spec| hints::of(spec, Path::exists))
    }
}

impl Read {
    /// When its schedules run next, by this machine's clock.
    fn schedules(&self) -> Vec<Upcoming> {
        let schedules = self.parsed.as_ref().map_or(&[][..], |spec| &spec.schedule);
        schedules.iter().filter_map(|one| Upcoming::of(one, now())).collect()
    }
}

/// Checks souls without any connection.
///
/// # Errors
/// 2 when one is invalid.
pub(crate) fn validate(global: &Global, args: &ValidateArgs) -> Result<u8, ApiError> {
    let souls = read(&args.paths)?;
    if global.output == Output::Json {
        let verdicts: Vec<Verdict<'_>> = souls.iter().map(verdict).collect();
        output::json(&verdicts)?;
    }
    check(&souls, global.output)?;
    if global.output == Output::Table {
        let cells = |soul: &Read| vec![soul.name.to_string(), soul.path.display().to_string()];
        output::line(table::table(&["AGENT", "SOUL"], souls.iter().map(cells)))?;
        for soul in &souls {
            for upcoming in soul.schedules() {
                output::line(upcoming.lines(&soul.name))?;
            }
        }
    }
    Ok(0)
}

/// Registers souls: all of them, or none if one is invalid.
///
/// # Errors
/// 2 when one is invalid, 6 when no supervisor answers.
pub(crate) async fn apply(global: &Global, args: &ApplyArgs) -> Result<u8, ApiError> {
    let mut souls = load(&args.paths, global.output)?;
    let home = Home::locate(global.home.as_deref())?;
    let client = Client::connect(global).await?;
    let pruned = match args.prune {
        true => diff::left_out(&client, &args.paths, &souls).await?,
        false => Vec::new(),
    };
    if args.diff {
        diff::show(&client, &souls, &pruned, &home).await?;
        return Ok(0);
    }
    client.lasts().await?;
    if let Err(error) = files::store(&client.broker, &mut souls, &home).await {
        return Err(client.unless_full(error).await);
    }
    let mut applied = Vec::new();
    for souls in batches(souls) {
        applied.extend(client.change(&Query::Apply { souls, force: args.force }).await?);
    }
    let mut removed = Vec::new();
    for agent in pruned {
        removed.extend(client.change(&Query::Remove { agent }).await?);
    }
    let all: Vec<&Applied> = applied.iter().chain(&removed).collect();
    let written = match client.json() {
        true => output::json(&all),
        false => output::line(render(&applied, &removed)),
    };
    output::result(written, || {
        format!("{} applied", table::count(all.len() as u64, "soul was", "souls were"))
    })?;
    if args.wait {
        let agents: Vec<AgentName> = applied.into_iter().map(|one| one.agent).collect();
        wait_running(&client, &agents, args.timeout).await?;
    }
    Ok(0)
}

/// Reads and checks souls.
///
/// # Errors
/// 2 when one is invalid; each problem is shown.
pub(crate) fn load(paths: &[PathBuf], output: Output) -> Result<Vec<SoulSource>, ApiError> {
    let souls = read(paths)?;
    check(&souls, output)?;
    Ok(souls.into_iter().map(source).collect())
}

/// Splits souls into requests that fit the broker.
pub(crate) fn batches(souls: Vec<SoulSource>) -> Vec<Vec<SoulSource>> {
    /// In bytes on the wire; the largest soul has less than twice as many.
    const ROOM: usize = 400 << 10;
    let mut batches: Vec<Vec<SoulSource>> = Vec::new();
    let mut left = 0;
    for soul in souls {
        let size = serde_json::to_vec(&soul).map_or(ROOM, |bytes| bytes.len());
        match batches.last_mut().filter(|_| size <= left) {
            Some(batch) => {
                left -= size;
                batch.push(soul);
            }
            None => {
                left = ROOM.saturating_sub(size);
                batches.push(vec![soul]);
            }
        }
    }
    batches
}

fn read(paths: &[PathBuf]) -> Result<Vec<Read>, ApiError> {
    let unreadable = |what: String, cause: String| {
        // What was expected is said once.
        let (what, cause, try_) = match what.split_once(": expected ") {
            Some((what, expected)) if cause.is_empty() => {
                let cause = format!("expected {expected}");
                (what.to_owned(), cause, "rename the file, or name the folder that it is in")
            }
            _ => (what, cause, "`<agent>.soul`, or a folder of them"),
        };
        failure::error(failure::USAGE, what, cause, try_)
    };
    paths.iter().try_for_each(|path| runtime::home::reaches(path))?;
    let found = soul::find(paths).map_err(|error| {
        let what = error.to_string();
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        // Some errors say their source themselves.
        let cause = cause.filter(|cause| !what.contains(cause.as_str())).unwrap_or_default();
        unreadable(what, cause)
    })?;
    let read_one = |path: PathBuf| {
        let path = std::path::absolute(&path).unwrap_or(path);
        let name = soul::name_from_path(&path)
            .map_err(|error| unreadable(error.to_string(), String::new()))?;
        let bytes = soul::read(&path).map_err(|cause| {
            unreadable(format!("cannot read {}", path.display()), cause.to_string())
        })?;
        let parsed = soul::parse_bytes(name.clone(), &path, &bytes);
        Ok(Read { path, name, bytes, parsed })
    };
    found.into_iter().map(read_one).collect()
}

/// Shows every problem of every soul.
fn check(souls: &[Read], output: Output) -> Result<(), ApiError> {
    let invalid: Vec<&SoulErrors> =
        souls.iter().filter_map(|soul| soul.parsed.as_ref().err().map(AsRef::as_ref)).collect();
    if output == Output::Table {
        for soul in souls {
            for warning in soul.warnings() {
                output::note(format!("warning: {}: {warning}", soul.path.display()));
            }
        }
    }
    if invalid.is_empty() {
        return Ok(());
    }
    if output == Output::Table {
        for errors in &invalid {
            report(errors);
        }
    }
    let problems: Vec<&SoulProblem> = invalid.iter().flat_map(|errors| errors.problems()).collect();
    let what = match invalid.len() {
        1 => "the soul is invalid".to_owned(),
        many => format!("{many} souls are invalid"),
    };
    let first = problems
        .first()
        .map(|problem| format!("{}:{}:{}: {problem}", problem.file, problem.line, problem.column));
    let cause = match problems.len() {
        1 => first.unwrap_or_default(),
        many => format!("{many} problems, the first {}", first.unwrap_or_default()),
    };
    Err(failure::error(failure::USAGE, what, cause, "correct it, then `mozart validate`"))
}

/// Shows a file's problems: drawn on a terminal, plain elsewhere.
fn report(errors: &SoulErrors) {
    let plain = errors.plain();
    // What is drawn quotes the soul as it is.
    if !output::stderr_is_terminal() || matches!(output::shown(errors.text()), Cow::Owned(_)) {
        return output::note(plain);
    }
    let theme = if output::colour() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let mut drawn = String::new();
    match GraphicalReportHandler::new_themed(theme).render_report(&mut drawn, errors) {
        Ok(()) => output::drawing(&drawn),
        Err(_) => output::note(plain),
    }
}

fn verdict(soul: &Read) -> Verdict<'_> {
    Verdict {
        path: &soul.path,
        agent: &soul.name,
        valid: soul.parsed.is_ok(),
        problems: soul.parsed.as_ref().err().map_or(&[], |errors| errors.problems()),
        warnings: soul.warnings(),
        spec: soul.parsed.as_ref().ok(),
        schedules: soul.schedules(),
    }
}

fn source(soul: Read) -> SoulSource {
    SoulSource {
        name: soul.name,
        path: soul.path.display().to_string(),
        // What parses is UTF-8.
        text: String::from_utf8_lossy(&soul.bytes).into_owned(),
        content: soul.parsed.as_ref().ok().and_then(content::digest),
        files: None,
    }
}

/// What became of an agent that was applied.
pub(crate) fn result(applied: &Applied) -> &'static str {
    match applied {
        Applied { created: true, .. } => "created",
        Applied { changed: true, .. } => "changed",
        Applied { .. } => "unchanged",
    }
}

fn render(applied: &[Applied], removed: &[Applied]) -> String {
    let cells = |one: &Applied, what: &str| {
        vec![one.agent.to_string(), one.generation.to_string(), what.to_owned()]
    };
    let applied = applied.iter().map(|one| cells(one, result(one)));
    let removed = removed.iter().map(|one| cells(one, "removed"));
    table::table(&["AGENT", "GEN", "RESULT"], applied.chain(removed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(folder: &Path, name: &str, text: &[u8]) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).expect("written");
        path
    }

    #[test]
    fn every_invalid_soul_is_counted_and_the_first_problem_named() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        write(temp.path(), "good.soul", b"MODEL test/model\nSOUL test agent\n");
        write(temp.path(), "bad.soul", b"MODL test/model\n");
        write(temp.path(), "worse.soul", b"\xff\xfe");
        let souls = read(&[temp.path().to_owned()]).expect("all are read");
        let error = check(&souls, Output::Json).expect_err("two are invalid");
        assert_eq!((error.code, error.what.as_str()), (2, "2 souls are invalid"));
        assert!(error.cause.contains("bad.soul:1:1: "), "{}", error.cause);
        assert_eq!(souls.iter().filter(|soul| verdict(soul).valid).count(), 1);
    }

    #[test]
    fn many_souls_are_several_requests() {
        let soul = |text: &str| SoulSource {
            name: AgentName::new("a").expect("valid"),
            path: "/a.soul".to_owned(),
            text: text.to_owned(),
            content: None,
            files: None,
        };
        let sizes = |souls| batches(souls).iter().map(Vec::len).collect::<Vec<_>>();
        assert!(sizes(Vec::new()).is_empty());
        let quarter = "x".repeat(100 << 10);
        assert_eq!(sizes(vec![soul(&quarter); 7]), [3, 3, 1]);
        let large = "\"".repeat(256 << 10);
        assert_eq!(sizes(vec![soul("x"), soul(&large), soul("x"), soul("x")]), [1, 1, 2]);
    }

    #[test]
    fn a_pipe_named_like_a_soul_is_refused_and_not_awaited() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let pipe = temp.path().join("pipe.soul");
        let made = rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR);
        made.expect("the file system has pipes");
        let error = read(&[pipe]).err().expect("not a file");
        assert_eq!((error.code, error.cause.as_str()), (2, "it is not a regular file"));
    }

    #[test]
    fn paths_that_are_no_souls_are_wrong_usage() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let missing = temp.path().join("missing.soul");
        let text = write(temp.path(), "notes.txt", b"x");
        for path in [missing, text, temp.path().to_owned()] {
            let error = read(std::slice::from_ref(&path)).err().expect("not a soul");
            assert_eq!(error.code, 2, "{}", path.display());
        }
    }
}
