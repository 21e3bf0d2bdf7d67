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
    sent: Sent,
    is_over: bool,
}

/// What is said where an answer does not go on with what was sent of it.
pub(crate) const DIFFERS: &str = "the agent gives another answer than the one that was begun";

impl Growing {
    /// What was sent.
    pub(crate) fn sent(&self) -> &str {
        self.sent.text()
    }

    /// What an item adds; after the end, nothing.
    pub(crate) fn hear(&mut self, item: &Item) -> Grown {
        if self.is_over {
            return Grown::Nothing;
        }
        let differs = || Grown::Broken(DIFFERS.to_owned());
        let grown = match item {
            Item::Text { text, .. } => match self.sent.hear(text) {
                Next::Same => Grown::Nothing,
                Next::More(more) => Grown::More(more),
                Next::Other => differs(),
            },
            Item::Reset { .. } => {
                self.sent.reset();
                Grown::Nothing
            }
            Item::Event { .. } | Item::Error { .. } => Grown::Nothing,
            Item::Done { status: Status::Completed, response, .. } => {
                match self.sent.whole(response.as_deref().unwrap_or_default()) {
                    Next::Same => Grown::Whole(String::new()),
                    Next::More(more) => Grown::Whole(more),
                    Next::Other => differs(),
                }
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
}

/// What a piece of an attempt adds to what was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing: it says again what was sent.
    Same,
    /// This, which counts as sent.
    More(String),
    /// It says something else.
    Other,
}

/// A text that was sent, and up to where an attempt has said the same. Each byte of an attempt is compared once, however many pieces it comes in.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    text: String,
    /// The attempt has said the text up to here, which is between two letters.
    said: usize,
}

impl Sent {
    /// One whose attempt has said all of it.
    pub(crate) fn of(text: String) -> Self {
        Self { said: text.len(), text }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Another attempt begins.
    pub(crate) fn reset(&mut self) {
        self.said = 0;
    }

    /// The attempt goes on.
    pub(crate) fn hear(&mut self, piece: &str) -> Next {
        let known = &self.text.as_bytes()[self.said..];
        let both = known.len().min(piece.len());
        let (again, _) = piece.as_bytes().split_at(both);
        if *again != known[..both] {
            return Next::Other;
        }
        self.said += piece.len();
        // What is known ends between two letters, and so does what of the piece is as long.
        match piece.get(both..) {
            Some("") | None => Next::Same,
            Some(more) => {
                self.text.push_str(more);
                Next::More(more.to_owned())
            }
        }
    }

    /// The whole answer is this, whatever the attempt has said.
    pub(crate) fn whole(&mut self, answer: &str) -> Next {
        match answer.strip_prefix(self.text.as_str()) {
            None => Next::Other,
            Some(more) => {
                self.said = self.text.len();
                self.hear(more)
            }
        }
    }

    /// Sends what the attempt has said so far and this, in place of what was sent.
    pub(crate) fn replace(&mut self, piece: &str) {
        self.text.truncate(self.said);
        self.text.push_str(piece);
        self.said = self.text.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_compared_where_the_attempt_is() {
        let mut sent = Sent::default();
        let more = |text: &str| Next::More(text.to_owned());
        assert_eq!((sent.hear("h\u{e9}"), sent.hear("llo")), (more("h\u{e9}"), more("llo")));
        sent.reset();
        assert_eq!(
            (sent.hear("h"), sent.hear("\u{e9}l"), sent.hear("")),
            (Next::Same, Next::Same, Next::Same)
        );
        assert_eq!(sent.hear("lo!"), more("!"));
        sent.reset();
        assert_eq!((sent.hear("h\u{e9}"), sent.hear("x")), (Next::Same, Next::Other));
        sent.replace("x");
        assert_eq!(sent.text(), "h\u{e9}x");
        assert_eq!((sent.whole("h\u{e9}xy"), sent.whole("h\u{e9}")), (more("y"), Next::Other));
        // Half of a letter is the same, and the rest is not.
        let mut half = Sent::of("\u{e9}".to_owned());
        half.reset();
        assert_eq!(half.hear("\u{e8}"), Next::Other);
    }

    #[test]
    fn an_answer_in_many_pieces_takes_time_in_proportion() {
        // Quadratic, this would compare 20 GB for each attempt.
        const PIECES: usize = 200_000;
        let text = Item::Text { text: "x".to_owned(), seq: 1, attempt: 1 };
        let mut growing = Growing::default();
        for _attempt in 0..2 {
            growing.hear(&Item::Reset { seq: 0, attempt: 1, incarnation: None });
            for _piece in 0..PIECES {
                let _more = growing.hear(&text);
            }
        }
        assert_eq!(growing.sent().len(), PIECES);
    }
}
