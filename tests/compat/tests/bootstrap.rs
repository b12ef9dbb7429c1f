//! Bootstrapping.

use crust::{CrustUser, Event};
use crust_0_31_program::*;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};
use unwrap::unwrap;

/// An address at which nothing listens.
fn dead() -> SocketAddr {
    unwrap!(unwrap!(TcpListener::bind("127.0.0.1:0")).local_addr())
}

/// A listener that nobody answers for.
fn deaf() -> (TcpListener, SocketAddr) {
    let listener = unwrap!(TcpListener::bind("127.0.0.1:0"));
    let at = unwrap!(listener.local_addr());
    (listener, at)
}

fn to(network: &str, contacts: &[SocketAddr]) -> Node {
    let mut with = config(network);
    with.hard_coded_contacts = contacts.to_vec();
    Node::new(with)
}

#[test]
fn the_first_one_wins_and_the_others_see_nothing() {
    let network = network();
    let mut hubs: Vec<(Node, SocketAddr)> =
        (0..5).map(|_| Node::listening(config(&network))).collect();
    let contacts: Vec<SocketAddr> = hubs.iter().map(|hub| hub.1).collect();
    let mut node = to(&network, &contacts);
    node.bootstrap(CrustUser::Client);
    node.bootstrap(CrustUser::Client); // one runs: nothing
    let (id, at) = node.expect_bootstrap();
    node.expect_nothing();
    for (hub, addr) in &mut hubs {
        if hub.id == id {
            assert_eq!(*addr, at);
            hub.expect_accept(node.id, CrustUser::Client);
            assert!(node.service.is_connected(&id));
            assert!(node.service.is_peer_hard_coded(&id));
            assert_eq!(unwrap!(node.service.get_peer_ip_addr(&id)), at.ip());
        }
        hub.expect_nothing();
    }
}

#[test]
fn without_a_live_contact_it_fails_once() {
    let network = network();
    let (mut hub, at) = Node::listening(config(&network));
    let (listener, banned) = deaf();
    unwrap!(listener.set_nonblocking(true));
    for contacts in vec![vec![], vec![dead(), dead()], vec![banned, at]] {
        let mut node = to(&network, &contacts);
        let blacklist: HashSet<SocketAddr> = vec![banned, at].into_iter().collect();
        let began = Instant::now();
        unwrap!(node.service.start_bootstrap(blacklist, CrustUser::Client));
        node.expect_bootstrap_failed();
        assert!(
            began.elapsed() < Duration::from_secs(11),
            "{:?}",
            began.elapsed()
        );
        node.expect_nothing();
    }
    assert!(
        listener.accept().is_err(),
        "something was sent to a blacklisted address"
    );
    hub.expect_nothing();
}

#[test]
fn nobody_waits_for_dead_and_deaf_contacts() {
    let network = network();
    let (mut hub, at) = Node::listening(config(&network));
    let (_listener, silent) = deaf();
    let mut node = to(&network, &[dead(), silent, dead(), at]);
    let began = Instant::now();
    node.bootstrap(CrustUser::Node);
    assert_eq!(node.expect_bootstrap(), (hub.id, at));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    hub.expect_accept(node.id, CrustUser::Node);
}

#[test]
fn who_stops_hears_no_more_of_it() {
    let network = network();
    let (_listener, silent) = deaf();
    let (hub, at) = Node::listening(config(&network));
    let mut node = to(&network, &[silent, at]);
    let blacklist: HashSet<SocketAddr> = vec![at].into_iter().collect();
    unwrap!(node.service.start_bootstrap(blacklist, CrustUser::Client));
    unwrap!(node.service.stop_bootstrap());
    node.expect_nothing();
    node.bootstrap(CrustUser::Client);
    assert_eq!(node.expect_bootstrap().0, hub.id);
}

#[test]
fn only_who_accepts_is_bootstrapped_from() {
    let network = network();
    let (mut hub, at) = Node::listening(config(&network));
    let mut node = to(&network, &[at]);
    for _ in 0..2 {
        unwrap!(hub.service.set_accept_bootstrap(false));
        node.bootstrap(CrustUser::Client);
        node.expect_bootstrap_failed();
        unwrap!(hub.service.set_accept_bootstrap(true));
        node.bootstrap(CrustUser::Client);
        assert_eq!(node.expect_bootstrap().0, hub.id);
        hub.expect_accept(node.id, CrustUser::Client);
        // Again at once, as routing does.
        assert!(node.service.disconnect(&hub.id));
        node.expect_lost(hub.id);
        hub.expect_lost(node.id);
    }
}

