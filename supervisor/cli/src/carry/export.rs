//! `mozart export`.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use broker::{Attempt as _, FilesFault};
use clap::Args;
use common::AgentName;
use common::api::{AgentDetail, AgentState, ApiError, Query, Reply};
use common::words::count;
use serde::Serialize;
use tokio::time::Instant;

use super::manifest::{Counts, FORMAT, Folder, Manifest};
use super::pack::Pack;
use super::soul::Carried;
use super::{Breath, image, journal, names, progress, soul};
use crate::args::Global;
use crate::client::{Client, now, unexpected};
use crate::outfile::{is_stdout, may_write};
use crate::output;
use common::failure;
use runtime::engine::own_data;
use runtime::home::Home;
use runtime::tree::{Entry, Kind, Tree, leads_out};

/// `mozart export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The agent; it must be stopped, unless --live is given
    agent: AgentName,
    /// The file to write, or - for stdout
    file: PathBuf,
    /// Include the image, even if a registry has it
    #[arg(long, conflicts_with = "without_image")]
    with_image: bool,
    /// Leave the image out, even if no registry has it
    #[arg(long)]
    without_image: bool,
    /// Export the agent while it runs; its SANCTUMs are then copied as they are, possibly in the middle of a write
    #[arg(long)]
    live: bool,
    /// Overwrite FILE
    #[arg(long)]
    force: bool,
}

impl ExportArgs {
    fn wish(&self) -> image::Wish {
        match (self.with_image, self.without_image) {
            (true, _) => image::Wish::With,
            (_, true) => image::Wish::Without,
            (false, false) => image::Wish::IfNeeded,
        }
    }

    fn is_stdout(&self) -> bool {
        is_stdout(&self.file)
    }
}

/// What was exported, in JSON.
#[derive(Debug, Serialize)]
struct Exported<'a> {
    file: &'a Path,
    size: u64,
    #[serde(flatten)]
    manifest: &'a Manifest,
}

/// Writes an agent into an archive.
///
/// # Errors
/// 3 when there is no such agent, 4 when it runs or FILE is there, 9 when there is no room.
pub(crate) async fn export(global: &Global, args: &ExportArgs) -> Result<u8, ApiError> {
    let what = format!("cannot export {}", args.agent);
    may_write(&args.file, args.force, &what)?;
    let client = Client::to_read(global).await?;
    let detail = quiet(&client, args, &what).await?;
    let carried = soul::carried(detail.in_force())?;
    let files = files(&client, &detail).await?;
    warn_of_worker(&detail, files.is_some());
    let home = Home::locate(global.home.as_deref())?;
    let trees = roots(&what, &carried, &home, args)?;
    let image = match &detail.in_force().image {
        Some(reference) => Some(image::choose(&what, reference, args.wish()).await?),
        None if args.with_image => {
            let cause = "its soul names no IMAGE";
            return Err(failure::error(failure::USAGE, what, cause, "omit --with-image"));
        }
        None => None,
    };
    // The journal first: what an agent that runs does afterwards may be done again elsewhere, but is not forgotten.
    let aside = aside(args);
    let mut journal = journal::spool(&client.broker, &args.agent, &aside).await?;
    measure(&trees, &mut journal.counts).await?;
    let saved = match image.as_ref().and_then(|image| image.from.as_ref()) {
        Some((engine, found)) => {
            let reference = detail.in_force().image.as_deref().unwrap_or_default();
            Some(image::save(&what, engine, reference, found, &aside).await?)
        }
        None => None,
    };
    let manifest = Manifest {
        format: FORMAT,
        agent: args.agent.clone(),
        at: now(),
        mozart: env!("CARGO_PKG_VERSION").to_owned(),
        live: args.live,
        image: image.map(|image| image.note),
        sanctums: carried.sanctums,
        skills: carried.skills,
        secrets: detail.in_force().secrets.clone(),
        counts: journal.counts,
    };
    let beside = files.as_ref().map_or(0, |files| files.len() as u64);
    let total =
        manifest.counts.bytes + beside + journal.size + saved.as_ref().map_or(0, |(_, size)| *size);
    let bar = progress(total, "writing");
    let mut pack = match args.is_stdout() {
        true => Pack::to_stdout(bar),
        false => Pack::to_file(&args.file, args.force, bar)?,
    };
    let text = serde_json::to_vec_pretty(&manifest)
        .map_err(|error| failure::error(failure::FAILED, &what, error, ""))?;
    pack.bytes(super::MANIFEST, &text).await?;
    pack.bytes(super::SOUL, carried.text.as_bytes()).await?;
    pack.source(super::JOURNAL, &mut journal.file, journal.size).await?;
    if let Some(files) = files {
        pack.source(super::FILES, &mut &*files, files.len() as u64).await?;
    }
    for (archive, root) in &trees {
        write(&mut pack, archive, root).await?;
    }
    if let Some((mut file, size)) = saved {
        pack.source(super::IMAGE, &mut file, size).await?;
    }
    let size = pack.finish()?;
    report(&client, args, &manifest, size)
}

