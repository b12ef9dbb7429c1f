//! Connecting by connection info.

use crust::{CrustError, CrustUser, Event, PubConnectionInfo};
use crust_0_31_program::*;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use unwrap::unwrap;

#[test]
fn both_sides_connect_and_each_is_told_once() {
    let (mut a, mut b) = pair();
    assert!(a.service.is_connected(&b.id) && b.service.is_connected(&a.id));
    assert!(
        unwrap!(a.service.get_peer_ip_addr(&b.id)).is_loopback()
            || !unwrap!(a.service.get_peer_ip_addr(&b.id)).is_unspecified()
    );
    assert!(!a.service.is_peer_hard_coded(&b.id));
    // Again, and from one side: nothing.
    let (of_a, of_b) = (a.prepare(), b.prepare());
    unwrap!(a.service.connect(of_a, hand_over(&of_b)));
    a.expect_nothing();
    b.expect_nothing();
}

#[test]
fn one_side_is_enough() {
    let network = network();
    let (mut a, _) = Node::listening(config(&network));
    let mut b = Node::new(config(&network));
    let (of_a, of_b) = (a.prepare(), b.prepare());
    let to_a = hand_over(&of_a);
    assert_eq!(to_a.id(), a.id);
    unwrap!(b.service.connect(of_b, to_a));
    b.expect_success(a.id);
    a.expect_success(b.id);
    unwrap!(b.service.send(&a.id, vec![1, 2, 3], 1));
    let id = b.id;
    assert_eq!(a.expect_message(id), (CrustUser::Node, vec![1, 2, 3]));
    assert_eq!(a.service.id(), a.id);
}

#[test]
fn crossed_connects_make_one_connection() {
    let network = network();
    let (mut a, _) = Node::listening(config(&network));
    let (mut b, _) = Node::listening(config(&network));
    for round in 0..100u8 {
        connect(&mut a, &mut b);
        unwrap!(a.service.send(&b.id, vec![round], 0));
        unwrap!(b.service.send(&a.id, vec![round], 0));
        let (of_a, of_b) = (a.id, b.id);
        assert_eq!(a.expect_message(of_b).1, [round]);
        assert_eq!(b.expect_message(of_a).1, [round]);
        assert!(a.service.disconnect(&of_b));
        assert!(!a.service.is_connected(&of_b));
        assert!(!a.service.disconnect(&of_b));
        a.expect_lost(of_b);
        b.expect_lost(of_a);
    }
}

#[test]
fn connecting_to_oneself_is_an_error() {
    let (mut a, _) = Node::listening(config(&network()));
    let (one, other) = (a.prepare(), a.prepare());
    match a.service.connect(one, hand_over(&other)) {
        Err(CrustError::RequestedConnectToSelf) => {}
        result => panic!("{:?}", result),
    }
    a.expect_nothing();
}

#[test]
fn who_is_gone_is_a_failure_told_once() {
    let network = network();
    let mut a = Node::new(config(&network));
    let (mut b, _) = Node::listening(config(&network));
    let of_b = b.prepare();
    let (id, info) = (b.id, hand_over(&of_b));
    drop(b);
    let of_a = a.prepare();
    let began = Instant::now();
    unwrap!(a.service.connect(of_a, info));
    match a.within(Duration::from_secs(65)) {
        Some(Event::ConnectFailure(failed)) => assert_eq!(failed, id),
        event => panic!("{:?}", event),
    }
    assert!(
        began.elapsed() < Duration::from_secs(61),
        "{:?}",
        began.elapsed()
    );
    a.expect_nothing();
}

#[test]
fn who_listens_nowhere_is_a_failure() {
    let network = network();
    let (mut a, mut b) = (Node::new(config(&network)), Node::new(config(&network)));
    let (of_a, of_b) = (a.prepare(), b.prepare());
    unwrap!(a.service.connect(of_a, hand_over(&of_b)));
    match a.within(Duration::from_secs(65)) {
        Some(Event::ConnectFailure(id)) => assert_eq!(id, b.id),
        event => panic!("{:?}", event),
    }
    b.expect_nothing();
}

#[test]
fn an_info_of_another_name_is_a_failure() {
    let network = network();
    let (mut a, _) = Node::listening(config(&network));
    let (mut b, _) = Node::listening(config(&network));
    let (of_a, of_b) = (a.prepare(), b.prepare());
    // As if somebody had put his name over the info of b.
    let mut text: serde_json::Value = unwrap!(serde_json::to_value(of_b.to_pub_connection_info()));
    let stranger = Id::new();
    text["id"] = unwrap!(serde_json::to_value(stranger));
    let forged: PubConnectionInfo<Id> = unwrap!(serde_json::from_value(text));
    unwrap!(a.service.connect(of_a, forged));
    match a.next() {
        Event::ConnectFailure(id) => assert_eq!(id, stranger),
        event => panic!("{:?}", event),
    }
    assert!(!a.service.is_connected(&b.id) && !a.service.is_connected(&stranger));
    b.expect_nothing();
}

#[test]
fn strangers_and_floods_do_not_disturb() {
    let network = network();
    let (mut a, at) = Node::listening(config(&network));
    let mut connections = Vec::new();
    for n in 0..200u8 {
        let mut stream = unwrap!(TcpStream::connect(at));
        match n % 4 {
            0 => {} // silent
            1 => drop(stream.write_all(&[0xff; 64])),
            2 => drop(stream.write_all(&vec![n; 5000])),
            _ => drop(stream.write_all(&[0, 0, 0, 1])),
        }
        connections.push(stream);
    }
    let floods: Vec<_> = (0..4)
        .map(|_| thread::spawn(move || (0..125).filter(|_| TcpStream::connect(at).is_ok()).count()))
        .collect();
    let mut b = Node::new(config(&network));
    let (of_a, of_b) = (a.prepare(), b.prepare());
    let began = Instant::now();
    unwrap!(b.service.connect(of_b, hand_over(&of_a)));
    b.expect_success(a.id);
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    a.expect_success(b.id);
    for flood in floods {
        assert_eq!(unwrap!(flood.join()), 125);
    }
    // A silent one is given up after seconds.
    let mut silent = connections.swap_remove(0);
    unwrap!(silent.set_read_timeout(Some(Duration::from_secs(20))));
    match silent.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(ref e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        result => panic!("{:?}", result),
    }
    a.expect_nothing();
}

#[test]
fn a_connection_elsewhere_is_not_one_with_the_peer() {
    let network = network();
    let (mut a, _) = Node::listening(config(&network));
    let mut b = Node::new(config(&network));
    // Where b said that it listens now somebody else does.
    let port = b.listen();
    let info = b.prepare();
    let (id, forwarded) = (b.id, hand_over(&info));
    drop(b);
    let _imposter = unwrap!(TcpListener::bind(("0.0.0.0", port)));
    let of_a = a.prepare();
    unwrap!(a.service.connect(of_a, forwarded));
    match a.within(Duration::from_secs(65)) {
        Some(Event::ConnectFailure(failed)) => assert_eq!(failed, id),
        event => panic!("{:?}", event),
    }
}
