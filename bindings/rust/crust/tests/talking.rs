//! Services that connect and talk.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Node, PATIENCE, couple, listening, pair};
use crust::{
    AlertKind, Cipher, Config, ErrorKind, Event, Gossip, Group, GroupState, How, MAX_MESSAGE,
    Outgoing, Relay, Role,
};

#[test]
fn hello_both_ways_by_connection_info() {
    let mut alice = Node::new(listening().app_id("alice"));
    let mut bob = Node::new(listening().app_id("bob").role(Role::Client));
    alice.service.prepare_connection_info(11).unwrap();
    let info = alice.wait("connection info", |event| match event {
        Event::ConnectionInfo { token, info, .. } => Some((token, info)),
        _ => None,
    });
    assert_eq!(info.0, 11);
    assert_eq!(crust::connection_info_peer(&info.1), Ok(alice.id()));
    bob.service.connect(&info.1, 12).unwrap();

    let side = |node: &mut Node| {
        node.wait("a session", |event| match event {
            Event::Connected {
                peer,
                token,
                how,
                role,
                endpoint,
                app_id,
                took,
                ..
            } => {
                assert!(endpoint.starts_with("tcp://"), "{endpoint}");
                assert!(took < PATIENCE);
                Some((peer, token, how, role, app_id.to_vec()))
            }
            _ => None,
        })
    };
    assert_eq!(
        side(&mut bob),
        (alice.id(), 12, How::Dialed, Role::Node, b"alice".to_vec())
    );
    assert_eq!(
        side(&mut alice),
        (bob.id(), 0, How::Accepted, Role::Client, b"bob".to_vec())
    );

    alice.service.send(&bob.id(), "hello Bob", 0).unwrap();
    bob.service.send(&alice.id(), b"hello Alice", 9).unwrap();
    let message = bob.message();
    assert_eq!((message.peer, message.priority), (alice.id(), 0));
    assert_eq!(&*message, b"hello Bob");
    let message = alice.message();
    assert_eq!((message.peer, message.priority), (bob.id(), 9));
    assert_eq!(message.as_ref(), b"hello Alice");
}