/// What is known of the agent, once it does not run.
async fn quiet(client: &Client, args: &ExportArgs, what: &str) -> Result<AgentDetail, ApiError> {
    /// A shim ends its worker and writes its last records after its drain time.
    const GRACE: Duration = Duration::from_secs(15);
    const AGAIN: Duration = Duration::from_millis(200);
    let agent = &args.agent;
    let mut until = None;
    loop {
        let reply = client.ask(&Query::Inspect { agent: agent.clone() }).await?;
        let Reply::Inspect(detail) = reply else { return Err(unexpected(&reply)) };
        if args.live {
            if detail.row.node.is_some() {
                output::note(
                    "warning: the agent is running: files may be copied in the middle of a write",
                );
            }
            return Ok(*detail);
        }
        let row = &detail.row;
        let is_stopping = !detail.desired_running && row.node.is_some();
        let until = *until.get_or_insert(Instant::now() + detail.in_force().timeout.drain + GRACE);
        if is_stopping && Instant::now() < until {
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        // In error without a next try it was put aside: it is not started by itself.
        let rests = match row.state {
            AgentState::Stopped => true,
            AgentState::Error => row.next_try.is_none(),
            AgentState::Starting | AgentState::Running | AgentState::Stopping => false,
        };
        if rests && row.node.is_none() {
            return Ok(*detail);
        }
        let cause = match is_stopping {
            true => "it is still stopping".to_owned(),
            false => format!("it is {}, and may still write to its files", row.state.as_str()),
        };
        let try_ = format!("`mozart stop {agent}`, or --live");
        return Err(failure::error(failure::CONFLICT, what, cause, try_));
    }
}

/// What is in the soul's folder, as it was applied; none if nothing of it is used.
async fn files(client: &Client, detail: &AgentDetail) -> Result<Option<Vec<u8>>, ApiError> {
    let Some(files) = &detail.in_force().files else { return Ok(None) };
    let what = format!("cannot read the files of {}", detail.id);
    match client.broker.read_files(files).await.attempt(&what)? {
        Ok(archive) => Ok(Some(archive)),
        Err(fault) => {
            let cause = match fault {
                FilesFault::Missing => "they are not on the broker".to_owned(),
                FilesFault::Damaged(why) => why,
            };
            Err(failure::error(failure::FAILED, what, cause, "`mozart apply` its soul"))
        }
    }
}

/// A worker's program is in its image, or beside its soul. As a process it may be anywhere else.
fn warn_of_worker(detail: &AgentDetail, has_files: bool) {
    let config = detail.in_force();
    if let (None, Some(worker)) = (&config.image, &config.worker) {
        let folder = Path::new(&config.source_path).parent().unwrap_or(Path::new("/"));
        let is_there = |word: &String| has_files && !Path::new(word).starts_with(folder);
        if worker.iter().all(is_there) {
            return;
        }
        let folder = folder.display();
        output::note(format!(
            "warning: neither the program of WORKER {worker:?} nor {folder}, where it starts, is in the archive: copy it next to the soul"
        ));
    }
}

/// The folders and files to take along, each once, with their names within the archive.
fn roots(
    what: &str,
    carried: &Carried,
    home: &Home,
    args: &ExportArgs,
) -> Result<Vec<(String, PathBuf)>, ApiError> {
    let mut roots: Vec<(String, PathBuf)> = Vec::new();
    let target = std::path::absolute(&args.file).ok();
    let target = target.as_deref().and_then(Path::parent).and_then(|it| it.canonicalize().ok());
    let sanctums = carried.sanctums.iter().map(|one| ("SANCTUM", one));
    for (kind, Folder { archive, host, .. }) in
        sanctums.chain(carried.skills.iter().map(|one| ("SKILL", one)))
    {
        if roots.iter().any(|(known, _)| known == archive) {
            continue;
        }
        let root = Path::new(host).canonicalize().map_err(|error| {
            let what = format!("{what}: cannot read {kind} {host}");
            failure::file(what, &error, "run the command on the machine where the agent ran")
        })?;
        let refused = |cause: String, try_: &str| {
            Err(failure::error(failure::FAILED, format!("{what}: {kind} {host}"), cause, try_))
        };
        if kind == "SANCTUM" && !root.is_dir() {
            return refused("it is not a folder".to_owned(), "");
        }
        if let Some(cause) = own_data(&root, &home.dir) {
            return refused(cause, "use a separate folder for the agent");
        }
        if !args.is_stdout() && target.as_ref().is_some_and(|target| target.starts_with(&root)) {
            return refused("FILE would be inside it".to_owned(), "write FILE to another folder");
        }
        roots.push((archive.clone(), root));
    }
    Ok(roots)
}

/// Where temporary files have room.
fn aside(args: &ExportArgs) -> PathBuf {
    let beside = args.file.parent().filter(|_| !args.is_stdout());
    match beside {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => std::env::temp_dir(),
    }
}

async fn measure(trees: &[(String, PathBuf)], counts: &mut Counts) -> Result<(), ApiError> {
    let mut breath = Breath::new();
    for (_, root) in trees {
        let mut tree = Tree::open(root).map_err(|error| unreadable(root, Path::new(""), &error))?;
        while let Some(entry) = next(&mut tree, root)? {
            if let Kind::File(size) = entry.kind {
                counts.files += 1;
                counts.bytes += size;
            }
            breath.take().await;
        }
    }
    Ok(())
}

/// Writes a file or folder with all that is in it.
async fn write(pack: &mut Pack, archive: &str, root: &Path) -> Result<(), ApiError> {
    let mut tree = Tree::open(root).map_err(|error| unreadable(root, Path::new(""), &error))?;
    while let Some(entry) = next(&mut tree, root)? {
        let shown = root.join(&entry.path);
        let path = names::within(Path::new(""), archive, &entry.path);
        let mut content = None;
        match &entry.kind {
            Kind::Folder => {}
            Kind::File(_) => match tree.file(&entry.path) {
                Ok(file) => content = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    output::note(format!("warning: {} no longer exists", shown.display()));
                    continue;
                }
                Err(error) => return Err(unreadable(root, &entry.path, &error)),
            },
            Kind::Link(target) => {
                let depth = entry.path.components().count().saturating_sub(1);
                if leads_out(depth, target) {
                    output::note(format!(
                        "warning: {} points outside its folder, to {}: `mozart import` takes it only with --links",
                        shown.display(),
                        names::shown(target)
                    ));
                }
            }
            Kind::Special => {
                output::note(format!("warning: left out, not a regular file: {}", shown.display()));
                continue;
            }
        }
        if !pack.entry(&path, &entry, content).await? {
            output::note(format!("warning: {} changed while it was being read", shown.display()));
        }
    }
    Ok(())
}

