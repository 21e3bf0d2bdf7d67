//! The real shim between a real nats-server and a real worker. The test is the supervisor: it makes the consumer and says begin.

mod broken_link;
mod cable;
mod ends;
mod flow;
mod quotas;
mod standing;
mod support;
mod unreadable;
