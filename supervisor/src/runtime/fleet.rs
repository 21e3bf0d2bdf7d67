//! Which fleet it is.

use broker::Broker;
use common::api::ApiError;
use uuid::Uuid;

use crate::failure::Attempt as _;

/// What tells this fleet from every other one, also on an engine that several share: made from its secret, which it does not tell.
///
/// # Errors
/// When the broker does not answer.
pub(crate) async fn id(broker: &Broker) -> Result<String, ApiError> {
    let secret = broker.fleet_secret().await.attempt("cannot tell which fleet this is")?;
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("fleet {secret}").as_bytes());
    let id = id.simple().to_string();
    Ok(id.get(..12).unwrap_or(&id).to_owned())
}
