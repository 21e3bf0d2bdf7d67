//! A whole fleet per test: real nats-server, real `mozart up`, real shims, real workers, in a folder of its own.
//!
//! ```no_run
//! # async fn example() {
//! use system_tests::harness::Fleet;
//!
//! let fleet = Fleet::with(&[("echo", "MODEL test/model\nSOUL You repeat.")]).await;
//! let answer = fleet.cli(["send", "echo", "hello", "--wait"]).await.ok();
//! assert_eq!(answer.stdout, "hello\n");
//! # }
//! ```

mod cli;
mod fleet;
mod proc;
mod read;
mod soul;
mod wait;

pub use cli::{Child, Output, binary, nats_server, run};
pub use fleet::Fleet;
pub use proc::{Process, alive, kill, processes, started_at};
pub use rustix::process::Signal;
pub use soul::{flaky, message, seed};
pub use wait::{Until, always, eventually, within};
