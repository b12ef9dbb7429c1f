//! What the peers of a service are to each other in the words of crust 0.31. It only
//! computes: facts of libcrust and calls of the program in, actions out.
//!
//! A session of libcrust is not yet a peer of 0.31: one side asks, to bootstrap or to
//! connect, and the other side grants or denies. The last byte of each message says what
//! it is. Who denies ends the session.
//!
//! ```text
//!   Fresh ---- ask sent ----> Asked --- granted, or asked too ---> Up
//!     |                         |                                   |
//!     +-- ask heard, allowed ---|---------------------------------->+
//!     +-- node to be probed --> Probing -- reached ---------------->+
//!     |                         |                                   |
//!     +---- silent, denied -----+---> Closing <--- disconnect ------+
//! ```

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use libcrust::PeerId;
use maidsafe_utilities::serialisation::deserialise;

use crate::config::Config;
use crate::{CrustUser, Event, Uid};

/// How long whoever has a session may take to ask, and whoever was asked to answer: a
/// node is probed meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long bootstrapping goes on after denials.
const BOOTSTRAP: Duration = Duration::from_secs(10);
/// How many ports of a node are probed at most.
pub(crate) const MAX_PROBES: usize = 3;

/// What the last byte of a message says.
mod kind {
    pub const DATA: u8 = 0;
    pub const CONNECT: u8 = 1;
    pub const CLIENT: u8 = 2;
    /// The ports at which the asker can be reached come before, 2 bytes each, the higher
    /// one first.
    pub const NODE: u8 = 3;
    pub const GRANTED: u8 = 4;
    pub const DENIED: u8 = 5;
}

