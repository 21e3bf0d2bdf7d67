//! How full the disk under the broker is. NATS tells that to nobody: whoever runs on the same machine looks and answers. Nothing of it is
//! stored, so that it works where nothing can be, and is never old.

use std::time::Duration;

use common::storage::Disk;

use crate::connection::{Broker, TransientMessage};
use crate::error::{BrokerError, Result};

impl Broker {
    /// How full the disk is; none if nobody tells within a time.
    pub async fn disk(&self, within: Duration) -> Option<Disk> {
        let told = self.ask(self.subjects().disk(), "".into(), within).await.ok()?;
        // A file system that tells nothing of itself has no size.
        serde_json::from_slice(&told)
            .ok()
            .filter(|disk: &Disk| disk.total > 0 || disk.fault.is_some())
    }

    /// Answers whoever asks how full it is.
    ///
    /// # Errors
    /// When the connection takes nothing.
    pub async fn tell_disk(&self, asked: TransientMessage, disk: Disk) -> Result<()> {
        let Some(reply) = asked.reply else { return Ok(()) };
        let told = serde_json::to_vec(&disk).map_err(BrokerError::other)?;
        self.tell(reply, told.into()).await
    }
}
