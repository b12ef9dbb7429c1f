//! The C ABI of libcrust, declared for Rust exactly as `include/crust.h` has it.
//!
//! Nothing is added here: names, types and rules are the header's, and the
//! header is the reference for threads, blocking, ownership and errors. Programs
//! use the safe crate `crust`; this one is for those who need the raw calls.
//!
//! The rules in short: every function may be called from any thread, except that
//! one [`crust_config`] belongs to one thread at a time and a [`crust_batch`] is
//! freed once. Inside a callback [`crust_poll`], [`crust_send_wait`] and
//! [`crust_service_free`] return [`CRUST_ERR_WOULD_DEADLOCK`]. No panic may
//! leave a callback. Results below zero are errors.
//!
//! # Finding the library
//!
//! The build script takes the first of: the directory `CRUST_LIB_DIR` (with
//! `CRUST_STATIC=1` its `libcrust.a`), `pkg-config crust`, `build/lib` of the
//! repository.

#![no_std]
#![allow(non_camel_case_types)]

use core::ffi::{c_char, c_int, c_void};
use core::marker::{PhantomData, PhantomPinned};

// ---- version ----------------------------------------------------------------

/// Major version of the header that these bindings were written from.
pub const CRUST_VERSION_MAJOR: u32 = 0;
/// Minor version of the header.
pub const CRUST_VERSION_MINOR: u32 = 1;
/// Patch version of the header.
pub const CRUST_VERSION_PATCH: u32 = 0;
/// The ABI these bindings speak; compare it with [`crust_abi_version`].
pub const CRUST_ABI_VERSION: u32 = 1;

// ---- results ----------------------------------------------------------------

/// Zero or more: success, often a count. Below zero: one of `CRUST_ERR_*`.
pub type crust_result = i32;

/// Success.
pub const CRUST_OK: crust_result = 0;
/// An argument is malformed or out of bounds.
pub const CRUST_ERR_INVALID: crust_result = -1;
/// Unknown, stale or freed handle.
pub const CRUST_ERR_BAD_HANDLE: crust_result = -2;
/// Not possible now.
pub const CRUST_ERR_STATE: crust_result = -3;
/// Out of memory.
pub const CRUST_ERR_NO_MEMORY: crust_result = -4;
/// The send queue is full; wait for [`CRUST_EVENT_WRITABLE`].
pub const CRUST_ERR_WOULD_BLOCK: crust_result = -5;
/// No answer in time.
pub const CRUST_ERR_TIMEOUT: crust_result = -6;
/// Given up by the program, or by closing the service.
pub const CRUST_ERR_CANCELED: crust_result = -7;
/// The service is closed.
pub const CRUST_ERR_CLOSED: crust_result = -8;
/// The caller's buffer is too small; `*len` says what is needed.
pub const CRUST_ERR_BUFFER_TOO_SMALL: crust_result = -9;
/// The message is over [`CRUST_MAX_MESSAGE`].
pub const CRUST_ERR_TOO_BIG: crust_result = -10;
/// This build or platform cannot.
pub const CRUST_ERR_UNSUPPORTED: crust_result = -11;
/// A blocking call inside a callback.
pub const CRUST_ERR_WOULD_DEADLOCK: crust_result = -12;
/// The process forked after loading the library.
pub const CRUST_ERR_FORKED: crust_result = -13;
/// A fault inside the library was caught.
pub const CRUST_ERR_PANICKED: crust_result = -14;
/// A fault inside the library.
pub const CRUST_ERR_INTERNAL: crust_result = -15;
/// `struct_size` or ABI version not acceptable.
pub const CRUST_ERR_ABI: crust_result = -16;
/// The operating system refused for another reason.
pub const CRUST_ERR_IO: crust_result = -20;
/// Another program listens there.
pub const CRUST_ERR_ADDRESS_IN_USE: crust_result = -21;
/// No such address on this machine, or malformed.
pub const CRUST_ERR_ADDRESS: crust_result = -22;
/// No route to the address.
pub const CRUST_ERR_UNREACHABLE: crust_result = -23;
/// Nothing listens there.
pub const CRUST_ERR_REFUSED: crust_result = -24;
/// The connection broke.
pub const CRUST_ERR_RESET: crust_result = -25;
/// The operating system forbids it.
pub const CRUST_ERR_PERMISSION: crust_result = -26;
/// A limit on connections, handshakes or descriptors.
pub const CRUST_ERR_LIMIT: crust_result = -27;
/// The peer is this service.
pub const CRUST_ERR_SELF: crust_result = -40;
/// Not connected to that peer.
pub const CRUST_ERR_UNKNOWN_PEER: crust_result = -41;
/// Already connected to that peer.
pub const CRUST_ERR_CONNECTED: crust_result = -42;
/// The peer or its address is blacklisted.
pub const CRUST_ERR_BANNED: crust_result = -43;
/// The peer does not accept us.
pub const CRUST_ERR_NOT_ALLOWED: crust_result = -44;
/// Connection info malformed, forged or expired.
pub const CRUST_ERR_BAD_INFO: crust_result = -45;
/// The other end did not complete the handshake.
pub const CRUST_ERR_HANDSHAKE: crust_result = -46;
/// Data that fails authentication.
pub const CRUST_ERR_CRYPTO: crust_result = -47;
/// No answer: another network name, or no libcrust there.
pub const CRUST_ERR_NETWORK_NAME: crust_result = -48;
/// Somebody else answered.
pub const CRUST_ERR_WRONG_PEER: crust_result = -49;
/// Nothing to try.
pub const CRUST_ERR_NO_ENDPOINT: crust_result = -50;
/// Closed in order by either side.
pub const CRUST_ERR_DISCONNECTED: crust_result = -51;
/// Nothing heard for the whole timeout.
pub const CRUST_ERR_PEER_SILENT: crust_result = -52;
/// The peer broke the protocol.
pub const CRUST_ERR_PROTOCOL: crust_result = -53;
/// The peer restarted and came back.
pub const CRUST_ERR_REPLACED: crust_result = -54;
/// Too old in the queue.
pub const CRUST_ERR_EXPIRED: crust_result = -55;

// ---- peer ids and identities ------------------------------------------------