#[test]
fn a_denial_ends_nothing_and_other_networks_are_nobody() {
    let (network, other) = (network(), network());
    let (denying, first) = Node::listening(config(&network));
    unwrap!(denying.service.set_accept_bootstrap(false));
    let (_foreign, second) = Node::listening(config(&other));
    // Whoever speaks something else is nobody, too.
    let (listener, third) = deaf();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = unwrap!(stream);
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        }
    });
    let mut node = to(&network, &[first, second, third]);
    node.bootstrap(CrustUser::Client);
    node.expect_bootstrap_failed();
    let (good, fourth) = Node::listening(config(&network));
    let mut node = to(&network, &[first, second, third, fourth]);
    for _ in 0..5 {
        node.bootstrap(CrustUser::Client);
        assert_eq!(node.expect_bootstrap().0, good.id);
        node.service.disconnect(&good.id);
        node.expect_lost(good.id);
    }
}

#[test]
fn a_node_must_be_reachable_from_outside_and_a_client_need_not() {
    let network = network();
    let mut with = config(&network);
    with.dev = None;
    let (mut hub, at) = Node::listening(with);
    let mut node = to(&network, &[at]);
    node.listen();
    node.bootstrap(CrustUser::Node); // from this machine: that is not outside
    node.expect_bootstrap_failed();
    node.bootstrap(CrustUser::Client);
    assert_eq!(node.expect_bootstrap().0, hub.id);
    hub.expect_accept(node.id, CrustUser::Client);

    // An address of the Internet, if whoever runs this has given one to this machine.
    let global = match std::env::var("CRUST_COMPAT_GLOBAL") {
        Ok(ip) => unwrap!(ip.parse()),
        Err(_) => return,
    };
    let mut node = to(&network, &[SocketAddr::new(global, at.port())]);
    node.bootstrap(CrustUser::Node); // it listens nowhere
    node.expect_bootstrap_failed();
    node.listen();
    node.bootstrap(CrustUser::Node);
    assert_eq!(node.expect_bootstrap().0, hub.id);
    hub.expect_accept(node.id, CrustUser::Node);
}

#[test]
fn nobody_bootstraps_from_itself() {
    let network = network();
    let taken = dead();
    let mut with = config(&network);
    with.tcp_acceptor_port = Some(taken.port());
    with.hard_coded_contacts = vec![taken];
    let (mut node, _) = Node::listening(with);
    node.bootstrap(CrustUser::Client);
    node.expect_bootstrap_failed();
}

#[test]
fn a_service_comes_back_by_its_cache() {
    let network = network();
    let (mut hub, at) = Node::listening(config(&network));
    let mut with = config(&network);
    let cache = with.bootstrap_cache_name.clone();
    let mut node = Node::new(with.clone());
    let (of_node, of_hub) = (node.prepare(), hub.prepare());
    unwrap!(node.service.connect(of_node, hand_over(&of_hub)));
    node.expect_success(hub.id);
    hub.expect_success(node.id);
    let id = node.id;
    drop(node);
    hub.expect_lost(id);
    let mut node = Node::new(with.clone());
    node.bootstrap(CrustUser::Client);
    let (id, found) = node.expect_bootstrap();
    assert_eq!((id, found.port()), (hub.id, at.port()));
    hub.expect_accept(node.id, CrustUser::Client);
    assert!(!node.service.is_peer_hard_coded(&hub.id));
    // Hard-coded contacts need not be remembered, and nobody else is.
    with.bootstrap_cache_name = config(&network).bootstrap_cache_name;
    let mut stranger = Node::new(with);
    stranger.bootstrap(CrustUser::Client);
    stranger.expect_bootstrap_failed();
    let _ = std::fs::remove_file(unwrap!(cache));
}

#[test]
fn two_of_one_name_are_not_connected() {
    let network = network();
    let (mut hub, at) = Node::listening(config(&network));
    let mut node = to(&network, &[at]);
    node.bootstrap(CrustUser::Client);
    node.expect_bootstrap();
    hub.expect_accept(node.id, CrustUser::Client);
    let mut with = config(&network);
    with.hard_coded_contacts = vec![at];
    let mut twin = Node::with_id(with.clone(), node.id);
    twin.bootstrap(CrustUser::Client);
    twin.expect_bootstrap_failed();
    let mut myself = Node::with_id(with, hub.id);
    myself.bootstrap(CrustUser::Client);
    myself.expect_bootstrap_failed();
    hub.expect_nothing();
    unwrap!(hub.service.send(&node.id, vec![1], 0));
    match node.next() {
        Event::NewMessage(id, CrustUser::Node, message) => {
            assert_eq!((id, message), (hub.id, vec![1]))
        }
        event => panic!("{:?}", event),
    }
}
