//! The streams of a namespace: created idempotently, read back, since old servers ignore what they do not know.

/// How the streams of a new namespace are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Journal streams: 4 where every write is synced, since synced writes to one stream do not run in parallel.
    pub journal_shards: u32,
    /// 1 on one host, 3 on a cluster.
    pub replicas: usize,
}
