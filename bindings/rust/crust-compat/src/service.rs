use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use libcrust::{Beacon, Gossip, Handle};
use maidsafe_utilities::serialisation::serialise;

use crate::config::ConfigFile;
use crate::error::CommonError;
use crate::machine::{self, Action, Machine};
use crate::{
    Config, ConnectionInfoResult, CrustError, CrustEventSender, CrustUser, Event, MAX_PAYLOAD_SIZE,
    Priority, PrivConnectionInfo, PubConnectionInfo, Res, Uid,
};

/// How often the configuration file is looked at.
const REFRESH: Duration = Duration::from_secs(30);
/// How long a node has to answer a probe.
const PROBE: Duration = Duration::from_secs(3);
/// How many probes run at once; while there are more, nodes are not let in.
const PROBES_AT_ONCE: usize = 16;
/// How long [`Service::has_peers_on_lan`] waits to hear somebody.
const LAN_PATIENCE: Duration = Duration::from_secs(1);
/// What may wait for one peer.
const QUEUE: u64 = 64 << 20;

/// One node. Nothing begins by itself but what the program starts.
///
/// Dropping it delivers what was accepted, for at most 5 s, and ends everything: the
/// peers get `LostPeer`, and no event comes here any more.
pub struct Service<UID: Uid> {
    inner: Arc<Inner<UID>>,
    service: libcrust::Service,
    uid: UID,
}

/// What the threads of a service share.
struct Inner<UID: Uid> {
    shared: Mutex<Shared<UID>>,
    wake: Condvar, // who keeps time, and who waits for peers on the LAN
}

struct Shared<UID: Uid> {
    events: CrustEventSender<UID>,
    machine: Machine<UID>,
    open: bool, // nothing is told any more otherwise
    listening: Listening,
    discovery: bool,
    probes: usize,
    handle: Option<Handle>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Listening {
    No,
    Starting(u16),
    At(u16),
}

impl<UID: Uid> Service<UID> {
    /// Makes a service with the [configuration file](crate::read_config_file), which is
    /// looked at every 30 s: peers that its whitelists do not name any more are dropped.
    pub fn new(event_tx: CrustEventSender<UID>, our_uid: UID) -> Res<Self> {
        let (file, config) = ConfigFile::open()?;
        Self::start(event_tx, config, our_uid, Some(file))
    }

    /// Makes a service with a configuration, which stays as it is.
    ///
    /// Errors: [`Common`](CrustError::Common) when the configuration, or the UID, is out
    /// of bounds; [`Serialisation`](CrustError::Serialisation) of the UID.
    pub fn with_config(event_tx: CrustEventSender<UID>, config: Config, our_uid: UID) -> Res<Self> {
        Self::start(event_tx, config, our_uid, None)
    }

    fn start(
        events: CrustEventSender<UID>,
        config: Config,
        uid: UID,
        file: Option<ConfigFile>,
    ) -> Res<Self> {
        let app_id = serialise(&uid)?;
        if app_id.len() > libcrust::MAX_APP_ID {
            return Err(CrustError::Common(CommonError(format!(
                "the UID takes {} bytes, of at most {}",
                app_id.len(),
                libcrust::MAX_APP_ID
            ))));
        }
        let inner = Arc::new(Inner {
            shared: Mutex::new(Shared {
                events,
                machine: Machine::new(uid, config.clone(), Instant::now()),
                open: true,
                listening: Listening::No,
                discovery: false,
                probes: 0,
                handle: None,
            }),
            wake: Condvar::new(),
        });
        let heard = Arc::clone(&inner);
        let service =
            libcrust::Service::with_responder(settings(&config, &app_id), move |handle, event| {
                heard.hear(handle, event);
            })?;
        inner.lock().handle = Some(service.handle());
        let keeper = Arc::clone(&inner);
        thread::Builder::new()
            .name("crust".into())
            .spawn(move || keeper.keep_time(file))?;
        Ok(Self {
            inner,
            service,
            uid,
        })
    }