/// Bytes of a peer id: an Ed25519 public key.
pub const CRUST_PEER_ID_SIZE: usize = 32;
/// Bytes of a peer id's text form: 64 hexadecimal digits and NUL.
pub const CRUST_PEER_ID_TEXT: usize = 65;
/// Bytes of the secret an identity is made from.
pub const CRUST_SEED_SIZE: usize = 32;
/// The largest message, in bytes.
pub const CRUST_MAX_MESSAGE: u32 = 2_097_152;
/// The largest app id, in bytes.
pub const CRUST_MAX_APP_ID: u32 = 256;
/// The longest network name, in bytes.
pub const CRUST_MAX_NETWORK_NAME: u32 = 256;

/// A peer's Ed25519 public key.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct crust_peer_id {
    /// The key.
    pub bytes: [u8; CRUST_PEER_ID_SIZE],
}

// ---- configuration ----------------------------------------------------------

/// A handle of a service; 0 is never valid.
pub type crust_service = u64;

/// How a service is made. Opaque.
#[repr(C)]
pub struct crust_config {
    _data: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// A run of events and the memory they lie in. Opaque.
#[repr(C)]
pub struct crust_batch {
    _data: [u8; 0],
    _marker: PhantomData<(*mut u8, PhantomPinned)>,
}

/// Makes the service known on the networks of its machine, and hears others.
pub const CRUST_BEACON_ON: u32 = 0;
/// Sends nothing and hears nothing.
pub const CRUST_BEACON_OFF: u32 = 1;
/// Hears others and sends nothing.
pub const CRUST_BEACON_LISTEN: u32 = 2;
/// Hears others, who answer, and tells nothing of itself.
pub const CRUST_BEACON_ASK: u32 = 3;

/// A full member of the network.
pub const CRUST_ROLE_NODE: u32 = 0;
/// A user of the network.
pub const CRUST_ROLE_CLIENT: u32 = 1;
/// Carries the letters by which two peers meet, and no more.
pub const CRUST_RELAY_SIGNAL: u32 = 0;
/// Carries nothing of others.
pub const CRUST_RELAY_OFF: u32 = 1;
/// Carries letters and links, within limits; for services that peers can reach.
pub const CRUST_RELAY_DATA: u32 = 2;

/// Tells peers where it and others can be dialled, and asks them for the same.
pub const CRUST_GOSSIP_ON: u32 = 0;
/// Tells where it can be dialled itself, to peers that ask; learns nothing.
pub const CRUST_GOSSIP_ANSWER: u32 = 1;
/// Takes no part.
pub const CRUST_GOSSIP_OFF: u32 = 2;
/// No session is in clear, ever.
pub const CRUST_TRACER_OFF: u32 = 0;
/// Sessions may be in clear, when the other side allows it too and a program names the endpoint.
pub const CRUST_TRACER_ON: u32 = 1;

/// An option of [`crust_config`].
pub type crust_option = i32;

/// str: the network; unset means the public default network.
pub const CRUST_OPT_NETWORK_NAME: crust_option = 1;
/// str: path, created with mode 0600 if missing; unset means a fresh identity.
pub const CRUST_OPT_IDENTITY_FILE: crust_option = 2;
/// bytes: [`CRUST_SEED_SIZE`]; unset means a fresh identity.
pub const CRUST_OPT_IDENTITY_SEED: crust_option = 3;
/// bytes or str: up to [`CRUST_MAX_APP_ID`]; unset means none.
pub const CRUST_OPT_APP_ID: crust_option = 4;
/// u64: `CRUST_ROLE_*`; node.
pub const CRUST_OPT_ROLE: crust_option = 5;
/// u64: 1 starts no listener.
pub const CRUST_OPT_NO_LISTEN: crust_option = 6;
/// u64: 1 refuses sessions that peers begin.
pub const CRUST_OPT_NO_ACCEPT: crust_option = 7;
/// u64: 0 automatic, 1 ChaCha20-Poly1305 only.
pub const CRUST_OPT_CIPHER: crust_option = 8;
/// u64, up to 65,535: the port that listeners with port 0 try first; random ports.
pub const CRUST_OPT_LIVE_PORT: crust_option = 9;
/// u64: 1 loses a session with its link; sessions resume.
pub const CRUST_OPT_NO_RESUME: crust_option = 10;
/// u64: 1 does not watch this machine's network: see [`crust_service_network_changed`].
pub const CRUST_OPT_NO_NETWORK_WATCH: crust_option = 11;
/// u64: `CRUST_RELAY_*`, what is done for peers that cannot reach each other.
pub const CRUST_OPT_RELAY: crust_option = 12;
/// u64: 1 asks no router to pass the ports of listeners on.
pub const CRUST_OPT_NO_PORT_MAP: crust_option = 13;
/// u64, up to 65,535: the port that routers must give, or none; any port.
pub const CRUST_OPT_EXTERNAL_PORT: crust_option = 14;
/// str: path of the file of peers to bootstrap from, or "default"; none.
pub const CRUST_OPT_CACHE: crust_option = 15;
/// u64: `CRUST_BEACON_*`, what is said on the networks that this machine is in.
pub const CRUST_OPT_BEACON: crust_option = 16;
/// u64, up to 65,535: the UDP port of that; 5484.
pub const CRUST_OPT_BEACON_PORT: crust_option = 17;
/// u64: `CRUST_GOSSIP_*`, whether peers tell each other where they and others can be dialled.
pub const CRUST_OPT_GOSSIP: crust_option = 18;
/// u64: the ways in which links may come about, the sum of `1 << CRUST_HOW_*` of each; all.
pub const CRUST_OPT_ONLY: crust_option = 19;
/// u64; 60,000.
pub const CRUST_OPT_CONNECT_TIMEOUT_MS: crust_option = 20;
/// u64; 10,000.
pub const CRUST_OPT_BOOTSTRAP_TIMEOUT_MS: crust_option = 21;
/// u64; 10,000.
pub const CRUST_OPT_HANDSHAKE_TIMEOUT_MS: crust_option = 22;
/// u64; 20,000.
pub const CRUST_OPT_HEARTBEAT_MS: crust_option = 23;
/// u64, at least twice the heartbeat; 120,000.
pub const CRUST_OPT_LOST_AFTER_MS: crust_option = 24;
/// u64; 5,000.
pub const CRUST_OPT_CLOSE_TIMEOUT_MS: crust_option = 25;
/// u64; 60,000.
pub const CRUST_OPT_MESSAGE_MAX_AGE_MS: crust_option = 26;
/// u64, at least 1,000: how often listeners with port 0 move to a new port; never.
pub const CRUST_OPT_PORT_ROTATION_MS: crust_option = 27;
/// u64: how long a session whose link is gone waits for another; 30,000.
pub const CRUST_OPT_RESUME_WINDOW_MS: crust_option = 28;
/// u64, for one peer, at least [`CRUST_MAX_MESSAGE`]; 4 MiB.
pub const CRUST_OPT_SEND_QUEUE_BYTES: crust_option = 40;
/// u64; 16 MiB.
pub const CRUST_OPT_EVENT_QUEUE_BYTES: crust_option = 41;
/// u64; 4,096.
pub const CRUST_OPT_MAX_PEERS: crust_option = 42;
/// u64; 1,024.
pub const CRUST_OPT_MAX_HANDSHAKES: crust_option = 43;
/// u64; 256.
pub const CRUST_OPT_MAX_HANDSHAKES_PER_ADDRESS: crust_option = 44;
/// u64; 1,024.
pub const CRUST_OPT_MAX_CONNECTS: crust_option = 45;
/// u64, at least 524,288: sent to one peer and kept until acknowledged; 8 MiB.
pub const CRUST_OPT_RESEND_BUFFER_BYTES: crust_option = 46;
/// u64, up to 65,536: peers that the cache has room for; 200.
pub const CRUST_OPT_CACHE_PEERS: crust_option = 47;
/// u64: entries of the blacklist; 65,536.
pub const CRUST_OPT_MAX_BANS: crust_option = 60;
/// u64, up to 4,096: calls of a gate that have not returned; 64.
pub const CRUST_OPT_MAX_GATES: crust_option = 61;
/// u64, up to 5,000: how long a peer waits for a gate; 1,000.
pub const CRUST_OPT_GATE_TIMEOUT_MS: crust_option = 62;
/// u64: `CRUST_TRACER_*`, whether sessions may be in clear, for looking at them.
pub const CRUST_OPT_TRACER: crust_option = 70;
/// str: path of a file to which the keys of every session are appended.
pub const CRUST_OPT_KEY_LOG: crust_option = 71;
/// u64: `CRUST_LOG_*`, which records of the log come as [`CRUST_EVENT_LOG`]; none.
pub const CRUST_OPT_LOG_LEVEL: crust_option = 72;

/// No records.
pub const CRUST_LOG_OFF: u32 = 0;
/// Something is broken for good.
pub const CRUST_LOG_ERROR: u32 = 1;
/// Something is wrong, and the service goes on.
pub const CRUST_LOG_WARN: u32 = 2;
/// What happens: a handful of records for each session.
pub const CRUST_LOG_INFO: u32 = 3;
/// Each attempt.
pub const CRUST_LOG_DEBUG: u32 = 4;

// ---- events -----------------------------------------------------------------

/// What happened: one of `CRUST_EVENT_*`. Ignore those you do not know.
pub type crust_event_type = u32;

/// peer, data, len, priority.
pub const CRUST_EVENT_MESSAGE: crust_event_type = 1;
/// peer: a queue that refused has drained to half; once per refusal.
pub const CRUST_EVENT_WRITABLE: crust_event_type = 2;
/// endpoint, with the real port.
pub const CRUST_EVENT_LISTENER_STARTED: crust_event_type = 3;
/// endpoint as asked for, code, text.
pub const CRUST_EVENT_LISTENER_FAILED: crust_event_type = 4;
/// token, data: give these bytes to the other peer.
pub const CRUST_EVENT_CONNECTION_INFO: crust_event_type = 5;
/// peer, token or 0, how, role, endpoint, data = app id, took_us.
pub const CRUST_EVENT_CONNECTED: crust_event_type = 6;
/// token, peer: final event of a connect that found a session.
pub const CRUST_EVENT_ALREADY_CONNECTED: crust_event_type = 7;
/// token, peer and endpoint if known, code, text.
pub const CRUST_EVENT_CONNECT_FAILED: crust_event_type = 8;
/// token, peer, endpoint; after that peer's CONNECTED.
pub const CRUST_EVENT_BOOTSTRAPPED: crust_event_type = 9;
/// token, code, text.
pub const CRUST_EVENT_BOOTSTRAP_FAILED: crust_event_type = 10;
/// peer, code, text, count: messages of which it is not known that they arrived;
/// the session's last event.
pub const CRUST_EVENT_LOST: crust_event_type = 11;
/// peer, priority, count, bytes: accepted, but too old to send.
pub const CRUST_EVENT_MESSAGES_DROPPED: crust_event_type = 12;
/// code, text if it stopped by itself; the service's last event.
pub const CRUST_EVENT_STOPPED: crust_event_type = 13;
/// peer, endpoint, code, text: the link is gone; RESUMED or LOST follows.
pub const CRUST_EVENT_SUSPENDED: crust_event_type = 14;
/// peer, endpoint, how: the session goes on over another link.
pub const CRUST_EVENT_RESUMED: crust_event_type = 15;
/// token, peer; code and text unless it has arrived: final event of
/// [`crust_send_receipt`].
pub const CRUST_EVENT_DELIVERED: crust_event_type = 16;
/// peer, data, len.
pub const CRUST_EVENT_DATAGRAM: crust_event_type = 17;
/// endpoint: given up for a new port; sessions live on.
pub const CRUST_EVENT_LISTENER_STOPPED: crust_event_type = 18;
/// count: how many addresses of this machine came or went.
pub const CRUST_EVENT_NETWORK_CHANGED: crust_event_type = 19;
/// endpoint, data = where it leads as text, count = `CRUST_MEANS_*`, took_us = for
/// how long, code and text unless peers can use it: a router passes a port on.
pub const CRUST_EVENT_PORT_MAPPED: crust_event_type = 20;
/// endpoint, data, count as before, code and text unless it was not wanted any more.
pub const CRUST_EVENT_PORT_UNMAPPED: crust_event_type = 21;
/// code, text: the file of [`CRUST_OPT_CACHE`] is not what it should be, and what was done.
pub const CRUST_EVENT_CACHE_TROUBLE: crust_event_type = 22;
/// peer, endpoint, role, count = `CRUST_BY_*`: there is a peer.
pub const CRUST_EVENT_DISCOVERED: crust_event_type = 23;
/// peer, count as before: it has said goodbye, or was not heard of for too long.
pub const CRUST_EVENT_FORGOTTEN: crust_event_type = 24;
/// data: the name of a group, peer or none, how: `CRUST_GROUP_*`, count: how many are
/// connected, bytes: how many should be, took_us: until the next attempt, code, text.
pub const CRUST_EVENT_GROUP: crust_event_type = 25;
/// how: `CRUST_ALERT_*`, peer or none, endpoint: an address or prefix, count, bytes,
/// token: microseconds of processor time, data: what might be banned, took_us: for how
/// long, text: somebody makes this service work for nothing.
pub const CRUST_EVENT_ALERT: crust_event_type = 26;
/// peer, endpoint, how: the session with the peer is in clear.
pub const CRUST_EVENT_CLEAR: crust_event_type = 27;
/// text: the name of a record of the log, data: its attributes, an object of JSON,
/// priority: `CRUST_LOG_*`, took_us: when, in microseconds since 1970.
pub const CRUST_EVENT_LOG: crust_event_type = 28;

/// How a peer was discovered: its beacon was heard on a network of this machine.
pub const CRUST_BY_BEACON: u32 = 1;
/// Connected peers have told of it.
pub const CRUST_BY_GOSSIP: u32 = 2;

/// How a router was asked: PCP.
pub const CRUST_MEANS_PCP: u32 = 1;
/// UPnP-IGD 2.
pub const CRUST_MEANS_UPNP_IGD2: u32 = 2;
/// UPnP, to open its firewall for IPv6.
pub const CRUST_MEANS_UPNP_PINHOLE: u32 = 3;
/// NAT-PMP.
pub const CRUST_MEANS_NAT_PMP: u32 = 4;
/// UPnP-IGD 1.
pub const CRUST_MEANS_UPNP_IGD1: u32 = 5;

/// We connected to the peer.
pub const CRUST_HOW_DIALED: u32 = 1;
/// The peer connected to us.
pub const CRUST_HOW_ACCEPTED: u32 = 2;
/// We connected to the peer at a port that its router passes on, as it said.
pub const CRUST_HOW_MAPPED: u32 = 3;
/// Both sides opened their NATs.
pub const CRUST_HOW_PUNCHED: u32 = 4;
/// Another peer relays.
pub const CRUST_HOW_RELAYED: u32 = 5;

/// An event. Fields that mean nothing for a type are 0 or NULL. Pointers are
/// valid until the batch is freed (poll mode) or `on_events` returns (callback
/// mode), and all point into the batch's memory. The size never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_event {
    /// One of `CRUST_EVENT_*`.
    pub r#type: crust_event_type,
    /// [`CRUST_OK`] or why.
    pub code: i32,
    /// Of a message.
    pub priority: u8,
    /// `CRUST_ROLE_*`.
    pub role: u8,
    /// `CRUST_HOW_*`.
    pub how: u8,
    /// 0.
    pub reserved0: u8,
    /// Number of messages.
    pub count: u32,
    /// The caller's token, or 0.
    pub token: u64,
    /// Whom it is about, or NULL.
    pub peer: *const crust_peer_id,
    /// `len` bytes.
    pub data: *const u8,
    /// Bytes at `data`.
    pub len: u64,
    /// `"tcp://..."` or `"utp://..."`, or NULL.
    pub endpoint: *const c_char,
    /// One sentence that says why, or NULL.
    pub text: *const c_char,
    /// Microseconds.
    pub took_us: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// 0.
    pub reserved1: u64,
}

