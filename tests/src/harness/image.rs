//! Images of a test's own.

use bollard::body_full;
use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, CreateContainerOptions, CreateImageOptionsBuilder,
    ImportImageOptions, RemoveImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::engine::{self, Engine, IMAGE};

/// An image; gone when dropped. Before it, whatever runs in it should be.
#[derive(Debug)]
pub struct OwnImage {
    /// What souls call it.
    pub name: String,
}

impl OwnImage {
    fn new() -> Self {
        Self { name: format!("mozart-test-{}:1", uuid::Uuid::now_v7().simple()) }
    }
}

impl Engine {
    /// An image like that of the tests' workers, but for this.
    ///
    /// # Panics
    /// When the engine does not make it.
    pub async fn image_with(&self, config: ContainerConfig) -> OwnImage {
        let body = ContainerCreateBody { image: Some(IMAGE.to_owned()), ..Default::default() };
        let made = self.docker().create_container(None::<CreateContainerOptions>, body).await;
        let container = made.expect("a container").id;
        let image = self.commit(&container, config).await;
        self.remove(&container).await;
        image
    }

    /// An image of what a container is now.
    ///
    /// # Panics
    /// When the engine does not make it.
    pub async fn commit(&self, container: &str, config: ContainerConfig) -> OwnImage {
        let image = OwnImage::new();
        let options = CommitContainerOptionsBuilder::default().container(container);
        let options = options.repo(&image.name).build();
        let _id = self.docker().commit_container(options, config).await.expect("an image");
        image
    }

    /// An image with nothing in it.
    ///
    /// # Panics
    /// When the engine does not make it.
    pub async fn empty_image(&self) -> OwnImage {
        let image = OwnImage::new();
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(&image.name).build();
        let body = body_full(archive(&[]));
        let made = self.docker().create_image(Some(options), Some(body), None);
        let _steps: Vec<_> = made.try_collect().await.expect("an image");
        image
    }

    /// An image for other machines than this one.
    ///
    /// # Panics
    /// When the engine does not take it.
    pub async fn foreign_image(&self, architecture: &str) -> OwnImage {
        let image = OwnImage::new();
        let config = json!({
            "architecture": architecture, "os": "linux", "config": {"Cmd": ["/worker"]},
            "rootfs": {"type": "layers", "diff_ids": []},
        });
        let config = config.to_string();
        let digest = Sha256::digest(&config);
        let file: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let manifest = json!([{"Config": file, "RepoTags": [image.name], "Layers": []}]);
        let body = archive(&[("manifest.json", &manifest.to_string()), (&file, &config)]);
        let loaded =
            self.docker().import_image(ImportImageOptions::default(), body_full(body), None);
        let _steps: Vec<_> = loaded.try_collect().await.expect("an image");
        image
    }
}

fn archive(files: &[(&str, &str)]) -> Bytes {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, path, content.as_bytes()).expect("in memory");
    }
    archive.into_inner().expect("in memory").into()
}

impl Drop for OwnImage {
    fn drop(&mut self) {
        engine::apart(async {
            if let Ok(docker) = engine::connect().await {
                let options = RemoveImageOptionsBuilder::default().force(true).build();
                // One that was never made is not there.
                let _gone = docker.remove_image(&self.name, Some(options), None).await;
            }
        });
    }
}