    /// Lets peers bootstrap from us, or not, as at first.
    ///
    /// Errors: [`ListenerNotIntialised`](CrustError::ListenerNotIntialised) before
    /// `ListenerStarted`.
    pub fn set_accept_bootstrap(&self, accept: bool) -> Res<()> {
        let mut shared = self.inner.lock();
        if !matches!(shared.listening, Listening::At(_)) {
            return Err(CrustError::ListenerNotIntialised);
        }
        shared.machine.accept = accept;
        Ok(())
    }

    /// Hears who is on the networks of this machine.
    pub fn start_service_discovery(&mut self) {
        let mut shared = self.inner.lock();
        if !shared.discovery {
            shared.discovery = true;
            let _ = self.service.set_beacon(Beacon::Ask);
        }
    }

    /// Lets others there find us, or not, as at first. It does nothing before
    /// [`start_service_discovery`](Self::start_service_discovery).
    pub fn set_service_discovery_listen(&self, listen: bool) {
        let shared = self.inner.lock();
        if shared.discovery {
            let beacon = if listen { Beacon::On } else { Beacon::Ask };
            let _ = self.service.set_beacon(beacon);
        }
    }

    /// Where a peer is.
    ///
    /// Errors: [`PeerNotFound`](CrustError::PeerNotFound).
    pub fn get_peer_ip_addr(&self, peer_uid: &UID) -> Res<IpAddr> {
        let addr = self.inner.lock().machine.addr(peer_uid);
        addr.map(|addr| addr.ip()).ok_or(CrustError::PeerNotFound)
    }

    /// Whether a peer is connected at the IP address of a hard-coded contact.
    pub fn is_peer_hard_coded(&self, peer_uid: &UID) -> bool {
        let shared = self.inner.lock();
        let contacts = &shared.machine.config.hard_coded_contacts;
        let addr = shared.machine.addr(peer_uid);
        addr.is_some_and(|addr| contacts.iter().any(|contact| contact.ip() == addr.ip()))
    }

