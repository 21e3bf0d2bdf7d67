//! The text after each keyword.

mod life;
mod options;
mod place;
mod process;
mod schedule;
mod value;
mod voice;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::keyword::Keyword;
use super::lines::{Heredoc, Instruction};
use super::source::{Checked, Problem, Problems, Span};
use super::text::{Part, Text};
use crate::AgentName;
use crate::spec::AgentSpec;

pub(super) use place::clean;

/// Reads an image's reference as `IMAGE` does.
///
/// # Errors
/// What is wrong with it, and what was probably meant.
pub fn image(text: &str) -> Result<String, String> {
    let mut whole = Text::at(0);
    whole.push_line(text, 0);
    process::image(whole.whole()).map_err(|problem| problem.plain())
}

/// What the instructions fill, and what they need to know of each other.
pub(super) struct Context {
    pub(super) spec: AgentSpec,
    /// The folder that relative paths are taken from.
    folder: PathBuf,
    /// Where each name of a kind was first given, such as `SECRET` `TOKEN`.
    names: BTreeMap<(&'static str, String), Span>,
}

impl Context {
    pub(super) fn new(name: AgentName, path: &Path) -> Self {
        let path = place::clean(path);
        let mut spec = AgentSpec::new(name, "", "");
        spec.source_path = path.to_string_lossy().into_owned();
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        Self { spec, folder, names: BTreeMap::new() }
    }

    /// Notes a name that may be given once.
    fn once(&mut self, kind: &'static str, name: &str, at: Part<'_>) -> Checked<()> {
        self.once_of(kind, name.to_owned(), Some(name), at)
    }

    /// The same, where the name is `shown`, or says nothing to people.
    fn once_of(
        &mut self,
        kind: &'static str,
        name: String,
        shown: Option<&str>,
        at: Part<'_>,
    ) -> Checked<()> {
        let key = (kind, name);
        if let Some(first) = self.names.get(&key) {
            let what = shown.map(super::suggest::quoted);
            let what = what.as_deref().unwrap_or("with this cron expression, zone and prompt");
            return Err(Problem::new(
                at.span(),
                format!("{kind} {what} is given twice"),
                "expected each one once",
            )
            .also(first.clone(), "first given"));
        }
        self.names.insert(key, at.span());
        Ok(())
    }
}

/// Reads one instruction into the spec.
pub(super) fn parse(
    context: &mut Context,
    keyword: Keyword,
    instruction: &Instruction,
    problems: &mut Problems<'_>,
) {
    let (word, rest) = instruction.text.whole().split_word();
    let heredoc = instruction.heredoc.as_ref();
    if let Some(heredoc) = heredoc.filter(|_| !keyword.takes_heredoc()) {
        problems.push(Problem::new(
            heredoc.opening.clone(),
            format!("{} takes no heredoc", keyword.word()),
            format!("expected `{}`", keyword.usage()),
        ));
        return;
    }
    if rest.is_empty() && heredoc.is_none() {
        problems.push(Problem::new(
            word.end().span(),
            format!("{} without a value", keyword.word()),
            format!("expected `{}`", keyword.usage()),
        ));
        return;
    }
    let done = one(context, keyword, rest, heredoc, problems);
    problems.take(done);
}

fn one(
    context: &mut Context,
    keyword: Keyword,
    rest: Part<'_>,
    heredoc: Option<&Heredoc>,
    problems: &mut Problems<'_>,
) -> Checked<()> {
    match keyword {
        Keyword::Model => context.spec.model = voice::model(rest)?,
        Keyword::Soul => context.spec.identity = voice::identity(rest, heredoc)?,
        Keyword::If => context.spec.if_then.push(voice::if_then(rest, heredoc)?),
        Keyword::Schedule => {
            let schedule = schedule::schedule(rest, heredoc, problems)?;
            if let Some(schedule) = schedule {
                // An occurrence exists once: the second one would never run.
                let content =
                    [&schedule.cron, schedule.tz.as_deref().unwrap_or("UTC"), &schedule.prompt];
                context.once_of("SCHEDULE", content.join("\0"), None, rest)?;
                context.spec.schedule.push(schedule);
            }
        }
        Keyword::Skill => {
            let path = place::skill(rest, &context.folder)?;
            context.once("SKILL", &path, rest)?;
            context.spec.skills.push(path);
        }
        Keyword::Sanctum => {
            let (sanctum, at) = place::sanctum(rest, &context.folder)?;
            context.once("the folder", &sanctum.path, at)?;
            context.spec.sanctums.push(sanctum);
        }
        Keyword::Worker => context.spec.worker = Some(process::worker(rest)?),
        Keyword::Image => context.spec.image = Some(process::image(rest)?),
        Keyword::Env => {
            let (name, value) = value::assignment(rest, keyword)?;
            process::check_variable(name)?;
            context.once("the variable", name.as_str(), name)?;
            context.spec.env.insert(name.as_str().to_owned(), value);
        }
        Keyword::Secret => {
            let name = process::secret(rest)?;
            context.once("the variable", name.as_str(), name)?;
            context.spec.secrets.push(name.as_str().to_owned());
        }
        Keyword::Limit => options::limit(rest, &mut context.spec.limits, problems),
        Keyword::Concurrency => context.spec.concurrency = value::number(rest, keyword, 1..=1000)?,
        Keyword::Attempts => life::attempts(rest, &mut context.spec, problems)?,
        Keyword::Timeout => options::timeout(rest, &mut context.spec.timeout, problems),
        Keyword::Restart => life::restart(rest, &mut context.spec.restart, problems),
        Keyword::Replace => context.spec.replace = Some(life::replace(rest)?),
        Keyword::Keep => options::keep(rest, &mut context.spec.keep, problems),
        Keyword::Memory => context.spec.memory = life::memory(rest)?,
        Keyword::Label => {
            let (name, value) = value::label(rest, keyword)?;
            context.once("LABEL", name.as_str(), name)?;
            context.spec.labels.insert(name.as_str().to_owned(), value);
        }
        Keyword::Require => {
            let (name, value) = value::label(rest, keyword)?;
            context.once("REQUIRE", name.as_str(), name)?;
            context.spec.require.insert(name.as_str().to_owned(), value);
        }
    }
    Ok(())
}