/// Makes a message of the program one of the session.
pub(crate) fn data(mut message: Vec<u8>) -> Vec<u8> {
    message.push(kind::DATA);
    message
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(crate) enum Action<UID: Uid> {
    Emit(Event<UID>),
    Send(PeerId, Vec<u8>),
    Disconnect(PeerId),
    /// Bootstrap without these contacts.
    Bootstrap(u64, Vec<String>),
    /// Connect by this info, and call `connect_failed` when that is refused.
    Connect(u64, Vec<u8>),
    StopBootstrap,
    /// Try whether any of these accepts connections, and call `probed`.
    Probe(PeerId, Vec<SocketAddr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Connect,
    Bootstrap,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Asked(Why),
    Probing,
    Up,
    Closing { was_up: bool },
}

struct Peer<UID> {
    uid: UID,
    addr: SocketAddr,
    state: State,
    user: CrustUser,
    deadline: Option<Instant>,
}

struct Bootstrap {
    token: u64,
    user: CrustUser,
    except: Vec<String>,
    deadline: Instant,
    /// Whether sessions were ending when it began: who will not begin another one
    /// before does so after.
    beside: bool,
    after: Option<PeerId>, // whose old session has to end before
}

struct Connect<UID> {
    uid: UID,
    info: Vec<u8>,
    beside: bool,
    after: Option<PeerId>,
}

pub(crate) struct Machine<UID: Uid> {
    uid: UID,
    pub(crate) config: Config,
    pub(crate) accept: bool,
    /// Where we can be reached; for asks of nodes.
    pub(crate) ports: Vec<u16>,
    peers: HashMap<PeerId, Peer<UID>>,
    by_uid: HashMap<UID, PeerId>,
    connects: HashMap<u64, Connect<UID>>,
    boot: Option<Bootstrap>,
    token: u64,
    now: Instant,
    actions: Vec<Action<UID>>,
    timed: bool,
}

impl<UID: Uid> Machine<UID> {
    pub(crate) fn new(uid: UID, config: Config, now: Instant) -> Self {
        Self {
            uid,
            config,
            accept: false,
            ports: Vec::new(),
            peers: HashMap::new(),
            by_uid: HashMap::new(),
            connects: HashMap::new(),
            boot: None,
            token: 0,
            now,
            actions: Vec::new(),
            timed: false,
        }
    }

    pub(crate) fn uid(&self) -> UID {
        self.uid
    }

    /// Says that who waits for time, or for news, is to look again.
    pub(crate) fn timed(&mut self) {
        self.timed = true;
    }

    /// Whether that has been said since.
    pub(crate) fn take_timed(&mut self) -> bool {
        std::mem::take(&mut self.timed)
    }

    /// What is to be done by now.
    pub(crate) fn take(&mut self) -> Vec<Action<UID>> {
        std::mem::take(&mut self.actions)
    }

    /// A token for a call of libcrust. Those of the program are below them.
    fn fresh_token(&mut self) -> u64 {
        self.token += 1;
        (1 << 32) + self.token
    }

    // ---- the program's calls ----

    /// The peer of a UID, if it is up.
    pub(crate) fn up(&self, uid: &UID) -> Option<PeerId> {
        let id = *self.by_uid.get(uid)?;
        (self.peers[&id].state == State::Up).then_some(id)
    }

    pub(crate) fn addr(&self, uid: &UID) -> Option<SocketAddr> {
        self.up(uid).map(|id| self.peers[&id].addr)
    }

    /// Connects to a peer, unless there is nothing to do.
    pub(crate) fn connect(&mut self, uid: UID, info: Vec<u8>) {
        let connecting = self.connects.values().any(|other| other.uid == uid);
        let known = self.by_uid.get(&uid).map(|id| self.peers[id].state);
        match known {
            Some(State::Up | State::Asked(_) | State::Probing) => {}
            _ if connecting => {}
            _ => self.begin_connect(uid, info),
        }
    }

    fn begin_connect(&mut self, uid: UID, info: Vec<u8>) {
        let token = self.fresh_token();
        self.actions.push(Action::Connect(token, info.clone()));
        let connect = Connect {
            uid,
            info,
            beside: self.by_uid.contains_key(&uid),
            after: None,
        };
        self.connects.insert(token, connect);
    }

    pub(crate) fn start_bootstrap<'a>(
        &mut self,
        now: Instant,
        blacklist: impl Iterator<Item = &'a SocketAddr>,
        user: CrustUser,
    ) {
        if self.boot.is_some() {
            return;
        }
        self.now = now;
        let mut except: Vec<String> = blacklist
            .flat_map(|addr| [format!("tcp://{addr}"), format!("utp://{addr}")])
            .collect();
        except.extend(
            self.peers
                .iter()
                .filter(|(_, peer)| !matches!(peer.state, State::Closing { .. }))
                .map(|(id, _)| format!("#{id}")),
        );
        self.boot = Some(Bootstrap {
            token: 0,
            user,
            except,
            deadline: now + BOOTSTRAP,
            beside: false,
            after: None,
        });
        self.bootstrap_again();
    }

    pub(crate) fn stop_bootstrap(&mut self) {
        if self.boot.take().is_none() {
            return;
        }
        self.actions.push(Action::StopBootstrap);
        let asked = self
            .peers
            .iter()
            .find(|(_, peer)| peer.state == State::Asked(Why::Bootstrap));
        if let Some((&id, _)) = asked {
            self.close(id);
        }
    }

    /// Whether the peer was up.
    pub(crate) fn disconnect(&mut self, uid: &UID) -> bool {
        let up = self.up(uid);
        if let Some(id) = up {
            self.close(id);
        }
        up.is_some()
    }

    /// Drops whom the whitelists do not admit any more.
    pub(crate) fn reconfigure(&mut self, config: Config) {
        self.config = config;
        let gone: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, p)| p.state == State::Up && !self.config.admits(p.addr.ip(), p.user))
            .map(|(&id, _)| id)
            .collect();
        for id in gone {
            self.close(id);
        }
    }

    // ---- facts of libcrust ----

    pub(crate) fn connected(
        &mut self,
        now: Instant,
        id: PeerId,
        token: u64,
        uid: &[u8],
        addr: SocketAddr,
    ) {
        self.now = now;
        let wanted = self.connects.remove(&token).map(|connect| connect.uid);
        let uid = deserialise::<UID>(uid).ok().filter(|uid| *uid != self.uid);
        let uid = uid.filter(|uid| !self.by_uid.contains_key(uid));
        let uid = uid.filter(|uid| wanted.is_none_or(|wanted| wanted == *uid));
        let Some(uid) = uid else {
            // No peer of ours, or one who has taken the name of another one.
            self.actions.push(Action::Disconnect(id));
            if let Some(uid) = wanted {
                self.fail(uid);
            }
            return;
        };
        self.by_uid.insert(uid, id);
        self.peers.insert(
            id,
            Peer {
                uid,
                addr,
                state: State::Fresh,
                user: CrustUser::Node,
                deadline: Some(now + PATIENCE),
            },
        );
        self.timed = true;
        if wanted.is_some() {
            self.ask(id, Why::Connect);
        }
    }

    /// A connect has found a session.
    pub(crate) fn already_connected(&mut self, now: Instant, token: u64, id: PeerId) {
        self.now = now;
        let Some(connect) = self.connects.get_mut(&token) else {
            return;
        };
        let uid = connect.uid;
        match self
            .peers
            .get(&id)
            .map(|peer| (peer.uid == uid, peer.state))
        {
            Some((true, State::Closing { .. })) => {
                connect.after = Some(id);
                return;
            }
            Some((true, State::Fresh)) => self.ask(id, Why::Connect),
            Some((true, _)) => {} // told already, or soon
            Some((false, _)) | None => self.fail(uid),
        }
        self.connects.remove(&token);
    }

    pub(crate) fn connect_failed(&mut self, now: Instant, token: u64) {
        self.now = now;
        let Some(mut connect) = self.connects.remove(&token) else {
            return;
        };
        let old = self.by_uid.get(&connect.uid).copied();
        let old = old.filter(|id| matches!(self.peers[id].state, State::Closing { .. }));
        if connect.beside && old.is_some() {
            connect.after = old;
            self.connects.insert(token, connect);
        } else if connect.beside && !self.by_uid.contains_key(&connect.uid) {
            self.begin_connect(connect.uid, connect.info);
        } else {
            self.fail(connect.uid);
        }
    }

    /// The session of a bootstrap stands.
    pub(crate) fn bootstrapped(&mut self, now: Instant, token: u64, id: PeerId) {
        self.now = now;
        let boot = self.boot.as_mut().filter(|boot| boot.token == token);
        let ours = boot.is_some();
        match self.peers.get(&id).map(|peer| peer.state) {
            Some(State::Closing { .. }) if ours => {
                boot.into_iter().for_each(|boot| boot.after = Some(id));
            }
            Some(State::Fresh) if ours => self.ask(id, Why::Bootstrap),
            Some(State::Fresh) => self.close(id),
            _ if ours => self.denied_by(id),
            _ => {}
        }
    }

    pub(crate) fn bootstrap_failed(&mut self, now: Instant, token: u64) {
        self.now = now;
        let ending = self.ending();
        let Some(boot) = self.boot.as_mut().filter(|boot| boot.token == token) else {
            return;
        };
        if boot.beside && ending.is_some() {
            boot.after = ending;
        } else if boot.beside {
            self.bootstrap_again();
        } else {
            self.boot = None;
            self.emit(Event::BootstrapFailed);
        }
    }

    /// One whose session is ending, and from whom we would bootstrap.
    fn ending(&self) -> Option<PeerId> {
        let except = self.boot.as_ref().map_or(&[][..], |boot| &boot.except);
        let mut peers = self.peers.iter();
        let ending = peers.find(|(id, peer)| {
            matches!(peer.state, State::Closing { .. }) && !except.contains(&format!("#{id}"))
        });
        ending.map(|(&id, _)| id)
    }

    pub(crate) fn moved(&mut self, id: PeerId, addr: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.addr = addr;
        }
    }

    pub(crate) fn lost(&mut self, now: Instant, id: PeerId) {
        self.now = now;
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.by_uid.remove(&peer.uid);
        match peer.state {
            State::Up | State::Closing { was_up: true } => self.emit(Event::LostPeer(peer.uid)),
            State::Asked(Why::Connect) => self.fail(peer.uid),
            State::Asked(Why::Bootstrap) => self.denied_by(id),
            State::Fresh | State::Probing | State::Closing { .. } => {}
        }
        self.go_on_after(id);
    }

    /// Begins what waited for the end of a session.
    fn go_on_after(&mut self, id: PeerId) {
        let tokens = self.connects.iter();
        let tokens = tokens.filter(|(_, connect)| connect.after == Some(id));
        let tokens: Vec<u64> = tokens.map(|(&token, _)| token).collect();
        for token in tokens {
            if let Some(connect) = self.connects.remove(&token) {
                self.begin_connect(connect.uid, connect.info);
            }
        }
        if self
            .boot
            .as_ref()
            .is_some_and(|boot| boot.after == Some(id))
        {
            self.bootstrap_again();
        }
    }

    pub(crate) fn message(&mut self, now: Instant, id: PeerId, message: &[u8]) {
        self.now = now;
        let Some((&kind, body)) = message.split_last() else {
            return;
        };
        let Some(peer) = self.peers.get(&id) else {
            return;
        };
        match (kind, peer.state) {
            (kind::DATA, State::Up) => {
                let event = Event::NewMessage(peer.uid, peer.user, body.to_vec());
                self.emit(event);
            }
            (kind::CONNECT | kind::CLIENT | kind::NODE, State::Fresh | State::Asked(_)) => {
                self.asked(id, kind, body);
            }
            (kind::GRANTED, State::Asked(_)) => self.rise(id, None),
            (kind::DENIED, State::Asked(_)) => self.give_up(id),
            _ => {}
        }
    }

    /// Whether a node that was probed can be reached.
    pub(crate) fn probed(&mut self, id: PeerId, reached: bool) {
        if self
            .peers
            .get(&id)
            .is_none_or(|peer| peer.state != State::Probing)
        {
            return;
        }
        if reached {
            self.send(id, vec![kind::GRANTED]);
            self.rise(id, Some(CrustUser::Node));
        } else {
            self.deny(id);
        }
    }

    /// Gives up whoever took too long, and says when the next one will have.
    pub(crate) fn tick(&mut self, now: Instant) -> Option<Instant> {
        self.now = now;
        let late: Vec<PeerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.deadline.is_some_and(|at| at <= now))
            .map(|(&id, _)| id)
            .collect();
        for id in late {
            self.give_up(id);
        }
        self.peers.values().filter_map(|peer| peer.deadline).min()
    }

    // ---- inside ----

    fn emit(&mut self, event: Event<UID>) {
        self.actions.push(Action::Emit(event));
    }

    fn send(&mut self, id: PeerId, message: Vec<u8>) {
        self.actions.push(Action::Send(id, message));
    }

    fn peer(&mut self, id: PeerId) -> &mut Peer<UID> {
        self.peers.get_mut(&id).expect("callers have looked")
    }

    /// Tells that a connect has failed, unless there is a connection after all.
    fn fail(&mut self, uid: UID) {
        if self.up(&uid).is_none() {
            self.emit(Event::ConnectFailure(uid));
        }
    }

    fn ask(&mut self, id: PeerId, why: Why) {
        let message = match (why, self.boot.as_ref().map(|boot| boot.user)) {
            (Why::Connect, _) | (_, None) => vec![kind::CONNECT],
            (Why::Bootstrap, Some(CrustUser::Client)) => vec![kind::CLIENT],
            (Why::Bootstrap, Some(CrustUser::Node)) => {
                let ports = self.ports.iter().take(MAX_PROBES);
                let mut message: Vec<u8> = ports.flat_map(|port| port.to_be_bytes()).collect();
                message.push(kind::NODE);
                message
            }
        };
        let deadline = self.now + PATIENCE;
        let peer = self.peer(id);
        peer.state = State::Asked(why);
        peer.deadline = Some(deadline);
        self.timed = true;
        self.send(id, message);
    }

    /// The peer asks.
    fn asked(&mut self, id: PeerId, kind: u8, body: &[u8]) {
        let user = match kind {
            kind::CLIENT => CrustUser::Client,
            _ => CrustUser::Node,
        };
        let ip = self.peer(id).addr.ip();
        if !self.config.admits(ip, user) || (kind != kind::CONNECT && !self.accept) {
            return self.deny(id);
        }
        if kind == kind::NODE && self.config.demands_reachability() {
            let ports = body.chunks_exact(2).take(MAX_PROBES);
            let addrs: Vec<SocketAddr> = ports
                .map(|port| SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
                .filter(|addr| addr.port() != 0)
                .collect();
            if addrs.is_empty() || !is_global(ip) {
                return self.deny(id);
            }
            self.peer(id).state = State::Probing;
            self.actions.push(Action::Probe(id, addrs));
            return;
        }
        self.send(id, vec![kind::GRANTED]);
        self.rise(id, (kind != kind::CONNECT).then_some(user));
    }

    /// There is a connection; `accepted`: whom we have let bootstrap, if nothing else was
    /// asked by us.
    fn rise(&mut self, id: PeerId, accepted: Option<CrustUser>) {
        let peer = self.peer(id);
        let was = std::mem::replace(&mut peer.state, State::Up);
        peer.deadline = None;
        peer.user = accepted.unwrap_or(CrustUser::Node);
        let (uid, addr) = (peer.uid, peer.addr);
        let event = match (was, accepted) {
            (State::Asked(Why::Bootstrap), _) => {
                self.boot = None;
                Event::BootstrapConnect(uid, addr)
            }
            (State::Asked(Why::Connect), _) | (_, None) => Event::ConnectSuccess(uid),
            (_, Some(user)) => Event::BootstrapAccept(uid, user),
        };
        self.emit(event);
    }

    fn deny(&mut self, id: PeerId) {
        self.send(id, vec![kind::DENIED]);
        self.give_up(id);
    }

    /// Ends a session that has not become a connection.
    fn give_up(&mut self, id: PeerId) {
        let (uid, state) = (self.peer(id).uid, self.peer(id).state);
        self.close(id);
        match state {
            State::Asked(Why::Connect) => self.fail(uid),
            State::Asked(Why::Bootstrap) => self.denied_by(id),
            _ => {}
        }
    }

    fn close(&mut self, id: PeerId) {
        let peer = self.peer(id);
        peer.deadline = None;
        peer.state = State::Closing {
            was_up: peer.state == State::Up,
        };
        self.actions.push(Action::Disconnect(id));
    }

    /// Bootstraps from somebody else.
    fn denied_by(&mut self, id: PeerId) {
        if let Some(boot) = self.boot.as_mut() {
            boot.except.push(format!("#{id}"));
            self.bootstrap_again();
        }
    }

    fn bootstrap_again(&mut self) {
        let token = self.fresh_token();
        let beside = self.ending().is_some();
        let Some(boot) = self.boot.as_mut() else {
            return;
        };
        if self.now >= boot.deadline {
            self.boot = None;
            return self.emit(Event::BootstrapFailed);
        }
        boot.token = token;
        boot.beside = beside;
        boot.after = None;
        let except = boot.except.clone();
        self.actions.push(Action::Bootstrap(token, except));
    }
}

/// Whether an address is of the Internet: nodes are reachable from outside at no others.
fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_global_v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => is_global_v4(ip),
            None => ip.segments()[0] & 0xe000 == 0x2000, // 2000::/3 is all that is given out
        },
    }
}

fn is_global_v4(ip: Ipv4Addr) -> bool {
    let shared = ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64; // RFC 6598
    !(ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.octets()[0] == 0
        || ip.octets()[0] >= 240
        || shared)
}
