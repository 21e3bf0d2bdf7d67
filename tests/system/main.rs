//! The behaviour of Mozart end to end: real nats-server, real `mozart`, real shims, real workers.

mod seed_rows;