    /// Whether anybody else is on the networks of this machine. It waits up to 1 s to hear
    /// somebody, and says no before
    /// [`start_service_discovery`](Self::start_service_discovery).
    pub fn has_peers_on_lan(&self) -> bool {
        let deadline = Instant::now() + LAN_PATIENCE;
        let mut shared = self.inner.lock();
        loop {
            if self
                .service
                .peers_on_lan()
                .is_ok_and(|peers| !peers.is_empty())
            {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !shared.discovery {
                return false;
            }
            shared = match self.inner.wake.wait_timeout(shared, left) {
                Ok((shared, _)) => shared,
                Err(_) => return false,
            };
        }
    }

    /// Connects to the first that lets us: hard-coded contacts, cached ones, and peers on
    /// the LAN. Nothing is sent to the addresses of `blacklist`. `BootstrapConnect` or
    /// `BootstrapFailed` follows. While one runs another call does nothing.
    pub fn start_bootstrap(
        &mut self,
        blacklist: HashSet<SocketAddr>,
        crust_user: CrustUser,
    ) -> Res<()> {
        self.inner.act(|shared| {
            let now = Instant::now();
            shared
                .machine
                .start_bootstrap(now, blacklist.iter(), crust_user);
            Ok(())
        })
    }

    /// Gives bootstrapping up, without an event.
    pub fn stop_bootstrap(&mut self) -> Res<()> {
        self.inner.act(|shared| {
            shared.machine.stop_bootstrap();
            Ok(())
        })
    }

    /// Accepts connections. `ListenerStarted` or `ListenerFailed` follows.
    pub fn start_listening_tcp(&mut self) -> Res<()> {
        let port = {
            let mut shared = self.inner.lock();
            if shared.listening != Listening::No {
                return Ok(());
            }
            let port = shared.machine.config.tcp_acceptor_port.unwrap_or(0);
            shared.listening = Listening::Starting(port);
            port
        };
        // A listener that cannot start says so by an event.
        let _ = self.service.listen(&main_listener(port));
        Ok(())
    }

    /// Accepts no more connections. Those that there are stay.
    pub fn stop_tcp_listener(&mut self) -> Res<()> {
        let mut shared = self.inner.lock();
        shared.listening = Listening::No;
        shared.machine.accept = false;
        shared.machine.ports.clear();
        drop(shared);
        for endpoint in self.service.listeners()? {
            self.service.stop_listening(&endpoint)?;
        }
        Ok(())
    }

    /// Connects to a peer whose info was received. `ConnectSuccess` or `ConnectFailure`
    /// follows, unless there is a connection already, or another attempt. It is enough
    /// when one side calls it; NATs may need both.
    ///
    /// Errors: [`RequestedConnectToSelf`](CrustError::RequestedConnectToSelf).
    pub fn connect(
        &self,
        _our_ci: PrivConnectionInfo<UID>,
        their_ci: PubConnectionInfo<UID>,
    ) -> Res<()> {
        if their_ci.id == self.uid {
            return Err(CrustError::RequestedConnectToSelf);
        }
        self.inner.act(|shared| {
            shared.machine.connect(their_ci.id, their_ci.info);
            Ok(())
        })
    }

    /// Ends the connection with a peer, delivering what was sent; `LostPeer` follows on
    /// both sides. It says whether there was one.
    pub fn disconnect(&self, peer_uid: &UID) -> bool {
        let mut was = false;
        let _ = self.inner.act(|shared| {
            was = shared.machine.disconnect(peer_uid);
            Ok(())
        });
        was
    }

    /// Sends a message. One that is too large comes back as `WriteMsgSizeProhibitive`.
    ///
    /// Errors: [`PeerNotFound`](CrustError::PeerNotFound), and
    /// [`Io`](CrustError::Io) with `WouldBlock` while 64 MiB wait for the peer.
    pub fn send(&self, peer_uid: &UID, msg: Vec<u8>, priority: Priority) -> Res<()> {
        let id = {
            let shared = self.inner.lock();
            let id = shared
                .machine
                .up(peer_uid)
                .ok_or(CrustError::PeerNotFound)?;
            if msg.len() > MAX_PAYLOAD_SIZE {
                shared.tell(Event::WriteMsgSizeProhibitive(*peer_uid, msg));
                return Ok(());
            }
            id
        };
        Ok(self.service.send(&id, machine::data(msg), priority)?)
    }

    /// Makes what two peers exchange before they connect. `ConnectionInfoPrepared` with
    /// the token follows.
    pub fn prepare_connection_info(&self, result_token: u32) {
        if let Err(e) = self
            .service
            .prepare_connection_info(u64::from(result_token))
        {
            self.inner
                .lock()
                .tell(Event::ConnectionInfoPrepared(ConnectionInfoResult {
                    result_token,
                    result: Err(e.into()),
                }));
        }
    }

    /// Whether a peer is connected.
    pub fn is_connected(&self, peer_uid: &UID) -> bool {
        self.inner.lock().machine.up(peer_uid).is_some()
    }

    /// Who we are.
    pub fn id(&self) -> UID {
        self.uid
    }
}

impl<UID: Uid> Drop for Service<UID> {
    fn drop(&mut self) {
        self.inner.lock().open = false;
        self.inner.wake.notify_all();
        self.service.close();
        let _ = self.service.join();
    }
}

impl<UID: Uid> std::fmt::Debug for Service<UID> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service")
            .field("id", &self.uid)
            .finish_non_exhaustive()
    }
}

/// What libcrust is told of a configuration.
fn settings(config: &Config, app_id: &[u8]) -> libcrust::Config {
    let mut to = libcrust::Config::new()
        .app_id(app_id)
        .no_listen()
        .beacon(Beacon::Off)
        // Programs of 0.31 tell each other where peers are themselves.
        .gossip(Gossip::Off)
        .send_queue_bytes(QUEUE);
    if let Some(name) = &config.network_name {
        to = to.network_name(name.as_str());
    }
    if let Some(port) = config.service_discovery_port {
        to = to.beacon_port(port);
    }
    if let Some(path) = config.cache_path() {
        to = to.cache(path);
    }
    if let (true, Some(port)) = (
        config.force_acceptor_port_in_ext_ep,
        config.tcp_acceptor_port,
    ) {
        to = to.external_port(port);
    }
    for contact in &config.hard_coded_contacts {
        to = to.contact(format!("tcp://{contact}"));
    }
    to
}

