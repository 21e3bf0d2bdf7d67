//! Numbers for metrics: what shims tell with their reports, and what the streams hold.

use async_nats::HeaderMap;
use bytes::Bytes;
use common::figures::{Figures, Queue};

use crate::api::StreamInfo;
use crate::connection::{Broker, queued};
use crate::error::Result;
use crate::wire::CALL;

const FIGURES: &str = "Mozart-Figures";
const QUEUE: &str = "Mozart-Queue";

/// What a shim tells beside a report, as it came: it is read by those who want it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    figures: Option<String>,
    queue: Option<String>,
}

impl Told {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let text = |name: &'static str| headers.get(name).map(|value| value.as_str().to_owned());
        Self { figures: text(FIGURES), queue: text(QUEUE) }
    }

    /// What it has counted since it last told.
    #[must_use]
    pub fn figures(&self) -> Option<Figures> {
        Figures::read(self.figures.as_ref()?)
    }

    /// What waits at it.
    #[must_use]
    pub fn queue(&self) -> Queue {
        self.queue.as_deref().and_then(Queue::read).unwrap_or_default()
    }
}

/// A stream's size and bounds, as its server tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFigures {
    /// Its name without the fleet's: `JOURNAL`, `JOURNAL_0`, `HISTORY`, …
    pub name: String,
    /// Its records.
    pub records: u64,
    /// Their bytes with subjects, headers and frames.
    pub bytes: u64,
    /// The most bytes that it takes, if it is bounded.
    pub limit: Option<u64>,
    /// Whether it refuses new records when it is full; else it drops the oldest.
    pub refuses: bool,
    /// How many records it ever had.
    pub last: u64,
}

impl Broker {
    /// [`Broker::tell`], with what a shim has counted and what waits at it. Whoever does not know these reads the message as before.
    ///
    /// # Errors
    /// When the client's queue stays full.
    pub async fn tell_figures(
        &self,
        subject: String,
        payload: Bytes,
        figures: &Figures,
        queue: Queue,
    ) -> Result<()> {
        let mut headers = HeaderMap::new();
        for (name, text) in [(FIGURES, figures.header()), (QUEUE, queue.header())] {
            if let Some(text) = text {
                headers.insert(name, text);
            }
        }
        if headers.is_empty() {
            return self.tell(subject, payload).await;
        }
        queued(self.wire().client.publish_with_headers(subject, headers, payload)).await
    }

    /// What each stream holds: a request for each, whatever is in it. Those that cannot be asked are left out.
    pub async fn stream_figures(&self) -> Vec<StreamFigures> {
        let prefix = self.subjects().stream("");
        let mut figures = Vec::new();
        for (_, stream) in self.all_streams() {
            match self.wire().stream_info(&stream, CALL).await {
                Ok(Ok(info)) => figures.push(figures_of(&prefix, &stream, &info)),
                Ok(Err(error)) => tracing::debug!("{stream} does not tell its size: {error:?}"),
                Err(error) => {
                    // The others are not asked in vain.
                    tracing::debug!("cannot ask streams for their sizes: {error}");
                    break;
                }
            }
        }
        figures
    }
}

fn figures_of(prefix: &str, stream: &str, info: &StreamInfo) -> StreamFigures {
    StreamFigures {
        name: stream.strip_prefix(prefix).unwrap_or(stream).to_owned(),
        records: info.state.messages,
        bytes: info.state.bytes,
        limit: info.config["max_bytes"].as_u64().filter(|limit| *limit > 0),
        refuses: info.config["discard"] == "new",
        last: info.state.last_seq,
    }
}
