//! What is measured by trials: each is a fault, or an operation, and the time until it has no effect any more.

mod cut;
mod drain;
mod loss;
mod site;
mod spread;

pub(crate) use self::cut::run as cut;
pub(crate) use self::drain::run as drain;
pub(crate) use self::loss::{of_hosts, of_servers};
pub(crate) use self::spread::run as spread;
