//! The only crate that speaks NATS. See ARCHITECTURE.md for the streams and `common::subject` for their subjects.

mod ack;
mod address;
mod admitted;
mod answer;
mod api;
mod asked;
mod attempts;
mod back;
mod backup;
mod callout;
mod clock;
mod connecting;
mod connection;
mod consumer;
mod control;
mod dead;
mod disk;
mod elsewhere;
mod error;
mod events;
mod failure;
mod files;
mod find;
mod fleet;
mod follow;
mod forget;
mod history;
mod inbox;
mod journal;
mod leader;
mod lease;
mod logs;
mod members;
mod patience;
mod poll;
mod probe;
mod quiet;
mod reach;
mod read;
mod record;
#[cfg(feature = "reference")]
pub mod reference;
mod remove;
mod reset;
mod retries;
mod room;
mod route;
mod scan;
mod security;
mod snapshot;
mod streams;
mod tickets;
mod tls;
mod usage;
mod users;
mod watch;
mod wire;

pub use address::{by_way_of, without_login};
pub use admitted::{Admission, Admitted};
pub use answer::{Asker, MayAsk};
pub use asked::AsShim;
pub use attempts::AttemptMark;
pub use backup::{Copied, Copying, Extract, Filler, Origin, Part};
pub use callout::{
    APP, Accounts, AsUser, AuthKey, Connection, Creds, Login, Logins, Rights, User, Who,
};
pub use clock::Moment;
pub use connection::{Broker, ConnectOptions, Link, Subscription, TransientMessage, ask_once};
pub use consumer::{ConsumerState, WINDOW};
pub use control::{Appended, ControlFollower, ControlItem, ControlPage, Extent};
pub use dead::{DeadDrop, DeadLetters};
pub use error::{BrokerError, Result};
pub use events::{EventBatch, EventFollower};
pub use failure::{Attempt, failure};
pub use files::FilesFault;
pub use find::{Found, Standing};
pub use forget::{Erased, Forget, Forgotten};
pub use history::{
    ArchiveOptions, Archived, Archiver, Beginning, Cursor, JournalItem, JournalScan, ListQuery,
    Listed, Listing, Round,
};
pub use inbox::{Delivery, Inbox, InboxItem, Passed, Unreadable};
pub use journal::{FinalOutcome, SendOutcome, Stored};
pub use lease::{Lease, LeaseState};
pub use logs::LogFollower;
pub use members::{ClusterMember, Removal, remove_server};
pub use patience::once_there;
pub use remove::REWRITE;
pub use reset::Reset;
pub use retries::{Retries, pause_after};
pub use scan::{FirstOpen, OpenScan, Request, Requested};
pub use snapshot::Loaded;
pub use streams::{LONGEST_KEPT, Scaled, StreamOptions};
pub use tickets::Admit;
pub use usage::{AgentUsage, StreamUsage};
pub use watch::{JournalFollower, Watched};
