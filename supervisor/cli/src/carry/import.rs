//! `mozart import`.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use common::AgentName;
use common::api::{AgentDetail, ApiError, Query, Reply, SoulSource};
use common::spec::AgentSpec;
use common::words::count;
use serde::Serialize;

use super::check::{self, Checked};
use super::manifest::Image;
use super::restore::{self, Restored};
use super::slice::{self, Slice};
use super::unpack::Draft;
use super::{progress, soul};
use crate::args::{Global, Runtime};
use crate::client::{Client, unexpected};
use crate::{files, output};
use broker::Attempt as _;
use common::failure;
use runtime::Wanted;
use runtime::engine::Connection;
use runtime::home::Home;

/// `mozart import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The archive, or - for stdin
    file: PathBuf,
    /// The folder for its soul, SANCTUMs and SKILLs; it must be new or empty [default: ./AGENT]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Import it under another name
    #[arg(long, value_name = "NAME")]
    name: Option<AgentName>,
    /// Apply its soul, which starts the agent; this is the default
    #[arg(long, overrides_with = "no_start")]
    start: bool,
    /// Do not apply its soul; use `mozart apply` later
    #[arg(long)]
    no_start: bool,
    /// Accept links that point outside their folder
    #[arg(long)]
    links: bool,
    /// The engine that loads the archive's image: docker, podman, or auto for the first one that answers
    #[arg(
        long,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        env = "MOZART_RUNTIME",
        value_name = "ENGINE"
    )]
    runtime: Runtime,
}

impl ImportArgs {
    fn is_started(&self) -> bool {
        self.start || !self.no_start
    }
}

/// What was imported, in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Imported<'a> {
    agent: &'a AgentName,
    folder: &'a Path,
    soul: &'a Path,
    /// Messages that were not there before.
    messages: u64,
    open: u64,
    dead_letters: u64,
    started: bool,
    /// False: all of it was there already.
    changed: bool,
}

/// An archive, and where it is to go.
struct Import {
    what: String,
    file: File,
    checked: Checked,
    name: AgentName,
    folder: PathBuf,
    soul: PathBuf,
    spec: AgentSpec,
}

/// Imports an agent from an archive into this fleet.
///
/// The order matters: final states are stored before anything could run the messages, and the agent is registered last.
///
/// # Errors
/// 2 for an invalid archive, 4 when another agent has the name, its messages or the folder, 9 when there is no
/// space. The error says what has been done, and what is left to do.
pub(crate) async fn import(global: &Global, args: &ImportArgs) -> Result<u8, ApiError> {
    let import = Import::read(args).await?;
    let client = Client::connect(global).await?;
    let home = Home::locate(global.home.as_deref())?;
    if import.is_there(&client).await? {
        output::note(format!("{}: everything is already here", import.name));
        return import.report(&client, Restored::default(), false, false);
    }
    let is_placed = import.is_placed()?;
    let engine = import.check_image(args).await?;

    let mut done = Vec::new();
    if let (Some(engine), Some(range)) = (engine, import.checked.image) {
        let slice = Slice::new(&import.file, range)
            .map_err(|error| failure::file(&import.what, &error, ""))?;
        engine.load(slice.stream()).await.map_err(|cause| {
            let kind = engine.kind.as_str();
            let what = format!("{}: {kind} cannot load its image", import.what);
            failure::error(failure::FAILED, what, cause, format!("`{kind} info`"))
        })?;
        done.push("its image is loaded".to_owned());
    }
    let counts = import.checked.manifest.counts;
    let mut draft = None;
    if is_placed {
        let folder = import.folder.display();
        output::note(format!("its folders are already in {folder}, and are left unchanged"));
    } else {
        let bar = progress(counts.bytes, "unpacking");
        let unpacked = import.unpack(&bar).await;
        bar.finish_and_clear();
        draft = Some(unpacked.map_err(|error| so_far(error, &done, "run it again"))?);
    }

    let bar = progress(counts.messages, "restoring messages");
    let broker = &client.broker;
    let restored =
        restore::restore(broker, &import.name, &import.file, &import.checked, &bar).await;
    bar.finish_and_clear();
    let restored = restored.map_err(|error| {
        done.push("some of its messages are in the journal, where they do no harm".to_owned());
        so_far(error, &done, "run it again; it continues from there")
    })?;
    done.push(format!("restored: {}", count(restored.messages, "message", "messages")));
    if let Some(mut draft) = draft {
        let placed = draft.place(&import.folder);
        placed.map_err(|error| so_far(error, &done, "run it again"))?;
    }
    done.push(format!("its folders are in {}", import.folder.display()));
    if args.is_started() {
        import.apply(&client, &home).await.map_err(|error| {
            let left = format!("`mozart apply {}`", import.soul.display());
            so_far(error, &done, &left)
        })?;
    }
    import.report(&client, restored, true, args.is_started())
}

