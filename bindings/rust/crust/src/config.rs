use std::ffi::CString;
use std::fmt;
use std::path::Path;
use std::ptr;
use std::time::Duration;

use crust_sys as sys;

use crate::error::{Error, ErrorKind, Result, check};
use crate::event::How;
use crate::gate::{Gate, GateRequest};
use crate::logs::LogLevel;
use crate::peer_id::{Seed, erase};

/// What a peer is to the network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// A full member.
    #[default]
    Node,
    /// A user of the network.
    Client,
}

/// What a service does on the networks that its machine is in, so that peers there
/// find each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Beacon {
    /// Says hello, answers those who ask, and hears others. A service that listens at
    /// loopback addresses alone does so on the loopback network alone.
    #[default]
    On,
    /// Sends nothing and hears nothing.
    Off,
    /// Hears others and sends nothing.
    Listen,
    /// Hears others, who answer, and tells nothing of itself.
    Ask,
}

impl Beacon {
    pub(crate) fn raw(self) -> u32 {
        match self {
            Beacon::On => sys::CRUST_BEACON_ON,
            Beacon::Off => sys::CRUST_BEACON_OFF,
            Beacon::Listen => sys::CRUST_BEACON_LISTEN,
            Beacon::Ask => sys::CRUST_BEACON_ASK,
        }
    }
}

/// What a service does for peers that cannot reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Relay {
    /// Carries nothing of others.
    Off,
    /// Carries the letters by which two peers meet, and no more.
    #[default]
    Signal,
    /// Carries letters and links, within limits. For services that peers can reach.
    Data,
}

/// How a service takes part in gossip, by which peers tell each other over their
/// sessions where they and others can be dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Gossip {
    /// Tells peers where it and others can be dialled, and asks them for the same.
    #[default]
    On,
    /// Tells where it can be dialled itself, to peers that ask; learns nothing.
    Answer,
    /// Takes no part.
    Off,
}

impl Role {
    pub(crate) fn from_raw(role: u8) -> Self {
        if u32::from(role) == sys::CRUST_ROLE_CLIENT {
            Role::Client
        } else {
            Role::Node
        }
    }

    pub(crate) fn raw(self) -> u32 {
        match self {
            Role::Node => sys::CRUST_ROLE_NODE,
            Role::Client => sys::CRUST_ROLE_CLIENT,
        }
    }
}

/// How a service is made. The default works: a fresh identity, one random TCP
/// port and one random UDP port on all addresses, the public default network.
///
/// Every method sets one thing and says what holds when it is not called.
/// Bounds are checked when the service is made, which then fails with
/// [`ErrorKind::Invalid`] and names what was wrong. Durations are rounded up to
/// milliseconds; a duration of zero means the default.
///
/// ```
/// use crust::{Config, Service};
/// use std::time::Duration;
///
/// let config = Config::new()
///     .network_name("my overlay")
///     .app_id("node 7")
///     .listen("tcp://127.0.0.1:0")
///     .heartbeat(Duration::from_secs(5))
///     .lost_after(Duration::from_secs(15));
/// let (service, _events) = Service::new(config)?;
/// assert!(service.peers()?.is_empty());
/// # Ok::<(), crust::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct Config {
    steps: Vec<Step>,
}

/// One call on the library's configuration.
#[derive(Clone)]
enum Step {
    Number(sys::crust_option, u64),
    Text(sys::crust_option, String),
    Bytes(sys::crust_option, Vec<u8>),
    Secret(Seed),
    Listener(String),
    Contact(String),
    Stun(String),
    Ban(String),
    Allowed(u32, String),
    Gate(Gate),
    Json(String),
    /// A value that cannot be handed over, and why.
    Wrong(String),
}

impl Config {
    /// All defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Separates networks: services of different names never connect, and
    /// without the name nobody can tell the traffic from random bytes. Up to
    /// [`MAX_NETWORK_NAME`](crate::MAX_NETWORK_NAME) bytes. A name that can be
    /// guessed hides nothing from the guesser. Default: the public network.
    pub fn network_name(self, name: impl Into<String>) -> Self {
        self.with(Step::Text(sys::CRUST_OPT_NETWORK_NAME, name.into()))
    }

