//! `mozart up` and `mozart down`.

use common::api::ApiError;

use crate::args::{DownArgs, Global, UpArgs};
use crate::failure;

/// Starts everything on this machine.
#[expect(clippy::unused_async, reason = "not built yet")]
pub(crate) async fn up(_global: &Global, _args: UpArgs) -> Result<(), ApiError> {
    Err(failure::error(
        failure::FAILED,
        "`up` is not built yet",
        "",
        "",
    ))
}

/// Stops it.
#[expect(clippy::unused_async, reason = "not built yet")]
pub(crate) async fn down(_global: &Global, _args: DownArgs) -> Result<(), ApiError> {
    Err(failure::error(
        failure::FAILED,
        "`down` is not built yet",
        "",
        "",
    ))
}