/// Takes events in callback mode, on one library thread, never at once with
/// itself. It must not unwind.
pub type crust_events_fn = Option<
    unsafe extern "C" fn(
        user: *mut c_void,
        service: crust_service,
        events: *const crust_event,
        n: usize,
    ),
>;
/// Says that `user` is not used any more. It must not unwind.
pub type crust_release_fn = Option<unsafe extern "C" fn(user: *mut c_void)>;

/// A peer that has proved its key, and with which there is no session.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_gate_request {
    /// That of the library: what is beyond is not there.
    pub struct_size: u32,
    /// `CRUST_HOW_*`.
    pub how: u8,
    /// `CRUST_ROLE_*`.
    pub role: u8,
    /// 1: the service has dialled.
    pub outbound: u8,
    /// 0.
    pub reserved: u8,
    /// Who.
    pub peer: crust_peer_id,
    /// Until the callback returns.
    pub app_id: *const c_void,
    /// Its bytes.
    pub app_id_len: usize,
    /// NUL-terminated, until the callback returns.
    pub endpoint: *const c_char,
}

/// Returns 1 to let a peer in. On library threads, several at once. It must not unwind.
pub type crust_gate_fn =
    Option<unsafe extern "C" fn(user: *mut c_void, request: *const crust_gate_request) -> c_int>;

