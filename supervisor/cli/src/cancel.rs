//! `mozart cancel`.

use clap::Args;
use common::api::ApiError;
use mozart_client::cancel::{Cancelled, cancel};
use mozart_client::reference::MessageRef;
use serde_json::json;

use super::client::Client;
use super::output;
use crate::args::Global;

/// `mozart cancel`.
#[derive(Debug, Args)]
pub struct CancelArgs {
    /// The message: ID, AGENT/ID or AGENT/SENDER/ID
    message: MessageRef,
}

/// Makes a message final as cancelled: no answer can win any more. Then the worker is notified, if a supervisor forwards it.
///
/// # Errors
/// 3 no such message, 4 it is final already.
pub(crate) async fn run(global: &Global, args: &CancelArgs) -> Result<u8, ApiError> {
    let client = Client::to_change(global).await?;
    let message = args.message.resolve(&client.broker).await?;
    let Cancelled { request, is_told } = cancel(&client, message, "cli").await?;
    if !is_told {
        output::note("note: no supervisor answers; a worker that has the message is not notified");
    }
    let id = &request.message_id;
    let written = match client.json() {
        true => {
            let agent = &request.agent;
            output::json(&json!({ "messageId": id, "agent": agent, "status": "cancelled" }))
        }
        false => output::line(id.as_str()),
    };
    output::result(written, || format!("message {id} is cancelled")).map(|()| 0)
}
