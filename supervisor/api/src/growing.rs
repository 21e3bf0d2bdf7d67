//! The text of an answer that is sent as it comes, and cannot be taken back: another attempt goes on with it only if it says the same. Pure.

use common::message::Status;
use mozart_client::stream::Item;

/// What an item adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grown {
    /// Nothing that is shown.
    Nothing,
    /// More text.
    More(String),
    /// The rest of the text, which may be empty: now it is whole.
    Whole(String),
    /// It cannot go on, and why. The message may have an answer, or get one.
    Broken(String),
    /// There is no answer, with the status of the message and the reason.
    Failed(Status, Option<String>),
}

/// The text so far.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    /// What was sent.
    sent: String,
    /// What the attempt has said, up to what was sent before it.
    said: String,
    is_over: bool,
}

const ANOTHER: &str = "another attempt gives another answer than the one that was begun";

impl Growing {
    /// What was sent.
    pub(crate) fn sent(&self) -> &str {
        &self.sent
    }

    /// What an item adds; after the end, nothing.
    pub(crate) fn hear(&mut self, item: &Item) -> Grown {
        if self.is_over {
            return Grown::Nothing;
        }
        let grown = match item {
            Item::Text { text, .. } => {
                self.said.push_str(text);
                match self.more() {
                    Some(more) if more.is_empty() => Grown::Nothing,
                    Some(more) => Grown::More(more),
                    None if self.sent.starts_with(self.said.as_str()) => Grown::Nothing,
                    None => Grown::Broken(ANOTHER.to_owned()),
                }
            }
            Item::Reset { .. } => {
                self.said.clear();
                Grown::Nothing
            }
            Item::Event { .. } | Item::Error { .. } => Grown::Nothing,
            Item::Done { status: Status::Completed, response, .. } => {
                self.said = response.clone().unwrap_or_default();
                self.more().map_or_else(|| Grown::Broken(ANOTHER.to_owned()), Grown::Whole)
            }
            Item::Done { status, reason, .. } if status.is_final() => {
                Grown::Failed(*status, reason.clone())
            }
            Item::Done { status, .. } => {
                let stopped = "the agent was stopped or removed";
                Grown::Broken(format!("{stopped}, and the message is {}", status.as_str()))
            }
        };
        self.is_over = matches!(grown, Grown::Whole(_) | Grown::Broken(_) | Grown::Failed(..));
        grown
    }

    /// What was said beyond what was sent; none if it says something else.
    fn more(&mut self) -> Option<String> {
        let more = self.said.strip_prefix(self.sent.as_str())?.to_owned();
        self.sent.push_str(&more);
        Some(more)
    }
}
