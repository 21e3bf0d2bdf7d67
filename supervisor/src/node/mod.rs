//! `mozart node`.

use common::api::ApiError;

use crate::args::{Global, NodeArgs};
use crate::failure;

/// Runs the node.
#[expect(clippy::unused_async, reason = "not built yet")]
pub(crate) async fn run(_global: &Global, _args: NodeArgs) -> Result<(), ApiError> {
    Err(failure::error(
        failure::FAILED,
        "`node` is not built yet",
        "",
        "",
    ))
}