/// Chooses callback mode.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_callbacks {
    /// `size_of::<crust_callbacks>()`.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Handed back, never looked at.
    pub user: *mut c_void,
    /// Takes the events.
    pub on_events: crust_events_fn,
    /// Called exactly once, after the last `on_events`.
    pub on_release: crust_release_fn,
}

// ---- messages, peers, stats -------------------------------------------------

/// Of a group's peer: there is a session, which may be suspended.
pub const CRUST_GROUP_UP: u32 = 1;
/// Of a group's peer: there is none, or none any more.
pub const CRUST_GROUP_DOWN: u32 = 2;
/// Of a group's peer: an attempt is under way.
pub const CRUST_GROUP_TRYING: u32 = 3;
/// Of a group's peer: an attempt has failed.
pub const CRUST_GROUP_FAILED: u32 = 4;
/// Of a group's peer: the program has disconnected it.
pub const CRUST_GROUP_DROPPED: u32 = 5;
/// Connections over what is taken of one address, closed unread.
pub const CRUST_ALERT_CONNECTIONS: u32 = 1;
/// Connections that said nothing, or nothing of this network.
pub const CRUST_ALERT_GARBAGE: u32 = 2;
/// Handshakes that were begun and never finished.
pub const CRUST_ALERT_HANDSHAKES: u32 = 3;
/// Sessions that came and went within 10 s, or were refused.
pub const CRUST_ALERT_SESSIONS: u32 = 4;
/// Records that do not authenticate; whoever carries a TCP connection can make them.
pub const CRUST_ALERT_FORGERY: u32 = 5;
/// An authenticated peer broke the protocol.
pub const CRUST_ALERT_PROTOCOL: u32 = 6;
/// A peer sends more than it may, for seconds on end: it is read no faster.
pub const CRUST_ALERT_FLOOD: u32 = 7;
/// Records of gossip that were refused.
pub const CRUST_ALERT_GOSSIP: u32 = 8;
/// Circuits that were refused.
pub const CRUST_ALERT_RELAY: u32 = 9;