    /// Keeps the identity in a file, which is created with mode 0600 when it is
    /// missing. Default: a fresh identity.
    pub fn identity_file(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        self.with(match path.to_str() {
            Some(text) => Step::Text(sys::CRUST_OPT_IDENTITY_FILE, text.to_owned()),
            None => Step::Wrong(format!("identity file {path:?}: the path is not UTF-8")),
        })
    }

    /// Makes the identity from a seed. Default: a fresh identity.
    pub fn identity_seed(self, seed: &Seed) -> Self {
        self.with(Step::Secret(seed.clone()))
    }

    /// What every peer is told, authenticated, in
    /// [`Event::Connected`](crate::Event::Connected). Up to
    /// [`MAX_APP_ID`](crate::MAX_APP_ID) bytes. Default: none.
    pub fn app_id(self, app_id: impl AsRef<[u8]>) -> Self {
        self.with(Step::Bytes(sys::CRUST_OPT_APP_ID, app_id.as_ref().to_vec()))
    }

    /// What the service is to the network. Default: [`Role::Node`].
    pub fn role(self, role: Role) -> Self {
        self.number(sys::CRUST_OPT_ROLE, u64::from(role.raw()))
    }

    /// Adds a listener, such as `"tcp://0.0.0.0:0"` or `"utp://0.0.0.0:0"`; port
    /// 0 means a random one. One that cannot start is an
    /// [`Event::ListenerFailed`](crate::Event::ListenerFailed), not an error of
    /// making the service. Default: a random TCP port and a random UDP port, for
    /// uTP, on all addresses.
    pub fn listen(self, endpoint: impl Into<String>) -> Self {
        self.with(Step::Listener(endpoint.into()))
    }

    /// The port, of TCP and of UDP, that listeners with port 0 try first, 5483 by
    /// convention; where it is taken they get a random one. Default: random ports.
    pub fn live_port(self, port: u16) -> Self {
        self.number(sys::CRUST_OPT_LIVE_PORT, u64::from(port))
    }

