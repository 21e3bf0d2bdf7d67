//! How the nats-server of a data folder is reached, and with which key its supervisors answer for logins.

use std::fs;

use broker::AuthKey;
use common::api::ApiError;
use runtime::home::Home;
use serde::{Deserialize, Serialize};

use super::cluster;

/// The server's address and credentials. Kept, so that running agents find a restarted server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Access {
    /// The address; that of folders from before there were containers is the loopback.
    #[serde(default = "loopback")]
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    /// The seed of the key with which supervisors answer for logins of agents; none in folders of before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seed: Option<String>,
}

impl Access {
    pub(super) fn key(&self) -> Option<AuthKey> {
        AuthKey::from_seed(self.seed.as_deref()?).ok()
    }

    /// The same, with a key.
    pub(super) fn keyed(mut self) -> Self {
        if self.key().is_none() {
            self.seed = AuthKey::random().seed().ok();
        }
        self
    }
}

pub(super) fn loopback() -> String {
    "127.0.0.1".to_owned()
}

/// The seed of the key with which the supervisors of a data folder answer for logins of agents; none where it has none.
///
/// # Errors
/// When the folder of a cluster's member cannot be read.
pub(crate) fn login_seed(home: &Home) -> Result<Option<String>, ApiError> {
    if let Some(member) = cluster::read(home)? {
        return Ok(member.shared.seed);
    }
    let access = fs::read(home.nats().join("access.json")).ok();
    let access = access.and_then(|bytes| serde_json::from_slice::<Access>(&bytes).ok());
    Ok(access.and_then(|access| access.seed))
}
