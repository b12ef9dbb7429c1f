//! Services that discover each other, on the loopback network of this machine.

mod common;

use std::env;
use std::process::Command;

use common::{Node, listening};
use crust::{Beacon, By, Event, Role};

const CHILD: &str = "CRUST_LAN_TEST_CHILD";

#[test]
fn two_on_one_machine_discover_each_other() {
    if env::var_os(CHILD).is_none() {
        // In the environment of the tests CRUST_BEACON is off, which counts as it was
        // when the process began.
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", "two_on_one_machine_discover_each_other"])
            .env(CHILD, "1")
            .env_remove("CRUST_BEACON")
            .status()
            .unwrap();
        assert!(status.success());
        return;
    }
    // None that sockets get at random.
    let port = 20_000 + (std::process::id() % 10_000) as u16;
    let config = || {
        listening()
            .network_name("lan of the tests in Rust")
            .beacon_port(port)
    };
    let mut one = Node::new(config().role(Role::Client));
    let mut other = Node::new(config());
    let _off = Node::new(config().beacon(Beacon::Off));
    let mut quiet = Node::new(config().beacon(Beacon::Listen));
    let discovered = |node: &mut Node| {
        node.wait("a discovery", |event| match event {
            Event::Discovered {
                peer,
                endpoint,
                role,
                by,
                ..
            } => Some((peer, endpoint, role, by)),
            _ => None,
        })
    };
    let at = other.service.listeners().unwrap().remove(0);
    let found = discovered(&mut one);
    assert_eq!(found, (other.id(), at.clone(), Role::Node, By::Beacon));
    let found = discovered(&mut other);
    assert_eq!((found.0, found.2), (one.id(), Role::Client));
    let peers = one.service.peers_on_lan().unwrap();
    assert_eq!(peers.len(), 1);
    assert_eq!((peers[0].peer, peers[0].role), (other.id(), Role::Node));
    assert_eq!(peers[0].endpoints, [at]);

    let third = Node::new(config());
    let found = discovered(&mut quiet);
    assert!(
        [one.id(), other.id(), third.id()].contains(&found.0),
        "{found:?}"
    );
    one.service.set_beacon(Beacon::Off).unwrap();
    assert!(one.service.peers_on_lan().unwrap().is_empty());
    one.service.set_beacon(Beacon::Ask).unwrap();
    one.service.set_beacon(Beacon::On).unwrap();
    discovered(&mut one);
    discovered(&mut one);
    let gone = other.id();
    drop(other);
    let forgotten = one.wait("a goodbye", |event| match event {
        Event::Forgotten { peer, by, .. } => Some((peer, by)),
        _ => None,
    });
    assert_eq!(forgotten, (gone, By::Beacon));
}

#[test]
fn who_has_it_off_hears_nobody() {
    let node = Node::new(listening().beacon(Beacon::Off));
    assert!(node.service.peers_on_lan().unwrap().is_empty());
}
