//! The API of crust 0.31, carried by libcrust.
//!
//! Routing code that was written against `crust` 0.31 compiles against this crate
//! unchanged. In the `Cargo.toml` of the program:
//!
//! ```toml
//! [patch.crates-io]
//! crust = { path = "libcrust/bindings/rust/crust-compat" }
//! # maidsafe_utilities 0.16 pins a version of url that today's compilers refuse.
//! url = { path = "libcrust/bindings/rust/crust-compat/url" }
//! ```
//!
//! Events, their order, the configuration file and its keys, priorities and limits are
//! those of 0.31. What is different, and why:
//!
//! - Everything is encrypted, and whoever is connected has proved that it holds a key,
//!   which each `Service` makes for itself. The UID is told under that key. Whoever names
//!   a UID that another connected peer has is refused; nobody is a peer under two.
//! - NATs are got through: by port mappings, hole punching, uTP, and peers that introduce
//!   or relay. Sessions outlive their links; nothing of that shows but that peers stay.
//! - `WriteMsgSizeProhibitive` is really sent, when a message is over
//!   [2 MiB - 12 bytes](MAX_PAYLOAD_SIZE); the connection is unharmed.
//! - `send` fails with `Io` (`WouldBlock`) while 64 MiB wait for one peer, where 0.31 took
//!   the host's memory.
//! - An accepted socket that says nothing is given up after 10 s instead of 10 minutes,
//!   and the denial of one contact ends nothing: bootstrapping goes on with the others.
//! - The bootstrap cache, which 0.31 read and never wrote, is written: a memory-mapped
//!   file of libcrust, not JSON. A file of 0.31 is set aside.
//! - A configuration given to [`Service::with_config`] is not replaced by the file on
//!   disk. One that [`Service::new`] has read is followed: whitelists take effect within
//!   30 s.
//! - `PrivConnectionInfo` and `PubConnectionInfo` hold a signed, expiring info of libcrust
//!   instead of lists of addresses. `ConnectionInfoPrepared` comes a moment after
//!   `prepare_connection_info` returns instead of before it.
//! - Peers of crust 0.31 itself cannot be talked to: both ends link this library.
//!
//! The environment variables `CRUST_PORTMAP=off` and `CRUST_BEACON=off` are libcrust's.

mod config;
mod error;
mod event;
mod machine;
mod service;

pub use config::{Config, DevConfig, read_config_file};
pub use error::{CommonError, CrustError, NatError, ServiceDiscoveryError, Stopped};
pub use event::{
    ConnectionInfoResult, CrustUser, Event, PrivConnectionInfo, PubConnectionInfo, Uid,
};
pub use service::Service;

/// Priority of a message: 0 is the most urgent.
pub type Priority = u8;

/// Messages of this priority and of less urgent ones are dropped when they have waited for
/// 60 s on a connection that does not move, together with those of all less urgent ones.
pub const MSG_DROP_PRIORITY: u8 = 2;

/// The largest message, in bytes: as in 0.31, 2 MiB less what its header took.
pub const MAX_PAYLOAD_SIZE: usize = 2 * 1024 * 1024 - 12;

/// Takes the events of a [`Service`].
pub type CrustEventSender<UID> = maidsafe_utilities::event_sender::MaidSafeObserver<Event<UID>>;

/// The result type of this crate.
pub type Res<T> = Result<T, CrustError>;
