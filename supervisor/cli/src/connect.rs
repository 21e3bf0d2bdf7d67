//! Where the broker is: what was asked for, else what `mozart up` started here.

use std::time::Duration;

use broker::ConnectOptions;
use common::Namespace;
use common::api::ApiError;

use crate::args::Global;
use common::failure;
use runtime::home::Home;

/// How to reach the broker; `name` is shown in the server's lists.
///
/// # Errors
/// When no server is named and nothing was started here (exit 6).
pub fn options(
    global: &Global,
    name: impl Into<String>,
    timeout: Duration,
) -> Result<ConnectOptions, ApiError> {
    let given = global.url().map(str::to_owned);
    let (url, noted) = match given {
        Some(url) => (url, None),
        None => {
            let home = Home::locate(global.home.as_deref())?;
            let Some(running) = home.read_running()? else {
                let cause = format!("{} does not exist", home.running_file().display());
                let what = "no NATS server is named, and `mozart up` does not run here";
                return Err(failure::error(failure::UNREACHABLE, what, cause, "`mozart up`"));
            };
            (running.url, Some(running.namespace))
        }
    };
    Ok(ConnectOptions {
        url,
        creds: global.creds(),
        name: name.into(),
        namespace: global.namespace.clone().or(noted).unwrap_or_else(default_namespace),
        timeout,
    })
}

/// The fleet that is meant when none is named.
pub fn default_namespace() -> Namespace {
    #[expect(clippy::expect_used, reason = "a literal that the tests check")]
    Namespace::new("default").expect("`default` is a valid namespace")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Output;
    use common::Timestamp;
    use runtime::home::Running;

    fn global(home: &std::path::Path) -> Global {
        Global {
            nats: None,
            creds: None,
            namespace: None,
            home: Some(home.to_owned()),
            output: Output::Table,
            verbose: 0,
        }
    }

    #[test]
    fn without_a_server_the_note_of_up_is_read() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let global = global(temp.path());
        let error = options(&global, "t", Duration::ZERO).expect_err("nothing runs");
        assert_eq!((error.code, error.try_.as_str()), (6, "`mozart up`"));

        let running = Running {
            url: "nats://noted".to_owned(),
            namespace: Namespace::new("noted").expect("valid"),
            pid: 1,
            nats_pid: None,
            runtime: None,
            version: String::new(),
            started_at: Timestamp::default(),
        };
        let home = Home::locate(Some(temp.path())).expect("given");
        home.write_running(&running).expect("written");
        let found = options(&global, "t", Duration::ZERO).expect("noted");
        assert_eq!((found.url.as_str(), found.namespace.as_str()), ("nats://noted", "noted"));
    }

    #[test]
    fn what_is_given_wins() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let mut global = global(temp.path());
        global.nats = Some("nats://given".to_owned());
        let found = options(&global, "t", Duration::ZERO).expect("given");
        assert_eq!((found.url.as_str(), found.namespace.as_str()), ("nats://given", "default"));
    }
}
