//! Messages.

use crust::{CrustError, CrustUser, Event, Priority, MSG_DROP_PRIORITY};
use crust_0_31_program::*;

use std::net::SocketAddr;
use unwrap::unwrap;

const LIMIT: usize = 2 * 1024 * 1024 - 12;

#[test]
fn messages_of_all_sizes_arrive_and_too_large_ones_come_back() {
    let (mut a, mut b) = pair();
    let (of_a, of_b) = (a.id, b.id);
    for len in vec![0, 1, 1024, 20 * 1024, LIMIT] {
        unwrap!(a.service.send(&of_b, vec![len as u8; len], 0));
        let (user, message) = b.expect_message(of_a);
        assert_eq!((user, message.len()), (CrustUser::Node, len));
        assert!(message.iter().all(|byte| *byte == len as u8));
    }
    unwrap!(a.service.send(&of_b, vec![5; LIMIT + 1], 0));
    match a.next() {
        Event::WriteMsgSizeProhibitive(id, message) => {
            assert_eq!((id, message.len()), (of_b, LIMIT + 1))
        }
        event => panic!("{:?}", event),
    }
    unwrap!(b.service.send(&of_a, vec![9], 3));
    assert_eq!(a.expect_message(of_b).1, [9]);
}

#[test]
fn a_mesh_gets_everything_in_order() {
    const NODES: usize = 6;
    const MESSAGES: u8 = 30;
    let network = network();
    let mut nodes: Vec<Node> = (0..NODES)
        .map(|_| Node::listening(config(&network)).0)
        .collect();
    for i in 0..NODES {
        for j in 0..i {
            let (head, tail) = nodes.split_at_mut(i);
            connect(&mut tail[0], &mut head[j]);
        }
    }
    let ids: Vec<Id> = nodes.iter().map(|node| node.id).collect();
    for node in &nodes {
        for n in 0..MESSAGES {
            for id in ids.iter().filter(|id| **id != node.id) {
                unwrap!(node.service.send(id, vec![n; 20 * 1024], 2));
            }
        }
    }
    for node in &mut nodes {
        let mut next = counted::<Id>(vec![]);
        for _ in 0..MESSAGES as usize * (NODES - 1) {
            match node.next() {
                Event::NewMessage(id, _, message) => {
                    let n = next.entry(id).or_insert(0);
                    assert_eq!(message, vec![*n as u8; 20 * 1024]);
                    *n += 1;
                }
                event => panic!("{:?}", event),
            }
        }
        node.expect_nothing();
    }
}

#[test]
fn what_is_urgent_overtakes() {
    let (a, mut b) = pair();
    let of_a = a.id;
    let last: Priority = 250;
    for _ in 0..30 {
        unwrap!(a.service.send(&b.id, vec![last; 2_000_000], last));
    }
    for priority in 0..MSG_DROP_PRIORITY + 1 {
        unwrap!(a.service.send(&b.id, vec![priority], priority));
    }
    let order: Vec<u8> = (0..33).map(|_| b.expect_message(of_a).1[0]).collect();
    let before = unwrap!(order.iter().position(|byte| *byte == 0));
    assert!(before < 25, "{:?}", order);
    let urgent: Vec<&u8> = order.iter().filter(|byte| **byte != last).collect();
    assert_eq!(urgent, [&0, &1, &2]);
}

#[test]
fn what_was_sent_before_the_end_arrives() {
    for end in 0..2 {
        let (mut a, mut b) = pair();
        let (of_a, of_b) = (a.id, b.id);
        for n in 0..1000 {
            unwrap!(a.service.send(&of_b, vec![n as u8], 0));
        }
        if end == 0 {
            drop(a);
        } else {
            assert!(a.service.disconnect(&of_b));
            a.expect_lost(of_b);
        }
        for n in 0..1000 {
            assert_eq!(b.expect_message(of_a).1, [n as u8]);
        }
        b.expect_lost(of_a);
    }
}

#[test]
fn nobody_can_be_sent_to_who_is_not_there() {
    let (mut a, b) = pair();
    let stranger = Id::new();
    let refused = |node: &Node, id: &Id| match node.service.send(id, vec![1], 0) {
        Err(CrustError::PeerNotFound) => {}
        result => panic!("{:?}", result),
    };
    refused(&a, &stranger);
    assert!(a.service.get_peer_ip_addr(&stranger).is_err());
    assert!(!a.service.disconnect(&stranger));
    let id = b.id;
    drop(b);
    a.expect_lost(id);
    refused(&a, &id);
    assert!(!a.service.is_connected(&id));
}

#[test]
fn a_message_carries_the_role_of_its_sender() {
    let network = network();
    let (mut hub, at): (Node, SocketAddr) = Node::listening(config(&network));
    for user in vec![CrustUser::Client, CrustUser::Node] {
        let mut with = config(&network);
        with.hard_coded_contacts = vec![at];
        let mut node = Node::new(with);
        node.bootstrap(user);
        node.expect_bootstrap();
        hub.expect_accept(node.id, user);
        unwrap!(node.service.send(&hub.id, vec![1], 0));
        assert_eq!(hub.expect_message(node.id), (user, vec![1]));
        unwrap!(hub.service.send(&node.id, vec![2], 0));
        assert_eq!(node.expect_message(hub.id), (CrustUser::Node, vec![2]));
        let id = node.id;
        drop(node);
        hub.expect_lost(id);
    }
}
