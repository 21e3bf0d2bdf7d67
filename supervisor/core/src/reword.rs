//! Reasons as people read them. The words that the fold keeps are part of the state, and stay as they are.

use common::shim::Exit;

/// A reason of the state in plain words.
#[must_use]
pub fn reworded(reason: &str) -> String {
    if let Some((what, rest)) = reason.split_once(" not ready: ") {
        let (why, instead) = match rest.rsplit_once("; ") {
            Some((why, instead)) => (why, format!("; {instead}")),
            None => (rest, String::new()),
        };
        let why = exit(why);
        return match why.strip_prefix("not ready within ") {
            Some(_) => format!("{what} was given up: it was {why}{instead}"),
            None => format!("{what} was given up: it did not become ready: {why}{instead}"),
        };
    }
    for (kept, said) in [("worker: ", ""), ("quarantined: ", "; last: ")] {
        if let Some(rest) = reason.strip_prefix(kept) {
            let at = rest.find(said).map_or(0, |at| at + said.len());
            let why = exit(&rest[at..]);
            // Whose end it was is said.
            let why = if kept == "worker: " {
                why.strip_prefix("the worker ").unwrap_or(why)
            } else {
                why
            };
            return format!("{kept}{}{why}", &rest[..at]);
        }
    }
    reason.to_owned()
}

/// How an incarnation ended.
fn exit(kept: &str) -> &str {
    if kept == Exit::GONE { Exit::NOT_FOUND } else { kept }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_say_each_thing_once() {
        for (kept, said) in [
            (
                "generation 4 not ready: not ready within 5s; generation 3 runs again",
                "generation 4 was given up: it was not ready within 5s; generation 3 runs again",
            ),
            (
                "generation 4 not ready: exit code 1; generation 3 keeps running",
                "generation 4 was given up: it did not become ready: exit code 1; generation 3 keeps running",
            ),
            (
                "incarnation 2 not ready: not ready within 5s; the last line of its output: x; incarnation 1 keeps running",
                "incarnation 2 was given up: it was not ready within 5s; the last line of its output: x; incarnation 1 keeps running",
            ),
            ("worker: gone", "worker: was not running any more when its node started"),
            ("worker: exit code 1", "worker: exit code 1"),
            ("worker: the worker closed its stdout", "worker: closed its stdout"),
            (
                "quarantined: 3 restarts within 10m; last: gone",
                "quarantined: 3 restarts within 10m; last: was not running any more when its node started",
            ),
            ("node alpha lost", "node alpha lost"),
        ] {
            assert_eq!(reworded(kept), said);
        }
    }
}
