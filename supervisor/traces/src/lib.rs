//! Traces: each message that has ended becomes a few spans, which are exported by OTLP over HTTP.
//!
//! Everything that a trace tells is stored by then: the request, the events, the final state. So nobody reports spans: whoever exports hears
//! of each end once, reads what there is, and tells it on. No shim, no worker and no message waits for that, and what does not keep up is
//! dropped and counted.

mod export;
mod marks;
mod settings;
mod story;

pub use export::run;
pub use settings::{Settings, settings};
