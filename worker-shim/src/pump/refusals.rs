//! Input that the shim refuses: counted, and logged at a limited rate, however much of it comes.

use std::fmt::Display;

use common::tally::Tally;

/// What was refused. Times are in milliseconds of the boot clock.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    /// Messages, and requests that cannot be read.
    total: u64,
    strangers: Tally,
    unreadable: Tally,
    commands: Tally,
}

impl Refusals {
    /// How many messages were refused.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// A message that is not one of ours; the words, if any are due.
    pub(super) fn stranger(&mut self, now_ms: u64, reason: &str, bytes: usize) -> Option<String> {
        self.total += 1;
        let others = self.strangers.count(now_ms)?;
        Some(format!("refused {bytes} bytes that are not a Mozart message: {reason}{others}"))
    }

    /// A request that cannot be read.
    pub(super) fn unreadable(
        &mut self,
        now_ms: u64,
        id: impl Display,
        reason: &str,
    ) -> Option<String> {
        self.total += 1;
        let others = self.unreadable.count(now_ms)?;
        Some(format!("cannot read message {id}: {reason}{others}"))
    }

    /// A command that cannot be read.
    pub(super) fn command(&mut self, now_ms: u64, error: impl Display) -> Option<String> {
        let others = self.commands.count(now_ms)?;
        Some(format!("cannot read a command: {error}{others}"))
    }

    /// Words about what was only counted, once they are due.
    pub(super) fn due(&mut self, now_ms: u64) -> impl Iterator<Item = String> + use<> {
        let kinds = [
            (&mut self.strangers, "messages that are not Mozart's"),
            (&mut self.unreadable, "messages that cannot be read"),
            (&mut self.commands, "commands that cannot be read"),
        ];
        kinds
            .map(|(tally, what)| Some(format!("refused {} more {what}", tally.due(now_ms)?)))
            .into_iter()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_told_in_few_words() {
        let mut refusals = Refusals::default();
        let first = refusals.stranger(0, "forged", 12);
        assert_eq!(
            first.as_deref(),
            Some("refused 12 bytes that are not a Mozart message: forged")
        );
        for ms in 0..1_000 {
            assert_eq!(refusals.stranger(ms, "forged", 12), None);
        }
        // Each kind has its own first one.
        let other = refusals.unreadable(500, "m1", "no JSON");
        assert_eq!(other.as_deref(), Some("cannot read message m1: no JSON"));
        assert_eq!(refusals.unreadable(501, "m2", "no JSON"), None);
        assert!(refusals.command(600, "version 9").is_some());
        assert_eq!(refusals.due(9_999).count(), 0);
        let due: Vec<String> = refusals.due(11_000).collect();
        assert_eq!(
            due,
            [
                "refused 1000 more messages that are not Mozart's",
                "refused 1 more messages that cannot be read"
            ]
        );
        assert_eq!(refusals.total(), 1_003, "commands are no messages");
    }
}
