//! `SCHEDULE "<cron>" [TZ <zone>] [OPTIONS …] <prompt>`.

use std::str::FromStr as _;

use chrono_tz::{TZ_VARIANTS, Tz};
use croner::Cron;

use super::options::each;
use super::value::duration;
use super::voice::text;
use crate::schedule::{GRACE, OnMiss, Overlap, ScheduleOptions, parser};
use crate::soul::lines::Heredoc;
use crate::soul::source::{Checked, Problem, Problems};
use crate::soul::suggest::{closest, did_you_mean, one_of, quoted};
use crate::soul::text::Part;
use crate::spec::Schedule;

const USAGE: &str = "expected `SCHEDULE \"<cron>\" [TZ <zone>] [OPTIONS <key>=<value> …] <prompt>`";
const OPTIONS: [&str; 4] = ["jitter", "overlap", "on-miss", "within"];
const NICKNAMES: [&str; 6] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];

/// A schedule; none when its parts, each checked for itself, had problems.
pub(super) fn schedule(
    rest: Part<'_>,
    heredoc: Option<&Heredoc>,
    problems: &mut Problems<'_>,
) -> Checked<Option<Schedule>> {
    let (cron, rest) = quoted_cron(rest)?;
    let valid_cron = problems.take(check_cron(cron)).is_some();
    let (zone, rest) = zone(rest)?;
    let (options, prompt) = options(rest, problems)?;
    let valid_zone = match zone {
        Some(zone) => problems.take(check_zone(zone)).is_some(),
        None => true,
    };
    if prompt.is_empty() && heredoc.is_none() {
        let end = rest.end().span();
        return Err(Problem::new(end, "SCHEDULE without a prompt", USAGE));
    }
    let prompt = text(prompt, heredoc, "SCHEDULE")?;
    Ok((valid_cron && valid_zone).then(|| Schedule {
        cron: cron.as_str().to_owned(),
        tz: zone.map(|zone| zone.as_str().to_owned()),
        prompt,
        options,
    }))
}

/// The options, and the prompt after them: it begins with the first word without a `=`.
fn options<'t>(
    rest: Part<'t>,
    problems: &mut Problems<'_>,
) -> Checked<(ScheduleOptions, Part<'t>)> {
    let mut options = ScheduleOptions::default();
    let (word, after) = rest.split_word();
    let is_option = |part: Part<'_>| part.split_word().0.as_str().contains('=');
    if word.as_str() != "OPTIONS" {
        // A prompt may begin with the word, but hardly so with an option behind it.
        if word.as_str().eq_ignore_ascii_case("OPTIONS") && is_option(after) {
            let message = format!("an option after {}", quoted(word.as_str()));
            return Err(Problem::new(word.span(), message, USAGE).help(did_you_mean("OPTIONS")));
        }
        return Ok((options, rest));
    }
    let mut prompt = after;
    while is_option(prompt) {
        prompt = prompt.split_word().1;
    }
    let (given, _) = after.split_at(prompt.start_in_text() - after.start_in_text());
    if given.is_empty() {
        return Err(Problem::new(
            word.end().span(),
            "OPTIONS without an option",
            "expected `jitter=…`, `overlap=…`, `on-miss=…` or `within=…` before the prompt",
        ));
    }
    let (next, zone) = prompt.split_word();
    if next.as_str() == "TZ" && Tz::from_str(zone.split_word().0.as_str()).is_ok() {
        return Err(Problem::new(next.span(), "a time zone after OPTIONS", USAGE)
            .help("write TZ before OPTIONS".to_owned()));
    }
    let (mut within, mut on_miss) = (None, None);
    each(given.trim(), &OPTIONS, problems, |key, value| {
        match key {
            "jitter" => options.jitter = duration(value, true)?,
            "overlap" => options.overlap = overlap(value)?,
            "on-miss" => {
                options.on_miss = missed(value)?;
                on_miss = Some(value.span());
            }
            _ => {
                options.within = longer(value)?;
                within = Some(value.span());
            }
        }
        Ok(())
    });
    match options.on_miss {
        OnMiss::Skip => {
            if let Some(within) = within {
                problems.push(Problem::new(
                    within,
                    "`within` and `on-miss=skip`",
                    "expected one of them: with `skip`, what was missed is never made up for",
                ));
            }
        }
        OnMiss::All if options.overlap == Overlap::Skip => {
            if let Some(on_miss) = on_miss {
                problems.push(
                    Problem::new(
                        on_miss,
                        "`on-miss=all` without `overlap=queue`",
                        "expected both: otherwise the first would keep the others from being sent",
                    )
                    .help("add `overlap=queue`, or use `on-miss=once`".to_owned()),
                );
            }
        }
        OnMiss::Once | OnMiss::All => {}
    }
    Ok((options, prompt))
}