    /// How often listeners with port 0 move to a new random port; at least 1 s.
    /// The old port accepts for one more interval, then comes an
    /// [`Event::ListenerStopped`](crate::Event::ListenerStopped); sessions stay.
    /// Default: never.
    pub fn port_rotation(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_PORT_ROTATION_MS, time)
    }

    /// Starts no listener, whatever else is said. Default: listeners start.
    pub fn no_listen(self) -> Self {
        self.number(sys::CRUST_OPT_NO_LISTEN, 1)
    }

    /// Refuses sessions that peers begin, until
    /// [`set_accept`](crate::Handle::set_accept). Default: accepts.
    pub fn no_accept(self) -> Self {
        self.number(sys::CRUST_OPT_NO_ACCEPT, 1)
    }

    /// Does not watch this machine's addresses, interfaces and routes, nor whether
    /// it has slept: [`network_changed`](crate::Handle::network_changed) says when
    /// they change. Default: watches, where the system lets it.
    pub fn no_network_watch(self) -> Self {
        self.number(sys::CRUST_OPT_NO_NETWORK_WATCH, 1)
    }

    /// Asks no router to pass the ports of the listeners on. Default: asks, unless
    /// the environment variable `CRUST_PORTMAP` is `off`.
    pub fn no_port_map(self) -> Self {
        self.number(sys::CRUST_OPT_NO_PORT_MAP, 1)
    }

    /// The port that routers must give, or none: to one TCP listener and to one UDP
    /// listener, which share the number. It is the listener that was started first,
    /// or its successor by [`port_rotation`](Self::port_rotation); others get any
    /// port. Default: any port, that of the listener where it is free.
    pub fn external_port(self, port: u16) -> Self {
        self.number(sys::CRUST_OPT_EXTERNAL_PORT, u64::from(port))
    }

    /// Whether the service makes itself known on the networks that its machine is in, by
    /// broadcast and multicast, and hears who else is there: see
    /// [`Event::Discovered`](crate::Event::Discovered) and
    /// [`peers_on_lan`](crate::Handle::peers_on_lan). It connects to nobody by itself.
    /// Default: [`Beacon::On`], unless the environment variable `CRUST_BEACON` is `off`.
    pub fn beacon(self, beacon: Beacon) -> Self {
        self.number(sys::CRUST_OPT_BEACON, u64::from(beacon.raw()))
    }

    /// The UDP port of [`beacon`](Self::beacon), the same for all peers. Default: 5484.
    pub fn beacon_port(self, port: u16) -> Self {
        self.number(sys::CRUST_OPT_BEACON_PORT, u64::from(port))
    }

    /// The file in which peers are written down that the service has connected to
    /// directly; [`bootstrap`](crate::Handle::bootstrap) tries them beside the
    /// contacts, the one that was reached last first. It is made when it is not there,
    /// its directory is not; several services and processes may share it. `default` is
    /// the user's own. A file that cannot be used is an
    /// [`Event::CacheTrouble`](crate::Event::CacheTrouble). Default: none.
    pub fn cache(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        self.with(match path.to_str() {
            Some(text) => Step::Text(sys::CRUST_OPT_CACHE, text.to_owned()),
            None => Step::Wrong(format!("cache {path:?}: the path is not UTF-8")),
        })
    }

    /// How many peers there is room for in the file of [`cache`](Self::cache), up to
    /// 65,536. A larger file stays as it is. Default: 200.
    pub fn cache_peers(self, n: u64) -> Self {
        self.number(sys::CRUST_OPT_CACHE_PEERS, n)
    }

    /// Whether peers are told, over the sessions with them, where this service and
    /// others that it knows of can be dialled, and asked for the same. Default:
    /// [`Gossip::On`].
    pub fn gossip(self, gossip: Gossip) -> Self {
        let gossip = match gossip {
            Gossip::On => sys::CRUST_GOSSIP_ON,
            Gossip::Answer => sys::CRUST_GOSSIP_ANSWER,
            Gossip::Off => sys::CRUST_GOSSIP_OFF,
        };
        self.number(sys::CRUST_OPT_GOSSIP, u64::from(gossip))
    }

    /// Whether sessions may be in clear, for looking at them: at listeners such as
    /// `"tracer://0.0.0.0:0"`, and where [`connect_endpoint`](crate::Handle::connect_endpoint)
    /// dials such endpoints. Both sides must allow it; [`Event::Clear`](crate::Event::Clear)
    /// tells of each. Default: false.
    pub fn tracer(self, allowed: bool) -> Self {
        self.number(sys::CRUST_OPT_TRACER, u64::from(allowed))
    }

    /// A file to which the keys of every session are appended, so that captures of them can
    /// be read. WHOEVER HAS IT READS EVERYTHING that the service sends and receives. Default:
    /// none.
    pub fn key_log(self, path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        self.with(match path.to_str() {
            Some(text) => Step::Text(sys::CRUST_OPT_KEY_LOG, text.to_owned()),
            None => Step::Wrong(format!("key log {path:?}: the path is not UTF-8")),
        })
    }

    /// Which records of the log are told as [`Event::Log`](crate::Event::Log): those of the
    /// level and all above. Default: none.
    pub fn log_level(self, level: impl Into<Option<LogLevel>>) -> Self {
        let number = level.into().map_or(sys::CRUST_LOG_OFF, LogLevel::number);
        self.number(sys::CRUST_OPT_LOG_LEVEL, u64::from(number))
    }

    /// What is done for peers that cannot reach each other. Default:
    /// [`Relay::Signal`].
    pub fn relay(self, relay: Relay) -> Self {
        let relay = match relay {
            Relay::Off => sys::CRUST_RELAY_OFF,
            Relay::Signal => sys::CRUST_RELAY_SIGNAL,
            Relay::Data => sys::CRUST_RELAY_DATA,
        };
        self.number(sys::CRUST_OPT_RELAY, u64::from(relay))
    }

    /// The ways in which links may come about: for policies, and for tests. A link in
    /// another way is not tried, or refused after authentication with
    /// [`ErrorKind::NotAllowed`]. Dials count as [`How::Mapped`] when a router of the peer
    /// passes them on, as [`How::Dialed`] otherwise. None are all. Default: all.
    pub fn only(self, ways: impl IntoIterator<Item = How>) -> Self {
        let mut sum = 0;
        for way in ways {
            match way.to_raw() {
                Some(raw) => sum |= 1 << raw,
                None => return self.with(Step::Wrong("only: an unknown way".to_owned())),
            }
        }
        self.number(sys::CRUST_OPT_ONLY, sum)
    }

    /// Adds a contact for [`bootstrap`](crate::Handle::bootstrap): `"ENDPOINT"`,
    /// or `"ENDPOINT#PEER"` when the peer is known. Default: none.
    pub fn contact(self, contact: impl Into<String>) -> Self {
        self.with(Step::Contact(contact.into()))
    }

    /// Blacklists a peer id, an IP address or a prefix from the beginning, as
    /// [`ban`](crate::Handle::ban) does it. Default: nobody.
    pub fn ban(self, who: impl Into<String>) -> Self {
        self.with(Step::Ban(who.into()))
    }

    /// Bounds the blacklist, in entries. Default: 65,536.
    pub fn max_bans(self, n: u64) -> Self {
        self.number(sys::CRUST_OPT_MAX_BANS, n)
    }

    /// Adds an IP address or a prefix to the whitelist of peers of a role; see
    /// [`set_allowed`](crate::Handle::set_allowed). Default: all are allowed.
    pub fn allow(self, role: Role, prefix: impl Into<String>) -> Self {
        self.with(Step::Allowed(role.raw(), prefix.into()))
    }

    /// The program's own policy: asked once about each peer that has proved its key and
    /// has no session, before it gets one, and `true` lets it in. Otherwise it is refused
    /// with [`NotAllowed`](ErrorKind::NotAllowed), as when the closure has not returned
    /// within [`gate_timeout`](Self::gate_timeout), panics, or too many calls of it have
    /// not returned ([`max_gates`](Self::max_gates)). It runs on threads of the library,
    /// several at once. Nothing waits for it longer: it may still run when the service is
    /// gone, and is dropped after its last call. Peers that dial must then ask for a
    /// session, which takes a round trip more. Default: none.
    pub fn gate(self, gate: impl Fn(&GateRequest<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.with(Step::Gate(Gate::new(gate)))
    }

    /// How long a peer waits for [`gate`](Self::gate), at most 5 s. Default: 1 s.
    pub fn gate_timeout(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_GATE_TIMEOUT_MS, time)
    }

    /// Bounds the calls of [`gate`](Self::gate) that have not returned, up to 4,096.
    /// Default: 64.
    pub fn max_gates(self, n: u64) -> Self {
        self.number(sys::CRUST_OPT_MAX_GATES, n)
    }

    /// Asks a STUN server as well what it sees of the UDP socket: `"HOST:PORT"`, or
    /// `"HOST"` for port 3478, with an IP address or a name. At most 8. It is asked in
    /// clear. Default: none.
    pub fn stun(self, server: impl Into<String>) -> Self {
        self.with(Step::Stun(server.into()))
    }

    /// Uses ChaCha20-Poly1305 with every peer. Default: AES-256-GCM where both
    /// sides have hardware for it, else ChaCha20-Poly1305.
    pub fn chacha20_only(self) -> Self {
        self.number(sys::CRUST_OPT_CIPHER, 1)
    }

    /// Bounds one connect altogether. Default: 60 s.
    pub fn connect_timeout(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_CONNECT_TIMEOUT_MS, time)
    }

    /// Bounds one bootstrap altogether. Default: 10 s.
    pub fn bootstrap_timeout(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_BOOTSTRAP_TIMEOUT_MS, time)
    }

    /// Bounds one handshake. Default: 10 s.
    pub fn handshake_timeout(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_HANDSHAKE_TIMEOUT_MS, time)
    }

    /// How long a link stays silent at most before it says that it is alive. Default: 20 s.
    pub fn heartbeat(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_HEARTBEAT_MS, time)
    }

    /// How long nothing is heard before a link is given up; at least twice the
    /// heartbeat. Default: 120 s.
    pub fn lost_after(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_LOST_AFTER_MS, time)
    }

    /// How long a session whose link is gone waits for another one before the peer
    /// is lost; the lesser of both sides' counts. Default: 30 s.
    pub fn resume_window(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_RESUME_WINDOW_MS, time)
    }

    /// Loses a session with its link. Default: it waits for another link, see
    /// [`resume_window`](Config::resume_window).
    pub fn no_resume(self) -> Self {
        self.number(sys::CRUST_OPT_NO_RESUME, 1)
    }

    /// How long disconnecting and closing let queued messages drain. Default: 5 s.
    pub fn close_timeout(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_CLOSE_TIMEOUT_MS, time)
    }

    /// The age at which messages of priority 2 and more are dropped from the
    /// queue of a link that does not move. Default: 60 s.
    pub fn message_max_age(self, time: Duration) -> Self {
        self.duration(sys::CRUST_OPT_MESSAGE_MAX_AGE_MS, time)
    }

    /// Bounds the bytes queued for one peer; at least
    /// [`MAX_MESSAGE`](crate::MAX_MESSAGE). Default: 4 MiB.
    pub fn send_queue_bytes(self, bytes: u64) -> Self {
        self.number(sys::CRUST_OPT_SEND_QUEUE_BYTES, bytes)
    }

    /// Bounds the bytes that are sent to one peer and kept until it has
    /// acknowledged them, in case the link breaks; at least 512 KiB. Sending stops
    /// while it is full, so it bounds the throughput over long ways: to as many
    /// bytes each round trip. Default: 8 MiB.
    pub fn resend_buffer_bytes(self, bytes: u64) -> Self {
        self.number(sys::CRUST_OPT_RESEND_BUFFER_BYTES, bytes)
    }

    /// Bounds the bytes of messages that wait for the program. When it is full,
    /// reading from the network stops. Default: 16 MiB.
    pub fn event_queue_bytes(self, bytes: u64) -> Self {
        self.number(sys::CRUST_OPT_EVENT_QUEUE_BYTES, bytes)
    }

    /// Bounds sessions. Default: 4,096.
    pub fn max_peers(self, n: u64) -> Self {
        self.number(sys::CRUST_OPT_MAX_PEERS, n)
    }

    /// Bounds accepted connections that are not yet authenticated. The oldest
    /// gives way to the newest. Default: 1,024.
    pub fn max_handshakes(self, n: u64) -> Self {
        self.number(sys::CRUST_OPT_MAX_HANDSHAKES, n)
    }

    /// Bounds them per IPv4 address or IPv6 /64. Default: 256.
    pub fn max_handshakes_per_address(self, n: u64) -> Self {
        self.number(sys::CRUST_OPT_MAX_HANDSHAKES_PER_ADDRESS, n)
    }

    /// Bounds connects in flight. Default: 1,024.
    pub fn max_connects(self, n: u64) -> Self {
        self.number(sys::CRUST_OPT_MAX_CONNECTS, n)
    }

    /// Reads options from a JSON object; the library's `docs/CONFIG.md` names its
    /// keys. What is set later counts. Unknown keys are [`ErrorKind::Invalid`].
    pub fn json(self, json: impl Into<String>) -> Self {
        self.with(Step::Json(json.into()))
    }

    fn with(mut self, step: Step) -> Self {
        self.steps.push(step);
        self
    }

    fn number(self, option: sys::crust_option, value: u64) -> Self {
        self.with(Step::Number(option, value))
    }

    fn duration(self, option: sys::crust_option, time: Duration) -> Self {
        self.number(option, milliseconds(time))
    }

    /// The library's form of it.
    pub(crate) fn to_raw(&self) -> Result<RawConfig> {
        let mut raw = RawConfig(ptr::null_mut());
        // SAFETY: points to room for the pointer.
        check(unsafe { sys::crust_config_new(&mut raw.0) })?;
        for step in &self.steps {
            step.apply(&raw)?;
        }
        Ok(raw)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.steps).finish()
    }
}

