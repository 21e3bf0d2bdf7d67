//! The image that an agent's container was created from, and another name for it.

use bollard::query_parameters::{InspectContainerOptions, TagImageOptionsBuilder};
use common::AgentName;

use super::{Connection, say, words};

/// The repository of images that were named by `mozart commit`: no registry has it.
pub const COMMITTED: &str = "mozart-commit";

/// A running container of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runs {
    /// The generation.
    pub generation: u64,
    /// The incarnation.
    pub incarnation: u64,
    /// What it was made from, by id.
    pub image: String,
    /// Whether nothing but its mounts can be written.
    pub root_is_read_only: bool,
}

impl Connection {
    /// The running containers of an agent, oldest incarnation first.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn containers_of(&self, fleet: &str, agent: &AgentName) -> Result<Vec<Runs>, String> {
        let mut found = Vec::new();
        for one in self.of_fleet(fleet).await? {
            let Some(label) = one.label.filter(|label| label.agent == *agent) else { continue };
            let inspected = self.docker.inspect_container(&one.id, None::<InspectContainerOptions>);
            let inspected = match inspected.await {
                Ok(inspected) => inspected,
                // Gone since it was listed.
                Err(error) if words::status(&error) == Some(404) => continue,
                Err(error) => return Err(say(error)),
            };
            if inspected.state.and_then(|state| state.running) != Some(true) {
                continue;
            }
            let root = inspected.host_config.and_then(|config| config.readonly_rootfs);
            found.push(Runs {
                generation: label.generation,
                incarnation: label.incarnation,
                image: inspected.image.unwrap_or_default(),
                root_is_read_only: root == Some(true),
            });
        }
        found.sort_by_key(|one| one.incarnation);
        Ok(found)
    }

    /// Gives an image one more name.
    ///
    /// # Errors
    /// When the engine refuses it.
    pub async fn name_image(&self, id: &str, repo: &str, tag: &str) -> Result<(), String> {
        let options = TagImageOptionsBuilder::default().repo(repo).tag(tag).build();
        self.docker.tag_image(id, Some(options)).await.map_err(say)
    }
}
