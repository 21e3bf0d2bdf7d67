//! The `.soul` parser: text in, an [`AgentSpec`](crate::spec::AgentSpec) or every problem of the file out.
//!
//! One instruction a line, keyword first. Parsing reads no file, no clock and no environment, so `mozart validate` and the
//! supervisor decide the same; only [`find`] and [`read`] look at the disk. Whatever the bytes, it returns: no input makes it panic, and
//! each of its lists is bounded by the constants below.

mod diagnostic;
mod find;
mod instruction;
mod keyword;
mod lines;
mod parse;
mod render;
mod source;
mod suggest;
mod text;

pub use diagnostic::{Also, SoulErrors, SoulProblem};
pub use find::{FindError, NameError, find, name_from_path, read};
pub use instruction::image;
pub use parse::{parse, parse_bytes};
pub use render::render;

/// The largest file, in bytes.
pub const MAX_FILE: usize = 256 << 10;

/// The longest identity (`SOUL`), in bytes.
pub const MAX_IDENTITY: usize = 128 << 10;

/// The most instructions of one file.
pub const MAX_INSTRUCTIONS: usize = 1000;

/// The largest spec, in bytes of JSON: with room for the rest of a record, it fits into one message of the control log.
pub const MAX_SPEC: usize = 768 << 10;

/// After this many problems the rest of the file is not read.
pub const MAX_PROBLEMS: usize = 100;
