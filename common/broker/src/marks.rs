//! What the streams hold that nothing may disappear from by itself: by this it is noticed when files of a server that did not run were removed.

use std::collections::BTreeMap;

use common::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::code;
use crate::connection::Broker;
use crate::error::Result;
use crate::wire::CALL;

/// Streams without an age limit. The journal has several.
const LASTING: [&str; 8] =
    ["JOURNAL", "HISTORY", "INDEX", "STEPS", "QUESTIONS", "CONTROL", "FILES", "DEAD"];
/// Those of them that fleets of earlier versions do not have.
const NEW: [&str; 2] = ["STEPS", "QUESTIONS"];

/// A stream at some moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When it was made: another one of its name was made later.
    pub created: Timestamp,
    /// The sequence of the last record that it was given, whatever became of that.
    pub last: u64,
    /// Its records.
    pub records: u64,
}

impl Broker {
    /// The streams that nothing disappears from by itself, by their names.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub async fn marks(&self) -> Result<BTreeMap<String, Mark>> {
        let mut marks = BTreeMap::new();
        let lasting = self.all_streams().into_iter();
        for (name, stream) in lasting.filter(|(name, _)| LASTING.contains(&name.as_str())) {
            let info = match self.wire().stream_info(&stream, CALL).await? {
                Ok(info) => info,
                // A supervisor of this version has not made it yet.
                Err(error)
                    if NEW.contains(&name.as_str()) && error.err_code == code::STREAM_NOT_FOUND =>
                {
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let created = serde_json::from_value(info.created.into()).unwrap_or_default();
            let mark = Mark { created, last: info.state.last_seq, records: info.state.messages };
            marks.insert(stream, mark);
        }
        Ok(marks)
    }
}
