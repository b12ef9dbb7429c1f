//! Sessions that outlive their links, and receipts.

mod common;

use std::io::{ErrorKind as IoErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use common::{Node, PATIENCE, couple, listening};
use crust::{Config, ErrorKind, Event, How};

/// Carries TCP connections to a listener, and cuts them when told. Its threads end
/// with their connections, and with the test.
struct Relay {
    endpoint: String,
    ends: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn to(endpoint: &str) -> Self {
        let target = endpoint.strip_prefix("tcp://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let ends: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                for one in listener.incoming().map_while(Result::ok) {
                    let Ok(other) = TcpStream::connect(&target) else {
                        continue;
                    };
                    let twins = (one.try_clone().unwrap(), other.try_clone().unwrap());
                    let mut ends = ends.lock().unwrap();
                    ends.push(one.try_clone().unwrap());
                    ends.push(other.try_clone().unwrap());
                    thread::spawn(move || carry(one, other));
                    thread::spawn(move || carry(twins.1, twins.0));
                }
            }
        });
        Self { endpoint, ends }
    }

    /// Ends the connections that there are.
    fn cut(&self) {
        for end in self.ends.lock().unwrap().drain(..) {
            if let Err(error) = end.shutdown(Shutdown::Both) {
                assert_eq!(error.kind(), IoErrorKind::NotConnected); // the other side was faster
            }
        }
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 65536];
    while let Ok(n @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    for end in [from, to] {
        let _ = end.shutdown(Shutdown::Both);
    }
}

/// Two services connected through a relay, which the second has dialled.
fn pair_through(config: Config) -> (Node, Node, Relay) {
    let (mut a, mut b) = (Node::new(listening()), Node::new(config.no_listen()));
    let relay = Relay::to(&a.endpoint());
    b.service.connect_endpoint(&relay.endpoint, 1).unwrap();
    assert_eq!(b.connected(), a.id());
    assert_eq!(a.connected(), b.id());
    (a, b, relay)
}

#[test]
fn a_session_outlives_its_links() {
    let (mut a, mut b, relay) = pair_through(Config::new().resume_window(PATIENCE));
    let to = a.id();
    let mut sent = 0u32;
    for _ in 0..3 {
        let mut send = |n| {
            for _ in 0..n {
                b.service.send(&to, sent.to_be_bytes(), 1).unwrap();
                sent += 1;
            }
        };
        send(500);
        relay.cut();
        let (peer, endpoint, error) = common::wait(&mut b.events, "a cut", |event| match event {
            Event::Suspended {
                peer,
                endpoint,
                error,
                ..
            } => Some((peer, endpoint, error)),
            _ => None,
        });
        assert_eq!((peer, &endpoint), (to, &relay.endpoint));
        assert!(!error.to_string().is_empty());
        send(1); // as before
        let resumed = common::wait(&mut b.events, "a new link", |event| match event {
            Event::Resumed {
                peer,
                endpoint,
                how,
                ..
            } => Some((peer, endpoint, how)),
            _ => None,
        });
        assert_eq!(resumed, (to, relay.endpoint.clone(), How::Dialed));
    }
    for number in 0..sent {
        assert_eq!(*a.message(), number.to_be_bytes());
    }
    let info = b.service.peer(&to).unwrap();
    assert_eq!((info.suspended, info.resumed), (false, 3));
    assert_eq!(b.service.stats().unwrap().resumptions, 3);
}

#[test]
fn a_session_that_does_not_resume_is_lost() {
    let (a, mut b, relay) = pair_through(Config::new().no_resume());
    relay.cut();
    let (peer, error, count) = b.wait("a loss", |event| match event {
        Event::Suspended { .. } => panic!("{event:?}"),
        Event::Lost {
            peer, error, count, ..
        } => Some((peer, error, count)),
        _ => None,
    });
    assert_eq!((peer, error.kind(), count), (a.id(), ErrorKind::Reset, 0));
}

#[test]
fn receipts_have_one_answer_each() {
    let (mut a, mut b) = couple();
    let answer = |node: &mut Node| {
        node.wait("a receipt", |event| match event {
            Event::Delivered {
                token, peer, error, ..
            } => Some((token, peer, error)),
            _ => None,
        })
    };
    for token in 1..=100 {
        let text = token.to_string();
        b.service.send_receipt(&a.id(), text, 1, token).unwrap();
    }
    for token in 1..=100 {
        assert_eq!(answer(&mut b), (token, a.id(), None));
        assert_eq!(*a.message(), *token.to_string().as_bytes());
    }
    let error = b.service.send_receipt(&b.id(), "x", 1, 101).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPeer);
    // A session that ends first: there is a last word all the same.
    b.service.send_receipt(&a.id(), "x", 1, 102).unwrap();
    a.service.disconnect(&b.id()).unwrap();
    assert_eq!(answer(&mut b).0, 102);
}
