//! Information about an engine, and Mozart's objects in it: for `doctor` and `down`, which are not nodes. Only what our labels, or a
//! node's own notes, say is ours.

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models::{ContainerSummary, Volume};
use bollard::query_parameters::{
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveVolumeOptions, StopContainerOptionsBuilder,
};
use common::Timestamp;
use serde::Deserialize as _;
use serde::de::value::{Error as PlainError, StrDeserializer};

use super::labels::{self, Label};
use super::{Connection, install, say, spec, words};

/// How long a container that is ended may take to settle its books, in seconds.
const STOP: i32 = 10;

/// What an engine reports about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// By its clock.
    pub time: Option<Timestamp>,
    /// Where it keeps images and containers, in its own file system.
    pub root: Option<PathBuf>,
}

/// A container that a node of a fleet has made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The node.
    pub node: String,
    /// Which incarnation it is; none for what is something else.
    pub label: Option<Label>,
    /// Whether it only is to put a shim into a volume.
    pub is_carrier: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// A volume with a shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimVolume {
    /// Its name.
    pub name: String,
    /// Not every engine tells.
    pub created: Option<Timestamp>,
}

impl Connection {
    /// What the engine reports about itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn about(&self) -> Result<About, String> {
        let info = self.docker.info().await.map_err(say)?;
        Ok(About {
            time: info.system_time.as_deref().and_then(moment),
            root: info.docker_root_dir.map(PathBuf::from),
        })
    }

    /// All containers of a fleet, of whichever node.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn of_fleet(&self, fleet: &str) -> Result<Vec<Owned>, String> {
        let label = format!("{}={fleet}", labels::FLEET);
        let filter = HashMap::from([("label", vec![label.as_str()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filter).build();
        let all = self.docker.list_containers(Some(options)).await.map_err(say)?;
        Ok(all.into_iter().filter_map(|one| owned(one, fleet)).collect())
    }

    /// The volumes with shims that no container uses.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn idle_shims(&self) -> Result<Vec<ShimVolume>, String> {
        let filter = HashMap::from([("label", vec![install::LABEL]), ("dangling", vec!["true"])]);
        let options = ListVolumesOptionsBuilder::default().filters(&filter).build();
        let all = self.docker.list_volumes(Some(options)).await.map_err(say)?;
        Ok(all.volumes.unwrap_or_default().into_iter().filter_map(shim_volume).collect())
    }

    /// Ends a container, in order if that is soon done, and removes it.
    ///
    /// # Errors
    /// When the engine does not do it.
    pub async fn end(&self, id: &str) -> Result<(), String> {
        let options = StopContainerOptionsBuilder::default().t(STOP).build();
        // What does not stop is removed all the same.
        let _stopped = self.docker.stop_container(id, Some(options)).await;
        self.remove(id).await
    }

    /// Removes a container by force, with all that is only its own; it is fine if it is already gone.
    ///
    /// # Errors
    /// When the engine does not do it.
    pub async fn remove(&self, id: &str) -> Result<(), String> {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            Err(error) if !matches!(words::status(&error), Some(404 | 409)) => Err(say(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes a volume, unless a container uses it.
    ///
    /// # Errors
    /// When one does, or the engine does not do it.
    pub async fn remove_volume(&self, name: &str) -> Result<(), String> {
        let removed = self.docker.remove_volume(name, None::<RemoveVolumeOptions>).await;
        removed.map_err(say)
    }
}

/// A container of this fleet. The engine was asked for no other; what it says is looked at again, since this may be removed.
fn owned(summary: ContainerSummary, fleet: &str) -> Option<Owned> {
    let labels = summary.labels?;
    if labels.get(labels::FLEET).is_none_or(|theirs| theirs != fleet) {
        return None;
    }
    let names = summary.names.unwrap_or_default();
    let name = names.first().map_or("", |name| name.trim_start_matches('/')).to_owned();
    let created = u64::try_from(summary.created.unwrap_or_default()).unwrap_or_default();
    // What is run from an image that was made of one of ours has its labels, too, but not its name.
    let is_named = |label: &Label| name == spec::name(&label.agent, label.incarnation, fleet);
    Some(Owned {
        id: summary.id?,
        node: labels.get(labels::NODE)?.clone(),
        label: labels::read(&labels).filter(is_named),
        is_carrier: labels.contains_key(install::LABEL) && name.starts_with(install::VOLUME),
        name,
        created: Timestamp::from_millis(created * 1000),
    })
}

fn shim_volume(volume: Volume) -> Option<ShimVolume> {
    let Volume { name, labels, created_at, .. } = volume;
    let is_ours = labels.contains_key(install::LABEL) && name.starts_with(install::VOLUME);
    let created = created_at.as_deref().and_then(moment);
    is_ours.then_some(ShimVolume { name, created })
}

/// A point in time as engines write it: by the clock of their own time zone.
fn moment(text: &str) -> Option<Timestamp> {
    let (time, offset) = match text.strip_suffix('Z') {
        Some(time) => (time, 0),
        None => {
            let (time, zone) = text.split_at_checked(text.len().checked_sub(6)?)?;
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let minutes = hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?;
            match zone.get(..1)? {
                "+" => (time, minutes),
                "-" => (time, -minutes),
                _ => return None,
            }
        }
    };
    let time = format!("{time}Z");
    let time = Timestamp::deserialize(StrDeserializer::<PlainError>::new(&time)).ok()?;
    let millis = time.as_millis().checked_add_signed(-offset * 60_000)?;
    Some(Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(labels: &[(&str, &str)], name: &str) -> ContainerSummary {
        let labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        ContainerSummary {
            id: Some("1".into()),
            names: Some(vec![format!("/{name}")]),
            labels: Some(labels.collect()),
            created: Some(5),
            ..ContainerSummary::default()
        }
    }

    #[test]
    fn only_what_our_labels_claim_is_ours() {
        let ours = [
            ("dev.mozart.fleet", "f"),
            ("dev.mozart.node", "n"),
            ("dev.mozart.agent", "a"),
            ("dev.mozart.generation", "2"),
            ("dev.mozart.incarnation", "1"),
        ];
        let found = owned(summary(&ours, "mozart-a-1-f"), "f").expect("it is ours");
        assert_eq!(found.label.map(|label| (label.generation, label.incarnation)), Some((2, 1)));
        // Somebody's own, from an image that was made of one of ours.
        let copy = owned(summary(&ours, "busy_curie"), "f").expect("the fleet's, it says");
        assert_eq!((copy.label, copy.is_carrier), (None, false));
        assert_eq!((found.name.as_str(), found.node.as_str()), ("mozart-a-1-f", "n"));
        assert_eq!((found.is_carrier, found.created.as_millis()), (false, 5000));
        assert_eq!(owned(summary(&ours, "x"), "other"), None);
        assert_eq!(owned(summary(&[], "mozart-a-1-f"), "f"), None);
        let carrier = [ours.as_slice(), &[("dev.mozart.shim", "1")]].concat();
        let is_carrier = |name| owned(summary(&carrier, name), "f").map(|one| one.is_carrier);
        assert_eq!(is_carrier("mozart-shim-12-34"), Some(true));
        assert_eq!(is_carrier("else"), Some(false));
    }

    #[test]
    fn a_time_has_the_zone_of_the_engine() {
        let utc = moment("2026-01-01T10:00:00.5Z").expect("a time");
        assert_eq!(moment("2026-01-01T12:00:00.500000000+02:00"), Some(utc));
        assert_eq!(moment("2026-01-01T06:30:00.5-03:30"), Some(utc));
        for bad in ["", "now", "2026-01-01T10:00:00", "2026-01-01T10:00:00+xx:yy"] {
            assert_eq!(moment(bad), None, "{bad}");
        }
    }
}