/// An error, with what had been done before it, and what is left.
fn so_far(mut error: ApiError, done: &[String], left: &str) -> ApiError {
    if !done.is_empty() {
        error.cause = format!("{}; done so far: {}", error.cause, done.join(", "));
        error.try_ = match error.try_.is_empty() {
            true => left.to_owned(),
            false => format!("{}; then {left}", error.try_),
        };
    }
    error
}

impl Import {
    /// Reads and checks an archive, and looks where it is to go. Nothing is done yet.
    async fn read(args: &ImportArgs) -> Result<Self, ApiError> {
        let shown = if args.file.as_os_str() == "-" {
            "stdin".into()
        } else {
            runtime::home::reaches(&args.file)?;
            args.file.display().to_string()
        };
        let what = format!("cannot import {shown}");
        let file = slice::open(&args.file, &what, "mozart export AGENT").await?;
        let refused = |cause: String| {
            let try_ = match cause.as_str() {
                check::NONE => "name a file that `mozart export` has written",
                cause if cause.contains("points outside its folder") => {
                    "--links, if you trust the archive"
                }
                _ => "`mozart export` it again",
            };
            failure::error(failure::USAGE, &what, cause, try_)
        };
        let checked = check::check(&file, args.links).await.map_err(refused)?;
        let name = args.name.clone().unwrap_or_else(|| checked.manifest.agent.clone());
        let folder = args.to.clone().unwrap_or_else(|| PathBuf::from(name.as_str()));
        let folder = std::path::absolute(&folder).map_err(|error| {
            failure::file(format!("{what}: {}", folder.display()), &error, "--to DIR")
        })?;
        // Without links: containers are given the real one.
        let folder = runtime::home::real(folder);
        let soul = folder.join(format!("{name}.soul"));
        let spec = soul::placed(&name, &folder, &soul, &checked.soul).map_err(refused)?;
        let named = checked.manifest.image.as_ref().map(|image| &image.reference);
        if spec.image.as_ref() != named {
            return Err(refused("its soul and its manifest name different images".to_owned()));
        }
        Ok(Self { what, file, checked, name, folder, soul, spec })
    }

    /// Whether the agent is here already, with all that the archive has of it.
    async fn is_there(&self, client: &Client) -> Result<bool, ApiError> {
        let conflict = |cause: String| {
            failure::error(
                failure::CONFLICT,
                &self.what,
                cause,
                "--name NEW, or `mozart rm` of that one",
            )
        };
        let known = known(client, &self.name).await?;
        let count = client.broker.count_messages(&self.name).await.attempt(&self.what)?;
        if known.is_none() && count == 0 {
            return Ok(false);
        }
        let another = || conflict(format!("there is another agent {}", self.name));
        // What the files were when it was applied is no part of an archive's soul.
        let soul =
            |known: &AgentDetail| AgentSpec { content: None, files: None, ..known.config.clone() };
        if known.as_ref().is_some_and(|known| soul(known) != self.spec) {
            return Err(another());
        }
        let compared =
            restore::compare(&client.broker, &self.name, &self.file, &self.checked).await?;
        if let Some(id) = compared.conflict {
            return Err(conflict(format!(
                "the journal has another message {id} of an agent {}, or another answer to it",
                self.name
            )));
        }
        if known.is_none() {
            // What a removed agent has left would be the imported one's, and what was open of it would be answered.
            if count > compared.requests {
                let cause = format!(
                    "the journal has messages of an agent {} that are not in the archive",
                    self.name
                );
                return Err(failure::error(failure::CONFLICT, &self.what, cause, "--name NEW"));
            }
            return Ok(false);
        }
        if compared.missing {
            return Err(another());
        }
        Ok(true)
    }