/// The listener whose port the program is told.
fn main_listener(port: u16) -> String {
    format!("tcp://0.0.0.0:{port}")
}

/// The address of an endpoint.
fn addr_of(endpoint: &str) -> SocketAddr {
    let addr = endpoint
        .split_once("://")
        .map_or(endpoint, |(_, addr)| addr);
    let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
    addr.parse().unwrap_or(nowhere)
}

impl<UID: Uid> Shared<UID> {
    fn tell(&self, event: Event<UID>) {
        if self.open {
            // A program that does not listen any more loses nothing.
            let _ = self.events.send(event);
        }
    }
}

impl<UID: Uid> Inner<UID> {
    fn lock(&self) -> MutexGuard<'_, Shared<UID>> {
        match self.shared.lock() {
            Ok(shared) => shared,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    /// Does something with the machine, and then what it wants.
    fn act(self: &Arc<Self>, with: impl FnOnce(&mut Shared<UID>) -> Res<()>) -> Res<()> {
        let mut shared = self.lock();
        let result = with(&mut shared);
        self.settle(&mut shared);
        if shared.machine.take_timed() {
            self.wake.notify_all();
        }
        result
    }

    /// Does what the machine wants.
    fn settle(self: &Arc<Self>, shared: &mut Shared<UID>) {
        loop {
            let actions = shared.machine.take();
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.perform(shared, action);
            }
        }
    }

    fn perform(self: &Arc<Self>, shared: &mut Shared<UID>, action: Action<UID>) {
        let Some(handle) = shared.handle else {
            return; // nobody is connected, and nothing was called
        };
        // What fails here fails because the session, or the service, has ended: an event
        // says so.
        match action {
            Action::Emit(event) => shared.tell(event),
            Action::Send(id, message) => drop(handle.send(&id, message, 0)),
            Action::Disconnect(id) => drop(handle.disconnect(&id)),
            Action::StopBootstrap => drop(handle.stop_bootstrap()),
            Action::Bootstrap(token, except) => {
                if handle.bootstrap_except(except, token).is_err() {
                    shared.machine.bootstrap_failed(Instant::now(), token);
                }
            }
            Action::Connect(token, info) => {
                if handle.connect(&info, token).is_err() {
                    shared.machine.connect_failed(Instant::now(), token); // none, expired, or our own
                }
            }
            Action::Probe(id, addrs) => self.probe(shared, id, addrs),
        }
    }

    /// Tries whether a node can be reached from outside.
    fn probe(
        self: &Arc<Self>,
        shared: &mut Shared<UID>,
        id: libcrust::PeerId,
        addrs: Vec<SocketAddr>,
    ) {
        if shared.probes == PROBES_AT_ONCE {
            return shared.machine.probed(id, false);
        }
        let inner = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("crust probe".into())
            .spawn(move || {
                let reached = addrs.iter().any(|addr| {
                    TcpStream::connect_timeout(addr, PROBE / addrs.len() as u32).is_ok()
                });
                let _ = inner.act(|shared| {
                    shared.probes -= 1;
                    shared.machine.probed(id, reached);
                    Ok(())
                });
            });
        match thread {
            Ok(_) => shared.probes += 1,
            Err(_) => shared.machine.probed(id, false),
        }
    }

