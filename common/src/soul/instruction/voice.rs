//! Who the agent is: `MODEL`, `SOUL`, `IF`.

use super::value::only_word;
use crate::soul::MAX_IDENTITY;
use crate::soul::keyword::Keyword;
use crate::soul::lines::Heredoc;
use crate::soul::source::{Checked, Problem};
use crate::soul::text::Part;
use crate::spec::IfThen;

/// The longest model name, in bytes.
const MAX_MODEL: usize = 256;

pub(super) fn model(rest: Part<'_>) -> Checked<String> {
    let word = only_word(rest, Keyword::Model)?;
    if word.as_str().len() > MAX_MODEL {
        return Err(Problem::new(
            word.span(),
            "the model's name is too long",
            format!("expected at most {MAX_MODEL} bytes"),
        ));
    }
    Ok(word.as_str().to_owned())
}

pub(super) fn identity(rest: Part<'_>, heredoc: Option<&Heredoc>) -> Checked<String> {
    let identity = text(rest, heredoc, "SOUL")?;
    if identity.len() > MAX_IDENTITY {
        let span = heredoc.map_or(rest.span(), |heredoc| heredoc.opening.clone());
        return Err(Problem::new(
            span,
            format!("the identity is {} KiB long", identity.len() >> 10),
            format!("expected at most {} KiB", MAX_IDENTITY >> 10),
        ));
    }
    Ok(identity)
}

pub(super) fn if_then(rest: Part<'_>, heredoc: Option<&Heredoc>) -> Checked<IfThen> {
    let Some(then) = rest.words().find(|word| word.as_str() == "THEN") else {
        let small = rest.words().find(|word| word.as_str().eq_ignore_ascii_case("then"));
        let span = small.map_or(rest.end().span(), |word| word.span());
        let help = small.map(|_| "did you mean `THEN`? It is written in upper case".to_owned());
        return Err(Problem::new(
            span,
            "IF without THEN",
            "expected `IF <condition> THEN <reaction>`",
        )
        .help(help));
    };
    let (before, after) = rest.split_at(then.start_in_text() - rest.start_in_text());
    let condition = before.trim();
    if condition.is_empty() {
        return Err(Problem::new(
            then.span(),
            "IF without a condition",
            "expected `IF <condition> THEN <reaction>`",
        ));
    }
    let (_, after) = after.split_word();
    if after.is_empty() && heredoc.is_none() {
        return Err(Problem::new(
            then.end().span(),
            "THEN without a reaction",
            "expected `IF <condition> THEN <reaction>`",
        ));
    }
    Ok(IfThen { condition: condition.as_str().to_owned(), reaction: text(after, heredoc, "THEN")? })
}

/// Text in the line or in a heredoc, not in both.
pub(super) fn text(
    rest: Part<'_>,
    heredoc: Option<&Heredoc>,
    what: &'static str,
) -> Checked<String> {
    match heredoc {
        None => Ok(rest.as_str().to_owned()),
        Some(heredoc) if !rest.is_empty() => Err(Problem::new(
            rest.span(),
            format!("{what} with text in front of a heredoc"),
            "expected nothing here",
        )
        .help("move it into the heredoc".to_owned())
        .also(heredoc.opening.clone(), "heredoc opened")),
        Some(heredoc) if heredoc.body.trim().is_empty() => Err(Problem::new(
            heredoc.opening.clone(),
            "the heredoc is empty",
            "expected text in the lines below",
        )),
        Some(heredoc) => Ok(heredoc.body.clone()),
    }
}
