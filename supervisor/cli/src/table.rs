//! Tables and the words in their cells: upper-case headers, no borders, one line an item, `<none>` for nothing.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use common::Timestamp;

/// What an empty cell shows.
pub(crate) const NONE: &str = "<none>";

/// A table as text, without a newline at the end.
pub(crate) fn table(headers: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A value, or `<none>`.
pub(crate) fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

/// A duration in its largest unit: `45s`, `12m`, `3h`, `9d`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago, or `<none>`.
pub(crate) fn age(at: Option<Timestamp>, now: Timestamp) -> String {
    or_none(at.map(|at| short(now.since(at))))
}

/// How far ahead, or `<none>`.
pub(crate) fn until(at: Option<Timestamp>, now: Timestamp) -> String {
    or_none(at.map(|at| format!("in {}", short(at.since(now)))))
}

/// A number of bytes: `812 B`, `1.50 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// A text on one line, cut to `max` characters.
pub(crate) fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == max {
            line.push('…');
            break;
        }
        line.push(if c.is_control() { ' ' } else { c });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_plain_columns() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), NONE.to_owned()]];
        assert_eq!(table(&["AGENT", "GEN"], rows), "AGENT  GEN\na      1\nlong   <none>");
    }

    #[test]
    fn times_are_short() {
        assert_eq!(short(Duration::from_secs(59)), "59s");
        assert_eq!(short(Duration::from_secs(150)), "2m");
        assert_eq!(short(Duration::from_secs(7_200)), "2h");
        assert_eq!(short(Duration::from_secs(864_000)), "10d");
        let at = Timestamp::from_millis(10_000);
        assert_eq!(age(Some(at), Timestamp::from_millis(15_000)), "5s");
        assert_eq!(until(Some(at), Timestamp::from_millis(5_000)), "in 5s");
        assert_eq!(age(None, at), NONE);
    }

    #[test]
    fn a_long_text_is_cut_and_cannot_break_the_line() {
        assert_eq!(one_line("a\nb\x1b[31m", 20), "a b [31m");
        assert_eq!(one_line("äöü", 2), "äö…");
        assert_eq!(one_line("äö", 2), "äö");
    }
}
