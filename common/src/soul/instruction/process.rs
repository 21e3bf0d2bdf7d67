//! How the worker runs: `WORKER`, `IMAGE`, `ENV`, `SECRET`.

use super::value::{comment_help, only_word};
use crate::soul::keyword::Keyword;
use crate::soul::source::{Checked, Problem};
use crate::soul::suggest::{did_you_mean, quoted};
use crate::soul::text::Part;

/// Exec form is taken as it is, shell form goes to `/bin/sh`.
pub(super) fn worker(rest: Part<'_>) -> Checked<Vec<String>> {
    let text = rest.as_str();
    if !text.starts_with('[') {
        let shell = ["/bin/sh", "-c", text];
        return Ok(shell.map(str::to_owned).to_vec());
    }
    let words: Vec<String> = serde_json::from_str(text).map_err(|error| {
        let at = error.column().saturating_sub(1).min(text.len());
        let at = text.floor_char_boundary(at);
        let help = match (text.contains('\''), text.contains('"')) {
            (true, false) => Some(did_you_mean(text.replace('\'', "\""))),
            (false, false) => {
                Some("to start a shell command that begins with `[`, write `test`".to_owned())
            }
            _ => None,
        };
        let (_, rest) = rest.split_at(at);
        let span =
            rest.as_str().chars().next().map_or(rest.span(), |c| rest.sub(0..c.len_utf8()).span());
        Problem::new(
            span,
            "a malformed WORKER",
            "expected a JSON array of strings, such as `[\"python3\", \"worker.py\"]`",
        )
        .help(help.filter(|help| help.len() < 120))
    })?;
    match words.first() {
        None => Err(Problem::new(
            rest.span(),
            "WORKER without a program",
            "expected at least one string",
        )),
        Some(program) if program.trim().is_empty() => Err(Problem::new(
            rest.span(),
            "WORKER with an empty program",
            "expected a program first",
        )),
        Some(_) if words.iter().any(|word| word.contains('\0')) => {
            Err(Problem::new(rest.span(), "a NUL in WORKER", "expected text"))
        }
        Some(_) => Ok(words),
    }
}

/// An image's reference: `[registry[:port]/]name[:tag][@digest]`.
pub(super) fn image(rest: Part<'_>) -> Checked<String> {
    let word = only_word(rest, Keyword::Image)?;
    let text = word.as_str();
    if is_image(text) {
        return Ok(text.to_owned());
    }
    let small = text.to_lowercase();
    let help = (small != text && is_image(&small))
        .then(|| format!("{} Names are written in lower case", did_you_mean(small)));
    Err(Problem::new(
        word.span(),
        format!("{} is not an image", quoted(text)),
        "expected `[registry/]name[:tag][@sha256:…]`",
    )
    .help(help))
}

fn is_image(text: &str) -> bool {
    if text.len() > 512 {
        return false;
    }
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest)),
        None => (text, None),
    };
    let name_start = text.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match text[name_start..].split_once(':') {
        Some((name, tag)) => (&text[..name_start + name.len()], Some(tag)),
        None => (text, None),
    };
    let mut parts: Vec<&str> = name.split('/').collect();
    let is_registry = |part: &str| part.contains(['.', ':']) || part == "localhost";
    if parts.len() > 1 && is_registry(parts[0]) {
        let registry = parts.remove(0);
        let (host, port) = registry.split_once(':').unwrap_or((registry, "0"));
        let valid = !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-')
            && port.parse::<u16>().is_ok();
        if !valid {
            return false;
        }
    }
    parts.into_iter().all(is_image_part) && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

fn is_image_part(part: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    bytes.first().is_some_and(|b| plain(*b))
        && bytes.last().is_some_and(|b| plain(*b))
        && bytes.iter().all(|b| plain(*b) || b"._-".contains(b))
}

fn is_tag(tag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(plain)
        && tag.bytes().all(|b| plain(b) || b == b'.' || b == b'-')
}

fn is_digest(digest: &str) -> bool {
    digest
        .strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The name of a variable that a soul may set.
pub(super) fn check_variable(name: Part<'_>) -> Checked<()> {
    let text = name.as_str();
    let valid = text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !text.bytes().next().is_none_or(|b| b.is_ascii_digit());
    if !valid {
        return Err(Problem::new(
            name.span(),
            format!("{} cannot name a variable", quoted(text)),
            "expected letters, digits and '_', not starting with a digit",
        ));
    }
    if text.starts_with("MOZART_") {
        return Err(Problem::new(
            name.span(),
            format!("{} is reserved for Mozart", quoted(text)),
            "expected a name that does not start with `MOZART_`",
        ));
    }
    Ok(())
}

pub(super) fn secret(rest: Part<'_>) -> Checked<Part<'_>> {
    let (word, more) = rest.split_word();
    if word.as_str().contains('=') || more.as_str().starts_with('=') {
        return Err(Problem::new(rest.span(), "SECRET with a value", "expected a name alone")
            .help(
                "the node reads the value from its own environment; use ENV for values that are not secret"
                    .to_owned(),
            ));
    }
    if !more.is_empty() {
        let help = comment_help(more).unwrap_or_else(|| "one SECRET a line".to_owned());
        return Err(Problem::new(
            more.span(),
            "SECRET with more than one name",
            "expected nothing here",
        )
        .help(help));
    }
    check_variable(word)?;
    Ok(word)
}
