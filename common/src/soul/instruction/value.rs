//! The kinds of values that several instructions share.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::soul::keyword::Keyword;
use crate::soul::source::{Checked, Problem};
use crate::soul::suggest::{did_you_mean, quoted};
use crate::soul::text::Part;

/// The longest duration that a soul can ask for.
pub(super) const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The one word of an instruction that takes one.
pub(super) fn only_word(rest: Part<'_>, keyword: Keyword) -> Checked<Part<'_>> {
    let (word, more) = rest.split_word();
    if more.is_empty() {
        return Ok(word);
    }
    Err(Problem::new(
        more.span(),
        format!("{} takes one word", keyword.word()),
        format!("expected nothing after {}", quoted(word.as_str())),
    )
    .help(comment_help(more)))
}

/// The help for a `#` after a value.
pub(super) fn comment_help(more: Part<'_>) -> Option<String> {
    let is_comment = more.as_str().starts_with('#');
    is_comment.then(|| "a comment needs a line of its own".to_owned())
}

/// A whole number within a range.
pub(super) fn number(rest: Part<'_>, keyword: Keyword, range: RangeInclusive<u32>) -> Checked<u32> {
    let word = only_word(rest, keyword)?;
    let (from, to) = (*range.start(), *range.end());
    in_range(word, range).ok_or_else(|| {
        Problem::new(
            word.span(),
            format!("{} of {}", keyword.word(), quoted(word.as_str())),
            format!("expected a whole number from {from} to {to}"),
        )
    })
}

/// A whole number in plain digits.
pub(super) fn in_range(word: Part<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let text = word.as_str();
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = plain.then(|| text.parse().ok()).flatten()?;
    range.contains(&number).then_some(number)
}

/// A duration of at most a day, in whole milliseconds; zero only where it makes sense.
pub(super) fn duration(word: Part<'_>, zero: bool) -> Checked<Duration> {
    let text = word.as_str();
    let expected = if zero {
        "expected a duration of 0s to 24h, such as `10s`, `5m` or `1h30m`"
    } else {
        "expected a duration of 1ms to 24h, such as `10s`, `5m` or `1h30m`"
    };
    let problem = |help: Option<String>| {
        Problem::new(word.span(), format!("a duration of {}", quoted(text)), expected).help(help)
    };
    if !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(problem(Some(did_you_mean(format!("{text}s")))));
    }
    // Nothing that is worth a day at most is longer than this, in bytes.
    let parsed = (text.len() <= 64).then(|| humantime::parse_duration(text));
    let Some(Ok(exact)) = parsed else {
        return Err(problem(None));
    };
    if exact > LONGEST {
        let months = text.ends_with('M').then(|| text.replace('M', "m"));
        return Err(problem(months.map(did_you_mean)));
    }
    // A day fits.
    let millis = u64::try_from(exact.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 && !(zero && exact.is_zero()) {
        return Err(problem(None));
    }
    Ok(Duration::from_millis(millis))
}

/// How long something is kept: whole seconds, up to ten years; `0` is not at all.
pub(super) fn age(word: Part<'_>) -> Checked<Duration> {
    const LONGEST: Duration = Duration::from_secs(3660 * 24 * 3600);
    let text = word.as_str();
    let expected = "expected `0`, or a time up to ten years, such as `12h`, `30d` or `1y`";
    let problem = |help: Option<String>| {
        Problem::new(word.span(), format!("a time of {}", quoted(text)), expected).help(help)
    };
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(problem(Some(did_you_mean(format!("{text}d")))));
    }
    let parsed = (text.len() <= 64).then(|| humantime::parse_duration(text));
    match parsed {
        Some(Ok(exact)) if exact <= LONGEST => Ok(Duration::from_secs(exact.as_secs())),
        _ => Err(problem(None)),
    }
}

