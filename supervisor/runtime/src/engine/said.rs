//! The exit record that a shim writes to its stdout. It is read as it is written, because an engine answers no query about a
//! container while it cleans up after it; and read from the container's log if nobody listened.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;

use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, LogsOptions, LogsOptionsBuilder, StartContainerOptions,
};
use common::shim::{EXIT_KEY, ShimConfig, ShimExit};
use futures_util::{Stream, StreamExt as _};
use tokio::io::AsyncWriteExt as _;

use super::{Engine, say, words};

/// How much of a container's log is searched for the shim's exit record, in lines.
const LAST_LINES: &str = "20";
/// How much of the last line of a log is quoted, in characters.
const LONGEST_LINE: usize = 300;
/// How much of a shim's output is kept, in bytes: an exit record is shorter.
const KEPT: usize = 64 << 10;

/// A container's stdout, from now on.
pub struct Listening(Pin<Box<dyn Stream<Item = Result<LogOutput, Error>> + Send>>);

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listening")
    }
}

impl Listening {
    /// Reads to the end, and returns the shim's exit record, if there is one. A shim that wrote it ends at once.
    pub async fn last_words(mut self) -> Option<ShimExit> {
        let mut text = Vec::new();
        while let Some(Ok(part)) = self.0.next().await {
            text.extend_from_slice(&part.into_bytes());
            let surplus = text.len().saturating_sub(KEPT);
            text.drain(..surplus);
        }
        find(&text)
    }
}

impl Engine {
    /// Starts a container and hands the shim its configuration; what it says from then on.
    pub(super) async fn run(&self, id: &str, config: &ShimConfig) -> Result<Listening, String> {
        let text = serde_json::to_vec(config).map_err(|error| error.to_string())?;
        let options =
            AttachContainerOptionsBuilder::default().stdin(true).stdout(true).stream(true);
        let attached = self.docker().attach_container(id, Some(options.build())).await;
        let AttachContainerResults { mut input, output } = attached.map_err(say)?;
        self.docker().start_container(id, None::<StartContainerOptions>).await.map_err(say)?;
        let handed = async {
            input.write_all(&text).await?;
            input.shutdown().await
        };
        let handed: std::io::Result<()> = handed.await;
        handed.map_err(|error| format!("handing over its configuration: {error}"))?;
        Ok(Listening(output))
    }

    /// Listens to a container that runs already; none if the engine does not let us.
    pub async fn listen(&self, id: &str) -> Option<Listening> {
        let options = AttachContainerOptionsBuilder::default().stdout(true).stream(true).build();
        match self.docker().attach_container(id, Some(options)).await {
            Ok(attached) => Some(Listening(attached.output)),
            Err(error) => {
                tracing::debug!("listening to container {id}: {}", say(error));
                None
            }
        }
    }

    /// The shim's exit record on its stdout, which the engine keeps.
    pub(super) async fn last_words(&self, id: &str) -> Result<Option<ShimExit>, String> {
        let options = LogsOptionsBuilder::default().stdout(true).tail(LAST_LINES).build();
        Ok(self.log(id, options).await?.and_then(|text| find(&text)))
    }

    /// The last line of a container's log, for people: of a shim that reported no exit status, or why it could not start.
    pub(super) async fn last_line(&self, id: &str) -> Option<String> {
        let options = LogsOptionsBuilder::default().stderr(true).tail("1").build();
        let text = self.log(id, options).await.ok().flatten()?;
        let text = String::from_utf8_lossy(&text);
        let line: String = text.trim().chars().take(LONGEST_LINE).collect();
        (!line.is_empty()).then_some(line)
    }

    /// A part of a container's log; none if it is gone.
    async fn log(&self, id: &str, options: LogsOptions) -> Result<Option<Vec<u8>>, String> {
        let mut log = self.docker().logs(id, Some(options));
        let mut text = Vec::new();
        while let Some(part) = log.next().await {
            match part {
                Ok(part) => text.extend_from_slice(&part.into_bytes()),
                // Removed meanwhile: it said nothing that could be read.
                Err(error) if matches!(words::status(&error), Some(404 | 409)) => return Ok(None),
                Err(error) => return Err(say(error)),
            }
        }
        Ok(Some(text))
    }
}

/// The exit record in a text.
fn find(text: &[u8]) -> Option<ShimExit> {
    let mut words = text.split(|byte| *byte == b'\n').rev().filter_map(|line| {
        let mut line: HashMap<String, ShimExit> = serde_json::from_slice(line).ok()?;
        line.remove(EXIT_KEY)
    });
    words.next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::Timestamp;
    use common::shim::Exit;

    fn words(code: i32) -> ShimExit {
        let exit = Exit { code: Some(code), ..Exit::default() };
        ShimExit { exit, finished: 1, clean: true, at: Timestamp::from_millis(1) }
    }

    #[test]
    fn the_last_of_them_count() {
        let line = |code| format!("{}\n", serde_json::json!({ EXIT_KEY: words(code) }));
        let text = format!("something else\n{}{}and this\n", line(1), line(2));
        assert_eq!(find(text.as_bytes()).map(|words| words.exit.code), Some(Some(2)));
        assert!(find(b"something else\n{}\n").is_none());
    }

    #[tokio::test]
    async fn words_come_in_pieces_and_after_much_else() {
        let line = serde_json::json!({ EXIT_KEY: words(3) }).to_string();
        let (begin, end) = line.split_at(20);
        let noise = "x".repeat(KEPT);
        let parts = [noise.as_str(), "\n", begin, end, "\n"].map(str::to_owned);
        let parts = parts.map(|part| Ok(LogOutput::StdOut { message: part.into() }));
        let listening = Listening(Box::pin(futures_util::stream::iter(parts)));
        assert_eq!(listening.last_words().await.map(|words| words.exit.code), Some(Some(3)));
    }
}
