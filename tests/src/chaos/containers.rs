//! What a campaign does to containers, and the strangers beside them that nobody may touch.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, ContainerState, HostConfig, NetworkDisconnectRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptions,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};

use super::Problem;
use super::schedule::Deed;
use crate::harness::engine::{self, Engine, FLEET, IMAGE};

/// Does something to a container. One that is gone already, or paused, is none the worse for it.
pub(super) async fn strike(engine: &Engine, container: &str, deed: Deed) {
    let docker = engine.docker();
    let _missed = match deed {
        Deed::Pause => docker.pause_container(container).await,
        Deed::Disconnect => {
            let request =
                NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
            docker.disconnect_network(&engine.network(), request).await
        }
        Deed::Remove => {
            let options = RemoveContainerOptionsBuilder::default().force(true).build();
            docker.remove_container(container, Some(options)).await
        }
        Deed::Kill(_)
        | Deed::Wipe(_)
        | Deed::Stop(_)
        | Deed::Replace
        | Deed::Restart
        | Deed::Isolate(_)
        | Deed::Exclude(_)
        | Deed::Mute(_)
        | Deed::Deafen(_)
        | Deed::Part(_)
        | Deed::PowerCut(_) => docker.kill_container(container, None::<KillContainerOptions>).await,
    };
}

/// Two containers that are not the fleet's, though they look like it. Gone when dropped.
#[derive(Debug)]
pub(super) struct Strangers {
    engine: Engine,
    /// Their ids, and what was known of them at first.
    known: Vec<(String, Option<ContainerState>)>,
}

impl Strangers {
    /// One with a name like ours and no label; and one with our labels, but for another fleet's.
    pub(super) async fn start(engine: &Engine, agent: &str) -> Result<Self, Problem> {
        let mut strangers = Self { engine: engine.clone(), known: Vec::new() };
        let number = uuid::Uuid::now_v7().simple().to_string();
        let fleet = number.get(20..32).unwrap_or_default();
        let labels = [
            (FLEET, fleet),
            ("dev.mozart.namespace", "default"),
            ("dev.mozart.agent", agent),
            ("dev.mozart.generation", "1"),
            ("dev.mozart.incarnation", "1"),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let named = format!("mozart-{agent}-1-{}", fleet.get(..6).unwrap_or_default());
        strangers.add(&named, HashMap::new()).await?;
        strangers.add(&format!("{named}-other"), HashMap::from(labels)).await?;
        Ok(strangers)
    }

    async fn add(&mut self, name: &str, labels: HashMap<String, String>) -> Result<(), Problem> {
        let docker = self.engine.docker();
        let body = ContainerCreateBody {
            image: Some(IMAGE.to_owned()),
            cmd: Some(["sleep", "100000"].map(str::to_owned).to_vec()),
            labels: Some(labels),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let id = docker.create_container(Some(options), body).await?.id;
        self.known.push((id.clone(), None));
        docker.start_container(&id, None::<StartContainerOptions>).await?;
        let state = self.state(&id).await?;
        if let Some((_, known)) = self.known.last_mut() {
            *known = state;
        }
        Ok(())
    }

    async fn state(&self, id: &str) -> Result<Option<ContainerState>, Problem> {
        let docker = self.engine.docker();
        Ok(docker.inspect_container(id, None::<InspectContainerOptions>).await?.state)
    }

    /// Whether they run as they did.
    pub(super) async fn check(&self) -> Result<(), Problem> {
        for (id, known) in &self.known {
            let state = self.state(id).await?;
            if state != *known {
                return Err(format!("stranger {id} was {known:?} and is {state:?}").into());
            }
        }
        Ok(())
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        engine::apart(async {
            if let Ok(docker) = engine::connect().await {
                for (id, _) in &self.known {
                    engine::remove(&docker, id).await;
                }
            }
        });
    }
}
