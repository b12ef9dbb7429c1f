//! Reliable, encrypted peer-to-peer connections: libcrust for Rust.
//!
//! A [`Service`] is one node: an identity, its listeners, its peers. Peers find
//! each other by *connection info*, which one gives the other by any channel, or
//! by an endpoint such as `tcp://203.0.113.5:5483`. Whoever is connected has
//! proved that it holds the key that is its [`PeerId`], and everything between
//! two peers is encrypted. Messages of up to 2 MiB arrive whole, in order within
//! their priority. What happens comes as [`Event`]s:
//!
//! - [`Events`] is an iterator, which waits, and gives whole [batches](Batch) to
//!   those in a hurry;
//! - with the feature `stream` it becomes a `Stream` for any async runtime;
//! - [`Service::with_handler`] calls a closure instead.
//!
//! ```
//! use crust::{Config, Event, Service};
//!
//! let (alice, mut alice_events) = Service::new(Config::new().listen("tcp://127.0.0.1:0"))?;
//! let (bob, mut bob_events) = Service::new(Config::new().listen("tcp://127.0.0.1:0"))?;
//!
//! // Alice says where she can be reached. Bob gets it by mail, say, and connects.
//! alice.prepare_connection_info(1)?;
//! let info = alice_events.find_map(|event| match event {
//!     Event::ConnectionInfo { token: 1, info, .. } => Some(info),
//!     _ => None,
//! });
//! bob.connect(&info.expect("an answer"), 2)?;
//!
//! for event in &mut bob_events {
//!     match event {
//!         Event::Connected { peer, token: 2, .. } => {
//!             assert_eq!(peer, alice.id());
//!             bob.send(&peer, "hello", 0)?;
//!             break;
//!         }
//!         Event::ConnectFailed { error, .. } => return Err(error),
//!         _ => {}
//!     }
//! }
//! for event in &mut alice_events {
//!     if let Event::Message(message) = event {
//!         assert_eq!((message.peer, &*message), (bob.id(), &b"hello"[..]));
//!         break;
//!     }
//! }
//! // Dropping a service closes it; its events tell the rest.
//! drop(bob);
//! assert!(matches!(bob_events.last(), Some(Event::Stopped { error: None, .. })));
//! # Ok::<(), crust::Error>(())
//! ```
//!
//! # Features
//!
//! - `stream`: `Events::into_stream`, with `futures-core` for the trait.
//! - `log`: records of a service's log go to the crate `log`, see [`Event::Log`].
//! - `serde`: `Serialize` and `Deserialize` for [`PeerId`].
//!
//! # The library
//!
//! This crate calls `libcrust.so` (or `.dylib`, `.dll`), or links `libcrust.a`;
//! `crust-sys` says how it is found. A program holds at most one library written
//! in Go safely, and a child made by `fork` cannot use it.

mod ban;
mod config;
mod error;
mod event;
mod gate;
mod group;
mod handle;
mod handler;
mod info;
mod logs;
mod nat;
mod peer_id;
mod service;
#[cfg(feature = "stream")]
mod stream;

pub use ban::Ban;
pub use config::{Beacon, Config, Gossip, Relay, Role};
pub use error::{Error, ErrorKind, Result};
pub use event::{AlertKind, Batch, By, Event, How, Means, Message, Payload};
pub use gate::GateRequest;
pub use group::{Group, GroupInfo, GroupPeer, GroupState};
pub use handle::{Handle, Outgoing, Sent};
pub use info::{Cipher, KnownPeer, LanPeer, PeerInfo, Stats};
pub use logs::LogLevel;
pub use nat::{Confidence, MappedPort, Nat, NatDepends, NatFlow, NatPorts, NatSeen, NatServer};
pub use peer_id::{PeerId, Seed};
pub use service::{Events, Service};
#[cfg(feature = "stream")]
pub use stream::EventStream;

use crust_sys as sys;

/// The largest message in bytes: 2 MiB.
pub const MAX_MESSAGE: usize = sys::CRUST_MAX_MESSAGE as usize;
/// The largest app id in bytes.
pub const MAX_APP_ID: usize = sys::CRUST_MAX_APP_ID as usize;
/// The longest network name in bytes.
pub const MAX_NETWORK_NAME: usize = sys::CRUST_MAX_NETWORK_NAME as usize;

/// The version of the library in use, such as `"0.1.0"`.
pub fn version() -> &'static str {
    // SAFETY: a pure function; the text is in static storage.
    unsafe { error::static_text(sys::crust_version_string()) }
}

/// Whether the library in use has a feature. Known: `"tcp"`, `"fd"`, `"utp"`.
pub fn has(feature: &str) -> bool {
    let Ok(feature) = std::ffi::CString::new(feature) else {
        return false;
    };
    // SAFETY: a pure function; the text is NUL-terminated.
    unsafe { sys::crust_has(feature.as_ptr()) == 1 }
}

/// Checks a connection info and says who made it.
///
/// ```
/// let error = crust::connection_info_peer(b"not an info").unwrap_err();
/// assert_eq!(error.kind(), crust::ErrorKind::BadInfo);
/// # Ok::<(), crust::Error>(())
/// ```
///
/// Errors: [`ErrorKind::BadInfo`].
pub fn connection_info_peer(info: &[u8]) -> Result<PeerId> {
    check_abi()?;
    let mut id = sys::crust_peer_id::default();
    // SAFETY: a buffer with its length, and room for one id.
    error::check(unsafe {
        sys::crust_connection_info_peer(info.as_ptr().cast(), info.len(), &mut id)
    })?;
    Ok(PeerId::from_raw(id))
}

/// Refuses a library that speaks another ABI. It is asked before anything is
/// made: what it protects from is a library exchanged after the program was built.
fn check_abi() -> Result<()> {
    // SAFETY: a pure function.
    let theirs = unsafe { sys::crust_abi_version() };
    if theirs == sys::CRUST_ABI_VERSION {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Abi,
        format!(
            "libcrust {} speaks ABI {theirs}, but this program was built for ABI {}",
            version(),
            sys::CRUST_ABI_VERSION
        ),
    ))
}

/// Which types cross threads is a promise; the compiler holds it.
const _: () = {
    const fn send_and_sync<T: Send + Sync + 'static>() {}
    send_and_sync::<Config>();
    send_and_sync::<Service>();
    send_and_sync::<Handle>();
    send_and_sync::<Events>();
    send_and_sync::<Event>();
    send_and_sync::<Message>();
    send_and_sync::<Payload>();
    send_and_sync::<Batch>();
    send_and_sync::<Outgoing<'static>>();
    send_and_sync::<Error>();
    send_and_sync::<Seed>();
    #[cfg(feature = "stream")]
    send_and_sync::<EventStream>();
};
