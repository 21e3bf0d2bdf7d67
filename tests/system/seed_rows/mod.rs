//! The behaviour that Mozart started from: a test for each of its sentences, through the real stack.

mod journal;
mod lifecycle;
mod streams;