/// `NAME=value`, the value plain, `"quoted"` or `'quoted'`.
pub(super) fn assignment(rest: Part<'_>, keyword: Keyword) -> Checked<(Part<'_>, String)> {
    let expected = || format!("expected `{}`", keyword.usage());
    let (first, more) = rest.split_word();
    let Some((name, value)) = rest.split_once('=').filter(|_| first.as_str().contains('=')) else {
        let help = match more.as_str().strip_prefix('=') {
            Some(_) => Some("leave out the spaces around `=`".to_owned()),
            None if more.is_empty() => None,
            None => {
                Some(did_you_mean(format!("{}={}", first.as_str(), more.split_word().0.as_str())))
                    .filter(|help| help.len() < 80)
            }
        };
        let message = format!("{} without `=`", keyword.word());
        return Err(Problem::new(rest.span(), message, expected()).help(help));
    };
    if name.is_empty() {
        let message = format!("{} without a name", keyword.word());
        return Err(Problem::new(rest.span(), message, expected()));
    }
    Ok((name, plain_or_quoted(value, keyword)?))
}

/// A value without spaces, or one in quotes.
fn plain_or_quoted(value: Part<'_>, keyword: Keyword) -> Checked<String> {
    let text = value.as_str();
    if text.starts_with(['"', '\'']) {
        return unquoted(value);
    }
    match text.find(char::is_whitespace) {
        None => Ok(text.to_owned()),
        Some(0) => Err(Problem::new(
            value.span(),
            "a space after `=`",
            "expected the value directly after it",
        )
        .help("leave out the space, or quote the value".to_owned())),
        Some(_) => {
            let (_, more) = value.split_word();
            let help = comment_help(more).unwrap_or_else(|| {
                if more.split_word().0.as_str().contains('=') {
                    format!("one {} a line, or quotes around the value", keyword.word())
                } else {
                    "quote a value that has spaces: `\"a b\"`".to_owned()
                }
            });
            Err(Problem::new(
                more.span(),
                format!("{} with more than one value", keyword.word()),
                "expected nothing here",
            )
            .help(help))
        }
    }
}

/// The text in `"…"` (with JSON's escapes) or `'…'` (as it is).
pub(super) fn unquoted(value: Part<'_>) -> Checked<String> {
    let text = value.as_str();
    let literal = text
        .strip_prefix('\'')
        .and_then(|rest| rest.strip_suffix('\''))
        .filter(|inside| !inside.contains('\''));
    if let Some(inside) = literal {
        return Ok(inside.to_owned());
    }
    // A tab is fine in a soul, but JSON wants it escaped.
    let decoded: Option<String> = serde_json::from_str(&text.replace('\t', "\\t")).ok();
    match decoded {
        Some(decoded) if !decoded.contains('\0') => Ok(decoded),
        Some(_) => Err(Problem::new(value.span(), "a NUL in a quoted value", "expected text")),
        None => Err(Problem::new(
            value.span(),
            "a malformed quoted value",
            "expected `\"…\"` with `\\\"`, `\\\\`, `\\n` for a quote, a backslash, a newline inside, or `'…'`",
        )),
    }
}

/// `name=value` of a label.
pub(super) fn label(rest: Part<'_>, keyword: Keyword) -> Checked<(Part<'_>, String)> {
    let (name, value) = assignment(rest, keyword)?;
    let text = name.as_str();
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._/-".contains(&b);
    let valid = text.len() <= 63
        && text.bytes().all(allowed)
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if !valid {
        return Err(Problem::new(
            name.span(),
            format!("{} of the name {}", keyword.word(), quoted(text)),
            "expected 1 to 63 of A-Z, a-z, 0-9, '.', '_', '/' and '-', starting with a letter or digit",
        ));
    }
    if value.len() > 255 || value.chars().any(char::is_control) {
        let at = rest.sub(text.len() + 1..rest.as_str().len());
        return Err(Problem::new(
            at.span(),
            format!("{} with a value that no node can have", keyword.word()),
            "expected at most 255 bytes in one line",
        ));
    }
    Ok((name, value))
}
