//! How full the broker's disk is. NATS does not tell: a process on the same machine checks the disk and answers. The answer is not
//! stored, so that this works when nothing can be stored, and is never outdated.

use std::time::Duration;

use common::storage::Disk;

use crate::connection::{Broker, TransientMessage};
use crate::error::{BrokerError, Result};

impl Broker {
    /// How full the disk is; none if no process answers in time.
    pub async fn disk(&self, within: Duration) -> Option<Disk> {
        let told = self.ask(self.subjects().disk(), "".into(), within).await.ok()?;
        // A file system that tells nothing of itself has no size.
        serde_json::from_slice(&told)
            .ok()
            .filter(|disk: &Disk| disk.total > 0 || disk.fault.is_some())
    }

    /// Answers queries about how full it is.
    ///
    /// # Errors
    /// When the connection takes nothing.
    pub async fn tell_disk(&self, asked: TransientMessage, disk: Disk) -> Result<()> {
        let Some(reply) = asked.reply else { return Ok(()) };
        let told = serde_json::to_vec(&disk).map_err(BrokerError::other)?;
        self.tell(reply, told.into()).await
    }
}
