//! The shim in the engine: a volume that holds it, created once and mounted read-only into every container. The images need
//! no files of Mozart, and none get into what is committed from them.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bollard::body_full;
use bollard::models::{ContainerCreateBody, HostConfig, Mount, MountType, VolumeCreateRequest};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder, InspectContainerOptions,
    RemoveContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use common::api::ApiError;
use sha2::{Digest as _, Sha256};

use super::archive::{Entry, pack};
use super::{Engine, labels, say, words};
use common::failure;

/// Where the shim is within a container.
pub(super) const FOLDER: &str = "/.mozart";
/// Its path there.
pub(super) const SHIM: &str = "/.mozart/mozart-shim";
/// The label of the volumes that hold a shim.
pub(super) const LABEL: &str = "dev.mozart.shim";
/// A carrier that is older was left behind.
const ABANDONED: Duration = Duration::from_secs(20);
/// How long other nodes' carriers are waited for in all.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);
/// How their names begin.
pub(super) const VOLUME: &str = "mozart-shim-";

/// The volume that holds this shim.
pub fn volume_name(shim: &[u8]) -> String {
    let digest = Sha256::digest(shim);
    let digest: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{VOLUME}{digest}")
}

/// Checks that a shim can run in any image: it needs no files of it, not even a loader.
///
/// # Errors
/// When it is not static, or no program of this system.
pub fn check_static(shim: &Path) -> Result<(), ApiError> {
    const WHAT: &str = "cannot run containers";
    let bytes = std::fs::read(shim).map_err(|error| failure::file(WHAT, &error, "`make build`"))?;
    let what = match interpreter(&bytes) {
        Some(false) => return Ok(()),
        Some(true) => "is not static: it would need the loader of the image",
        None => "is not a program for this system",
    };
    let cause = format!("{} {what}", shim.display());
    let try_ = "run `make build`, which builds a static one; or name one in MOZART_SHIM";
    Err(failure::error(failure::FAILED, WHAT, cause, try_))
}

/// Whether a program asks for a loader; none for what is no 64-bit little-endian ELF.
fn interpreter(elf: &[u8]) -> Option<bool> {
    const PT_INTERP: u32 = 3;
    if elf.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let headers = usize::try_from(u64::from_le_bytes(elf.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    let kinds = (0..count).map(|index| {
        let at = headers.checked_add(index * size)?;
        Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?))
    });
    let kinds: Option<Vec<u32>> = kinds.collect();
    Some(kinds?.contains(&PT_INTERP))
}

impl Engine {
    /// The volume with the shim, made if it was not looked for yet.
    ///
    /// # Errors
    /// What the engine refused.
    pub(super) async fn shim_volume(&self) -> Result<String, String> {
        // Held all the while: whoever else starts now needs the same one.
        let mut known = self.inner.shim.lock().await;
        if let Some(name) = &*known {
            return Ok(name.clone());
        }
        let shim = tokio::fs::read(&self.options().shim)
            .await
            .map_err(|error| format!("{}: {error}", self.options().shim.display()))?;
        let name = volume_name(&shim);
        self.fill_volume(&name, &shim).await?;
        Ok(known.insert(name).clone())
    }

    /// Somebody removed the volume: it is recreated.
    pub(super) async fn forget_shim_volume(&self) {
        *self.inner.shim.lock().await = None;
    }

    /// Puts the shim into a volume, through a container that is never started. What is there is not written again: others that share
    /// the engine start it meanwhile, and no kernel starts a program that is being written.
    async fn fill_volume(&self, name: &str, shim: &[u8]) -> Result<(), String> {
        let docker = self.docker();
        let volume = VolumeCreateRequest {
            name: Some(name.to_owned()),
            labels: Some(label()),
            ..VolumeCreateRequest::default()
        };
        docker.create_volume(volume).await.map_err(say)?;
        let mut labels = labels::of_node(self.options());
        labels.extend(label());
        let carrier = self.carrier(name, mount(name, false), LABEL, labels).await?;
        let filled = if self.holds(&carrier, shim).await {
            Ok(())
        } else {
            let program = Entry { path: "mozart-shim", mode: 0o555, content: Some(shim) };
            let options = UploadToContainerOptionsBuilder::default().path(FOLDER).build();
            match pack(&[program]) {
                Ok(archive) => docker
                    .upload_to_container(&carrier, Some(options), body_full(archive))
                    .await
                    .map_err(say),
                Err(error) => Err(error.to_string()),
            }
        };
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let removed = docker.remove_container(&carrier, Some(options)).await.map_err(say);
        filled.and(removed)
    }

    /// The container through which the volume is written. There is one at a time, by its name: whoever has made it may write.
    pub(super) async fn carrier(
        &self,
        volume: &str,
        mount: Mount,
        label: &str,
        labels: HashMap<String, String>,
    ) -> Result<String, String> {
        let name = format!("{volume}-carrier");
        let body = ContainerCreateBody {
            image: Some(self.base_image().await?),
            entrypoint: Some(vec![SHIM.to_owned()]),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                mounts: Some(vec![mount]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let docker = self.docker();
        let began = Instant::now();
        // The other's, and since when it is known.
        let mut other = (String::new(), began);
        while began.elapsed() < PATIENCE {
            let options = CreateContainerOptionsBuilder::default().name(&name).build();
            match docker.create_container(Some(options), body.clone()).await {
                Ok(made) => return Ok(made.id),
                Err(error) if !words::is_clash(&error) => return Err(say(error)),
                Err(_) => {}
            }
            let known = docker.inspect_container(&name, None::<InspectContainerOptions>).await;
            // Gone meanwhile.
            let Ok(known) = known else { continue };
            let labels = known.config.and_then(|config| config.labels).unwrap_or_default();
            if !labels.contains_key(label) {
                return Err(format!("a container that is not mozart's has the name {name}"));
            }
            let id = known.id.unwrap_or_default();
            if other.0 != id {
                other = (id, Instant::now());
            } else if other.1.elapsed() > ABANDONED {
                tracing::warn!("removed container {name}, left behind by another node");
                self.remove(&id).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("other nodes have kept container {name} for more than {PATIENCE:?}"))
    }

    /// Whether the volume of a carrier holds the shim, and all of it: one that was interrupted left less.
    async fn holds(&self, carrier: &str, shim: &[u8]) -> bool {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(SHIM).build();
        let there = self.docker().get_container_archive_info(carrier, Some(options)).await;
        there.is_ok_and(|there| usize::try_from(there.size) == Ok(shim.len()))
    }
}

fn label() -> HashMap<String, String> {
    HashMap::from([(LABEL.to_owned(), env!("CARGO_PKG_VERSION").to_owned())])
}

/// The mount of a shim's volume.
pub(super) fn mount(volume: &str, read_only: bool) -> Mount {
    Mount {
        target: Some(FOLDER.to_owned()),
        source: Some(volume.to_owned()),
        typ: Some(MountType::VOLUME),
        read_only: Some(read_only),
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        let own = std::env::current_exe().expect("a running program has a path");
        let own = std::fs::read(own).expect("readable");
        assert_eq!(interpreter(&own), Some(!cfg!(target_feature = "crt-static")));
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(interpreter(&own[..50]), None);
        let mut without = own[..64].to_vec();
        without[56..58].copy_from_slice(&[0, 0]);
        assert_eq!(interpreter(&without), Some(false));
    }
}