fn overlap(value: Part<'_>) -> Checked<Overlap> {
    match value.as_str() {
        "skip" => Ok(Overlap::Skip),
        "queue" => Ok(Overlap::Queue),
        _ => Err(unknown(value, "overlap", &["skip", "queue"])),
    }
}

fn missed(value: Part<'_>) -> Checked<OnMiss> {
    match value.as_str() {
        "skip" => Ok(OnMiss::Skip),
        "once" => Ok(OnMiss::Once),
        "all" => Ok(OnMiss::All),
        _ => Err(unknown(value, "on-miss", &["skip", "once", "all"])),
    }
}

fn unknown(value: Part<'_>, what: &str, known: &[&'static str]) -> Box<Problem> {
    let text = value.as_str();
    let known = || known.iter().copied();
    Problem::new(
        value.span(),
        format!("{what} of {}", quoted(text)),
        format!("expected {}", one_of(known())),
    )
    .help(closest(text, known()).map(did_you_mean))
}

fn longer(value: Part<'_>) -> Checked<std::time::Duration> {
    let within = duration(value, false)?;
    if within < GRACE {
        return Err(Problem::new(
            value.span(),
            format!("within of {}", quoted(value.as_str())),
            "expected 1m to 24h: an occurrence that is less than a minute late was not missed",
        ));
    }
    Ok(within)
}

fn quoted_cron(rest: Part<'_>) -> Checked<(Part<'_>, Part<'_>)> {
    let (_, inside) =
        rest.split_once('"').filter(|(before, _)| before.is_empty()).ok_or_else(|| {
            let (word, _) = rest.split_word();
            let fields: Vec<&str> = rest.words().take(5).map(Part::as_str).collect();
            let is_cron = fields.len() == 5 && parser().parse(&fields.join(" ")).is_ok();
            let help = is_cron.then(|| did_you_mean(format!("\"{}\"", fields.join(" "))));
            Problem::new(word.span(), "SCHEDULE without a quoted cron expression", USAGE).help(help)
        })?;
    inside.split_once('"').ok_or_else(|| {
        Problem::new(rest.span(), "the cron expression's quote is never closed", USAGE)
    })
}

fn zone(rest: Part<'_>) -> Checked<(Option<Part<'_>>, Part<'_>)> {
    let (word, after) = rest.split_word();
    if !word.as_str().eq_ignore_ascii_case("TZ") {
        return Ok((None, rest.trim()));
    }
    let (zone, prompt) = after.split_word();
    if word.as_str() == "TZ" {
        return if zone.is_empty() {
            Err(Problem::new(
                word.end().span(),
                "TZ without a time zone",
                "expected one such as `Europe/Berlin` or `UTC`",
            ))
        } else {
            Ok((Some(zone), prompt))
        };
    }
    // A prompt may begin with `tz`, but hardly so with a zone behind it.
    match Tz::from_str(zone.as_str()) {
        Ok(_) => Err(Problem::new(
            word.span(),
            format!("a time zone after {}", quoted(word.as_str())),
            USAGE,
        )
        .help(did_you_mean("TZ"))),
        Err(_) => Ok((None, rest.trim())),
    }
}

fn check_zone(zone: Part<'_>) -> Checked<()> {
    let text = zone.as_str();
    if Tz::from_str(text).is_ok() {
        return Ok(());
    }
    let names = || TZ_VARIANTS.iter().map(|zone| zone.name());
    let last = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
    let city = names().find(|name| last(name).eq_ignore_ascii_case(text));
    let meant = city.or_else(|| closest(text, names()));
    Err(Problem::new(
        zone.span(),
        format!("unknown time zone {}", quoted(text)),
        "expected a name of the IANA database, such as `Europe/Berlin` or `UTC`",
    )
    .help(meant.map(did_you_mean)))
}