/// The most groups of a service.
pub const CRUST_MAX_GROUPS: u32 = 64;
/// The longest name of a group in bytes.
pub const CRUST_MAX_GROUP_NAME: u32 = 64;
/// The most peers of all groups together, and the most contacts, and infos, of one.
pub const CRUST_MAX_KEPT: u32 = 4096;

/// The longest reason of a ban, in bytes.
pub const CRUST_MAX_BAN_REASON: u32 = 256;
/// The most prefixes of a whitelist.
pub const CRUST_MAX_ALLOWED: u32 = 1024;

/// One message of [`crust_send_batch`]. The size never changes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_message {
    /// To whom.
    pub peer: *const crust_peer_id,
    /// `len` bytes.
    pub data: *const c_void,
    /// Bytes at `data`.
    pub len: u64,
    /// 0 is the most urgent.
    pub priority: u8,
    /// 0.
    pub reserved: [u8; 7],
}

/// One session, as [`crust_peer`] describes it. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_peer_info {
    /// `size_of::<crust_peer_info>()`, set by the caller.
    pub struct_size: u32,
    /// `CRUST_HOW_*`.
    pub how: u8,
    /// `CRUST_ROLE_*`.
    pub role: u8,
    /// 1 ChaCha20-Poly1305, 2 AES-256-GCM.
    pub cipher: u8,
    /// 0.
    pub reserved: u8,
    /// Who.
    pub peer: crust_peer_id,
    /// The peer's end of the link, NUL-terminated.
    pub endpoint: [c_char; 64],
    /// Microseconds; 0 when not yet known.
    pub rtt_us: u64,
    /// Microseconds since the session began.
    pub age_us: u64,
    /// Messages sent.
    pub sent_messages: u64,
    /// Bytes of messages sent.
    pub sent_bytes: u64,
    /// Messages received.
    pub received_messages: u64,
    /// Bytes of messages received.
    pub received_bytes: u64,
    /// Messages dropped because of their age.
    pub dropped_messages: u64,
    /// Bytes that wait to be sent, now.
    pub queued_bytes: u64,
    /// Bytes that are sent, and kept in case the link breaks, now.
    pub unacked_bytes: u64,
    /// 1: there is no link now.
    pub suspended: u64,
    /// Times that the session went over to another link.
    pub resumed: u64,
}

/// What [`crust_service_stats`] counts. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct crust_stats {
    /// `size_of::<crust_stats>()`, set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Sessions, now.
    pub peers: u64,
    /// Listeners, now.
    pub listeners: u64,
    /// Accepted connections not yet authenticated, now.
    pub handshakes: u64,
    /// Connection attempts in flight, now.
    pub connects: u64,
    /// Sessions ever.
    pub sessions_total: u64,
    /// Accepted connections that did not authenticate.
    pub handshakes_failed: u64,
    /// Of these, given up to make room.
    pub handshakes_evicted: u64,
    /// Connects that failed.
    pub connects_failed: u64,
    /// Messages sent.
    pub sent_messages: u64,
    /// Bytes of messages sent.
    pub sent_bytes: u64,
    /// Messages received.
    pub received_messages: u64,
    /// Bytes of messages received.
    pub received_bytes: u64,
    /// Messages dropped because of their age.
    pub dropped_messages: u64,
    /// Bytes sent on the links, with overhead.
    pub wire_sent_bytes: u64,
    /// Bytes received on the links, with overhead.
    pub wire_received_bytes: u64,
    /// Events that wait, now.
    pub events_queued: u64,
    /// Bytes of messages that wait as events, now.
    pub event_bytes_queued: u64,
    /// Events ever.
    pub events_total: u64,
    /// Times that reading stopped because the event queue was full.
    pub backpressure_pauses: u64,
    /// Datagrams sent.
    pub sent_datagrams: u64,
    /// Datagrams received.
    pub received_datagrams: u64,
    /// Datagrams received that found no room in the event queue.
    pub lost_datagrams: u64,
    /// Links carried for others, now.
    pub circuits: u64,
    /// Bytes of those, since the start.
    pub carried_bytes: u64,
    /// Peers of which gossip has told, now.
    pub known: u64,
    /// Connections closed unread, over a limit of accepting.
    pub refused_connections: u64,
    /// Handshakes not answered, over the share of the processor that they may have.
    pub refused_handshakes: u64,
    /// Connections closed unread, for want of descriptors.
    pub refused_files: u64,
    /// Sessions refused, over a limit of peers.
    pub refused_sessions: u64,
    /// Sessions ended to make room for those that are worth more.
    pub shed_sessions: u64,
    /// Times that a peer was not read for a while, since it sends too fast.
    pub rate_pauses: u64,
    /// Alerts raised.
    pub alerts: u64,
    /// Alerts that came too fast to be raised.
    pub suppressed_alerts: u64,
    /// Times that a session went over to another link.
    pub resumptions: u64,
    /// Connections and sessions refused for the blacklist or the whitelists; what the system
    /// drops before, of banned addresses that come again and again, is not counted.
    pub refused_banned: u64,
    /// Bytes that queues and buffers hold of `max_memory_bytes`, and beyond it, now.
    pub memory_bytes: u64,
    /// Times that `max_memory_bytes` had no room.
    pub refused_memory: u64,
    /// Records of the log for which there was no room.
    pub dropped_logs: u64,
    /// Letters, circuits and tests of reachability that peers asked for too often, or without leave.
    pub refused_help: u64,
}

