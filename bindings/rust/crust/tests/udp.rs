//! uTP links, datagrams and ports.

mod common;

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use common::{Node, PATIENCE, couple, pair};
use crust::{Config, ErrorKind, Event, MAX_MESSAGE, Payload};

/// A configuration of a service without TCP.
fn utp() -> Config {
    Config::new().listen("utp://127.0.0.1:0")
}

/// Datagrams may be lost: sends one again until one has come.
fn exchange_datagram(from: &Node, to: &mut Node, data: &[u8]) -> Payload {
    for _ in 0..60 {
        from.service.send_datagram(&to.id(), data).unwrap();
        let patience = Duration::from_millis(500);
        while let Some(event) = to.events.next_timeout(patience).unwrap() {
            match event {
                Event::Datagram { peer, payload, .. } if *payload == *data => {
                    assert_eq!(peer, from.id());
                    return payload;
                }
                _ => {}
            }
        }
    }
    panic!("no datagram of {} bytes came", data.len());
}

#[test]
fn hello_both_ways_over_utp_alone() {
    assert!(crust::has("utp"));
    let (mut alice, mut bob) = (Node::new(utp()), Node::new(utp()));
    alice.service.prepare_connection_info(1).unwrap();
    let info = alice.wait("connection info", |event| match event {
        Event::ConnectionInfo { info, .. } => Some(info),
        _ => None,
    });
    bob.service.connect(&info, 2).unwrap();
    assert_eq!(bob.connected(), alice.id());
    assert_eq!(alice.connected(), bob.id());
    let endpoint = bob.service.peer(&alice.id()).unwrap().endpoint;
    assert_eq!(vec![endpoint], alice.service.listeners().unwrap());
    alice.service.send(&bob.id(), "hello Bob", 0).unwrap();
    bob.service.send(&alice.id(), "hello Alice", 0).unwrap();
    assert_eq!(&*bob.message(), b"hello Bob");
    assert_eq!(&*alice.message(), b"hello Alice");
    let large: Vec<u8> = (0..MAX_MESSAGE as u32)
        .map(|i| ((i * 7) >> 3) as u8)
        .collect();
    alice.service.send(&bob.id(), &large, 1).unwrap();
    assert!(*bob.message() == *large, "the bytes differ");
}

#[test]
fn datagrams_of_all_sizes() {
    let (a, mut b) = pair(utp(), utp());
    let most = a.service.max_datagram(&b.id()).unwrap();
    assert!((1100..65536).contains(&most), "{most}");
    let bytes: Vec<u8> = (0..=most as u32).map(|i| ((i * 11) >> 2) as u8).collect();
    for size in [1, 0, most] {
        let payload = exchange_datagram(&a, &mut b, &bytes[..size]);
        assert_eq!(payload.len(), size);
    }
    let error = a.service.send_datagram(&b.id(), [0; 70_000]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooBig);
    assert!(error.to_string().contains("70000 bytes"), "{error}");
    let error = a.service.send_datagram(&a.id(), "x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPeer);
    let error = a.service.max_datagram(&a.id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPeer);
    assert!(a.service.stats().unwrap().sent_datagrams >= 3);
    assert_eq!(b.service.stats().unwrap().sent_datagrams, 0);
}

#[test]
fn datagrams_over_tcp() {
    let (a, mut b) = couple();
    let bytes = vec![9; a.service.max_datagram(&b.id()).unwrap() + 1];
    assert!(bytes.len() > 1100, "{}", bytes.len());
    exchange_datagram(&a, &mut b, &bytes[1..]);
    let error = a.service.send_datagram(&b.id(), bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooBig);
}

/// The port of an endpoint.
fn port_of(endpoint: &str) -> u16 {
    let (_, port) = endpoint.rsplit_once(':').unwrap();
    port.parse().unwrap()
}

#[test]
fn a_live_port_is_tried_first() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let udp = UdpSocket::bind(("127.0.0.1", port)).unwrap();
    let endpoints = ["tcp://127.0.0.1:0", "utp://127.0.0.1:0"];
    let start = |endpoint: &str| {
        let mut node = Node::new(Config::new().listen(endpoint).live_port(port));
        port_of(&node.endpoint())
    };
    for endpoint in endpoints {
        assert_ne!(start(endpoint), port, "{endpoint}");
    }
    drop((taken, udp));
    for endpoint in endpoints {
        assert_eq!(start(endpoint), port, "{endpoint}");
    }
}

#[test]
fn ports_rotate_and_sessions_stay() {
    let rotation = Duration::from_millis(999);
    let error = Node::try_new(utp().port_rotation(rotation)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let mut a = Node::new(utp().port_rotation(Duration::from_secs(1)));
    let first = a.endpoint();
    let mut b = Node::new(Config::new().no_listen());
    b.service.connect_endpoint(&first, 1).unwrap();
    assert_eq!(b.connected(), a.id());
    assert_ne!(a.endpoint(), first);
    let stopped = a.wait("the end of a listener", |event| match event {
        Event::ListenerStopped { endpoint, .. } => Some(endpoint),
        _ => None,
    });
    assert_eq!(stopped, first);
    a.service
        .send_wait(&b.id(), "still here", 0, PATIENCE)
        .unwrap();
    assert_eq!(&*b.message(), b"still here");
}