/// One field of a cron expression.
struct Field {
    name: &'static str,
    expected: &'static str,
    words: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        expected: "expected 0 to 59, `*`, lists, ranges or steps such as `*/15`",
        words: &[],
    },
    Field {
        name: "hour",
        expected: "expected 0 to 23, `*`, lists, ranges or steps such as `8-18/2`",
        words: &[],
    },
    Field {
        name: "day of the month",
        expected: "expected 1 to 31, `*`, `L` (the last), lists, ranges or steps",
        words: &["L", "W", "LW"],
    },
    Field {
        name: "month",
        expected: "expected 1 to 12, `JAN` to `DEC`, `*`, lists, ranges or steps",
        words: &[
            "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
        ],
    },
    Field {
        name: "day of the week",
        expected: "expected 0 to 7, `SUN` to `SAT`, `*`, lists, ranges or steps",
        words: &[
            "SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "L", "SUNL", "MONL", "TUEL", "WEDL",
            "THUL", "FRIL", "SATL",
        ],
    },
];

fn check_cron(cron: Part<'_>) -> Checked<()> {
    let text = cron.as_str();
    if text.trim_start().starts_with('@') {
        return if NICKNAMES.contains(&text) {
            Ok(())
        } else {
            Err(Problem::new(
                cron.span(),
                format!("unknown schedule {}", quoted(text)),
                format!("expected five fields, or {}", one_of(NICKNAMES)),
            )
            .help(closest(text, NICKNAMES).map(did_you_mean)))
        };
    }
    let fields: Vec<Part<'_>> = cron.words().take(FIELDS.len() + 1).collect();
    if fields.len() != FIELDS.len() {
        let count = cron.words().count();
        let seconds = "leave the seconds out: a schedule fires at most once a minute".to_owned();
        return Err(Problem::new(
            cron.span(),
            format!("a cron expression of {count} field{}", if count == 1 { "" } else { "s" }),
            "expected five: minute, hour, day of the month, month, day of the week",
        )
        .help((count == 6).then_some(seconds)));
    }
    for (field, kind) in fields.iter().zip(&FIELDS) {
        check_field(*field, kind)?;
    }
    let parsed = parser().parse(text).map_err(|error| {
        // croner says what is wrong, but not where: the field that is wrong alone.
        let wrong = (0..FIELDS.len()).find(|index| {
            let mut alone = ["*"; FIELDS.len()];
            alone[*index] = fields[*index].as_str();
            parser().parse(&alone.join(" ")).is_err()
        });
        match wrong {
            Some(index) => wrong_field(fields[index], &FIELDS[index], None),
            None => Problem::new(
                cron.span(),
                "an invalid cron expression",
                error.to_string().to_lowercase(),
            ),
        }
    })?;
    if never_fires(&parsed, fields[4].as_str()) {
        return Err(Problem::new(
            fields[2].span(),
            "a schedule that never fires",
            "expected a day that exists in one of its months",
        ));
    }
    Ok(())
}

fn wrong_field(field: Part<'_>, kind: &Field, help: Option<&str>) -> Box<Problem> {
    let message = format!("{} as the {}", quoted(field.as_str()), kind.name);
    Problem::new(field.span(), message, kind.expected).help(help.map(did_you_mean))
}

/// Refuses what croner lets pass, or would take long for.
fn check_field(field: Part<'_>, kind: &Field) -> Checked<()> {
    let text = field.as_str();
    // Longer than every minute of an hour, listed.
    if text.len() > 200 {
        return Err(wrong_field(field, kind, None));
    }
    // croner replaces names wherever they stand, also in the minutes, also side by side.
    for word in text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
        if !kind.words.iter().any(|known| known.eq_ignore_ascii_case(word)) {
            let meant = closest(word, kind.words.iter().copied());
            return Err(wrong_field(field, kind, meant));
        }
    }
    // It steps through ranges before it checks them, and no field has numbers of three digits.
    let has_long_number = text.split(|c: char| !c.is_ascii_digit()).any(|digits| digits.len() > 2);
    // It takes the nothing between two commas for a value.
    let has_hole = text.split(',').any(str::is_empty);
    if has_long_number || has_hole {
        return Err(wrong_field(field, kind, None));
    }
    Ok(())
}

/// Whether its days and months never meet, as in the 30th of February. Days of the week beside them, or `L` and `W`, do.
fn never_fires(cron: &Cron, weekday: &str) -> bool {
    let pattern = &cron.pattern;
    // A day of the week is one more way to fire; with a `+` in front, one more condition.
    let by_date_alone = matches!(weekday, "*" | "?") || weekday.starts_with('+');
    if !by_date_alone || pattern.days.has_modifiers() {
        return false;
    }
    let longest = |month: u16| match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let first_day = pattern.days.values().first().copied().unwrap_or(u16::MAX);
    !pattern.months.values().iter().any(|month| first_day <= longest(*month))
}
