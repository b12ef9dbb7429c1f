//! How services begin and end.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::{Node, PATIENCE, couple, listening, pair, wait};
use crust::{Config, ErrorKind, Event, Service};

#[test]
fn dropping_a_service_closes_it_and_the_peer_sees_the_loss() {
    let (mut a, b) = couple();
    let (to, from) = (a.id(), b.id());
    b.service.send(&to, "last words", 1).unwrap();
    let Node {
        service,
        mut events,
    } = b;
    let clone = service.clone();
    drop(service);
    clone.send(&to, "a clone keeps it alive", 1).unwrap();
    drop(clone);
    // What was accepted is delivered, then the loss is seen on both sides.
    assert_eq!(&*a.message(), b"last words");
    assert_eq!(&*a.message(), b"a clone keeps it alive");
    let (peer, error) = a.lost();
    assert_eq!((peer, error.kind()), (from, ErrorKind::Disconnected));
    // The events outlive the service and end with Stopped.
    let loss = wait(&mut events, "the loss", |event| match event {
        Event::Lost { peer, error, .. } => Some((peer, error.kind())),
        _ => None,
    });
    assert_eq!(loss, (to, ErrorKind::Disconnected));
    let rest: Vec<Event> = events.by_ref().collect();
    assert!(
        matches!(rest[..], [Event::Stopped { error: None, .. }]),
        "{rest:?}"
    );
    assert_eq!(events.error(), None);
}

#[test]
fn dropping_the_events_closes_the_service() {
    let (mut a, b) = couple();
    let from = b.id();
    drop(b.events);
    assert_eq!(a.lost().0, from);
    let error = b.service.prepare_connection_info(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn unread_events_hold_up_nobody_s_end() {
    let (a, b) = pair(
        listening()
            .event_queue_bytes(1 << 20)
            .close_timeout(PATIENCE),
        Config::new().no_listen().close_timeout(PATIENCE),
    );
    // More than A takes in while nobody reads.
    let to = a.id();
    let mut sent = 0;
    let full = loop {
        match b.service.send(&to, [0; 10_000], 1) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock, "after {sent} messages");
    // A ends without having read, long before its time to close is over. Then B,
    // whichever of service and events goes last.
    let began = Instant::now();
    drop((a.events, a.service));
    drop((b.service, b.events));
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
}

#[test]
fn closing_ends_a_wait_in_another_thread() {
    let (service, events) = Service::new(Config::new().no_listen()).unwrap();
    let waiting = thread::spawn(move || events.last());
    service.close();
    let last = waiting.join().unwrap();
    assert!(
        matches!(last, Some(Event::Stopped { error: None, .. })),
        "{last:?}"
    );
}

#[test]
fn waking_up_ends_a_wait_once() {
    let (service, mut events) = Service::new(Config::new().no_listen()).unwrap();
    service.wakeup().unwrap();
    assert!(events.next_timeout(PATIENCE).unwrap().is_none());
    // The next wait is a wait again: it ends by its own timeout.
    assert!(
        events
            .next_timeout(Duration::from_millis(1))
            .unwrap()
            .is_none()
    );
    service.wakeup().unwrap();
    assert!(events.next_batch(None).unwrap().is_none());
    // Iterating is not disturbed.
    service.wakeup().unwrap();
    service.close();
    assert!(matches!(events.next(), Some(Event::Stopped { .. })));
}

#[cfg(unix)]
#[test]
fn the_descriptor_is_readable_while_events_wait() {
    use std::ffi::{c_int, c_short, c_ulong};
    use std::os::fd::AsRawFd;

    #[repr(C)]
    struct PollFd {
        fd: c_int,
        events: c_short,
        revents: c_short,
    }
    unsafe extern "C" {
        fn poll(fds: *mut PollFd, n: c_ulong, timeout_ms: c_int) -> c_int;
    }
    const POLLIN: c_short = 1;
    let readable = |node: &Node, timeout: Duration| {
        let mut asked = PollFd {
            fd: node.events.fd().unwrap().as_raw_fd(),
            events: POLLIN,
            revents: 0,
        };
        // SAFETY: one struct of the shape that poll(2) wants.
        unsafe { poll(&mut asked, 1, timeout.as_millis() as c_int) == 1 }
    };
    let (a, mut b) = couple();
    while b.events.try_next().unwrap().is_some() {}
    assert!(!readable(&b, Duration::ZERO));
    a.service.send(&b.id(), "ring", 0).unwrap();
    assert!(readable(&b, PATIENCE));
    assert!(readable(&b, Duration::ZERO), "it is level-triggered");
    assert_eq!(&*b.message(), b"ring");
    assert!(!readable(&b, Duration::ZERO));
}

#[test]
fn many_services_come_and_go_in_several_threads() {
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let (mut a, b) = couple();
                    b.service.send(&a.id(), "hi", 0).unwrap();
                    a.message();
                }
            });
        }
    });
}

#[test]
fn one_process_holds_a_mesh() {
    const NODES: usize = 6;
    let mut nodes: Vec<Node> = (0..NODES).map(|_| Node::new(listening())).collect();
    let contacts: Vec<String> = nodes
        .iter_mut()
        .map(|node| format!("{}#{}", node.endpoint(), node.id()))
        .collect();
    // Everybody connects to everybody, so each pair connects from both sides.
    for (i, node) in nodes.iter().enumerate() {
        for (j, contact) in contacts.iter().enumerate() {
            if i != j {
                node.service
                    .connect_endpoint(contact, j as u64 + 1)
                    .unwrap();
            }
        }
    }
    for (i, node) in nodes.iter_mut().enumerate() {
        let (mut sessions, mut answers) = (0, 0);
        while sessions < NODES - 1 || answers < NODES - 1 {
            let (session, answer) = node.wait("sessions and answers", |event| match event {
                Event::Connected { token, .. } => Some((1, usize::from(token != 0))),
                Event::AlreadyConnected { .. } => Some((0, 1)),
                Event::ConnectFailed { error, .. } => panic!("node {i}: {error}"),
                Event::Lost { error, .. } => panic!("node {i}: {error}"),
                _ => None,
            });
            sessions += session;
            answers += answer;
        }
        assert_eq!((sessions, answers), (NODES - 1, NODES - 1), "node {i}");
        assert_eq!(node.service.peers().unwrap().len(), NODES - 1);
    }
}
