//! The behaviour of Mozart end to end: real nats-server, real `mozart`, real shims, real workers.

mod chaos;
mod checker;
mod seed_rows;
