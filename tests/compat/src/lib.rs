//! What the tests share. Everything here and in them is the API of crust 0.31.

#[macro_use]
extern crate serde_derive;
#[macro_use]
extern crate unwrap;

use crust::{
    Config, ConnectionInfoResult, CrustEventSender, CrustUser, Event, PrivConnectionInfo,
    PubConnectionInfo, Service, Uid,
};
use maidsafe_utilities::event_sender::MaidSafeEventCategory;
use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How long anything may take that has to happen.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long nothing has to happen.
pub const QUIET: Duration = Duration::from_millis(500);

static COUNT: AtomicUsize = AtomicUsize::new(1);

/// A number that no other test has.
pub fn number() -> usize {
    COUNT.fetch_add(1, Ordering::SeqCst)
}

/// Who a node of the tests is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id(pub [u8; 32]);

impl Id {
    pub fn new() -> Id {
        let mut id = [0; 32];
        id[0] = number() as u8;
        id[1] = (number() >> 8) as u8;
        Id(id)
    }
}

impl Uid for Id {}

/// How a node stands with a peer; what no peer may do is checked here, in every test.
#[derive(Default)]
struct Order {
    up: HashSet<Id>,
}

impl Order {
    fn check(&mut self, event: &Event<Id>) {
        match *event {
            Event::BootstrapAccept(id, _)
            | Event::BootstrapConnect(id, _)
            | Event::ConnectSuccess(id) => {
                assert!(self.up.insert(id), "{:?}: connected already", event);
            }
            Event::NewMessage(id, _, _) => assert!(self.up.contains(&id), "a message of nobody"),
            Event::LostPeer(id) => assert!(self.up.remove(&id), "lost, and not connected"),
            _ => {}
        }
    }
}

/// A service and its events.
pub struct Node {
    pub service: Service<Id>,
    pub id: Id,
    events: Receiver<Event<Id>>,
    categories: Receiver<MaidSafeEventCategory>,
    order: Order,
}

/// A sender of events, and where they come, each announced by its category.
pub fn channel() -> (
    CrustEventSender<Id>,
    Receiver<Event<Id>>,
    Receiver<MaidSafeEventCategory>,
) {
    let (event_tx, events) = mpsc::channel();
    let (category_tx, categories) = mpsc::channel();
    let sender = CrustEventSender::new(event_tx, MaidSafeEventCategory::Crust, category_tx);
    (sender, events, categories)
}

/// A file that no other test has.
pub fn temporary(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!(
        "crust-compat-{}-{}-{}",
        process::id(),
        number(),
        name
    ))
}

/// A network that no other test has.
pub fn network() -> String {
    format!("compat {} {}", process::id(), number())
}

/// A configuration for tests on one machine, as developers had it.
pub fn config(network: &str) -> Config {
    let mut config: Config = unwrap!(serde_json::from_str(
        r#"{ "hard_coded_contacts": [], "tcp_acceptor_port": null, "force_acceptor_port_in_ext_ep": false,
             "service_discovery_port": null, "bootstrap_cache_name": null, "whitelisted_node_ips": null,
             "whitelisted_client_ips": null, "network_name": null,
             "dev": { "disable_external_reachability_requirement": true } }"#
    ));
    config.network_name = Some(network.to_owned());
    config.bootstrap_cache_name = Some(unwrap!(temporary("cache").into_os_string().into_string()));
    config
}

impl Node {
    pub fn new(config: Config) -> Node {
        Node::with_id(config, Id::new())
    }

    pub fn with_id(config: Config, id: Id) -> Node {
        let (sender, events, categories) = channel();
        let service = unwrap!(Service::with_config(sender, config, id));
        Node {
            service,
            id,
            events,
            categories,
            order: Order::default(),
        }
    }

    /// A node that listens, lets others bootstrap, and where.
    pub fn listening(config: Config) -> (Node, SocketAddr) {
        let mut node = Node::new(config);
        let port = node.listen();
        unwrap!(node.service.set_accept_bootstrap(true));
        (node, SocketAddr::from(([127, 0, 0, 1], port)))
    }

    pub fn listen(&mut self) -> u16 {
        unwrap!(self.service.start_listening_tcp());
        match self.next() {
            Event::ListenerStarted(port) => port,
            event => panic!("{:?} instead of ListenerStarted", event),
        }
    }

    /// The next event, which its category has announced.
    pub fn next(&mut self) -> Event<Id> {
        unwrap!(self.within(PATIENCE), "no event came")
    }

