//! Differences between the shell's environment and that of the running `mozart up`, from which the values of SECRETs are taken.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use cli::output;
use common::api::SoulSource;
use common::soul;
use runtime::RuntimeOptions;
use runtime::home::Running;

use super::ApiAt;
use crate::args::UpArgs;

/// Warns of SECRETs whose value the running one does not have.
pub(super) fn compare(running: &Running, souls: &[SoulSource]) {
    // It is read anew whenever an agent starts.
    if running.runtime.as_ref().is_some_and(|runtime| runtime.env_file.is_some()) {
        return;
    }
    let Ok(theirs) = fs::read(format!("/proc/{}/environ", running.pid)) else { return };
    let parsed =
        |soul: &SoulSource| soul::parse(soul.name.clone(), Path::new(&soul.path), &soul.text).ok();
    let names: BTreeSet<String> =
        souls.iter().filter_map(parsed).flat_map(|spec| spec.secrets).collect();
    for name in names {
        let Some(ours) = std::env::var_os(&name) else { continue };
        if let Some(differs) = differs(&theirs, &name, &ours) {
            output::note(format!(
                "warning: SECRET {name}: the running mozart (process {}) {differs}; `mozart down`, then `mozart up`; or use --env-file",
                running.pid
            ));
        }
    }
}

/// Warns of options that a running one does not take.
pub(super) fn ignored(running: &Running, args: &UpArgs) {
    let mut options = match &running.runtime {
        Some(noted) => others(noted, &args.runtime.options()),
        None => Vec::new(),
    };
    if !args.keep.is_default() {
        options.push("--hot, --keep-history or --keep-files");
    }
    if args.metrics.is_given() {
        options.push("--metrics");
    }
    if args.journal_shards.is_some() {
        options.push("--journal-shards");
    }
    if let Some(ApiAt::At(asked)) = args.api
        && running.api.as_ref().is_none_or(|url| !url.ends_with(&format!("//{asked}")))
        && std::env::var_os("MOZART_API").is_none()
    {
        options.push("--api");
    }
    if !options.is_empty() {
        output::note(format!(
            "warning: {} ignored: mozart (process {}) keeps the options that it was started with; `mozart down`, then `mozart up`",
            options.join(", "),
            running.pid
        ));
    }
}

/// The options about what agents run in that are given, and are not those in use.
fn others(used: &RuntimeOptions, given: &RuntimeOptions) -> Vec<&'static str> {
    let default = RuntimeOptions::default();
    let RuntimeOptions { runtime, network, base_image, dev, env_file, capacity } = given;
    let differs = [
        ("--runtime", *runtime != default.runtime && *runtime != used.runtime),
        ("--network", *network != default.network && *network != used.network),
        ("--base-image", *base_image != default.base_image && *base_image != used.base_image),
        ("--dev", *dev != default.dev && *dev != used.dev),
        ("--env-file", *env_file != default.env_file && *env_file != used.env_file),
        ("--capacity", *capacity != default.capacity && *capacity != used.capacity),
    ];
    differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

fn differs(theirs: &[u8], name: &str, ours: &OsStr) -> Option<&'static str> {
    let mut variables = theirs.split(|byte| *byte == 0);
    let value = variables.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
    match value {
        None => Some("does not have it"),
        Some(value) if value != ours.as_bytes() => Some("has another value"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_another_or_missing_or_the_same() {
        let environ = b"KEY=one\0KEYS=x\0EMPTY=\0";
        let told = |name: &str, value: &str| differs(environ, name, value.as_ref());
        assert_eq!(told("KEY", "one"), None);
        assert_eq!(told("EMPTY", ""), None);
        assert_eq!(told("KEY", "two"), Some("has another value"));
        assert_eq!(told("KE", "x"), Some("does not have it"));
    }

    #[test]
    fn options_that_are_given_in_vain_are_named() {
        let used = RuntimeOptions { dev: true, ..RuntimeOptions::default() };
        let env_file = Some("/x/env".into());
        let given = RuntimeOptions { dev: true, env_file, ..RuntimeOptions::default() };
        assert_eq!(others(&used, &given), ["--env-file"]);
        assert_eq!(others(&given, &given), [""; 0]);
        assert_eq!(others(&given, &RuntimeOptions::default()), [""; 0]);
    }
}
