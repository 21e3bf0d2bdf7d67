//! What this machine can take, where nobody says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use common::Capacity;

/// Memory and CPUs of this machine, or of the control group that this process is in. The number of agents is not bounded.
#[must_use]
pub fn found() -> Capacity {
    let cpus = available_parallelism().ok().and_then(|cpus| u64::try_from(cpus.get()).ok());
    let milli_cpus = cpus.map(|cpus| cpus.saturating_mul(1000));
    Capacity { agents: None, memory: Some(memory()), milli_cpus }
}

/// The memory that this process and what it starts can have, in bytes.
#[must_use]
pub fn memory() -> u64 {
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram.saturating_mul(machine.mem_unit.into());
    group().map_or(machine, |group| group.min(machine))
}

/// What the control groups allow that this process is in; none if they bound nothing, or do not say.
fn group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().filter_map(|line| limit(line, Path::new("/sys/fs/cgroup"))).min()
}

/// The lowest bound on the way from a control group to the root of its hierarchy. `line` is one of `/proc/self/cgroup`.
fn limit(line: &str, root: &Path) -> Option<u64> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    let (root, file): (PathBuf, _) = match controllers {
        "" => (root.to_owned(), "memory.max"),
        _ if controllers.split(',').any(|one| one == "memory") => {
            (root.join("memory"), "memory.limit_in_bytes")
        }
        _ => return None,
    };
    let group = root.join(path.trim_start_matches('/'));
    let groups = group.ancestors().take_while(|group| group.starts_with(&root));
    groups.filter_map(|group| fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bound_of_the_groups_above_counts() {
        let root = tempfile::tempdir().expect("a temporary folder");
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it has one")).expect("made");
            fs::write(path, text).expect("written");
        };
        put("a/memory.max", "1000\n");
        put("a/b/memory.max", "max\n");
        put("memory/c/memory.limit_in_bytes", "9223372036854771712\n");
        let found = |line: &str| limit(line, root.path());
        assert_eq!(found("0::/a/b"), Some(1000));
        assert_eq!(found("0::/x"), None);
        assert_eq!(found("0::/"), None);
        assert_eq!(found("4:cpu,memory:/c"), Some(9_223_372_036_854_771_712));
        assert_eq!(found("5:cpuset:/a"), None);
        assert_eq!(found("nonsense"), None);
    }

    #[test]
    fn this_machine_has_memory_and_cpus() {
        let Capacity { agents, memory, milli_cpus } = found();
        assert_eq!(agents, None);
        assert!(memory.is_some_and(|bytes| bytes > 1 << 26), "{memory:?}");
        assert!(milli_cpus.is_some_and(|milli| milli >= 1000), "{milli_cpus:?}");
    }
}
