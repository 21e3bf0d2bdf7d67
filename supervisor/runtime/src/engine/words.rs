//! An engine's errors as people read them.

use bollard::errors::Error;

/// What went wrong, in the engine's words, without details that only its developers need.
pub fn say(error: Error) -> String {
    if let Error::DockerResponseServerError { message: text, .. }
    | Error::DockerStreamError { error: text } = &error
    {
        return shorten(text);
    }
    if let Error::RequestTimeoutError = error {
        return "the engine did not answer in time".to_owned();
    }
    if let Error::HyperLegacyError { .. } | Error::HyperResponseError { .. } = error {
        return format!("the engine does not answer: {}", root(&error));
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// The last cause: the system's own word for it.
fn root(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The engine's own report of where in it something happened is no help: the last link says what.
fn shorten(message: &str) -> String {
    const MARKS: [&str; 4] =
        ["runc create failed: ", "crun: ", "runc: ", "unable to start container process: "];
    let mut text = message.trim();
    for mark in MARKS {
        if let Some((_, rest)) = text.rsplit_once(mark) {
            text = rest;
        }
    }
    text.trim_end_matches(": unknown").trim().to_owned()
}

/// The status with which the engine refused; none for what is not a refusal.
pub(super) fn status(error: &Error) -> Option<u16> {
    if let Error::DockerResponseServerError { status_code, .. } = error {
        Some(*status_code)
    } else {
        None
    }
}

/// Whether a name is taken: podman says so in words only.
pub(super) fn is_clash(error: &Error) -> bool {
    match status(error) {
        Some(409) => true,
        Some(500) => error.to_string().contains("already in use"),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_the_words_that_matter() {
        let message = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"/x\": no such file or directory: unknown";
        let error =
            Error::DockerResponseServerError { status_code: 400, message: message.to_owned() };
        assert_eq!(status(&error), Some(400));
        assert_eq!(say(error), "exec: \"/x\": no such file or directory");
        assert_eq!(say(Error::DockerStreamError { error: "denied".into() }), "denied");
    }
}
