//! The memory limit of nats-server: without one, its garbage collector lets it grow to twice what it needs.

use std::fs;

/// The share of the machine's memory for nats-server; the agents need the rest.
const SHARE: u64 = 4;
/// It gets no less than this, in bytes: a smaller bound costs it more time than it saves memory.
const LEAST: u64 = 256 << 20;

/// The environment of nats-server: the soft memory limit of the Go runtime. A value that is already set is kept.
pub(super) fn bound() -> Option<(&'static str, String)> {
    const LIMIT: &str = "GOMEMLIMIT";
    if std::env::var_os(LIMIT).is_some() {
        return None;
    }
    let machine = rustix::system::sysinfo();
    let machine = machine.totalram.saturating_mul(machine.mem_unit.into());
    Some((LIMIT, share(machine, group()).to_string()))
}

fn share(machine: u64, group: Option<u64>) -> u64 {
    let all = group.map_or(machine, |group| group.min(machine));
    (all / SHARE).max(LEAST)
}

/// What this process's control group may use; none if it is not bounded, or does not say.
fn group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let limit = fs::read_to_string(format!("/sys/fs/cgroup{path}/memory.max")).ok()?;
    limit.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_a_share_of_what_there_is_but_never_too_little() {
        assert_eq!(share(16 << 30, None), 4 << 30);
        assert_eq!(share(16 << 30, Some(2 << 30)), 512 << 20);
        assert_eq!(share(1 << 30, None), LEAST);
        let (name, bytes) = bound().expect("nobody has set one");
        assert_eq!(name, "GOMEMLIMIT");
        assert!(bytes.parse::<u64>().expect("a number") >= LEAST);
    }
}
