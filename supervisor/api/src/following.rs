//! The stream of a message as a door reads it, which measures how long the answer takes.

use common::api::ApiError;
use mozart_client::send::Known;
use mozart_client::stream::{Item, Stream as Reader};
use mozart_client::watch::Watch;
use tokio::time::Instant;

/// What the stream of a message is read from.
#[derive(Debug)]
pub(crate) struct Following {
    watch: Watch,
    metrics: Option<metrics::Http>,
    timing: Timing,
}

/// How far the answer to a message has come that was stored here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Timing {
    /// It was not stored here just now, or it is over.
    None,
    /// Without text, since then.
    Silent(Instant),
    /// With text, since then.
    Speaking(Instant),
}

/// What is measured of items.
#[derive(Debug, Default, PartialEq, Eq)]
struct Measured {
    /// Since when the first text was waited for.
    text: Option<Instant>,
    /// Since when the final state was.
    end: Option<Instant>,
}

impl Timing {
    fn hear(&mut self, items: &[Item]) -> Measured {
        let mut measured = Measured::default();
        for item in items {
            let (Self::Silent(since) | Self::Speaking(since)) = *self else { break };
            match item {
                Item::Text { .. } if matches!(self, Self::Silent(_)) => {
                    measured.text = Some(since);
                    *self = Self::Speaking(since);
                }
                Item::Done { status, .. } => {
                    // One whose agent was stopped is still open.
                    measured.end = Some(since).filter(|_| status.is_final());
                    *self = Self::None;
                }
                Item::Text { .. }
                | Item::Event { .. }
                | Item::Error { .. }
                | Item::Reset { .. } => {}
            }
        }
        measured
    }
}

impl Following {
    pub(crate) fn new(watch: Watch, metrics: Option<metrics::Http>) -> Self {
        Self { watch, metrics, timing: Timing::None }
    }

    /// The message was stored just now, or had been before: then it may be over, which no source reports.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn stored(&mut self, known: Known) -> Result<(), ApiError> {
        match known {
            Known::New => {
                self.timing = Timing::Silent(Instant::now());
                Ok(())
            }
            Known::Already => self.watch.look().await,
        }
    }

    /// The same of one that was found.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn look(&mut self) -> Result<(), ApiError> {
        self.watch.look().await
    }

    /// As [`Watch::items`].
    ///
    /// # Errors
    /// What the broker says.
    pub(crate) async fn items(&mut self, reader: &mut Reader) -> Result<Vec<Item>, ApiError> {
        let items = self.watch.items(reader).await?;
        if let Some(metrics) = &self.metrics {
            let Measured { text, end } = self.timing.hear(&items);
            if let Some(since) = text {
                metrics.spoke(since.elapsed());
            }
            if let Some(since) = end {
                metrics.ended(since.elapsed());
            }
        }
        Ok(items)
    }
}

#[cfg(test)]
mod tests {
    use common::message::Status;

    use super::*;

    #[test]
    fn the_first_text_and_the_end_are_measured_once_each() {
        let since = Instant::now();
        let text = || Item::Text { text: "a".to_owned(), seq: 1, attempt: 1 };
        let done = |status| {
            let (response, reason) = (None, None);
            Item::Done { status, response, reason, seq: 2, attempt: 1 }
        };
        let measured = |text: bool, end: bool| Measured {
            text: text.then_some(since),
            end: end.then_some(since),
        };
        let mut timing = Timing::Silent(since);
        assert_eq!(timing.hear(&[text(), text()]), measured(true, false));
        assert_eq!(timing.hear(&[text(), done(Status::Completed)]), measured(false, true));
        assert_eq!(timing.hear(&[done(Status::Completed)]), measured(false, false));
        assert_eq!(Timing::None.hear(&[text(), done(Status::Completed)]), measured(false, false));
        let stopped = [done(Status::Pending)];
        assert_eq!(Timing::Silent(since).hear(&stopped), measured(false, false), "it is open");
    }
}