/// On what of the other end a NAT's mapping or filter depends: not found out.
pub const CRUST_NAT_UNKNOWN: u32 = 0;
/// On nothing.
pub const CRUST_NAT_ENDPOINT_INDEPENDENT: u32 = 1;
/// On its address.
pub const CRUST_NAT_ADDRESS_DEPENDENT: u32 = 2;
/// On its address and port.
pub const CRUST_NAT_ADDRESS_PORT_DEPENDENT: u32 = 3;
/// How a NAT chooses the port of a new mapping: not found out.
pub const CRUST_NAT_PORTS_UNKNOWN: u32 = 0;
/// The internal port, where it is free.
pub const CRUST_NAT_PORTS_PRESERVING: u32 = 1;
/// The last one and a step.
pub const CRUST_NAT_PORTS_SEQUENTIAL: u32 = 2;
/// Any of a block.
pub const CRUST_NAT_PORTS_BLOCK: u32 = 3;
/// Any.
pub const CRUST_NAT_PORTS_RANDOM: u32 = 4;

/// What is known of the NATs between a service and others, as [`crust_service_nat`]
/// tells it. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_nat {
    /// `size_of::<crust_nat>()`, set by the caller.
    pub struct_size: u32,
    /// 1: somebody on the Internet has come unasked within the last hour.
    pub reachable: u8,
    /// 1: the NAT that others see is a provider's.
    pub cgnat: u8,
    /// 1: more is being found out now.
    pub pending: u8,
    /// 0.
    pub reserved: u8,
    /// What proves `reachable`, or why there is no proof, NUL-terminated.
    pub why: [c_char; 256],
}

/// The same of one transport protocol. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_nat_flow {
    /// `size_of::<crust_nat_flow>()`, set by the caller.
    pub struct_size: u32,
    /// 0 none, 1 tentative, 2 confirmed.
    pub confidence: u8,
    /// 1: there is no NAT.
    pub none: u8,
    /// 1: told by peers in a smaller network alone.
    pub nearby: u8,
    /// 1: there are two NATs in a row.
    pub twice: u8,
    /// 1: nothing of this protocol gets through.
    pub blocked: u8,
    /// 0 unknown, 1 no, 2 yes.
    pub hairpin: u8,
    /// `CRUST_NAT_*`.
    pub mapping: u8,
    /// `CRUST_NAT_*`.
    pub filtering: u8,
    /// `CRUST_NAT_PORTS_*`.
    pub ports: u8,
    /// 0.
    pub reserved: u8,
    /// Of sequential ports, else 0.
    pub step: i16,
    /// Of a block, else 0.
    pub low: u16,
    /// Of a block, else 0.
    pub high: u16,
    /// Our endpoints as others see them, one a line, NUL-terminated.
    pub external: [c_char; 1024],
}

/// What a STUN server of the configuration has said. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_nat_server {
    /// `size_of::<crust_nat_server>()`, set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// As in the configuration, NUL-terminated.
    pub server: [c_char; 272],
    /// Our endpoint as it has seen it last, NUL-terminated.
    pub seen: [c_char; 64],
    /// Why there is no answer, NUL-terminated.
    pub error: [c_char; 256],
}

/// How one peer sees the service. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_nat_seen {
    /// `size_of::<crust_nat_seen>()`, set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Who.
    pub peer: crust_peer_id,
    /// The peer's end of its link, NUL-terminated.
    pub from: [c_char; 64],
    /// Our endpoint as the peer has seen it last, NUL-terminated.
    pub at: [c_char; 64],
}

/// A port of a listener that a router passes on, or why it does not. Grows at the
/// end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_nat_port {
    /// `size_of::<crust_nat_port>()`, set by the caller.
    pub struct_size: u32,
    /// `CRUST_OK`, or why there is no mapping.
    pub code: i32,
    /// 1: another NAT is in front of the router.
    pub twice: u32,
    /// 0.
    pub reserved: u32,
    /// Until the router drops it unless it is renewed; 0: never, or there is none.
    pub expires_ms: u64,
    /// Where it leads, NUL-terminated.
    pub internal: [c_char; 64],
    /// Where others reach it, NUL-terminated.
    pub external: [c_char; 64],
    /// The router's address, NUL-terminated.
    pub gateway: [c_char; 64],
    /// How it was asked, NUL-terminated.
    pub means: [c_char; 16],
    /// Why there is none, NUL-terminated.
    pub text: [c_char; 256],
}

/// A peer whose beacon was heard on a network of this machine. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_lan_peer {
    /// `size_of::<crust_lan_peer>()`, set by the caller.
    pub struct_size: u32,
    /// `CRUST_ROLE_*`.
    pub role: u32,
    /// Who.
    pub peer: crust_peer_id,
    /// How long ago it was heard the last time.
    pub heard_ms: u64,
    /// Where it may be, one a line, the most useful first, NUL-terminated.
    pub endpoints: [c_char; 1024],
}

/// A peer of which gossip has told. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_known_peer {
    /// `size_of::<crust_known_peer>()`, set by the caller.
    pub struct_size: u32,
    /// `CRUST_ROLE_*`.
    pub role: u8,
    /// 1: it says that somebody on the Internet has come to it unasked.
    pub direct: u8,
    /// 1: it carries links of others.
    pub relays: u8,
    /// 0.
    pub reserved: u8,
    /// Who.
    pub peer: crust_peer_id,
    /// Until it is forgotten unless it says by then that it is still there.
    pub expires_ms: u64,
    /// Where it says that it may be dialled, one a line, NUL-terminated.
    pub endpoints: [c_char; 512],
}

