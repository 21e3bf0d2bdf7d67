//! Emptying a fleet's streams. Only this removes open messages.

use std::time::Duration;

use serde::Deserialize;

use crate::api::code;
use crate::connection::Broker;
use crate::error::Result;
use crate::wire::Wire;

/// A stream of millions of records takes a while to purge.
const WITHIN: Duration = Duration::from_secs(60);

/// What is emptied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Messages, their events, answers and logs. Agents stay, and count on, and so do their schedules.
    Messages,
    /// The fleet.
    All,
}

impl Reset {
    /// Whether a stream ([`crate::StreamUsage::name`]) is emptied.
    #[must_use]
    pub fn empties(self, stream: &str) -> bool {
        self == Self::All
            || !matches!(stream, "CONTROL" | "SNAPSHOTS" | "FILES" | "SECURITY" | "SCHEDULES")
    }
}

#[derive(Debug, Deserialize)]
struct Deleted {}

impl Broker {
    /// Empties streams. Only while no supervisor and no agent of the fleet runs. One that broke off is repeated.
    ///
    /// # Errors
    /// When the broker does not answer, or does not allow it.
    pub async fn reset(&self, what: Reset) -> Result<()> {
        let streams = self.all_streams();
        match what {
            // Their numbers count on: what agents and consumers know of them stays true.
            Reset::Messages => {
                for (_, stream) in streams.iter().filter(|(name, _)| what.empties(name)) {
                    self.wire().purge_as(stream, &serde_json::json!({})).await?;
                }
            }
            // The control log says which streams there are, and goes last.
            Reset::All => {
                let control = self.subjects().stream("CONTROL");
                let others = streams.into_iter().map(|(_, stream)| stream);
                let others = others.filter(|stream| *stream != control);
                for stream in others.chain([self.lease_stream(), control.clone()]) {
                    self.wire().delete_stream(&stream).await?;
                }
            }
        }
        Ok(())
    }
}

impl Wire {
    /// Removes a stream. One that does not exist counts as removed.
    pub(crate) async fn delete_stream(&self, stream: &str) -> Result<()> {
        let none = serde_json::json!({});
        let what = format!("STREAM.DELETE.{stream}");
        match self.api::<Deleted>(&what, &none, WITHIN).await? {
            Ok(Deleted {}) => Ok(()),
            Err(error) if error.err_code == code::STREAM_NOT_FOUND => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