    /// Takes an event of libcrust.
    fn hear(self: &Arc<Self>, handle: Handle, event: &libcrust::Event) {
        let _ = self.act(|shared| {
            shared.handle = Some(handle);
            let now = Instant::now();
            let machine = &mut shared.machine;
            match event {
                libcrust::Event::Message(m) => machine.message(now, m.peer, m),
                libcrust::Event::Connected {
                    peer,
                    token,
                    endpoint,
                    app_id,
                    ..
                } => {
                    machine.connected(now, *peer, *token, app_id, addr_of(endpoint));
                }
                libcrust::Event::AlreadyConnected { token, peer, .. } => {
                    machine.already_connected(now, *token, *peer);
                }
                libcrust::Event::ConnectFailed { token, .. } => machine.connect_failed(now, *token),
                libcrust::Event::Bootstrapped { token, peer, .. } => {
                    machine.bootstrapped(now, *token, *peer);
                }
                libcrust::Event::BootstrapFailed { token, .. } => {
                    machine.bootstrap_failed(now, *token)
                }
                libcrust::Event::Resumed { peer, endpoint, .. } => {
                    machine.moved(*peer, addr_of(endpoint));
                }
                libcrust::Event::Lost { peer, .. } => machine.lost(now, *peer),
                libcrust::Event::PortMapped {
                    endpoint,
                    error: None,
                    ..
                } if endpoint.starts_with("tcp://") => {
                    let port = addr_of(endpoint).port();
                    machine.ports.retain(|other| *other != port);
                    machine.ports.insert(0, port);
                    machine.ports.truncate(machine::MAX_PROBES);
                }
                _ => Self::hear_more(shared, handle, event),
            }
            Ok(())
        });
    }

    fn hear_more(shared: &mut Shared<UID>, handle: Handle, event: &libcrust::Event) {
        match event {
            libcrust::Event::ListenerStarted { endpoint, .. } => {
                let port = addr_of(endpoint).port();
                let Listening::Starting(wanted) = shared.listening else {
                    return;
                };
                if !endpoint.starts_with("tcp://0.0.0.0:") || (wanted != 0 && wanted != port) {
                    return;
                }
                shared.listening = Listening::At(port);
                shared.machine.ports.push(port);
                // The same over IPv6, and by uTP; without these it works, too.
                for more in ["tcp://[::]", "utp://0.0.0.0", "utp://[::]"] {
                    let _ = handle.listen(&format!("{more}:{port}"));
                }
                shared.tell(Event::ListenerStarted(port));
            }
            libcrust::Event::ListenerFailed { endpoint, .. } => {
                if matches!(shared.listening, Listening::Starting(port) if *endpoint == main_listener(port))
                {
                    shared.listening = Listening::No;
                    shared.tell(Event::ListenerFailed);
                }
            }
            libcrust::Event::ConnectionInfo { token, info, .. } => {
                shared.tell(Event::ConnectionInfoPrepared(ConnectionInfoResult {
                    result_token: *token as u32,
                    result: Ok(PrivConnectionInfo {
                        id: shared.machine.uid(),
                        info: info.to_vec(),
                    }),
                }));
            }
            libcrust::Event::Discovered { .. } => shared.machine.timed(),
            _ => {}
        }
    }

    /// The thread that keeps time: silent peers, and the configuration file.
    fn keep_time(self: Arc<Self>, mut file: Option<ConfigFile>) {
        let mut refresh = Instant::now() + REFRESH;
        let mut shared = self.lock();
        while shared.open {
            let now = Instant::now();
            if let (Some(file), true) = (&mut file, now >= refresh) {
                refresh = now + REFRESH;
                if let Some(config) = file.news() {
                    shared.machine.reconfigure(config);
                }
            }
            let mut next = shared.machine.tick(now);
            self.settle(&mut shared);
            if file.is_some() {
                next = Some(next.map_or(refresh, |next| next.min(refresh)));
            }
            // What was settled may have set times, too.
            let left = match next {
                _ if shared.machine.take_timed() => Some(Duration::ZERO),
                next => next.map(|next| next.saturating_duration_since(Instant::now())),
            };
            let woken = match left {
                Some(left) => self
                    .wake
                    .wait_timeout(shared, left)
                    .map(|(shared, _)| shared)
                    .ok(),
                None => self.wake.wait(shared).ok(),
            };
            let Some(again) = woken else { return };
            shared = again;
        }
    }
}
