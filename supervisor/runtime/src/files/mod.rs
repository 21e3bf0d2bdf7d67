//! The files that an agent runs with: the folder of its soul, packed where it is applied, and laid out where it runs.
//!
//! An archive is a plain tar of files and links, and the same for the same content: the entries are sorted, and belong to nobody at no time.
//! What is in a folder and does not travel is said by `.mozartignore` and by defaults.

mod lay_out;
mod left_out;
mod pack;
mod unpack;
mod words;

pub use lay_out::{lay_out, moved};
pub use left_out::{IGNORE, LeftOut};
pub use pack::{PackError, Packed, pack};
pub use unpack::{Item, list, unpack, unpack_beside};
pub use words::{starts_in_folder, words};
