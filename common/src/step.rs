//! Durable steps: results that a worker has stored in the course of a turn, and gets back if the turn is tried again.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::Timestamp;

/// The most bytes of a step's result, as JSON.
pub const MAX_RESULT: usize = 256 << 10;
/// The most bytes of a step's key.
pub const MAX_KEY: usize = 256;
/// The most steps of a message, over all its attempts,
pub const MAX_STEPS: usize = 1_000;
/// and the most bytes of their keys and results.
pub const MAX_BYTES: usize = 8 << 20;

/// JSON exactly as it was written: no number loses digits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// From a text that is JSON.
    ///
    /// # Errors
    /// When it is not.
    pub fn new(text: String) -> Result<Self, serde_json::Error> {
        RawValue::from_string(text).map(Self)
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Json {}

/// A step that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The worker's name for it, once in a message.
    pub key: String,
    /// What came of it.
    pub result: Json,
}

impl Step {
    /// The bytes that count towards [`MAX_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len() + self.result.text().len()
    }
}

/// A record of `steps.<agent>.<sender>.<message>`: a step, or only that an incarnation goes on with the message from here. That is the fence:
/// an earlier incarnation that does not know of this record can store nothing after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// The attempt.
    pub attempt: u32,
    /// Its incarnation.
    pub incarnation: u64,
    /// The step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
}

/// What is shown of a step, and kept of it once its message has left the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepMark {
    /// Its key.
    pub key: String,
    /// The bytes of its result.
    pub bytes: u64,
    /// In which attempt it was stored.
    pub attempt: u32,
    /// When the broker stored it.
    pub at: Timestamp,
    /// Its result, where that is asked for and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<serde_json::Value>))]
    pub result: Option<Json>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_read_as_it_was_written() {
        for text in
            ["null", "\"\\u00e4\"", "123456789012345678901234567890", r#"{"b":1,"a":[1.10]}"#]
        {
            let result = Json::new(text.to_owned()).expect("JSON");
            let step = Some(Step { key: "k".to_owned(), result });
            let record = StepRecord { attempt: 1, incarnation: 7, step };
            let bytes = serde_json::to_vec(&record).expect("it encodes");
            let read: StepRecord = serde_json::from_slice(&bytes).expect("what was written");
            assert_eq!(read, record);
            assert_eq!(read.step.expect("a step").result.text(), text);
        }
        assert!(Json::new("{".to_owned()).is_err());
    }

    #[test]
    fn a_fence_has_no_step() {
        let fence = StepRecord { attempt: 2, incarnation: 8, step: None };
        let text = serde_json::to_string(&fence).expect("it encodes");
        assert_eq!(text, r#"{"attempt":2,"incarnation":8}"#);
        assert_eq!(serde_json::from_str::<StepRecord>(&text).expect("what was written"), fence);
    }
}
