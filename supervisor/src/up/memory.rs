//! The memory limit of nats-server: without one, its garbage collector lets it grow to twice what it needs.

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
    Some((LIMIT, share(runtime::capacity::memory()).to_string()))
}

fn share(all: u64) -> u64 {
    (all / SHARE).max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_a_share_of_what_there_is_but_never_too_little() {
        assert_eq!(share(16 << 30), 4 << 30);
        assert_eq!(share(2 << 30), 512 << 20);
        assert_eq!(share(1 << 30), LEAST);
        let (name, bytes) = bound().expect("nobody has set one");
        assert_eq!(name, "GOMEMLIMIT");
        assert!(bytes.parse::<u64>().expect("a number") >= LEAST);
    }
}
