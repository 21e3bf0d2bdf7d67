//! How far an answer has been told. What was told cannot be taken back: another attempt goes on with it only if it says the same. Pure.

use common::message::Status;
use mozart_client::stream::Item;
use sha2::{Digest as _, Sha256};

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

/// What was told.
#[derive(Debug)]
enum Told {
    /// This.
    Text(String),
    /// By a process before this one: so many bytes, with this digest.
    Digest(usize, String),
}

/// The answer to one inbox.
#[derive(Debug)]
pub(super) struct Voice {
    told: Told,
    hash: Sha256,
    /// What the attempt has said, up to what was told and beyond.
    said: String,
    is_over: bool,
}

fn hex(hash: &Sha256) -> String {
    hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Voice {
    /// One that goes on after so many bytes with this digest.
    pub(super) fn after(bytes: u64, digest: &str) -> Self {
        let told = match usize::try_from(bytes) {
            Ok(0) => Told::Text(String::new()),
            bytes => Told::Digest(bytes.unwrap_or(usize::MAX), digest.to_owned()),
        };
        Self { told, hash: Sha256::new(), said: String::new(), is_over: false }
    }

    /// What follows from items, in order.
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
        if let Told::Text(told) = &mut self.told {
            told.push_str(text);
        }
        (self.bytes() as u64, hex(&self.hash))
    }

    fn bytes(&self) -> usize {
        match &self.told {
            Told::Text(text) => text.len(),
            Told::Digest(bytes, _) => *bytes,
        }
    }

    fn item(&mut self, item: &Item, out: &mut Vec<Next>) {
        match item {
            Item::Text { text, .. } => {
                self.said.push_str(text);
                self.go_on(out);
            }
            Item::Reset { .. } => self.said.clear(),
            Item::Event { .. } | Item::Error { .. } => {}
            Item::Done { status: Status::Completed, response, .. } => {
                self.said = response.clone().unwrap_or_default();
                if self.said.len() < self.bytes() {
                    return self.differs(out);
                }
                self.go_on(out);
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

    /// What the attempt has said beyond what was told, and was not handed out yet.
    fn go_on(&mut self, out: &mut Vec<Next>) {
        if let Told::Digest(bytes, digest) = &self.told {
            if self.said.len() < *bytes {
                return;
            }
            let hash = self.said.get(..*bytes).map(|told| Sha256::new().chain_update(told));
            match hash.filter(|hash| hex(hash) == *digest) {
                None => return self.differs(out),
                Some(hash) => {
                    self.told = Told::Text(self.said[..*bytes].to_owned());
                    self.hash = hash;
                }
            }
        }
        let Told::Text(told) = &self.told else { return };
        // What was handed out by these very items, and is not told yet.
        let pending: String = out.iter().filter_map(Next::text).collect();
        let known = format!("{told}{pending}");
        match self.said.strip_prefix(known.as_str()) {
            Some("") => {}
            Some(more) => out.push(Next::Text(more.to_owned())),
            None if known.starts_with(self.said.as_str()) => {}
            None => self.differs(out),
        }
    }

    fn differs(&mut self, out: &mut Vec<Next>) {
        self.is_over = true;
        let why = "another attempt gives another answer than the one that was begun";
        out.push(Next::Fault(500, why.to_owned()));
    }
}

impl Next {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::End | Self::Fault(..) => None,
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
        let reset = || Item::Reset { seq: 5, attempt: 2 };
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
    fn what_is_no_answer_is_an_error() {
        let end = |status| told(&mut Voice::after(0, ""), &[done(status, None)]).1;
        assert!(matches!(end(Status::Cancelled), Some(Next::Fault(409, _))));
        assert!(matches!(end(Status::Failed), Some(Next::Fault(500, _))));
        assert!(
            matches!(end(Status::Pending), Some(Next::Fault(500, why)) if why.contains("waits"))
        );
    }
}
