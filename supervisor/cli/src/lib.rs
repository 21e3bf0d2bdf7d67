//! The client commands: one file per group. They speak to the broker and, through it, to the supervisors; they know neither the
//! supervisor's nor the node's code.

mod agents;
mod answer;
pub mod args;
pub mod bench;
mod cancel;
mod carry;
mod changes;
mod chat;
mod client;
mod commit;
pub mod completions;
pub mod connect;
mod content;
mod dead;
mod describe;
mod diff;
mod doctor;
mod events;
pub mod examples;
mod explain;
mod forget;
mod hints;
mod history;
mod inspect;
mod journal;
mod lifecycle;
mod list;
pub mod logs;
pub mod output;
mod page;
mod progress;
mod prompt;
mod ps;
mod reasons;
mod reference;
mod replace;
pub mod reset;
mod rollout;
mod send;
pub mod signals;
mod souls;
pub mod start;
mod stream;
mod table;
mod usage;
mod watch;

use clap::Subcommand;
use common::api::ApiError;

use crate::args::Global;
use common::failure;
use lifecycle::Change;

/// The client commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register souls: what changed becomes a new generation
    Apply(souls::ApplyArgs),
    /// Check souls, without any connection
    Validate(souls::ValidateArgs),
    /// List agents
    Ps(ps::PsArgs),
    /// Store a message for an agent; prints its id once it is on disk
    Send(send::SendArgs),
    /// Stream an agent's answer; without a text, a prompt
    Chat(chat::ChatArgs),
    /// Resume the stream of a message
    Attach(chat::AttachArgs),
    /// Cancel a message
    Cancel(cancel::CancelArgs),
    /// Read the journal of messages
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Read a conversation with an agent
    History(history::HistoryArgs),
    /// List an agent's conversations
    Conversations(history::ConversationsArgs),
    /// Erase what was said to an agent and what it answered, from every stream and its files
    ///
    /// What has no final state yet stays. What the agent itself has kept elsewhere, as in a SANCTUM, and what was exported is not looked for.
    Forget(forget::ForgetArgs),
    /// Read, repeat and drop dead letters
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Run agents; releases a quarantine
    Start(lifecycle::AgentsArgs),
    /// Stop agents and keep them stopped
    Stop(lifecycle::AgentsArgs),
    /// Stop and start agents
    Restart(lifecycle::AgentsArgs),
    /// Start new incarnations as the souls' REPLACE says: the same, with another image, or of the generation before
    Replace(replace::ReplaceArgs),
    /// List an agent's generations, and go back to one
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Stop and forget agents; their messages stay in the journal
    Rm(lifecycle::AgentsArgs),
    /// Keep what an agent's container runs, as an image under a name of its own
    ///
    /// A container's root is read-only, so this is the image that it was made from, as it was, whatever its name leads to by now.
    /// What is in /tmp is not in it, nor are SANCTUMs (`mozart export` takes them along), secrets, or anything of Mozart's.
    Commit(commit::CommitArgs),
    /// Write an agent into one file: its soul, SANCTUMs, SKILLs and messages, and its image if no registry has it
    ///
    /// The values of its SECRETs are not in it. The agent must be stopped, or --live.
    Export(carry::ExportArgs),
    /// Bring an agent out of such a file into this fleet, and start it
    ///
    /// Its messages keep their ids. What had a final state keeps it, what was open is answered here.
    Import(carry::ImportArgs),
    /// Wait until an agent is running, idle or stopped
    Wait(lifecycle::WaitArgs),
    /// Show everything known about an agent
    Inspect(inspect::InspectArgs),
    /// Show what an agent's workers wrote
    Logs(logs::LogsArgs),
    /// Show the control log: what happened to agents, nodes and supervisors
    Events(events::EventsArgs),
    /// Say why an agent or a message is as it is, and what to try; needs no supervisor
    Explain(explain::ExplainArgs),
    /// Show what takes the room
    Usage(usage::UsageArgs),
    /// Check everything that mozart stands on
    Doctor(doctor::DoctorArgs),
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs a client command until it ends or is interrupted; yields the exit code.
///
/// # Errors
/// When the command does not do what it was asked for.
pub async fn run(global: &Global, command: Command) -> Result<u8, ApiError> {
    // Streams have something to say when they are interrupted.
    if matches!(command, Command::Chat(_) | Command::Attach(_)) {
        return dispatch(global, command).await;
    }
    tokio::select! {
        result = dispatch(global, command) => result,
        stopped = signals::stopped() => stopped.map(|()| failure::INTERRUPTED),
    }
}

async fn dispatch(global: &Global, command: Command) -> Result<u8, ApiError> {
    match command {
        Command::Apply(args) => souls::apply(global, &args).await,
        Command::Validate(args) => souls::validate(global, &args),
        Command::Ps(args) => ps::run(global, &args).await,
        Command::Send(args) => send::run(global, args).await,
        Command::Chat(args) => chat::run(global, args).await,
        Command::Attach(args) => chat::attach(global, &args).await,
        Command::Cancel(args) => cancel::run(global, &args).await,
        Command::Journal(command) => journal::run(global, command).await,
        Command::History(args) => history::run(global, &args).await,
        Command::Conversations(args) => history::conversations(global, &args).await,
        Command::Forget(args) => forget::run(global, &args).await,
        Command::Dead(command) => dead::run(global, command).await,
        Command::Start(args) => lifecycle::change(global, args, Change::Start).await,
        Command::Stop(args) => lifecycle::change(global, args, Change::Stop).await,
        Command::Restart(args) => lifecycle::change(global, args, Change::Restart).await,
        Command::Replace(args) => replace::run(global, &args).await,
        Command::Rollout(command) => rollout::run(global, &command).await,
        Command::Rm(args) => lifecycle::change(global, args, Change::Remove).await,
        Command::Commit(args) => commit::run(global, &args).await,
        Command::Export(args) => carry::export(global, &args).await,
        Command::Import(args) => carry::import(global, &args).await,
        Command::Wait(args) => lifecycle::wait(global, &args).await,
        Command::Inspect(args) => inspect::run(global, &args).await,
        Command::Logs(args) => logs::run(global, &args).await,
        Command::Events(args) => events::run(global, &args).await,
        Command::Explain(args) => explain::run(global, &args).await,
        Command::Usage(args) => usage::run(global, &args).await,
        Command::Doctor(args) => doctor::run(global, &args).await,
        Command::Completions(args) => completions::run(&args),
    }
}