/// Shows what was set by option number; secrets and what may hold them not.
impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Number(option, value) => write!(f, "option {option} = {value}"),
            // Without the name nobody joins the network, so it may be a secret.
            Step::Text(sys::CRUST_OPT_NETWORK_NAME, _) => f.write_str("network name (..)"),
            Step::Text(option, value) => write!(f, "option {option} = {value:?}"),
            Step::Bytes(option, value) => write!(f, "option {option} = {} bytes", value.len()),
            Step::Secret(_) => f.write_str("identity seed (..)"),
            Step::Listener(endpoint) => write!(f, "listener {endpoint:?}"),
            Step::Contact(contact) => write!(f, "contact {contact:?}"),
            Step::Stun(server) => write!(f, "stun {server:?}"),
            Step::Ban(who) => write!(f, "ban {who:?}"),
            Step::Allowed(role, prefix) => write!(f, "role {role} allowed at {prefix:?}"),
            Step::Gate(_) => f.write_str("gate"),
            Step::Json(json) => write!(f, "JSON of {} bytes", json.len()),
            Step::Wrong(why) => write!(f, "wrong: {why}"),
        }
    }
}

impl Step {
    fn apply(&self, config: &RawConfig) -> Result<()> {
        let config = config.0;
        // SAFETY, for each call: the configuration is alive and used by this
        // thread alone, the library copies what it is given before it returns,
        // strings are NUL-terminated and lengths are those of the buffers.
        let code = match self {
            Step::Number(option, value) => {
                // SAFETY: see above.
                unsafe { sys::crust_config_set_u64(config, *option, *value) }
            }
            Step::Text(option, value) => {
                let what = match *option {
                    sys::CRUST_OPT_NETWORK_NAME => "network name",
                    _ => "identity file",
                };
                let mut text = c_string(what, value)?.into_bytes_with_nul();
                // SAFETY: see above.
                let code =
                    unsafe { sys::crust_config_set_str(config, *option, text.as_ptr().cast()) };
                erase(&mut text);
                code
            }
            Step::Bytes(option, value) => {
                // SAFETY: see above.
                unsafe {
                    sys::crust_config_set_bytes(config, *option, value.as_ptr().cast(), value.len())
                }
            }
            Step::Secret(seed) => {
                let seed = seed.as_bytes();
                // SAFETY: see above.
                unsafe {
                    sys::crust_config_set_bytes(
                        config,
                        sys::CRUST_OPT_IDENTITY_SEED,
                        seed.as_ptr().cast(),
                        seed.len(),
                    )
                }
            }
            Step::Listener(endpoint) => {
                let endpoint = c_string("listener", endpoint)?;
                // SAFETY: see above.
                unsafe { sys::crust_config_add_listener(config, endpoint.as_ptr()) }
            }
            Step::Contact(contact) => {
                let contact = c_string("contact", contact)?;
                // SAFETY: see above.
                unsafe { sys::crust_config_add_contact(config, contact.as_ptr()) }
            }
            Step::Ban(who) => {
                let who = c_string("ban", who)?;
                // SAFETY: see above.
                unsafe { sys::crust_config_add_ban(config, who.as_ptr()) }
            }
            Step::Allowed(role, prefix) => {
                let prefix = c_string("prefix", prefix)?;
                // SAFETY: see above.
                unsafe { sys::crust_config_add_allowed(config, *role, prefix.as_ptr()) }
            }
            Step::Gate(gate) => gate.set(config),
            Step::Stun(server) => {
                let server = c_string("server", server)?;
                // SAFETY: see above.
                unsafe { sys::crust_config_add_stun(config, server.as_ptr()) }
            }
            Step::Json(json) => {
                // SAFETY: see above.
                unsafe { sys::crust_config_load_json(config, json.as_ptr().cast(), json.len()) }
            }
            Step::Wrong(why) => return Err(Error::new(ErrorKind::Invalid, why.clone())),
        };
        check(code).map(drop)
    }
}

