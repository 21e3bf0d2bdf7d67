//! `mozart supervisor`.

use common::api::ApiError;

use crate::args::{Global, SupervisorArgs};
use crate::failure;

/// Runs the supervisor.
#[expect(clippy::unused_async, reason = "not built yet")]
pub(crate) async fn run(_global: &Global, _args: SupervisorArgs) -> Result<(), ApiError> {
    Err(failure::error(
        failure::FAILED,
        "`supervisor` is not built yet",
        "",
        "",
    ))
}
