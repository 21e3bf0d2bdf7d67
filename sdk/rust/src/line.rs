//! Lines from the shim.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::turn::{Agent, Past};

/// A line from the shim. Fields that are not known here are skipped, as are types.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", rename_all_fields = "camelCase", tag = "type")]
pub(crate) enum Line {
    Init {
        agent: Agent,
        incarnation: u64,
    },
    Chat(Begun),
    Route(Begun),
    Cancel {
        message_id: String,
    },
    Shutdown,
    RouteResponse {
        request_id: String,
        #[serde(default)]
        response: String,
        error: Option<String>,
    },
    HistoryResponse {
        request_id: String,
        #[serde(default)]
        turns: Vec<Past>,
        next: Option<String>,
        error: Option<String>,
        #[serde(default)]
        retryable: bool,
    },
    StepStored {
        message_id: Option<String>,
        key: Option<String>,
        /// What was stored instead, before; also `null`.
        #[serde(default, deserialize_with = "some")]
        result: Option<Value>,
        error: Option<String>,
        #[serde(default)]
        retryable: bool,
    },
    Answer {
        message_id: Option<String>,
        request_id: String,
        #[serde(default)]
        text: String,
        error: Option<String>,
        #[serde(default)]
        is_default: bool,
    },
    #[serde(other)]
    Unknown,
}

/// A step that an earlier attempt has stored.
#[derive(Deserialize)]
pub(crate) struct Step {
    pub(crate) key: String,
    pub(crate) result: Value,
}

/// `chat` or `route`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Begun {
    pub(crate) message_id: String,
    pub(crate) from_id: String,
    pub(crate) message: String,
    pub(crate) conversation_id: Option<String>,
    pub(crate) turn: Option<u64>,
    pub(crate) scheduled_for: Option<String>,
    pub(crate) traceparent: Option<String>,
    #[serde(default)]
    pub(crate) steps: Vec<Step>,
}

fn some<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}
