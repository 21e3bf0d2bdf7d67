//! The client commands: one file per group. They talk to the broker and, through it, to the supervisors; they know neither the
//! supervisor's nor the node's code.

pub mod args;
pub mod backup;
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
mod context;
mod dead;
mod diff;
mod doctor;
mod drain;
mod events;
pub mod examples;
mod explain;
mod files;
mod forget;
mod hints;
mod history;
mod init;
mod inspect;
mod journal;
mod later;
mod lifecycle;
mod list;
pub mod logs;
mod mcp;
mod moves;
pub mod nodes;
mod outfile;
pub mod output;
mod page;
pub mod parse;
mod progress;
mod prompt;
mod ps;
mod questions;
mod replace;
pub mod reset;
mod rollout;
mod sanctum;
mod schedule;
mod security;
mod send;
pub mod signals;
mod souls;
pub mod start;
mod table;
mod tokens;
mod ui;
mod usage;
mod users;
mod watch;

use clap::Subcommand;
use common::api::ApiError;

use crate::args::Global;
use common::failure;
use lifecycle::Change;

/// The client commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Register souls; a changed soul becomes a new generation
    Apply(souls::ApplyArgs),
    /// Check souls; needs no connection
    Validate(souls::ValidateArgs),
    /// Write a fleet that runs into a folder: souls, workers and a README; needs no connection
    Init(init::InitArgs),
    /// List agents
    Ps(ps::PsArgs),
    /// Send a message to an agent; prints its id once it is stored on disk
    Send(send::SendArgs),
    /// Send a message and stream the answer; without a message, open a prompt
    Chat(chat::ChatArgs),
    /// Resume the stream of a message
    Attach(chat::AttachArgs),
    /// Cancel a message
    Cancel(cancel::CancelArgs),
    /// List the questions that agents have asked people and nobody has answered yet
    Questions(questions::QuestionsArgs),
    /// Answer a question of an agent; the first answer counts
    Answer(questions::AnswerArgs),
    /// Read the journal of messages
    #[command(subcommand)]
    Journal(journal::JournalCommand),
    /// Read a conversation with an agent
    History(history::HistoryArgs),
    /// List an agent's conversations
    Conversations(history::ConversationsArgs),
    /// Erase an agent's messages and answers, from every stream and its files
    ///
    /// Messages without a final state are kept. What was exported is not erased, nor what the agent has stored elsewhere, such as in a
    /// SANCTUM.
    Forget(forget::ForgetArgs),
    /// List, redrive and drop dead letters
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Start agents; also releases a quarantine
    Start(lifecycle::AgentsArgs),
    /// Stop agents and keep them stopped
    Stop(lifecycle::AgentsArgs),
    /// Stop and start agents
    Restart(lifecycle::AgentsArgs),
    /// Replace incarnations as REPLACE in the soul says: unchanged, with another image, or with the previous generation
    Replace(replace::ReplaceArgs),
    /// Move an agent to another node, as REPLACE in the soul says
    ///
    /// One whose SANCTUM is on another node is stopped first, and its SANCTUM is copied. The command waits for that; the supervisors go on
    /// with it if it is interrupted. If it fails, the agent starts again where it was.
    Move(moves::MoveArgs),
    /// Even out the number of agents on the nodes, one move after the other
    Rebalance(moves::RebalanceArgs),
    /// List an agent's generations, and go back to one
    #[command(subcommand)]
    Rollout(rollout::RolloutCommand),
    /// Stop and remove agents; their messages stay in the journal
    Rm(lifecycle::AgentsArgs),
    /// Give a new name to the image that an agent's container runs
    ///
    /// A container's root is read-only, so this is exactly the image that the container was created from, even if its name
    /// refers to another image now.
    /// It does not contain /tmp, SANCTUMs (`mozart export` includes them), secrets, or anything of Mozart.
    Commit(commit::CommitArgs),
    /// Write an agent to one file: its soul, SANCTUMs, SKILLs and messages, and its image if no registry has it
    ///
    /// The values of its SECRETs are not included. The agent must be stopped, unless --live is given.
    Export(carry::ExportArgs),
    /// Import an agent from a file that `mozart export` wrote, and start it
    ///
    /// Its messages keep their ids. Messages with a final state keep it; open messages are answered here.
    Import(carry::ImportArgs),
    /// Write the whole fleet to one file, while it runs
    ///
    /// Agents with their generations and files, messages, history and dead letters; not SANCTUMs, SECRETs and images. `mozart restore` reads
    /// it.
    Backup(backup::BackupArgs),
    /// List schedules, read what became of their occurrences, run, pause and resume them
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Wait until an agent is running, idle or stopped
    Wait(lifecycle::WaitArgs),
    /// Show everything known about an agent
    Inspect(inspect::InspectArgs),
    /// Show the logs of workers
    Logs(logs::LogsArgs),
    /// Show the control log: what happened to agents, nodes and supervisors
    Events(events::EventsArgs),
    /// Explain the state of an agent or a message, and what to try; needs no supervisor
    Explain(explain::ExplainArgs),
    /// Serve the fleet as MCP tools on stdin and stdout, for assistants
    Mcp(mcp::McpArgs),
    /// Logins for people and programs
    #[command(subcommand)]
    User(users::UserCommand),
    /// Tokens for the HTTP API
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// Print a link that signs a browser in to the web page, and open it
    Ui(ui::UiArgs),
    /// Show how much space is used, and by what
    Usage(usage::UsageArgs),
    /// Check everything that Mozart depends on
    Doctor(doctor::DoctorArgs),
    /// Print the completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs a client command until it ends or is interrupted; yields the exit code.