/// A group of peers for [`crust_service_keep`]. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_group {
    /// `size_of::<crust_group>()`, set by the caller.
    pub struct_size: u32,
    /// How many peers of `role`; 0: those of `peers`, `contacts` and `infos`.
    pub any: u32,
    /// `CRUST_ROLE_*` of `any`.
    pub role: u32,
    /// 0.
    pub reserved: u32,
    /// NUL-terminated.
    pub name: *const c_char,
    /// `n_peers` ids.
    pub peers: *const crust_peer_id,
    /// Ids at `peers`.
    pub n_peers: usize,
    /// `n_contacts` strings, NUL-terminated.
    pub contacts: *const *const c_char,
    /// Strings at `contacts`.
    pub n_contacts: usize,
    /// `n_infos` connection infos.
    pub infos: *const *const c_void,
    /// The bytes of each.
    pub info_lens: *const usize,
    /// Infos at `infos`.
    pub n_infos: usize,
}

/// A group that is kept, as [`crust_service_group`] describes it. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_group_info {
    /// `size_of::<crust_group_info>()`, set by the caller.
    pub struct_size: u32,
    /// As in [`crust_group`].
    pub any: u32,
    /// As in [`crust_group`].
    pub role: u32,
    /// `CRUST_OK`, or why the last search did not find enough.
    pub code: i32,
    /// How many peers of it are connected.
    pub up: u32,
    /// How many should be.
    pub wanted: u32,
    /// Until the next search; 0: now, or none is due.
    pub next_ms: u64,
    /// NUL-terminated.
    pub name: [c_char; 72],
    /// One sentence for `code`, NUL-terminated.
    pub text: [c_char; 256],
}

/// A peer of a group, as [`crust_service_group_peer`] describes it. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_group_peer {
    /// `size_of::<crust_group_peer>()`, set by the caller.
    pub struct_size: u32,
    /// `CRUST_GROUP_*`.
    pub state: u32,
    /// Who.
    pub peer: crust_peer_id,
    /// `CRUST_OK`, or why there is no session.
    pub code: i32,
    /// In vain since the last session that lasted.
    pub tries: u32,
    /// Until the next attempt; 0: none is due.
    pub next_ms: u64,
    /// One sentence for `code`, NUL-terminated.
    pub text: [c_char; 256],
}

/// A ban, as [`crust_bans`] describes it. Grows at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct crust_ban_info {
    /// `size_of::<crust_ban_info>()`, set by the caller.
    pub struct_size: u32,
    /// 0.
    pub reserved: u32,
    /// Until it ends; 0: with the service.
    pub left_ms: u64,
    /// A peer id, an IP address or a prefix, NUL-terminated.
    pub who: [c_char; 72],
    /// NUL-terminated.
    pub reason: [c_char; 264],
}

// ---- functions: documented in crust.h ---------------------------------------