#[test]
fn two_meet_through_a_third() {
    let (mut third, mut alice) = couple();
    let mut bob = Node::new(listening());
    bob.service.connect_peer(&alice.id(), 4).unwrap(); // nobody can introduce them yet
    let (token, error) = bob.connect_failed();
    assert_eq!((token, error.kind()), (4, ErrorKind::NoEndpoint), "{error}");
    let contact = format!("{}#{}", third.service.listeners().unwrap()[0], third.id());
    bob.service.connect_endpoint(&contact, 5).unwrap();
    assert_eq!(bob.connected(), third.id());
    assert_eq!(third.connected(), bob.id());
    alice.service.connect_peer(&bob.id(), 6).unwrap();
    let met = alice.wait("a session", |event| match event {
        Event::Connected { peer, token, .. } => Some((peer, token)),
        Event::ConnectFailed { error, .. } => panic!("{error}"),
        _ => None,
    });
    assert_eq!(met, (bob.id(), 6));
    assert_eq!(bob.connected(), alice.id());
    bob.service.send(&alice.id(), "hello", 1).unwrap();
    assert_eq!(&*alice.message(), b"hello");
    bob.service
        .connect_peer_with(&alice.id(), 7, &["there", "already"])
        .unwrap();
    assert_eq!(&*alice.message(), b"there");
    assert_eq!(&*alice.message(), b"already");
    let error = bob
        .service
        .connect_peer_with(&alice.id(), 8, &[[0; 16_385]])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[test]
fn peers_that_gossip_tells_of_are_known() {
    let (third, mut alice) = pair(listening(), listening());
    let bob = Node::new(listening());
    let contact = format!("{}#{}", third.service.listeners().unwrap()[0], third.id());
    bob.service.connect_endpoint(&contact, 5).unwrap();
    let told = bob.id();
    alice.wait("news of bob", |event| match event {
        Event::Discovered { peer, .. } if peer == told => Some(()),
        _ => None,
    });
    let known = alice.service.known().unwrap();
    assert!(known.windows(2).all(|two| two[0].peer < two[1].peer));
    let bobs = known.iter().find(|k| k.peer == told).unwrap();
    assert_eq!((bobs.role, bobs.relays), (Role::Node, false));
    assert_eq!(bobs.endpoints, bob.service.listeners().unwrap());
    assert!(bobs.expires > Duration::ZERO);
    let quiet = Node::new(listening().gossip(Gossip::Answer));
    assert!(quiet.service.known().unwrap().is_empty());
}

#[test]
fn letters_are_not_carried_when_relaying_is_off() {
    let (third, alice) = pair(
        listening().relay(Relay::Off),
        Config::new()
            .no_listen()
            .gossip(Gossip::Off) // or she would know where bob is
            .connect_timeout(Duration::from_secs(1)),
    );
    let mut alice = alice;
    let mut bob = Node::new(listening());
    let contact = format!("{}#{}", third.service.listeners().unwrap()[0], third.id());
    bob.service.connect_endpoint(&contact, 5).unwrap();
    assert_eq!(bob.connected(), third.id());
    alice.service.connect_peer(&bob.id(), 6).unwrap();
    let (token, error) = alice.connect_failed();
    assert_eq!((token, error.kind()), (6, ErrorKind::Timeout), "{error}");
}

#[test]
fn links_come_about_in_the_ways_that_are_allowed() {
    let error = Node::try_new(listening().only([How::Unknown])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let mut shy = Node::new(listening().only([How::Dialed, How::Relayed]));
    let mut other = Node::new(listening());
    let at = |node: &Node| format!("{}#{}", node.service.listeners().unwrap()[0], node.id());
    other.service.connect_endpoint(&at(&shy), 5).unwrap();
    let (token, error) = other.connect_failed();
    assert_eq!((token, error.kind()), (5, ErrorKind::NotAllowed), "{error}");
    shy.service.connect_endpoint(&at(&other), 6).unwrap();
    assert_eq!(shy.connected(), other.id());
}

#[test]
fn a_second_connect_finds_the_session() {
    let (a, mut b) = couple();
    let contact = format!("{}#{}", a.service.listeners().unwrap()[0], a.id());
    b.service.connect_endpoint(&contact, 99).unwrap();
    let answer = b.wait("the answer", |event| match event {
        Event::AlreadyConnected { token, peer, .. } => Some((token, peer)),
        _ => None,
    });
    assert_eq!(answer, (99, a.id()));
    assert_eq!(b.service.peers().unwrap(), [a.id()]);
}

#[test]
fn the_largest_message_arrives_and_a_larger_one_is_refused() {
    let (mut a, b) = couple();
    let data: Vec<u8> = (0..=MAX_MESSAGE as u32)
        .map(|i| ((i * 7) >> 3) as u8)
        .collect();
    assert_eq!(data.len(), MAX_MESSAGE + 1);
    let error = b.service.send(&a.id(), &data, 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooBig);
    assert!(error.to_string().contains("2 MiB"), "{error}");
    b.service.send(&a.id(), &data[1..], 1).unwrap();
    let message = a.message();
    assert_eq!(message.len(), MAX_MESSAGE);
    assert!(*message == data[1..], "the bytes differ");
    // An empty message is a message, and the session is unharmed.
    b.service.send(&a.id(), [], 1).unwrap();
    assert!(a.message().is_empty());
}

#[test]
fn a_batch_arrives_in_order() {
    let (mut a, b) = couple();
    let texts: Vec<String> = (0..1000).map(|i| format!("message {i}")).collect();
    let to = a.id();
    let messages: Vec<Outgoing> = texts
        .iter()
        .map(|text| Outgoing::new(&to, text.as_bytes(), 3))
        .collect();
    let sent = b.service.send_batch(&messages).unwrap();
    assert_eq!((sent.accepted, sent.refused), (1000, None));
    for text in &texts {
        let message = a.message();
        assert_eq!((&*message, message.priority), (text.as_bytes(), 3));
    }
    assert_eq!(b.service.send_batch(&[]).unwrap().accepted, 0);
}

#[test]
fn a_batch_stops_at_the_first_refusal_and_says_why() {
    let (mut a, b) = couple();
    let (known, stranger) = (a.id(), b.id());
    let messages = [
        Outgoing::new(&known, b"one", 0),
        Outgoing::new(&known, b"two", 0),
        Outgoing::new(&stranger, b"nobody", 0),
        Outgoing::new(&known, b"not tried", 0),
    ];
    let sent = b.service.send_batch(&messages).unwrap();
    assert_eq!(sent.accepted, 2);
    let why = sent.refused.expect("a reason");
    assert_eq!(why.kind(), ErrorKind::UnknownPeer);
    assert!(!why.to_string().is_empty());
    b.service.send(&known, "three", 0).unwrap();
    let got: Vec<Vec<u8>> = (0..3).map(|_| a.message().to_vec()).collect();
    assert_eq!(got, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
}

#[test]
fn a_full_queue_refuses_and_says_when_there_is_room() {
    let (mut a, mut b) = pair(
        listening().event_queue_bytes(1 << 20),
        Config::new()
            .no_listen()
            .send_queue_bytes(MAX_MESSAGE as u64),
    );
    // Nobody reads A's events, so its queue fills, then the link, then B's queue.
    let data = vec![5; 64 << 10];
    let mut accepted = 0;
    let stalled = loop {
        let patience = Duration::from_millis(100);
        match b.service.send_wait(&a.id(), &data, 1, patience) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(
            accepted < 4096,
            "256 MiB were taken for a peer that does not read"
        );
    };
    assert_eq!(stalled.kind(), ErrorKind::Timeout, "{stalled}");
    // Waiting ends when there is much room again; a little may be left.
    let refusal = loop {
        match b.service.send(&a.id(), &data, 1) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(
            accepted < 4096,
            "256 MiB were taken for a peer that does not read"
        );
    };
    assert_eq!(refusal.kind(), ErrorKind::WouldBlock, "{refusal}");
    let info = b.service.peer(&a.id()).unwrap();
    assert!(info.queued_bytes > MAX_MESSAGE as u64 / 2, "{info:?}");
    assert!(a.service.stats().unwrap().backpressure_pauses > 0);
    for _ in 0..accepted {
        assert_eq!(a.message().len(), data.len());
    }
    let to = a.id();
    b.wait("room", |event| {
        matches!(event, Event::Writable { peer, .. } if peer == to).then_some(())
    });
    b.service.send_wait(&to, "again", 1, PATIENCE).unwrap();
    assert_eq!(&*a.message(), b"again");
}

#[test]
fn waiting_to_send_gets_through_to_a_slow_reader() {
    let (mut a, b) = pair(
        listening().event_queue_bytes(1 << 20),
        Config::new()
            .no_listen()
            .send_queue_bytes(MAX_MESSAGE as u64),
    );
    const COUNT: usize = 400;
    let to = a.id();
    let sender = thread::spawn({
        let handle = b.service.handle();
        move || {
            let data = vec![1; 64 << 10];
            (0..COUNT).try_for_each(|_| handle.send_wait(&to, &data, 1, None))
        }
    });
    for _ in 0..COUNT {
        assert_eq!(a.message().len(), 64 << 10);
    }
    sender.join().unwrap().unwrap();
}

#[test]
fn many_threads_use_one_service() {
    let (mut a, b) = couple();
    const THREADS: usize = 8;
    const EACH: usize = 50;
    let to = a.id();
    thread::scope(|scope| {
        for thread in 0..THREADS as u8 {
            let service = b.service.clone();
            scope.spawn(move || {
                for i in 0..EACH as u8 {
                    service.send_wait(&to, [thread, i], 1, PATIENCE).unwrap();
                    assert_eq!(service.peers().unwrap(), [to]);
                    assert_eq!(service.peer(&to).unwrap().peer, to);
                    assert_eq!(service.stats().unwrap().peers, 1);
                }
            });
        }
    });
    let mut next = [0u8; THREADS];
    for _ in 0..THREADS * EACH {
        let message = a.message();
        let [thread, i] = *message.payload else {
            panic!("{message:?}")
        };
        assert_eq!(
            next[usize::from(thread)],
            i,
            "thread {thread} is out of order"
        );
        next[usize::from(thread)] += 1;
    }
}

#[test]
fn looking_tells_what_happened() {
    let (mut a, b) = couple();
    b.service.send(&a.id(), "12345", 0).unwrap();
    a.message();
    let info = b.service.peer(&a.id()).unwrap();
    assert_eq!(
        (info.peer, info.how, info.role),
        (a.id(), How::Dialed, Role::Node)
    );
    assert_eq!(vec![info.endpoint], a.service.listeners().unwrap());
    assert_ne!(info.cipher, Cipher::Unknown);
    assert_eq!((info.sent_messages, info.sent_bytes), (1, 5));
    // Counters follow the events they count.
    let deadline = Instant::now() + PATIENCE;
    while a.service.stats().unwrap().received_messages == 0 && Instant::now() < deadline {
        thread::yield_now();
    }
    let info = a.service.peer(&b.id()).unwrap();
    assert_eq!(
        (info.how, info.received_messages, info.received_bytes),
        (How::Accepted, 1, 5)
    );
    let stats = a.service.stats().unwrap();
    assert_eq!(
        (stats.peers, stats.listeners, stats.sessions_total),
        (1, 1, 1)
    );
    assert_eq!((stats.received_messages, stats.received_bytes), (1, 5));
    assert!(
        stats.wire_received_bytes > 5 && stats.events_total >= 3,
        "{stats:?}"
    );
}

#[test]
fn chacha20_only_is_respected() {
    let (a, b) = pair(listening().chacha20_only(), Config::new().no_listen());
    assert_eq!(
        b.service.peer(&a.id()).unwrap().cipher,
        Cipher::ChaCha20Poly1305
    );
}

#[test]
fn listeners_come_and_go() {
    let mut node = Node::new(Config::new().no_listen());
    assert!(node.service.listeners().unwrap().is_empty());
    node.service.listen("tcp://127.0.0.1:0").unwrap();
    let endpoint = node.endpoint();
    assert_eq!(
        node.service.listeners().unwrap(),
        std::slice::from_ref(&endpoint)
    );
    node.service.stop_listening(&endpoint).unwrap();
    assert!(node.service.listeners().unwrap().is_empty());
    let error = node.service.stop_listening(&endpoint).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains(&endpoint), "{error}");
}

#[test]
fn bootstrapping_keeps_a_contact() {
    let mut a = Node::new(listening());
    let contact = a.endpoint();
    let mut b = Node::new(Config::new().no_listen().contact(contact.clone()));
    b.service.bootstrap(5).unwrap();
    assert_eq!(b.connected(), a.id());
    let answer = b.wait("the answer", |event| match event {
        Event::Bootstrapped {
            token,
            peer,
            endpoint,
            ..
        } => Some((token, peer, endpoint)),
        Event::BootstrapFailed { error, .. } => panic!("{error}"),
        _ => None,
    });
    assert_eq!(answer, (5, a.id(), contact));
    b.service.stop_bootstrap().unwrap(); // none runs: nothing happens
}

#[test]
fn messages_are_kept_without_their_service() {
    let (mut a, b) = couple();
    for i in 0..100u8 {
        b.service.send(&a.id(), [i; 300], 1).unwrap();
    }
    let messages: Vec<_> = (0..100).map(|_| a.message()).collect();
    drop((a, b));
    for (i, message) in messages.iter().enumerate() {
        assert_eq!(**message, [i as u8; 300]);
        assert_eq!(message.clone().payload, message.payload);
    }
}

#[test]
fn disconnecting_delivers_first_and_tells_both() {
    let (mut a, mut b) = couple();
    for i in 0..1000u32 {
        b.service
            .send_wait(&a.id(), i.to_be_bytes(), 1, PATIENCE)
            .unwrap();
    }
    b.service.disconnect(&a.id()).unwrap();
    for i in 0..1000u32 {
        assert_eq!(*a.message(), i.to_be_bytes());
    }
    let ids = (a.id(), b.id());
    for (node, other) in [(&mut a, ids.1), (&mut b, ids.0)] {
        let (peer, error) = node.lost();
        assert_eq!((peer, error.kind()), (other, ErrorKind::Disconnected));
        assert!(node.service.peers().unwrap().is_empty());
    }
}

#[test]
fn events_come_in_batches() {
    let (mut a, b) = couple();
    for i in 0..500u32 {
        b.service
            .send_wait(&a.id(), i.to_be_bytes(), 1, PATIENCE)
            .unwrap();
    }
    // One by one first, so that a batch is begun.
    assert_eq!(*a.message(), 0u32.to_be_bytes());
    let mut next = 1u32;
    while next < 500 {
        let batch = a.events.next_batch(PATIENCE).unwrap().expect("messages");
        assert!(batch.len() > 0);
        for event in batch {
            let Event::Message(message) = event else {
                panic!("{event:?}")
            };
            assert_eq!(*message, next.to_be_bytes());
            next += 1;
        }
    }
    assert!(a.events.try_next().unwrap().is_none());
    assert!(
        a.events
            .next_timeout(Duration::from_millis(1))
            .unwrap()
            .is_none()
    );
}

#[test]
fn peers_on_this_machine_tell_nothing_of_nats() {
    let (a, _b) = pair(listening(), listening());
    let nat = a.service.nat().unwrap();
    for flow in [&nat.udp, &nat.tcp] {
        assert_eq!(flow.confidence, crust::Confidence::None);
        assert_eq!(flow.mapping, crust::NatDepends::Unknown);
        assert_eq!(flow.filtering, crust::NatDepends::Unknown);
        assert_eq!(flow.ports, crust::NatPorts::Unknown);
        assert_eq!(flow.hairpin, None);
        assert!(flow.external.is_empty() && !flow.none && !flow.blocked);
    }
    assert!(!nat.reachable && !nat.cgnat);
    assert!(nat.why.contains("no peer has told"), "{}", nat.why);
    assert!(nat.servers.is_empty() && nat.mapped.is_empty());
}

#[test]
fn servers_of_stun_are_told() {
    let error = Node::try_new(listening().stun("0.0.0.0")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let node = Node::new(listening().stun("127.0.0.1:1").stun("127.0.0.2"));
    let servers = node.service.nat().unwrap().servers;
    let names: Vec<&str> = servers.iter().map(|one| one.server.as_str()).collect();
    assert_eq!(names, ["127.0.0.1:1", "127.0.0.2"]);
    assert_eq!(servers[0].seen, None);
}

#[test]
fn who_connects_and_says_nothing_is_told_of() {
    let mut node = Node::new(listening());
    let at = node.service.listeners().unwrap()[0].clone();
    for _ in 0..200 {
        std::net::TcpStream::connect(at.trim_start_matches("tcp://")).unwrap();
    }
    let (peer, address, count, suggest, text) = node.wait("an alert", |event| match event {
        Event::Alert {
            kind: AlertKind::Garbage,
            peer,
            address,
            count,
            suggest,
            suggest_for,
            text,
            ..
        } if suggest_for == Duration::from_secs(600) => Some((peer, address, count, suggest, text)),
        _ => None,
    });
    assert_eq!(peer, None);
    assert!((64..=200).contains(&count), "{count}");
    assert_eq!(suggest.as_deref(), Some(address.as_str()));
    assert_eq!(address, "127.0.0.1");
    assert!(text.contains(&format!("garbage: {count} times")), "{text}");
}

#[test]
fn a_group_is_kept_until_it_is_released() {
    let mut alice = Node::new(listening());
    let mut bob = Node::new(listening());
    let contact = format!("{}#{}", alice.service.listeners().unwrap()[0], alice.id());
    let group = Group::new("friends").peer(alice.id()).contact(contact);
    let next = |node: &mut Node, wanted: GroupState| {
        node.wait("a change of the group", |event| match event {
            Event::Group {
                group,
                state,
                peer,
                up,
                wanted: all,
                next,
                error,
                ..
            } if state == wanted => Some((group, peer, up, all, next, error)),
            _ => None,
        })
    };
    bob.service.keep(&group).unwrap();
    let up = next(&mut bob, GroupState::Up);
    assert_eq!(
        up,
        ("friends".to_owned(), Some(alice.id()), 1, 1, None, None)
    );
    assert_eq!(alice.connected(), bob.id());
    bob.service.disconnect(&alice.id()).unwrap();
    let dropped = next(&mut bob, GroupState::Dropped);
    assert_eq!((dropped.2, dropped.4), (0, None));
    assert_eq!(dropped.5.unwrap().kind(), ErrorKind::Disconnected);
    let groups = bob.service.groups().unwrap();
    assert_eq!((groups.len(), groups[0].name.as_str()), (1, "friends"));
    assert_eq!((groups[0].any, groups[0].up, groups[0].wanted), (0, 0, 1));
    assert_eq!(groups[0].peers[0].peer, alice.id());
    assert_eq!(groups[0].peers[0].state, GroupState::Dropped);
    bob.service.keep(&group).unwrap(); // it asks again
    next(&mut bob, GroupState::Up);
    assert_eq!(alice.connected(), bob.id()); // before that it would not say goodbye
    alice.service.close();
    assert!(next(&mut bob, GroupState::Down).4.is_some());
    bob.service.release("friends").unwrap();
    assert!(bob.service.groups().unwrap().is_empty());
    let any = Group::any("any", 3, Role::Client);
    bob.service.keep(&any).unwrap();
    let groups = bob.service.groups().unwrap();
    assert_eq!((groups[0].any, groups[0].role), (3, Role::Client));
    for (wrong, kind) in [
        (Group::new("nobody"), ErrorKind::Invalid),
        (Group::new("nul\0").peer(alice.id()), ErrorKind::Invalid),
        (Group::new("self").peer(bob.id()), ErrorKind::SelfConnect),
        (Group::new("info").info(*b"x"), ErrorKind::BadInfo),
    ] {
        assert_eq!(bob.service.keep(&wrong).unwrap_err().kind(), kind);
    }
    let error = bob.service.release("friends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