///
/// # Errors
/// When the command does not do what it was asked for.
pub async fn run(global: &Global, command: Command) -> Result<u8, ApiError> {
    // These have something to say when they are interrupted.
    if matches!(command, Command::Chat(_) | Command::Attach(_) | Command::Move(_)) {
        return dispatch(global, command).await;
    }
    tokio::select! {
        result = dispatch(global, command) => result,
        stopped = signals::stopped() => stopped.map(|()| failure::INTERRUPTED),
    }
}

async fn dispatch(global: &Global, command: Command) -> Result<u8, ApiError> {
    match perform(global, command).await {
        Err(error) if error.code == failure::NOT_FOUND => Err(client::doubted(global, error).await),
        result => result,
    }
}

async fn perform(global: &Global, command: Command) -> Result<u8, ApiError> {
    match command {
        Command::Apply(args) => souls::apply(global, &args).await,
        Command::Validate(args) => souls::validate(global, &args),
        Command::Init(args) => init::run(global, &args),
        Command::Ps(args) => ps::run(global, &args).await,
        Command::Send(args) => send::run(global, args).await,
        Command::Chat(args) => chat::run(global, args).await,
        Command::Attach(args) => chat::attach(global, &args).await,
        Command::Cancel(args) => cancel::run(global, &args).await,
        Command::Questions(args) => questions::list(global, &args).await,
        Command::Answer(args) => questions::answer(global, args).await,
        Command::Journal(command) => journal::run(global, command).await,
        Command::History(args) => history::run(global, &args).await,
        Command::Conversations(args) => history::conversations(global, &args).await,
        Command::Forget(args) => forget::run(global, &args).await,
        Command::Dead(command) => dead::run(global, command).await,
        Command::Start(args) => lifecycle::change(global, args, Change::Start).await,
        Command::Stop(args) => lifecycle::change(global, args, Change::Stop).await,
        Command::Restart(args) => lifecycle::change(global, args, Change::Restart).await,
        Command::Replace(args) => replace::run(global, &args).await,
        Command::Move(args) => moves::run(global, &args).await,
        Command::Rebalance(args) => moves::rebalance(global, &args).await,
        Command::Rollout(command) => rollout::run(global, &command).await,
        Command::Rm(args) => lifecycle::change(global, args, Change::Remove).await,
        Command::Commit(args) => commit::run(global, &args).await,
        Command::Export(args) => carry::export(global, &args).await,
        Command::Import(args) => carry::import(global, &args).await,
        Command::Backup(args) => backup::backup(global, &args).await,
        Command::Schedule(command) => schedule::run(global, command).await,
        Command::Wait(args) => lifecycle::wait(global, &args).await,
        Command::Inspect(args) => inspect::run(global, &args).await,
        Command::Logs(args) => logs::run(global, &args).await,
        Command::Events(args) => events::run(global, &args).await,
        Command::Explain(args) => explain::run(global, &args).await,
        Command::Mcp(args) => mcp::run(global, &args).await,
        Command::User(command) => users::run(global, command).await,
        Command::Token(command) => tokens::run(global, command).await,
        Command::Ui(args) => ui::run(global, &args).await,
        Command::Usage(args) => usage::run(global, &args).await,
        Command::Doctor(args) => doctor::run(global, &args).await,
        Command::Completions(args) => completions::run(&args),
    }
}
