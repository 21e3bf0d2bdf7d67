//! Figures and how they are shown.

use std::io::{IsTerminal as _, Write as _, stderr, stdout};

use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::outcome::Result;

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One line per figure.
    Json,
}

/// What a ratio should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
    /// Shown for orientation.
    None,
}

impl Goal {
    fn is_met(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtLeast(bound) => Some(ratio >= bound),
            Self::AtMost(bound) => Some(ratio <= bound),
            Self::None => None,
        }
    }

    fn verdict(self, ratio: f64) -> &'static str {
        match self.is_met(ratio) {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        }
    }

    fn describe(self) -> String {
        match self {
            Self::AtLeast(bound) => format!(">= {bound}"),
            Self::AtMost(bound) => format!("<= {bound}"),
            Self::None => String::new(),
        }
    }
}

/// One line of the result.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Figure {
    /// The number of the goal that it belongs to; 0 for a floor of the machine.
    goal: u8,
    name: String,
    ours: f64,
    theirs: Option<f64>,
    unit: &'static str,
    /// The median of the pairs' ratios, ours / theirs.
    ratio: Option<f64>,
    pairs: usize,
    #[serde(skip)]
    bound: Option<Goal>,
    /// Whether the bound is that of our own number, and not of the ratio.
    #[serde(skip)]
    absolute: bool,
}

/// What the pairs of one figure add up to.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pairs {
    pub(crate) fn push(&mut self, ours: f64, theirs: f64) {
        self.ours.push(ours);
        self.theirs.push(theirs);
    }

    /// The figure of these pairs.
    pub(crate) fn figure(self, goal: u8, name: &str, unit: &'static str, bound: Goal) -> Figure {
        let ratios =
            self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs).collect();
        Figure {
            goal,
            name: name.to_owned(),
            pairs: self.ours.len(),
            ours: median(self.ours),
            theirs: Some(median(self.theirs)),
            unit,
            ratio: Some(median(ratios)),
            bound: Some(bound),
            absolute: false,
        }
    }
}

impl Figure {
    /// A number that stands alone, such as a floor or a count of what must not be.
    pub(crate) fn alone(goal: u8, name: &str, value: f64, unit: &'static str) -> Self {
        let name = name.to_owned();
        Self {
            goal,
            name,
            ours: value,
            theirs: None,
            unit,
            ratio: None,
            pairs: 1,
            bound: None,
            absolute: true,
        }
    }

    /// Bounds the number itself, whatever it is compared with.
    pub(crate) fn wanting(mut self, bound: Goal) -> Self {
        self.bound = Some(bound);
        self.absolute = true;
        self
    }
}

/// A figure in JSON, with what was wanted of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown<'a> {
    #[serde(flatten)]
    figure: &'a Figure,
    /// `ours` or `ratio`: what is bounded.
    #[serde(skip_serializing_if = "Option::is_none")]
    bounded: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_least: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at_most: Option<f64>,
    /// None where nothing was wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

impl<'a> Shown<'a> {
    fn new(figure: &'a Figure) -> Self {
        let goal = figure.bound.unwrap_or(Goal::None);
        let (value, bounded) = match figure.ratio.filter(|_| !figure.absolute) {
            Some(ratio) => (ratio, "ratio"),
            None => (figure.ours, "ours"),
        };
        let (at_least, at_most) = match goal {
            Goal::AtLeast(bound) => (Some(bound), None),
            Goal::AtMost(bound) => (None, Some(bound)),
            Goal::None => (None, None),
        };
        Self {
            figure,
            bounded: (goal != Goal::None).then_some(bounded),
            at_least,
            at_most,
            met: goal.is_met(value),
        }
    }
}

/// The smallest of the numbers that at least so many percent do not exceed.
pub(crate) fn quantile(numbers: &[f64], percent: usize) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (numbers.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

/// The middle of some numbers.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len() / 2;
    match numbers.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => numbers[middle],
        _ => f64::midpoint(numbers[middle - 1], numbers[middle]),
    }
}

