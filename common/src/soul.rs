//! The `.soul` parser.
