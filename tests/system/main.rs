//! The behaviour of Mozart end to end.

mod seed_rows;
