//! The behaviour of Mozart end to end: real nats-server, real `mozart`, real shims, real workers.

mod attempts;
mod bad_souls;
mod bad_workers;
mod bench;
mod carry;
mod chaos;
mod checker;
mod cli;
mod compose;
mod containers;
mod copies;
mod doctor;
mod history;
mod lists;
mod messages;
mod nodes;
mod own_engine;
mod replace;
mod roles;
mod routing;
mod seed_rows;
mod snapshots;
mod streams;
mod survival;
mod up_down;