/// Collects figures and shows them.
#[derive(Debug)]
pub(crate) struct Report {
    format: Format,
    figures: Vec<Figure>,
}

impl Report {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, figures: Vec::new() }
    }

    /// Takes a figure; a line of JSON is written at once.
    pub(crate) fn add(&mut self, figure: Figure) -> Result<()> {
        match self.format {
            Format::Json => {
                let mut line = serde_json::to_vec(&Shown::new(&figure))?;
                line.push(b'\n');
                stdout().lock().write_all(&line)?;
            }
            Format::Table => note(&format!("  {}", line(&figure).join("  "))),
        }
        self.figures.push(figure);
        Ok(())
    }

    /// Takes the times of some trials: their median, and the 99th percentile, which is bounded.
    pub(crate) fn times(
        &mut self,
        what: &str,
        times: &[f64],
        unit: &'static str,
        most: f64,
    ) -> Result<()> {
        let goal = if most.is_finite() { Goal::AtMost(most) } else { Goal::None };
        let what = |part: &str| format!("{what}, {part} of {}", times.len());
        self.add(Figure::alone(0, &what("p50"), quantile(times, 50), unit))?;
        self.add(Figure::alone(0, &what("p99"), quantile(times, 99), unit).wanting(goal))
    }

    pub(crate) fn floors(&mut self, floors: &[(&'static str, f64, &'static str)]) -> Result<()> {
        floors.iter().try_for_each(|(name, value, unit)| {
            self.add(Figure::alone(0, &format!("floor: {name}"), *value, unit))
        })
    }

    /// Shows the table.
    pub(crate) fn end(self) -> Result<()> {
        if self.format == Format::Json {
            return Ok(());
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "GOAL", "FIGURE", "OURS", "THEIRS", "UNIT", "RATIO", "WANTED", "", "PAIRS",
        ]);
        table.add_rows(self.figures.iter().map(line));
        for column in [2, 3, 5] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        writeln!(stdout().lock(), "{table}")?;
        Ok(())
    }
}

fn line(figure: &Figure) -> [String; 9] {
    let ratio = figure.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    let bound = figure.bound.unwrap_or(Goal::None);
    [
        if figure.goal == 0 { String::new() } else { figure.goal.to_string() },
        figure.name.clone(),
        number(figure.ours),
        figure.theirs.map(number).unwrap_or_default(),
        figure.unit.to_owned(),
        ratio,
        bound.describe(),
        bound.verdict(figure.ratio.filter(|_| !figure.absolute).unwrap_or(figure.ours)).to_owned(),
        figure.pairs.to_string(),
    ]
}

/// Three digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Says something beside the results.
pub(crate) fn note(text: &str) {
    let text = if stderr().is_terminal() { common::words::shown(text) } else { text.into() };
    // Nobody is left to tell if stderr is closed.
    drop(writeln!(stderr().lock(), "{text}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_the_median_of_ratios_and_not_the_ratio_of_medians() {
        let mut pairs = Pairs::default();
        for (ours, theirs) in [(1.0, 2.0), (10.0, 10.0), (3.0, 1.0)] {
            pairs.push(ours, theirs);
        }
        let figure = pairs.figure(1, "x", "1/s", Goal::AtLeast(0.8));
        assert_eq!((figure.ours, figure.theirs, figure.ratio), (3.0, Some(2.0), Some(1.0)));
        assert_eq!(line(&figure)[7], "met");
    }

    #[test]
    fn of_thirty_the_slowest_is_the_99th_percentile_and_the_15th_the_median() {
        let times: Vec<_> = (1..=30).rev().map(f64::from).collect();
        assert_eq!((quantile(&times, 50), quantile(&times, 99)), (15.0, 30.0));
    }

    #[test]
    fn the_median_of_an_even_count_is_between() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
