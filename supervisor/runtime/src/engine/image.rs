//! Images: found, pulled, built, checked.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bollard::body_full;
use bollard::models::{CreateImageInfo, ImageInspect};
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures_util::StreamExt as _;
use futures_util::TryStreamExt as _;

use super::archive::{Entry, pack};
use super::{BASE_IMAGE, Engine, say, words};

/// A pull in which nothing happens for so long has come to a halt.
const STALLED: Duration = Duration::from_secs(120);
/// How often a pull says how far it is.
const SAY_EVERY: Duration = Duration::from_millis(500);

/// What a container needs to know of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// Not its name, which could mean another one by the time it is used.
    pub(super) id: String,
    /// Whom it wants to run as.
    pub(super) user: Option<String>,
    /// Its entrypoint with its arguments: the worker, where the soul names none.
    pub(super) command: Vec<String>,
    /// What it declares as volumes.
    pub(super) volumes: Vec<String>,
}

impl Engine {
    /// Finds an image, or pulls it; `progress` hears how far that is.
    ///
    /// # Errors
    /// A human-readable message: there is none, or it is for another system.
    pub(super) async fn image(
        &self,
        reference: &str,
        progress: impl Fn(String),
    ) -> Result<Image, String> {
        let failed = |error: String| format!("image {reference}: {error}");
        if let Some(found) = self.inspect_image(reference).await.map_err(failed)? {
            return self.checked(reference, found);
        }
        if reference == BASE_IMAGE {
            self.base_image().await?;
        } else {
            self.pull(reference, progress).await.map_err(|error| {
                format!("image {reference} was not found and cannot be pulled: {error}")
            })?;
        }
        match self.inspect_image(reference).await.map_err(failed)? {
            Some(found) => self.checked(reference, found),
            None => Err(failed("it was pulled, but is missing".to_owned())),
        }
    }

    async fn inspect_image(&self, reference: &str) -> Result<Option<ImageInspect>, String> {
        match self.docker().inspect_image(reference).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if words::status(&error) == Some(404) => Ok(None),
            Err(error) => Err(say(error)),
        }
    }

    fn checked(&self, reference: &str, found: ImageInspect) -> Result<Image, String> {
        let ours = self.inner.connection.architecture.as_str();
        let os = found.os.as_deref().unwrap_or("linux");
        let architecture = found.architecture.as_deref().filter(|name| !name.is_empty());
        if os != "linux" || architecture.is_some_and(|theirs| theirs != ours) {
            let theirs = architecture.unwrap_or("another system");
            return Err(format!(
                "image {reference} is for {os}/{theirs}, and this machine runs linux/{ours}; try: pull the image for linux/{ours}"
            ));
        }
        let config = found.config.unwrap_or_default();
        let mut command = config.entrypoint.unwrap_or_default();
        command.extend(config.cmd.unwrap_or_default());
        Ok(Image {
            id: found.id.unwrap_or_else(|| reference.to_owned()),
            user: config.user.filter(|user| !user.is_empty()),
            command,
            volumes: config.volumes.unwrap_or_default(),
        })
    }

    async fn pull(&self, reference: &str, progress: impl Fn(String)) -> Result<(), String> {
        let options = CreateImageOptionsBuilder::default().from_image(&with_tag(reference)).build();
        let mut pull = self.docker().create_image(Some(options), None, None);
        let mut layers = Layers::default();
        progress(format!("pulling {reference}"));
        let mut said = Instant::now();
        loop {
            let step = match tokio::time::timeout(STALLED, pull.next()).await {
                Ok(Some(step)) => step,
                Ok(None) => break,
                Err(_) => return Err(format!("no progress for {STALLED:?}")),
            };
            layers.take(&step.map_err(say)?);
            if said.elapsed() >= SAY_EVERY {
                said = Instant::now();
                progress(format!("pulling {reference}{}", layers.so_far()));
            }
        }
        Ok(())
    }

    /// The image of agents that name none: made here if it is not there, since there is next to nothing in it.
    pub(super) async fn base_image(&self) -> Result<String, String> {
        if self.inspect_image(BASE_IMAGE).await?.is_some() {
            return Ok(BASE_IMAGE.to_owned());
        }
        let file = |path, content: &'static str| Entry {
            path,
            mode: 0o644,
            content: Some(content.as_bytes()),
        };
        let root = pack(&[
            Entry { path: "etc/", mode: 0o755, content: None },
            file(
                "etc/passwd",
                "root:x:0:0:root:/:/sbin/nologin\nagent:x:65532:65532:agent:/tmp:/sbin/nologin\n",
            ),
            file("etc/group", "root:x:0:\nagent:x:65532:\n"),
            Entry { path: "tmp/", mode: 0o1777, content: None },
        ])
        .map_err(|error| error.to_string())?;
        // The tag within the name: podman does not look elsewhere.
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(BASE_IMAGE).build();
        let made = self.docker().create_image(Some(options), Some(body_full(root)), None);
        let made: Result<Vec<_>, _> = made.try_collect().await;
        made.map_err(|error| format!("cannot make the image {BASE_IMAGE}: {}", say(error)))?;
        Ok(BASE_IMAGE.to_owned())
    }
}

/// An engine that is given no tag pulls all that there are.
fn with_tag(reference: &str) -> String {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

/// How far each layer is, in bytes.
#[derive(Debug, Default)]
struct Layers(BTreeMap<String, (i64, i64)>);

impl Layers {
    fn take(&mut self, step: &CreateImageInfo) {
        let (Some(id), Some(detail)) = (&step.id, &step.progress_detail) else { return };
        // Of what follows the download, the totals are others.
        if step.status.as_deref() == Some("Downloading")
            && let (Some(done), Some(total)) = (detail.current, detail.total)
        {
            self.0.insert(id.clone(), (done, total));
        } else if step.status.as_deref() == Some("Download complete")
            && let Some((done, total)) = self.0.get_mut(id)
        {
            *done = *total;
        }
    }

    fn so_far(&self) -> String {
        let (done, total) =
            self.0.values().fold((0, 0), |(done, total), one| (done + one.0, total + one.1));
        let mib = |bytes: i64| bytes / (1 << 20);
        match total {
            0 => String::new(),
            _ => format!(": {} of {} MiB", mib(done), mib(total)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ProgressDetail;

    #[test]
    fn a_reference_without_a_tag_means_the_latest() {
        for (reference, expected) in [
            ("python", "python:latest"),
            ("python:3.12", "python:3.12"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("a@sha256:00", "a@sha256:00"),
        ] {
            assert_eq!(with_tag(reference), expected);
        }
    }

    #[test]
    fn progress_is_that_of_all_layers() {
        let step = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.into()),
            status: Some(status.into()),
            progress_detail: Some(ProgressDetail { current, total }),
            ..CreateImageInfo::default()
        };
        let mut layers = Layers::default();
        assert_eq!(layers.so_far(), "");
        layers.take(&step("a", "Downloading", Some(1 << 20), Some(4 << 20)));
        layers.take(&step("b", "Downloading", Some(2 << 20), Some(6 << 20)));
        assert_eq!(layers.so_far(), ": 3 of 10 MiB");
        layers.take(&step("a", "Download complete", None, None));
        layers.take(&step("a", "Extracting", Some(1), Some(9)));
        assert_eq!(layers.so_far(), ": 6 of 10 MiB");
    }
}
