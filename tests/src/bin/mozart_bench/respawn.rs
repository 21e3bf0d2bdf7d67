//! The bare loop that goal 7 compares with: start it, wait for its end, start it again.

use tokio::process::Command;

use crate::outcome::{Result, fail};

/// Runs a command for ever.
pub(crate) async fn run(command: &[String]) -> Result<()> {
    let Some((program, args)) = command.split_first() else {
        return fail("respawn needs a command");
    };
    loop {
        Command::new(program).args(args).kill_on_drop(true).spawn()?.wait().await?;
    }
}
