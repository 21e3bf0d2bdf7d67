//! How far an answer has been told. What was told cannot be taken back: another attempt goes on with it only if it says the same. Pure.

use common::message::Status;
use mozart_client::stream::Item;
use sha2::{Digest as _, Sha256};

use crate::growing::{self, DIFFERS, Sent};

/// What follows from an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// This is told next.
    Text(String),
    /// Nothing more comes: the answer is whole.
    End,
    /// Nothing more comes: there is no answer, or another one than was begun.
    Fault(u16, String),
}

/// What was handed out to be told.
#[derive(Debug)]
enum Told {
    /// This.
    Text(Sent),
    /// By a process before this one, text with this digest. What the attempt has said is kept until it is as long.
    Digest(String, String),
}

/// The answer to one inbox.
#[derive(Debug)]
pub(super) struct Voice {
    told: Told,
    /// How many bytes were told,
    bytes: usize,
    /// and their hash.
    hash: Sha256,
    is_over: bool,
}

fn hex(hash: &Sha256) -> String {
    hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Voice {
    /// One that goes on after so many bytes with this digest.
    pub(super) fn after(bytes: u64, digest: &str) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let told = match bytes {
            0 => Told::Text(Sent::default()),
            _ => Told::Digest(digest.to_owned(), String::new()),
        };
        Self { told, bytes, hash: Sha256::new(), is_over: false }
    }

    /// What follows from items, in order. All of the text is to be told.
    pub(super) fn items(&mut self, items: &[Item]) -> Vec<Next> {
        let mut out = Vec::new();
        for item in items {
            if self.is_over {
                break;
            }
            self.item(item, &mut out);
        }
        out
    }

    /// Where it is after `text`, which is the next that is told: bytes and digest.
    pub(super) fn tell(&mut self, text: &str) -> (u64, String) {
        self.hash.update(text);
        self.bytes += text.len();
        (self.bytes as u64, hex(&self.hash))
    }

    fn item(&mut self, item: &Item, out: &mut Vec<Next>) {
        match item {
            Item::Text { text, .. } => match &mut self.told {
                Told::Text(sent) => {
                    let step = sent.hear(text);
                    self.step(step, out);
                }
                Told::Digest(_, said) => {
                    said.push_str(text);
                    if said.len() >= self.bytes {
                        self.catch_up(out);
                    }
                }
            },
            Item::Reset { .. } => match &mut self.told {
                Told::Text(sent) => sent.reset(),
                Told::Digest(_, said) => said.clear(),
            },
            Item::Event { .. } | Item::Error { .. } => {}
            Item::Done { status: Status::Completed, response, .. } => {
                let answer = response.as_deref().unwrap_or_default();
                match &mut self.told {
                    Told::Text(sent) => {
                        let step = sent.whole(answer);
                        self.step(step, out);
                    }
                    Told::Digest(_, said) => {
                        answer.clone_into(said);
                        self.catch_up(out);
                    }
                }
                if !std::mem::replace(&mut self.is_over, true) {
                    out.push(Next::End);
                }
            }
            Item::Done { status, reason, .. } => {
                self.is_over = true;
                let code = if *status == Status::Cancelled { 409 } else { 500 };
                let reason = reason.as_deref().map(|why| format!(": {why}")).unwrap_or_default();
                let open =
                    if status.is_final() { "" } else { "; it waits for the agent to run again" };
                let why = format!("the message is {}{reason}{open}", status.as_str());
                out.push(Next::Fault(code, why));
            }
        }
    }

    /// The attempt has said as much as was told: if that is the same, it goes on from there.
    fn catch_up(&mut self, out: &mut Vec<Next>) {
        let Told::Digest(digest, said) = &mut self.told else { return };
        let hash = said.get(..self.bytes).map(|told| Sha256::new().chain_update(told));
        let Some(hash) = hash.filter(|hash| hex(hash) == *digest) else {
            return self.step(growing::Next::Other, out);
        };
        self.hash = hash;
        let more = said.split_off(self.bytes);
        let mut sent = Sent::of(std::mem::take(said));
        let step = sent.hear(&more);
        self.told = Told::Text(sent);
        self.step(step, out);
    }

    fn step(&mut self, step: growing::Next, out: &mut Vec<Next>) {
        match step {
            growing::Next::Same => {}
            growing::Next::More(more) => out.push(Next::Text(more)),
            growing::Next::Other => {
                self.is_over = true;
                out.push(Next::Fault(500, DIFFERS.to_owned()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Item {
        Item::Text { text: text.to_owned(), seq: 1, attempt: 1 }
    }

    fn done(status: Status, response: Option<&str>) -> Item {
        let response = response.map(str::to_owned);
        Item::Done { status, response, reason: None, seq: 9, attempt: 1 }
    }

    /// What a voice tells, and where it is then; each item comes alone.
    fn told(voice: &mut Voice, items: &[Item]) -> (String, Option<Next>, (u64, String)) {
        let (mut whole, mut end, mut place) = (String::new(), None, (0, String::new()));
        for item in items {
            for next in voice.items(std::slice::from_ref(item)) {
                match next {
                    Next::Text(text) => {
                        place = voice.tell(&text);
                        whole.push_str(&text);
                    }
                    other @ (Next::End | Next::Fault(..)) => end = Some(other),
                }
            }
        }
        (whole, end, place)
    }

    #[test]
    fn it_goes_on_where_another_process_was() {
        let all = [text("äb "), text("c "), text("d"), done(Status::Completed, Some("äb c d"))];
        let mut first = Voice::after(0, "");
        let (whole, end, place) = told(&mut first, &all[..2]);
        assert_eq!((whole.as_str(), end, place.0), ("äb c ", None, 6));
        // The next one reads from the start, and as the events come or all at once.
        let (rest, end, after) = told(&mut Voice::after(place.0, &place.1), &all);
        assert_eq!((rest.as_str(), end), ("d", Some(Next::End)));
        let at_once = Voice::after(place.0, &place.1).items(&all);
        assert_eq!(at_once, [Next::Text("d".to_owned()), Next::End]);
        // After the last text, only the end is missing.
        let (rest, end, _) = told(&mut Voice::after(after.0, &after.1), &all);
        assert_eq!((rest.as_str(), end), ("", Some(Next::End)));
    }

    #[test]
    fn another_attempt_goes_on_only_with_the_same() {
        let reset = || Item::Reset { seq: 5, attempt: 2, incarnation: None };
        let same =
            [text("a b"), reset(), text("a "), text("b c"), done(Status::Completed, Some("a b c"))];
        let (whole, end, place) = told(&mut Voice::after(0, ""), &same);
        assert_eq!((whole.as_str(), end), ("a b c", Some(Next::End)));
        let fault = |told: (String, Option<Next>, (u64, String))| match told.1 {
            Some(Next::Fault(500, why)) => why,
            other => panic!("{other:?}"),
        };
        let other = [text("a b"), reset(), text("x")];
        assert!(fault(told(&mut Voice::after(0, ""), &other)).contains("another answer"));
        // Also where only the digest is known, and where the answer is shorter.
        let _differs = fault(told(&mut Voice::after(place.0, &place.1), &[text("x y z")]));
        let shorter = [done(Status::Completed, Some("a"))];
        let _shorter = fault(told(&mut Voice::after(place.0, &place.1), &shorter));
        // In the middle of a letter.
        let _middle = fault(told(&mut Voice::after(1, &place.1), &[text("ä")]));
    }

    #[test]
    fn what_was_handed_out_and_is_not_told_yet_counts_as_told() {
        // All of it at once: the end says less than the pieces before it, or something else.
        for end in ["a", "a bx", ""] {
            let all = [text("a "), text("b"), done(Status::Completed, Some(end))];
            let fault = Next::Fault(500, DIFFERS.to_owned());
            let pieces = [Next::Text("a ".to_owned()), Next::Text("b".to_owned())];
            let mut told = Voice::after(0, "").items(&all);
            if end == "a bx" {
                assert_eq!(told.split_off(2), [Next::Text("x".to_owned()), Next::End]);
            } else {
                assert_eq!(told.split_off(2), [fault], "{end:?}");
            }
            assert_eq!(told, pieces);
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let end = |status| told(&mut Voice::after(0, ""), &[done(status, None)]).1;
        assert!(matches!(end(Status::Cancelled), Some(Next::Fault(409, _))));
        assert!(matches!(end(Status::Failed), Some(Next::Fault(500, _))));
        assert!(
            matches!(end(Status::Pending), Some(Next::Fault(500, why)) if why.contains("waits"))
        );
    }
}
