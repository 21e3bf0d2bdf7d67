//! The SANCTUMs of an agent that moves to another node: read into parts there, and written from them here.
//!
//! Every path, mode, owner, time and byte arrives as it was; holes stay holes, and links are copied as they are. Hard links become files
//! of their own, extended attributes are left out, and so are sockets, pipes and devices.

mod pack;
mod place;
mod unpack;

pub use pack::{measure, pack};
pub use place::{Identity, Place, free, look, place, put_aside, remove_draft};
pub use unpack::Unpack;

use std::io;
use std::path::Path;

fn cannot(what: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {what} {}: {error}", path.display())
}