#[allow(missing_docs)] // the header documents each; a second wording would drift
unsafe extern "C" {
    // Version: pure functions.
    pub fn crust_version_string() -> *const c_char;
    pub fn crust_version_number() -> u32;
    pub fn crust_abi_version() -> u32;
    pub fn crust_has(feature: *const c_char) -> c_int;

    // Results: pure functions.
    pub fn crust_strerror(code: crust_result) -> *const c_char;
    pub fn crust_error_name(code: crust_result) -> *const c_char;
    pub fn crust_last_error() -> *const c_char;

    // Peer ids and identities.
    pub fn crust_peer_id_format(id: *const crust_peer_id, out: *mut c_char) -> crust_result;
    pub fn crust_peer_id_parse(text: *const c_char, out: *mut crust_peer_id) -> crust_result;
    pub fn crust_identity_generate(seed: *mut u8, id: *mut crust_peer_id) -> crust_result;

    // Configuration.
    pub fn crust_config_new(out: *mut *mut crust_config) -> crust_result;
    pub fn crust_config_free(config: *mut crust_config);
    pub fn crust_config_set_u64(
        config: *mut crust_config,
        option: crust_option,
        value: u64,
    ) -> crust_result;
    pub fn crust_config_set_str(
        config: *mut crust_config,
        option: crust_option,
        value: *const c_char,
    ) -> crust_result;
    pub fn crust_config_set_bytes(
        config: *mut crust_config,
        option: crust_option,
        value: *const c_void,
        len: usize,
    ) -> crust_result;
    pub fn crust_config_add_listener(
        config: *mut crust_config,
        endpoint: *const c_char,
    ) -> crust_result;
    pub fn crust_config_add_contact(
        config: *mut crust_config,
        contact: *const c_char,
    ) -> crust_result;
    pub fn crust_config_add_stun(config: *mut crust_config, server: *const c_char) -> crust_result;
    pub fn crust_config_add_ban(config: *mut crust_config, who: *const c_char) -> crust_result;
    pub fn crust_config_set_gate(
        config: *mut crust_config,
        gate: crust_gate_fn,
        user: *mut c_void,
        on_release: crust_release_fn,
    ) -> crust_result;
    pub fn crust_config_add_allowed(
        config: *mut crust_config,
        role: u32,
        prefix: *const c_char,
    ) -> crust_result;
    pub fn crust_config_load_json(
        config: *mut crust_config,
        json: *const c_char,
        len: usize,
    ) -> crust_result;

    // Life.
    pub fn crust_service_new(
        config: *const crust_config,
        callbacks: *const crust_callbacks,
        out: *mut crust_service,
    ) -> crust_result;
    pub fn crust_service_close(service: crust_service) -> crust_result;
    pub fn crust_service_free(service: crust_service) -> crust_result;
    pub fn crust_service_id(service: crust_service, out: *mut crust_peer_id) -> crust_result;

    // Poll mode.
    pub fn crust_service_fd(service: crust_service, out: *mut isize) -> crust_result;
    pub fn crust_poll(
        service: crust_service,
        timeout_ms: i32,
        max_events: u32,
        out: *mut *mut crust_batch,
    ) -> crust_result;
    pub fn crust_wakeup(service: crust_service) -> crust_result;
    pub fn crust_batch_events(batch: *const crust_batch, n: *mut usize) -> *const crust_event;
    pub fn crust_batch_memory(
        batch: *const crust_batch,
        base: *mut *const c_void,
        len: *mut usize,
    ) -> crust_result;
    pub fn crust_batch_free(batch: *mut crust_batch);

    // Messages.
    pub fn crust_send(
        service: crust_service,
        peer: *const crust_peer_id,
        data: *const c_void,
        len: usize,
        priority: u8,
    ) -> crust_result;
    pub fn crust_send_wait(
        service: crust_service,
        peer: *const crust_peer_id,
        data: *const c_void,
        len: usize,
        priority: u8,
        timeout_ms: i32,
    ) -> crust_result;
    pub fn crust_send_batch(
        service: crust_service,
        messages: *const crust_message,
        n: usize,
        why: *mut crust_result,
    ) -> crust_result;
    pub fn crust_send_receipt(
        service: crust_service,
        peer: *const crust_peer_id,
        data: *const c_void,
        len: usize,
        priority: u8,
        token: u64,
    ) -> crust_result;
    pub fn crust_send_datagram(
        service: crust_service,
        peer: *const crust_peer_id,
        data: *const c_void,
        len: usize,
    ) -> crust_result;
    pub fn crust_max_datagram(service: crust_service, peer: *const crust_peer_id) -> crust_result;

    // Connecting.
    pub fn crust_prepare_connection_info(service: crust_service, token: u64) -> crust_result;
    pub fn crust_connect(
        service: crust_service,
        info: *const c_void,
        len: usize,
        token: u64,
    ) -> crust_result;
    pub fn crust_connect_endpoint(
        service: crust_service,
        contact: *const c_char,
        token: u64,
    ) -> crust_result;
    pub fn crust_service_connect_peer(
        service: crust_service,
        peer: *const crust_peer_id,
        token: u64,
    ) -> crust_result;
    /// The same, with n messages that are to be said at once: `first[i]` of `sizes[i]` bytes,
    /// at most 64 of 16,384 bytes together. INVALID, too: there are more.
    pub fn crust_service_connect_peer_with(
        service: crust_service,
        peer: *const crust_peer_id,
        first: *const *const c_void,
        sizes: *const usize,
        n: usize,
        token: u64,
    ) -> crust_result;
    pub fn crust_connection_info_peer(
        info: *const c_void,
        len: usize,
        out: *mut crust_peer_id,
    ) -> crust_result;
    pub fn crust_disconnect(service: crust_service, peer: *const crust_peer_id) -> crust_result;
    pub fn crust_bootstrap(service: crust_service, token: u64) -> crust_result;
    /// The same without n contacts of except: nothing is sent to an "ENDPOINT", whoever
    /// has a "#PEER" is not kept, and "ENDPOINT#PEER" is that peer there. INVALID, too.
    pub fn crust_bootstrap_except(
        service: crust_service,
        except: *const *const c_char,
        n: usize,
        token: u64,
    ) -> crust_result;
    pub fn crust_stop_bootstrap(service: crust_service) -> crust_result;

    // Groups that are kept connected.
    pub fn crust_service_keep(service: crust_service, group: *const crust_group) -> crust_result;
    pub fn crust_service_release(service: crust_service, name: *const c_char) -> crust_result;
    pub fn crust_service_group(
        service: crust_service,
        index: u32,
        io: *mut crust_group_info,
    ) -> crust_result;
    pub fn crust_service_group_peer(
        service: crust_service,
        name: *const c_char,
        index: u32,
        io: *mut crust_group_peer,
    ) -> crust_result;

    // Who is not wanted.
    pub fn crust_ban(
        service: crust_service,
        who: *const *const c_char,
        n: usize,
        ms: u64,
        reason: *const c_char,
    ) -> crust_result;
    pub fn crust_unban(service: crust_service, who: *const *const c_char, n: usize)
    -> crust_result;
    pub fn crust_bans(
        service: crust_service,
        bans: *mut crust_ban_info,
        n: *mut usize,
    ) -> crust_result;
    pub fn crust_set_allowed(
        service: crust_service,
        nodes: *const *const c_char,
        n_nodes: usize,
        clients: *const *const c_char,
        n_clients: usize,
    ) -> crust_result;

    // Listeners.
    pub fn crust_listen(service: crust_service, endpoint: *const c_char) -> crust_result;
    pub fn crust_stop_listening(service: crust_service, endpoint: *const c_char) -> crust_result;
    pub fn crust_listeners(
        service: crust_service,
        buf: *mut c_char,
        len: *mut usize,
    ) -> crust_result;
    pub fn crust_set_accept(service: crust_service, accept: c_int) -> crust_result;
    /// Changes CRUST_OPT_BEACON of a service that runs, to CRUST_BEACON_*. One that is
    /// turned off says goodbye; one that is turned on begins anew. INVALID.
    pub fn crust_set_beacon(service: crust_service, mode: u32) -> crust_result;
    pub fn crust_service_network_changed(service: crust_service) -> crust_result;

    // Looking.
    pub fn crust_peers(
        service: crust_service,
        ids: *mut crust_peer_id,
        n: *mut usize,
    ) -> crust_result;
    pub fn crust_peer(
        service: crust_service,
        peer: *const crust_peer_id,
        io: *mut crust_peer_info,
    ) -> crust_result;
    pub fn crust_service_stats(service: crust_service, io: *mut crust_stats) -> crust_result;
    pub fn crust_service_nat(
        service: crust_service,
        io: *mut crust_nat,
        udp: *mut crust_nat_flow,
        tcp: *mut crust_nat_flow,
    ) -> crust_result;
    pub fn crust_service_nat_server(
        service: crust_service,
        index: u32,
        io: *mut crust_nat_server,
    ) -> crust_result;
    pub fn crust_service_nat_port(
        service: crust_service,
        index: u32,
        io: *mut crust_nat_port,
    ) -> crust_result;
    pub fn crust_service_nat_seen(
        service: crust_service,
        index: u32,
        io: *mut crust_nat_seen,
    ) -> crust_result;
    pub fn crust_service_lan_peer(
        service: crust_service,
        index: u32,
        io: *mut crust_lan_peer,
    ) -> crust_result;
    pub fn crust_service_known(
        service: crust_service,
        after: *const crust_peer_id,
        list: *mut crust_known_peer,
        n: *mut usize,
    ) -> crust_result;
}
