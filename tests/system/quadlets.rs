//! `deploy/quadlet/`: what podman's generator takes, as far as that can be told without it, and the same as `compose.yaml` has.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::compose::checkout;

/// What podman 4.6 and later know, of what is used here or may be: podman-systemd.unit(5).
const CONTAINER: &[&str] = &[
    "AddCapability",
    "Annotation",
    "ContainerName",
    "DropCapability",
    "Environment",
    "EnvironmentFile",
    "Exec",
    "Group",
    "HealthCmd",
    "HealthInterval",
    "HealthRetries",
    "HealthTimeout",
    "HostName",
    "Image",
    "Label",
    "LogDriver",
    "Network",
    "NoNewPrivileges",
    "PodmanArgs",
    "PublishPort",
    "Pull",
    "ReadOnly",
    "Secret",
    "SecurityLabelDisable",
    "Timezone",
    "Tmpfs",
    "User",
    "Volume",
];
const UNIT: &[&str] = &["After", "Description", "Requires", "Wants"];
const SERVICE: &[&str] = &["Restart", "RestartSec", "TimeoutStartSec", "TimeoutStopSec"];
/// Those that may be given more than once.
const REPEATED: &[&str] =
    &["Environment", "EnvironmentFile", "Volume", "PublishPort", "PodmanArgs", "Label"];

fn folder() -> PathBuf {
    checkout().join("deploy/quadlet")
}

/// A line of a unit: section, key, value.
type Line = (String, String, String);

/// Reads a unit as strictly as one can.
fn read(path: &Path) -> Result<Vec<Line>, String> {
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    let mut section = String::new();
    let mut lines: Vec<Line> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
            name.clone_into(&mut section);
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("no key: {line}"))?;
        let known = match (kind, section.as_str()) {
            (_, "Unit") => UNIT,
            ("container", "Container") => CONTAINER,
            ("container", "Service") => SERVICE,
            ("container", "Install") => &["WantedBy"],
            _ => &[],
        };
        if !known.contains(&key) || value.is_empty() {
            return Err(format!("{key} in [{section}] of {}", path.display()));
        }
        let is_again = lines.iter().any(|(of, other, _)| *of == section && other == key);
        if is_again && !REPEATED.contains(&key) {
            return Err(format!("{key} is given twice in {}", path.display()));
        }
        lines.push((section.clone(), key.to_owned(), value.to_owned()));
    }
    let needed = match kind {
        "container" => "Image",
        "network" | "volume" => "Description",
        _ => return Err(format!("what is {}?", path.display())),
    };
    match lines.iter().any(|(_, key, _)| key == needed) {
        true => Ok(lines),
        false => Err(format!("{} has no {needed}", path.display())),
    }
}

/// All values of a key in `[Container]`.
fn values(lines: &[Line], key: &str) -> Vec<String> {
    let of = lines.iter().filter(|(section, name, _)| section == "Container" && name == key);
    of.map(|(_, _, value)| value.clone()).collect()
}

fn containers() -> Vec<(String, Vec<Line>)> {
    ["nats", "supervisor", "node"]
        .map(|name| {
            let path = folder().join(format!("mozart-{name}.container"));
            (name.to_owned(), read(&path).unwrap_or_else(|error| panic!("{error}")))
        })
        .into()
}

