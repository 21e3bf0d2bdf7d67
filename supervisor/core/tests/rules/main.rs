//! The rules of the fold and of the leader's eyes, one test a rule. Each compares *all* actions, so silence is tested too.

mod carry;
mod crash;
mod fleet;
mod moves;
mod nodes;
mod observer;
mod replace;
mod restored;
mod rollback;
mod room;
mod seed;
mod terms;
mod wishes;
