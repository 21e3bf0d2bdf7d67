//! Moving images between engines: whether another host could pull them, `save` and `load`.

use std::time::Duration;

use bollard::body_try_stream;
use bollard::models::BuildInfo;
use bollard::query_parameters::ImportImageOptionsBuilder;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::{COMMITTED, Connection, say, words};

/// An engine answers `save` only once it has put the image together, and `load` once it has taken it apart.
const LONG: Duration = Duration::from_secs(6 * 3600);

/// An image as an engine has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its id.
    pub id: String,
    /// Where a registry has the same, as `name@sha256:…`.
    pub digest: Option<String>,
    /// In bytes, about: what `save` gives has other ones.
    pub size: u64,
}

impl Connection {
    /// Looks an image up; none if the engine does not have it.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn find_image(&self, reference: &str) -> Result<Option<Found>, String> {
        let found = match self.docker.inspect_image(reference).await {
            Ok(found) => found,
            Err(error) if words::status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(say(error)),
        };
        let digests = found.repo_digests.unwrap_or_default();
        Ok(Some(Found {
            id: found.id.unwrap_or_default(),
            digest: digest(reference, &digests),
            size: found.size.and_then(|size| u64::try_from(size).ok()).unwrap_or_default(),
        }))
    }

    /// An image as an archive, in pieces.
    pub fn save(&self, reference: &str) -> impl Stream<Item = Result<Bytes, String>> {
        let docker = self.docker.clone().with_timeout(LONG);
        docker.export_image(reference).map(|piece| piece.map_err(say))
    }

    /// Takes an archive that `save` gave.
    ///
    /// # Errors
    /// When the engine refuses it, or it cannot be read.
    pub async fn load(
        &self,
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), String> {
        let docker = self.docker.clone().with_timeout(LONG);
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut load = Box::pin(docker.import_image(options, body_try_stream(archive), None));
        while let Some(step) = load.next().await {
            let BuildInfo { error_detail, .. } = step.map_err(say)?;
            if let Some(error) = error_detail {
                return Err(error.message.unwrap_or_else(|| "it gave no reason".to_owned()));
            }
        }
        Ok(())
    }
}

/// Under which digest a registry has an image. Podman makes one up for what was only ever here: that names no registry.
fn digest(reference: &str, digests: &[String]) -> Option<String> {
    let repo = repository(reference);
    let is_pulled = |digest: &&String| {
        let theirs = repository(digest);
        theirs == repo && !theirs.starts_with("localhost/")
    };
    let is_ours = repo.split('/').next() == Some(COMMITTED);
    digests.iter().find(is_pulled).filter(|_| !is_ours).cloned()
}

/// A reference without tag and digest, and without the registry that goes without saying.
fn repository(reference: &str) -> &str {
    let name = reference.split('@').next().unwrap_or(reference);
    let base = name.rfind('/').map_or(0, |at| at + 1);
    let end = name[base..].find(':').map_or(name.len(), |at| base + at);
    let name = &name[..end];
    let short = ["docker.io/library/", "docker.io/"].iter().find_map(|it| name.strip_prefix(it));
    short.unwrap_or(name)
}

/// Whether two references name the same image, as far as engines differ in how they write one.
pub fn is_same_image(one: &str, other: &str) -> bool {
    plain(one) == plain(other)
}

fn plain(reference: &str) -> String {
    let repo = repository(reference);
    let name = reference.split('@').next().unwrap_or(reference);
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':'));
    let tag = tag.map_or("latest", |(_, tag)| tag);
    format!("{}:{tag}", repo.strip_prefix("localhost/").unwrap_or(repo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_registry_has_can_be_pulled() {
        let known = |reference: &str, digests: &[&str]| {
            let digests: Vec<String> = digests.iter().map(|one| (*one).to_owned()).collect();
            digest(reference, &digests)
        };
        let pulled = "python@sha256:1";
        assert_eq!(known("python:3.13", &[pulled]), Some(pulled.to_owned()));
        assert_eq!(known("python@sha256:1", &[pulled]), Some(pulled.to_owned()));
        assert!(known("python:3.13", &["docker.io/library/python@sha256:1"]).is_some());
        assert!(known("ghcr.io:443/a/b:1", &["ghcr.io:443/a/b@sha256:1"]).is_some());
        assert_eq!(known("mine:1", &[]), None);
        // Named anew here: nobody else knows it by that.
        assert_eq!(known("mine:1", &[pulled]), None);
        assert_eq!(known("mine:1", &["localhost/mine@sha256:1"]), None);
        assert_eq!(known("localhost/mine:1", &["localhost/mine@sha256:1"]), None);
        let committed = "docker.io/mozart-commit/a@sha256:1";
        assert_eq!(known("mozart-commit/a:1-2", &[committed]), None);
    }

    #[test]
    fn engines_write_the_same_name_in_several_ways() {
        for other in ["docker.io/library/a:1", "localhost/a:1", "docker.io/a:1", "a:1"] {
            assert!(is_same_image("a:1", other), "{other}");
        }
        assert!(is_same_image("a", "a:latest"));
        for other in ["a:2", "b:1", "r.io/a:1", "x/a:1", "a"] {
            assert!(!is_same_image("a:1", other), "{other}");
        }
    }
}