#[test]
fn every_unit_is_one_that_podman_reads() {
    let files: BTreeSet<String> = fs::read_dir(folder())
        .expect("it is there")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for file in &files {
        let _lines = read(&folder().join(file)).unwrap_or_else(|error| panic!("{error}"));
    }
    let services: BTreeSet<String> = files
        .iter()
        .filter_map(|file| Some(file.strip_suffix(".container")?.to_owned() + ".service"))
        .collect();
    for (name, lines) in containers() {
        // A volume or a network of its own is a unit that is there; anything else is a path.
        let volumes = values(&lines, "Volume");
        let sources = volumes.iter().filter_map(|volume| volume.split(':').next());
        for source in sources.chain(values(&lines, "Network").iter().map(String::as_str)) {
            assert!(source.starts_with('/') || files.contains(source), "{name}: {source}");
        }
        let after =
            lines.iter().filter(|(section, key, _)| section == "Unit" && key != "Description");
        for unit in after.flat_map(|(_, _, value)| value.split(' ')) {
            let is_known = services.contains(unit)
                || ["network-online.target", "podman.socket"].contains(&unit);
            assert!(is_known, "{name}: {unit}");
        }
        for key in ["ReadOnly", "NoNewPrivileges"] {
            assert_eq!(values(&lines, key), ["true"], "{name}: {key}");
        }
        assert_eq!(values(&lines, "DropCapability"), ["all"], "{name}");
        // No secret is in a unit, which everybody can read.
        let variables = values(&lines, "Environment");
        let is_secret = |variable: &&String| {
            ["PASSWORD", "SEED", "NATS_URL", "CREDS"].iter().any(|word| variable.contains(word))
        };
        assert_eq!(variables.iter().find(is_secret), None, "{name}");
        assert!(
            values(&lines, "EnvironmentFile").iter().all(|file| file.starts_with("/etc/mozart/"))
        );
    }
}

#[test]
fn the_units_have_what_compose_has() {
    let compose = fs::read_to_string(checkout().join("compose.yaml")).expect("it is there");
    let compose: String = compose
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect::<Vec<_>>()
        .join("\n");
    for (name, lines) in containers() {
        for image in values(&lines, "Image") {
            let image = image.strip_prefix("localhost/").expect("it was made here");
            assert!(compose.contains(&format!("-{image}}}")), "{image}");
        }
        for variable in values(&lines, "Environment") {
            let (variable, _) = variable.split_once('=').expect("NAME=VALUE");
            assert!(compose.contains(&format!("{variable}:")), "{name}: {variable}");
        }
        for check in values(&lines, "HealthCmd") {
            let words: Vec<String> = check.split(' ').map(|word| format!("{word:?}")).collect();
            assert!(compose.contains(&format!("[\"CMD\", {}]", words.join(", "))), "{check}");
        }
        for volume in values(&lines, "Volume").iter().filter(|volume| !volume.starts_with('/')) {
            let (source, target) = volume.split_once(".volume:").expect("a volume");
            let source = source.strip_prefix("mozart-").expect("ours");
            assert!(compose.contains(&format!("- {source}:{target}\n")), "{name}: {volume}");
        }
        for exec in values(&lines, "Exec") {
            let role = exec.split(' ').next().expect("a word");
            assert!(compose.contains(&format!("command: [\"{role}\"")), "{exec}");
        }
        // The variables that the comment names are those that the service of compose requires or gets.
        let text = fs::read_to_string(folder().join(format!("mozart-{name}.container")))
            .expect("it is there");
        let named = text.lines().filter_map(|line| line.strip_prefix("#   ")?.split_once('='));
        for (variable, _) in named.filter(|(name, _)| !name.contains(' ')) {
            assert!(compose.contains(&format!("{variable}:")), "{name}: {variable}");
        }
    }
}

#[test]
fn podman_generates_services_from_the_units() {
    let places = [
        "/usr/lib/systemd/system-generators/podman-system-generator",
        "/usr/libexec/podman/quadlet",
        "/usr/lib/podman/quadlet",
    ];
    let Some(quadlet) = places.iter().find(|place| Path::new(place).is_file()) else {
        eprintln!(
            "SKIPPED, since there is no quadlet: podman 4.6 or later has it. The other tests of this file read the units themselves"
        );
        return;
    };
    let generated = Command::new(quadlet)
        .arg("-dryrun")
        .env("QUADLET_UNIT_DIRS", folder())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&generated.stdout).into_owned()
        + &String::from_utf8_lossy(&generated.stderr);
    assert!(generated.status.success(), "{said}");
    for name in ["nats", "supervisor", "node"] {
        assert!(said.contains(&format!("mozart-{name}.service")), "{said}");
    }
    assert!(!said.contains("unsupported key"), "{said}");
}
