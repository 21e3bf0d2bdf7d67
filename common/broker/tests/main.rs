//! Our reading of JetStream, proved against real servers: every test starts its own, and kills it.

mod support;

mod attempts;
mod backup;
mod cluster;
mod connect;
mod consumer;
mod control;
mod dead;
mod events;
mod files;
mod forget;
mod history;
mod journal;
mod lagging;
mod later;
mod lease;
mod logs;
mod moving;
mod pages;
mod people;
mod replies;
mod retention;
mod room;
mod schedules;
mod snapshot;
mod steps;
mod streams;
mod tickets;
mod usage;