    /// Whether the folder is already the one from this archive: it gets its name once it is complete. False: it is to be created.
    fn is_placed(&self) -> Result<bool, ApiError> {
        let what = || format!("{}: {}", self.what, self.folder.display());
        match std::fs::read_dir(&self.folder) {
            Ok(mut entries) => match entries.next() {
                None => Ok(false),
                Some(_) if holds(&self.soul, &self.checked.soul) => Ok(true),
                Some(_) => {
                    let cause = "the folder is not empty";
                    Err(failure::error(
                        failure::CONFLICT,
                        what(),
                        cause,
                        "--to DIR for another one",
                    ))
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                let try_ = "--to DIR for another one";
                Err(failure::error(failure::CONFLICT, what(), "it is not a folder", try_))
            }
            Err(error) => Err(failure::file(what(), &error, "--to DIR for another one")),
        }
    }

    /// The engine that is to take the archive's image; none where there is nothing to take.
    async fn check_image(&self, args: &ImportArgs) -> Result<Option<Connection>, ApiError> {
        let Some(Image { reference, id, included, .. }) = &self.checked.manifest.image else {
            return Ok(None);
        };
        let wanted = match args.runtime.wanted() {
            Wanted::Process => Wanted::Auto,
            wanted @ (Wanted::Auto | Wanted::Docker | Wanted::Podman) => wanted,
        };
        let engine = Connection::find(wanted).await?;
        let found = match &engine {
            Some(engine) => engine.find_image(reference).await.map_err(|cause| {
                let try_ = format!("`{} images`", engine.kind.as_str());
                failure::error(failure::UNREACHABLE, &self.what, cause, try_)
            })?,
            None => None,
        };
        match (found, engine) {
            (Some(found), Some(engine)) if *included && Some(&found.id) != id.as_ref() => {
                let cause = format!(
                    "{} has another image with the name {reference}, which would lose that name",
                    engine.kind.as_str()
                );
                let try_ = format!(
                    "`{kind} tag {reference} OTHER`, `{kind} rmi {reference}`",
                    kind = engine.kind.as_str()
                );
                Err(failure::error(failure::CONFLICT, &self.what, cause, try_))
            }
            (Some(_), _) => Ok(None),
            (None, Some(engine)) if *included => Ok(Some(engine)),
            (None, None) if *included => {
                let cause = "its image is in the archive, and no container engine answers here";
                let try_ =
                    "start docker or podman; or name its socket in DOCKER_HOST or CONTAINER_HOST";
                Err(failure::error(failure::UNREACHABLE, &self.what, cause, try_))
            }
            (None, _) => {
                output::note(format!(
                    "the image {reference} is not in the archive: the node pulls it when the agent starts"
                ));
                Ok(None)
            }
        }
    }

    async fn unpack(&self, bar: &indicatif::ProgressBar) -> Result<Draft, ApiError> {
        if let Some(above) = self.folder.parent() {
            std::fs::create_dir_all(above)
                .map_err(|error| failure::file(&self.what, &error, "--to DIR"))?;
        }
        let mut draft = Draft::beside(&self.folder)?;
        // First: nothing is written through a link of theirs that is not theirs.
        if let Some(range) = self.checked.files {
            let slice = Slice::new(&self.file, range);
            let slice = slice.map_err(|error| failure::file(&self.what, &error, ""))?;
            draft.files(slice)?;
        }
        draft.file(&format!("{}.soul", self.name), &self.checked.soul)?;
        draft.unpack(&self.file, bar).await?;
        Ok(draft)
    }

    async fn apply(&self, client: &Client, home: &Home) -> Result<(), ApiError> {
        let mut souls = [SoulSource {
            name: self.name.clone(),
            path: self.soul.display().to_string(),
            text: self.checked.soul.clone(),
            content: None,
            files: None,
        }];
        files::store(&client.broker, &mut souls, home).await?;
        client.change(&Query::Apply { souls: souls.into(), force: false }).await.map(|_| ())
    }

    fn report(
        &self,
        client: &Client,
        restored: Restored,
        changed: bool,
        started: bool,
    ) -> Result<u8, ApiError> {
        let open = self.checked.manifest.counts.open;
        if changed && !self.spec.secrets.is_empty() {
            let names = self.spec.secrets.join(", ");
            output::note(format!("it needs {names} in the environment of the node that runs it"));
        }
        if changed && !started {
            output::note(format!("`mozart apply {}` starts it", self.soul.display()));
        }
        if client.json() {
            output::json(&Imported {
                agent: &self.name,
                folder: &self.folder,
                soul: &self.soul,
                messages: restored.messages,
                open,
                dead_letters: restored.dead_letters,
                started,
                changed,
            })?;
        } else {
            output::note(format!(
                "{}: {} ({open} open), {}, in {}",
                self.name,
                count(restored.messages, "message", "messages"),
                count(restored.dead_letters, "dead letter", "dead letters"),
                self.folder.display()
            ));
            let written = output::line(self.name.as_str());
            output::result(written, || format!("{} was imported", self.name))?;
        }
        Ok(0)
    }
}

/// Whether a file holds this text, and nothing else.
fn holds(path: &Path, text: &str) -> bool {
    let is_as_long = path.metadata().is_ok_and(|it| it.is_file() && it.len() == text.len() as u64);
    is_as_long && std::fs::read(path).is_ok_and(|there| there == text.as_bytes())
}

/// The agent as the fleet knows it; none if it does not.
async fn known(client: &Client, agent: &AgentName) -> Result<Option<AgentDetail>, ApiError> {
    match client.ask(&Query::Inspect { agent: agent.clone() }).await {
        Ok(Reply::Inspect(detail)) => Ok(Some(*detail)),
        Ok(other) => Err(unexpected(&other)),
        Err(error) if error.code == failure::NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}
