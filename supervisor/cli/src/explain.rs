//! `mozart explain`.

use clap::Args;
use common::api::ApiError;
use mozart_client::explain::explain;

use super::client::Client;
use super::output;
use crate::args::Global;

/// `mozart explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// An agent, or a message: ID, AGENT/ID or AGENT/SENDER/ID
    #[arg(value_name = "AGENT|MESSAGE")]
    target: String,
}

/// Explains.
///
/// # Errors
/// 3 when there is neither such an agent nor such a message.
pub(crate) async fn run(global: &Global, args: &ExplainArgs) -> Result<u8, ApiError> {
    let client = Client::to_read(global).await?;
    let explanation = explain(&client, &args.target).await?;
    for warning in &explanation.warnings {
        output::note(format!("warning: {warning}"));
    }
    if client.json() {
        output::json(&explanation)?;
        return Ok(0);
    }
    output::line(explanation.explanation.join("\n"))?;
    section("What happened last:", explanation.recent.as_deref().unwrap_or_default())?;
    section("Its last log lines:", explanation.log.as_deref().unwrap_or_default())?;
    Ok(0)
}

fn section(title: &str, lines: &[String]) -> Result<(), ApiError> {
    if lines.is_empty() {
        return Ok(());
    }
    output::line(format!("\n{title}\n  {}", lines.join("\n  ")))
}
