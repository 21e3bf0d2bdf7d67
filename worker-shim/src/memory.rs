//! Whether the kernel killed something here because it ran out of memory: its cgroup counts that.

use std::fs;

/// The counter's files: of cgroup v2, and of v1. A container sees its own cgroup there.
const FILES: [&str; 2] =
    ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];

/// How often the kernel has killed for memory in this cgroup; 0 where that cannot be known.
pub(crate) fn kills() -> u64 {
    FILES.iter().find_map(|path| count(&fs::read_to_string(path).ok()?)).unwrap_or(0)
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn both_kinds_of_cgroup_are_read() {
        assert_eq!(count("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"), Some(4));
        assert_eq!(count("oom_kill_disable 0\n"), None);
    }
}
