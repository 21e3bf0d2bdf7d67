//! Tables and the words in their cells: upper-case headers, no borders, one line an item, `<none>` for nothing.

use std::time::Duration;

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use common::Timestamp;
use common::api::ApiError;

use super::output;

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

/// A table that is written as its rows come, some at a time. The columns are as wide as their cells so far, so that a short table is
/// like one of [`table`], and a long one moves to the right where a wider cell comes late.
#[derive(Debug)]
pub(crate) struct Rows<const N: usize> {
    headers: Option<[&'static str; N]>,
    widths: [u16; N],
    rows: Vec<[String; N]>,
}

/// Rows that are held.
const ROWS: usize = 500;

impl<const N: usize> Rows<N> {
    pub(crate) fn new(headers: [&'static str; N]) -> Self {
        Self { headers: Some(headers), widths: [0; N], rows: Vec::new() }
    }

    /// The next row.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(crate) fn row(&mut self, cells: [String; N]) -> Result<(), ApiError> {
        self.rows.push(cells);
        if self.rows.len() < ROWS { Ok(()) } else { self.write() }
    }

    /// The rest, or the headers alone if there was no row; with what the work on the table came to.
    ///
    /// # Errors
    /// That of the work; when stdout cannot be written.
    pub(crate) fn end<T>(mut self, result: Result<T, ApiError>) -> Result<T, ApiError> {
        let is_empty_table = self.headers.is_some() && result.is_ok();
        if !self.rows.is_empty() || is_empty_table {
            self.write()?;
        }
        result
    }

    fn write(&mut self) -> Result<(), ApiError> {
        output::line(self.take())
    }

    /// What has come since the last time, as text.
    fn take(&mut self) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Disabled);
        if let Some(headers) = self.headers.take() {
            table.set_header(headers);
        }
        table.add_rows(self.rows.drain(..));
        for (width, wide) in self.widths.iter_mut().zip(table.column_max_content_widths()) {
            *width = wide.max(*width);
        }
        for (column, width) in table.column_iter_mut().zip(self.widths) {
            column.set_padding((0, 2));
            column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width + 2)));
        }
        table.trim_fmt()
    }
}

/// A value, or `<none>`.
pub(crate) fn or_none(value: Option<impl ToString>) -> String {
    value.map_or_else(|| NONE.to_owned(), |value| value.to_string())
}

/// A duration as a soul sets it, without loss: `200ms`, `5s`, `2m 30s`.
pub(crate) fn exact(duration: Duration) -> String {
    let short = short(duration);
    match humantime::parse_duration(&short) {
        Ok(same) if same == duration => short,
        Ok(_) | Err(_) => humantime::format_duration(duration).to_string(),
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

pub(crate) use common::words::{count, one_line, short};

/// A number of bytes: `812 B`, `1.5 GiB`.
pub(crate) fn bytes(count: u64) -> String {
    common::words::bytes(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_soul_sets_is_shown_without_loss() {
        for (millis, shown) in [(200, "200ms"), (5_000, "5s"), (60_000, "60s"), (150_000, "2m 30s")]
        {
            assert_eq!(exact(Duration::from_millis(millis)), shown);
        }
    }

    #[test]
    fn tables_are_plain_columns() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), NONE.to_owned()]];
        assert_eq!(table(&["AGENT", "GEN"], rows), "AGENT  GEN\na      1\nlong   <none>");
    }

    #[test]
    fn a_table_in_pieces_keeps_its_columns() {
        let cells = |agent: &str| [agent.to_owned(), "1".to_owned()];
        let mut rows = Rows::new(["AGENT", "GEN"]);
        rows.rows.extend([cells("a"), cells("long-one")]);
        assert_eq!(rows.take(), "AGENT     GEN\na         1\nlong-one  1");
        rows.rows.push(cells("b"));
        assert_eq!(rows.take(), "b         1");
        rows.rows.push(cells("much-longer"));
        assert_eq!(rows.take(), "much-longer  1");
    }

    #[test]
    fn times_are_relative() {
        let at = Timestamp::from_millis(10_000);
        assert_eq!(age(Some(at), Timestamp::from_millis(15_000)), "5s");
        assert_eq!(until(Some(at), Timestamp::from_millis(5_000)), "in 5s");
        assert_eq!(age(None, at), NONE);
    }
}
