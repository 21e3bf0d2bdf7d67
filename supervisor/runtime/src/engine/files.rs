//! The files of agents in the engine: a volume for each archive, filled once and mounted read-only. Not a folder of this host: the node may
//! itself be in a container, and the engine on another host.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use bollard::body_full;
use bollard::models::{Mount, MountType, MountVolumeOptions, VolumeCreateRequest};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use common::files::{Files, Sha256};

use super::archive::{Entry, pack};
use super::mounts::CHECKOUT;
use super::{Engine, labels, say};

/// The label of the volumes that hold files: the SHA-256 of the archive.
const LABEL: &str = "dev.mozart.files";
/// How their names begin.
const VOLUME: &str = "mozart-files-";
/// Written last: what has it is whole.
const MARK: &str = ".mozart-files";

/// The mount of a volume with files.
pub(super) fn mount(volume: &str, read_only: bool) -> Mount {
    Mount {
        target: Some(CHECKOUT.to_owned()),
        source: Some(volume.to_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(read_only),
        // What an image has at this place is none of it.
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            ..MountVolumeOptions::default()
        }),
        ..Mount::default()
    }
}

impl Engine {
    fn files_volume_name(&self, archive: &Sha256) -> String {
        let fleet = &self.options().fleet;
        let (fleet, archive) = (fleet.get(..6).unwrap_or(fleet), archive.as_str());
        format!("{VOLUME}{fleet}-{}", archive.get(..24).unwrap_or(archive))
    }

    fn files_labels(&self, archive: &Sha256) -> HashMap<String, String> {
        let mut labels = labels::of_node(self.options());
        labels.insert(LABEL.to_owned(), archive.to_string());
        labels
    }

    /// The volume with the files of an archive, made and filled if it was not looked for yet.
    ///
    /// # Errors
    /// What the engine refused.
    pub(super) async fn files_volume(
        &self,
        files: &Files,
        archive: &Path,
    ) -> Result<String, String> {
        // Held all the while: whoever else starts now may need the same one.
        let mut known = self.inner.files.lock().await;
        let name = self.files_volume_name(&files.sha256);
        if known.contains(&name) {
            return Ok(name);
        }
        let labels = self.files_labels(&files.sha256);
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        self.docker().create_volume(volume).await.map_err(say)?;
        let carrier = self.carrier(&name, mount(&name, false), LABEL, labels).await?;
        let filled = match self.has_files(&carrier).await {
            true => Ok(()),
            false => self.fill_with_files(&carrier, files, archive).await,
        };
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let removed = self.docker().remove_container(&carrier, Some(options)).await.map_err(say);
        filled.and(removed)?;
        known.insert(name.clone());
        Ok(name)
    }

    async fn fill_with_files(
        &self,
        carrier: &str,
        files: &Files,
        archive: &Path,
    ) -> Result<(), String> {
        let packed = tokio::fs::read(archive).await;
        let packed = packed.map_err(|error| format!("{}: {error}", archive.display()))?;
        let content = Some(files.sha256.as_str().as_bytes());
        let mark = pack(&[Entry { path: MARK, mode: 0o444, content }]);
        let mark = mark.map_err(|error| error.to_string())?;
        for body in [packed.into(), mark] {
            let options = UploadToContainerOptionsBuilder::default().path(CHECKOUT).build();
            let uploaded =
                self.docker().upload_to_container(carrier, Some(options), body_full(body));
            uploaded.await.map_err(say)?;
        }
        Ok(())
    }

    /// Whether a container has the files, and all of them.
    pub(super) async fn has_files(&self, container: &str) -> bool {
        let path = format!("{CHECKOUT}/{MARK}");
        let options = ContainerArchiveInfoOptionsBuilder::default().path(&path).build();
        let there = self.docker().get_container_archive_info(container, Some(options)).await;
        there.is_ok_and(|there| there.size == 64)
    }

    /// Somebody removed the volumes: they are recreated.
    pub(super) async fn forget_files_volumes(&self) {
        self.inner.files.lock().await.clear();
    }

    /// Removes the volumes of this fleet's files that no container uses, other than these.
    pub async fn drop_idle_files(&self, kept: &BTreeSet<Sha256>) {
        let mut known = self.inner.files.lock().await;
        let fleet = format!("{}={}", labels::FLEET, self.options().fleet);
        let filter =
            HashMap::from([("label", vec![LABEL, fleet.as_str()]), ("dangling", vec!["true"])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let all = match self.docker().list_volumes(Some(options)).await {
            Ok(all) => all.volumes.unwrap_or_default(),
            Err(error) => return tracing::debug!("cannot list volumes: {}", say(error)),
        };
        for volume in all {
            // What the engine says is looked at again: this is removed.
            let archive = volume.labels.get(LABEL).and_then(|it| Sha256::new(it).ok());
            let is_ours = volume.name.starts_with(VOLUME)
                && volume.labels.get(labels::FLEET) == Some(&self.options().fleet);
            if is_ours && archive.is_some_and(|archive| !kept.contains(&archive)) {
                known.remove(&volume.name);
                if let Err(error) = self.inner.connection.remove_volume(&volume.name).await {
                    tracing::debug!("cannot remove volume {}: {error}", volume.name);
                }
            }
        }
    }
}
