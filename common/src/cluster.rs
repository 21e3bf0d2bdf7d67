//! What the members of a cluster that Mozart runs are asked, beside hosts that want to join.

use serde::{Deserialize, Serialize};

use crate::NodeName;
use crate::api::ApiError;

/// On [`crate::subject::REMOVE`]: the server of this node's host is gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveServer {
    /// The node.
    pub node: NodeName,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum ServerRemoved {
    /// These servers no longer belong to the cluster; none if the node's host had none.
    Removed {
        /// Their names.
        servers: Vec<String>,
        /// So many servers are left.
        left: usize,
    },
    /// Nothing, or not all, was removed.
    Failed(ApiError),
}
