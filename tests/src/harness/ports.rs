//! Ports for servers that are not there yet.

use std::hash::{BuildHasher as _, RandomState};
use std::net::TcpListener;

/// A port of loopback that nobody has: below those from which the system gives connections their own end, since one of those may be taken
/// while its server is down. By chance, whatever the seed of a campaign: two of one seed run side by side.
///
/// # Panics
/// When a thousand are taken.
#[must_use]
pub fn free_port() -> u16 {
    let random = || RandomState::new().hash_one(0_u8);
    let mut tries = (0..1000).map(|_| 10_000 + (random() % 22_000) as u16);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    tries.find(is_free).expect("a free port")
}
