//! Input that a supervisor cannot read: logged at a limited rate, however much of it comes.

use common::tally::Tally;

/// One tally for each kind of it.
#[derive(Debug, Default)]
pub(super) struct Unread {
    pub(super) nodes: Tally,
    pub(super) shims: Tally,
    pub(super) records: Tally,
}

impl Unread {
    /// Words about what was only counted, once they are due.
    pub(super) fn due(&mut self, now_ms: u64) -> impl Iterator<Item = String> + use<> {
        let kinds = [
            (&mut self.nodes, "reports of nodes"),
            (&mut self.shims, "reports of agents"),
            (&mut self.records, "records of the control log"),
        ];
        kinds
            .map(|(tally, what)| Some(format!("cannot read {} more {what}", tally.due(now_ms)?)))
            .into_iter()
            .flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_of_apart() {
        let mut unread = Unread::default();
        for _ in 0..3 {
            let _said = unread.nodes.count(0);
        }
        let _said = unread.shims.count(0);
        let due: Vec<String> = unread.due(10_000).collect();
        assert_eq!(due, ["cannot read 2 more reports of nodes"]);
        assert_eq!(unread.due(20_000).count(), 0);
    }
}
