//! Our reading of JetStream, proved against real servers: every test starts its own, and kills it.

mod support;

mod journal;
