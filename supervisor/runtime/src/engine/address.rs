//! Where engines listen.

use std::env;

use super::Kind;

/// The addresses to try, in order. `DOCKER_HOST` and `CONTAINER_HOST` name one and then the only one of its kind.
pub fn candidates(wanted: Option<Kind>) -> Vec<String> {
    let mut all = Vec::new();
    if wanted != Some(Kind::Podman) {
        all.extend(docker(given("DOCKER_HOST")));
    }
    if wanted != Some(Kind::Docker) {
        let user = rustix::process::getuid().as_raw();
        all.extend(podman(given("CONTAINER_HOST"), given("XDG_RUNTIME_DIR"), user));
    }
    all
}

fn given(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn docker(given: Option<String>) -> Vec<String> {
    vec![given.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())]
}

fn podman(given: Option<String>, runtime_dir: Option<String>, user: u32) -> Vec<String> {
    if let Some(given) = given {
        return vec![given];
    }
    let own = runtime_dir.unwrap_or_else(|| format!("/run/user/{user}"));
    let mut all = vec![format!("unix://{own}/podman/podman.sock")];
    all.push("unix:///run/podman/podman.sock".to_owned());
    if user == 0 {
        all.reverse();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_the_only_one_of_its_kind() {
        assert_eq!(docker(Some("tcp://h:1".into())), ["tcp://h:1"]);
        assert_eq!(docker(None), ["unix:///var/run/docker.sock"]);
        assert_eq!(podman(Some("unix:///x".into()), None, 5), ["unix:///x"]);
        assert_eq!(
            podman(None, Some("/run/user/5".into()), 5),
            ["unix:///run/user/5/podman/podman.sock", "unix:///run/podman/podman.sock"]
        );
        assert_eq!(podman(None, None, 0)[0], "unix:///run/podman/podman.sock");
    }
}
