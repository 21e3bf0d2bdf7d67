//! The soul within an archive: its paths refer to the files next to it.

use std::collections::BTreeMap;
use std::path::Path;

use common::AgentName;
use common::api::ApiError;
use common::soul;
use common::spec::AgentSpec;

use super::manifest::Folder;
use super::{SANCTUMS, SKILLS};
use common::failure;

/// A soul as it is written into an archive, and the files that are written next to it.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) text: String,
    pub(super) sanctums: Vec<Folder>,
    pub(super) skills: Vec<Folder>,
}

/// Turns a spec into a soul whose files are all next to it. A folder that is mounted twice is carried once.
///
/// # Errors
/// When no soul can express the spec.
pub(super) fn carried(spec: &AgentSpec) -> Result<Carried, ApiError> {
    let mut spec = spec.clone();
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let mut sanctums = Vec::new();
    for sanctum in &mut spec.sanctums {
        let next = format!("{SANCTUMS}/{}", places.len());
        let archive = places.entry(sanctum.host.clone()).or_insert(next).clone();
        let host = std::mem::replace(&mut sanctum.host, archive.clone());
        // The archive has a copy.
        sanctum.shared = false;
        let (path, read_only) = (Some(sanctum.path.clone()), sanctum.read_only);
        sanctums.push(Folder { archive, host, path, read_only });
    }
    let mut skills = Vec::new();
    for (index, skill) in spec.skills.iter_mut().enumerate() {
        let name = Path::new(skill.as_str()).file_name();
        let name = name.map_or_else(|| "skill".into(), |name| name.to_string_lossy().into_owned());
        let archive = format!("{SKILLS}/{index}/{name}");
        let host = std::mem::replace(skill, archive.clone());
        skills.push(Folder { archive, host, path: None, read_only: true });
    }
    let text = soul::render(&spec);
    // The parser has the last word on what a soul says.
    let beside = Path::new("/carried");
    let mut wanted = spec;
    wanted.source_path = "/carried/agent.soul".to_owned();
    // Found anew where it is applied.
    wanted.content = None;
    wanted.files = None;
    let absolute = |path: &mut String| *path = beside.join(&*path).to_string_lossy().into_owned();
    wanted.sanctums.iter_mut().for_each(|sanctum| absolute(&mut sanctum.host));
    wanted.skills.iter_mut().for_each(absolute);
    let read = soul::parse(wanted.name.clone(), Path::new(&wanted.source_path), &text);
    let cause = match read {
        Ok(read) if read == wanted => return Ok(Carried { text, sanctums, skills }),
        Ok(_) => "it does not read back the same".to_owned(),
        Err(errors) => errors.plain(),
    };
    let what = format!("the soul of {} cannot be written", wanted.name);
    Err(failure::error(failure::FAILED, what, cause, "use simpler values in its soul"))
}

/// Reads the soul of an archive as one of a folder, and demands that it leads nowhere else.
///
/// # Errors
/// A human-readable message.
pub(super) fn placed(
    name: &AgentName,
    folder: &Path,
    file: &Path,
    text: &str,
) -> Result<AgentSpec, String> {
    let spec = soul::parse(name.clone(), file, text).map_err(|errors| errors.plain())?;
    let sanctums = spec.sanctums.iter().map(|sanctum| (&sanctum.host, SANCTUMS));
    for (path, below) in sanctums.chain(spec.skills.iter().map(|skill| (skill, SKILLS))) {
        if !Path::new(path).starts_with(folder.join(below)) {
            return Err(format!("its soul refers to {path}, which is not in the archive"));
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use common::spec::Sanctum;

    fn sanctum(host: &str, path: &str, read_only: bool) -> Sanctum {
        Sanctum { host: host.into(), path: path.into(), read_only, shared: read_only }
    }

    #[test]
    fn all_that_a_soul_leads_to_is_beside_it() {
        let name = AgentName::new("a").expect("valid");
        let mut spec = AgentSpec::new(name.clone(), "m", "i");
        spec.sanctums =
            vec![sanctum("/odd: host", "/data", false), sanctum("/odd: host", "/again", true)];
        spec.skills = vec!["/s/one.md".into(), "/t/one.md".into()];
        spec.secrets = vec!["TOKEN".into()];
        let carried = carried(&spec).expect("it can be said");
        let places: Vec<&str> =
            carried.sanctums.iter().chain(&carried.skills).map(|one| &*one.archive).collect();
        assert_eq!(places, ["sanctums/0", "sanctums/0", "skills/0/one.md", "skills/1/one.md"]);

        let (folder, file) = (Path::new("/to"), Path::new("/to/b.soul"));
        let placed = placed(&name, folder, file, &carried.text).expect("nothing leads elsewhere");
        assert_eq!(placed.sanctums[0].host, "/to/sanctums/0");
        assert_eq!(placed.skills[1], "/to/skills/1/one.md");
        assert_eq!(placed.secrets, ["TOKEN"]);
    }

    #[test]
    fn a_soul_that_leads_elsewhere_is_refused() {
        let name = AgentName::new("a").expect("valid");
        let (folder, file) = (Path::new("/to"), Path::new("/to/a.soul"));
        for line in [
            "SANCTUM /etc:/data",
            "SANCTUM sanctums/../../x:/d",
            "SKILL /etc/passwd",
            "SKILL a.soul",
        ] {
            let text = format!("MODEL m\nSOUL s\n{line}\n");
            let error = placed(&name, folder, file, &text).expect_err(line);
            assert!(error.contains("not in the archive"), "{error}");
        }
        assert!(placed(&name, folder, file, "MODL m").is_err());
    }
}
