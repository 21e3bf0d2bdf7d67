//! What incarnations run in. `process`: a shim and its worker as processes of this machine. `docker`, `podman`: in a container.

pub(crate) mod engine;
pub(crate) mod fleet;
pub(crate) mod folder;
pub(crate) mod labels;
pub(crate) mod process;

/// What a node is told to run agents in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Processes, and containers where an engine answers.
    Auto,
    Process,
    Docker,
    Podman,
}