/// A configuration of the library, freed when dropped.
pub(crate) struct RawConfig(pub(crate) *mut sys::crust_config);

impl Drop for RawConfig {
    fn drop(&mut self) {
        // SAFETY: made by crust_config_new, or NULL; freed once.
        unsafe { sys::crust_config_free(self.0) };
    }
}

/// A text for C. A NUL in it is [`ErrorKind::Invalid`].
pub(crate) fn c_string(what: &str, text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| {
        Error::new(
            ErrorKind::Invalid,
            format!("{what}: the text contains a NUL byte"),
        )
    })
}

/// Milliseconds, rounded up, so that a short time does not become the default.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_rounded_up_and_never_wrap() {
        assert_eq!(milliseconds(Duration::ZERO), 0);
        assert_eq!(milliseconds(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds(Duration::from_millis(7)), 7);
        assert_eq!(milliseconds(Duration::MAX), u64::MAX);
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = Config::new()
            .network_name("hush")
            .identity_seed(&Seed::from_bytes([0x5a; 32]))
            .json("{\"network_name\":\"hush\"}")
            .max_peers(9);
        let shown = format!("{config:?}");
        assert!(!shown.contains("hush") && !shown.contains("5a"), "{shown}");
        assert!(shown.contains("option 42 = 9"), "{shown}");
    }
}
