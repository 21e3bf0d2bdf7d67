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

mod browser;
mod cli;
pub(crate) mod engine;
mod fleet;
mod hosts;
mod http;
mod image;
mod intruder;
mod own_engine;
mod ports;
mod proc;
mod read;
pub(crate) mod running;
mod runtime;
mod soul;
mod stock;
mod wait;

pub use browser::{Browser, Element, keys};
pub use cli::{Child, Output, binary, nats_server, run};
pub use engine::{Engine, IMAGE};
pub use fleet::Fleet;
pub use hosts::{Hosts, Net};
pub use http::{Events, Http, HttpAnswer, SseEvent};
pub use image::OwnImage;
pub use intruder::{Intruder, Said, login_of};
pub use own_engine::OwnEngine;
pub use ports::free_port;
pub use proc::{Process, Signal, alive, kill, processes, started_at};
pub use running::Noted;
pub use runtime::Runtime;
pub use soul::{flaky, message};
pub use stock::{StockClients, start_own_client};
pub use wait::{Until, always, eventually, within};
