//! The raw client, for the loop that `mozart bench` compares with: no product code uses this.

pub use async_nats as client;