fn next(tree: &mut Tree, root: &Path) -> Result<Option<Entry>, ApiError> {
    tree.next_entry().map_err(|(path, error)| unreadable(root, &path, &error))
}

fn unreadable(root: &Path, path: &Path, error: &io::Error) -> ApiError {
    let what = format!("cannot read {}", names::within(root, "", path).display());
    failure::file(what, error, "run the command as the user of the node, or as root")
}

fn report(
    client: &Client,
    args: &ExportArgs,
    manifest: &Manifest,
    size: u64,
) -> Result<u8, ApiError> {
    if client.json() && !args.is_stdout() {
        output::json(&Exported { file: &args.file, size, manifest })?;
        return Ok(0);
    }
    let counts = &manifest.counts;
    let image = match &manifest.image {
        Some(image) if image.included => format!("image {}", image.reference),
        Some(image) => format!("image {} by name only", image.reference),
        None => "no image".to_owned(),
    };
    output::note(format!(
        "{}: {} ({} open), {}, {}, {image}; {} in all",
        manifest.agent,
        count(counts.messages, "message", "messages"),
        counts.open,
        count(counts.dead_letters, "dead letter", "dead letters"),
        count(counts.files, "file", "files"),
        indicatif::HumanBytes(size)
    ));
    Ok(0)
}