    pub fn within(&mut self, time: Duration) -> Option<Event<Id>> {
        match self.categories.recv_timeout(time) {
            Ok(MaidSafeEventCategory::Crust) => {}
            Ok(category) => panic!("category {:?}", category),
            Err(RecvTimeoutError::Timeout) => return None,
            Err(e) => panic!("{}", e),
        }
        let event = unwrap!(self.events.try_recv(), "a category without its event");
        self.order.check(&event);
        Some(event)
    }

    /// The next event, which has to be of a kind.
    pub fn expect<T, F>(&mut self, what: &str, pick: F) -> T
    where
        F: FnOnce(&Event<Id>) -> Option<T>,
    {
        let event = self.next();
        unwrap!(pick(&event), "{:?} instead of {}", event, what)
    }

    pub fn expect_success(&mut self, of: Id) {
        self.expect("ConnectSuccess", |event| match *event {
            Event::ConnectSuccess(id) if id == of => Some(()),
            _ => None,
        })
    }

    pub fn expect_lost(&mut self, of: Id) {
        self.expect("LostPeer", |event| match *event {
            Event::LostPeer(id) if id == of => Some(()),
            _ => None,
        })
    }

    pub fn expect_accept(&mut self, of: Id, user: CrustUser) {
        self.expect("BootstrapAccept", |event| match *event {
            Event::BootstrapAccept(id, as_user) if id == of && as_user == user => Some(()),
            _ => None,
        })
    }

    /// From whom it has bootstrapped, and where.
    pub fn expect_bootstrap(&mut self) -> (Id, SocketAddr) {
        self.expect("BootstrapConnect", |event| match *event {
            Event::BootstrapConnect(id, addr) => Some((id, addr)),
            _ => None,
        })
    }

    pub fn expect_bootstrap_failed(&mut self) {
        self.expect("BootstrapFailed", |event| match *event {
            Event::BootstrapFailed => Some(()),
            _ => None,
        })
    }

    pub fn expect_message(&mut self, from: Id) -> (CrustUser, Vec<u8>) {
        self.expect("NewMessage", |event| match *event {
            Event::NewMessage(id, user, ref message) if id == from => Some((user, message.clone())),
            _ => None,
        })
    }

    pub fn expect_nothing(&mut self) {
        if let Some(event) = self.within(QUIET) {
            panic!("{:?}", event);
        }
    }

    /// Takes events until one is as wanted.
    pub fn until<T, F>(&mut self, what: &str, mut pick: F) -> T
    where
        F: FnMut(&Event<Id>) -> Option<T>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = unwrap!(self.within(left), "no {} came", what);
            if let Some(t) = pick(&event) {
                return t;
            }
        }
    }

    pub fn bootstrap(&mut self, user: CrustUser) {
        unwrap!(self.service.start_bootstrap(HashSet::new(), user));
    }

    /// Our part of connecting to somebody.
    pub fn prepare(&mut self) -> PrivConnectionInfo<Id> {
        let token = number() as u32;
        self.service.prepare_connection_info(token);
        self.expect_info(token)
    }

    fn expect_info(&mut self, token: u32) -> PrivConnectionInfo<Id> {
        match self.next() {
            Event::ConnectionInfoPrepared(ConnectionInfoResult {
                result_token,
                result,
            }) => {
                assert_eq!(result_token, token);
                unwrap!(result)
            }
            event => panic!("{:?} instead of ConnectionInfoPrepared", event),
        }
    }
}

/// Hands an info over as routing does: serialised.
pub fn hand_over(info: &PrivConnectionInfo<Id>) -> PubConnectionInfo<Id> {
    let bytes = unwrap!(maidsafe_utilities::serialisation::serialise(
        &info.to_pub_connection_info()
    ));
    unwrap!(maidsafe_utilities::serialisation::deserialise(&bytes))
}

/// Connects two nodes, both of which call it.
pub fn connect(a: &mut Node, b: &mut Node) {
    let (of_a, of_b) = (a.prepare(), b.prepare());
    let (to_a, to_b) = (hand_over(&of_a), hand_over(&of_b));
    unwrap!(a.service.connect(of_a, to_b));
    unwrap!(b.service.connect(of_b, to_a));
    a.expect_success(b.id);
    b.expect_success(a.id);
}

/// Two nodes that are connected.
pub fn pair() -> (Node, Node) {
    let network = network();
    let (mut a, _) = Node::listening(config(&network));
    let (mut b, _) = Node::listening(config(&network));
    connect(&mut a, &mut b);
    (a, b)
}

/// How often each is there.
pub fn counted<T: Debug + Eq + std::hash::Hash>(list: Vec<T>) -> HashMap<T, usize> {
    let mut counts = HashMap::new();
    for t in list {
        *counts.entry(t).or_insert(0) += 1;
    }
    counts
}
