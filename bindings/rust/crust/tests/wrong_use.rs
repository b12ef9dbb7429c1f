//! What goes wrong is told in one sentence, with a kind.

mod common;

use std::time::Duration;

use common::{Node, couple, listening};
use crust::{Config, ErrorKind, Event, PeerId, Seed, Service};

fn refused(config: Config, words: &[&str]) {
    let error = Service::new(config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    for word in words {
        assert!(
            error.to_string().contains(word),
            "{error} does not say {word}"
        );
    }
    assert!(!error.to_string().contains('\n'), "{error}");
}

#[test]
fn configurations_out_of_bounds_are_refused() {
    refused(Config::new().network_name("x".repeat(257)), &["256"]);
    refused(Config::new().app_id([0; 257]), &["256"]);
    refused(Config::new().listen("tcp://nowhere"), &["tcp://nowhere"]);
    refused(Config::new().listen("smtp://127.0.0.1:25"), &["smtp"]);
    refused(
        Config::new().contact("127.0.0.1:1#abc"),
        &["peer id has 3 characters"],
    );
    refused(Config::new().send_queue_bytes(1), &["2097152"]);
    refused(Config::new().json("{\"colour\":1}"), &["colour"]);
    refused(Config::new().json("{"), &[]);
    refused(Config::new().network_name("a\0b"), &["network name", "NUL"]);
    refused(
        Config::new()
            .heartbeat(Duration::from_secs(10))
            .lost_after(Duration::from_secs(15)),
        &["twice"],
    );
}

#[test]
fn an_identity_file_that_cannot_be_read_is_named() {
    let directory = env!("CARGO_TARGET_TMPDIR");
    let error = Service::new(Config::new().identity_file(directory)).unwrap_err();
    assert!(error.to_string().contains(directory), "{error}");
    assert_ne!(error.kind(), ErrorKind::Internal, "{error}");
}

#[test]
fn an_identity_file_keeps_the_identity() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("identity-{}", std::process::id()));
    let id = || {
        let config = Config::new().no_listen().identity_file(&path);
        Service::new(config).map(|(service, _)| service.id())
    };
    let (first, second) = (id(), id());
    std::fs::remove_file(&path).unwrap();
    assert_eq!(first.unwrap(), second.unwrap());
}

#[cfg(unix)]
#[test]
fn an_identity_file_whose_path_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(b"/tmp/\xff"));
    refused(Config::new().identity_file(path), &["UTF-8"]);
}

#[test]
fn an_unknown_peer_is_named() {
    let node = Node::new(Config::new().no_listen());
    let stranger = Seed::generate().unwrap().1;
    let error = node.service.send(&stranger, "hello?", 0).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownPeer);
    assert_eq!(
        error.to_string(),
        format!("send {}: not connected to this peer", stranger.short())
    );
    let calls = [
        node.service.send_wait(&stranger, "hello?", 0, None),
        node.service.disconnect(&stranger),
        node.service.peer(&stranger).map(drop),
    ];
    for error in calls.map(Result::unwrap_err) {
        assert_eq!(error.kind(), ErrorKind::UnknownPeer, "{error}");
        assert!(error.to_string().contains(&stranger.short()), "{error}");
    }
}

#[test]
fn connecting_to_oneself_is_refused() {
    let mut node = Node::new(listening());
    let endpoint = node.endpoint();
    node.service.prepare_connection_info(1).unwrap();
    let info = node.wait("connection info", |event| match event {
        Event::ConnectionInfo { info, .. } => Some(info),
        _ => None,
    });
    let error = node.service.connect(&info, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SelfConnect, "{error}");
    let error = node.service.connect_peer(&node.id(), 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::SelfConnect, "{error}");
    let zero = crust::PeerId::from([0; 32]);
    let error = node.service.connect_peer(&zero, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    // At an endpoint it shows only when the other end has proved who it is.
    node.service.connect_endpoint(&endpoint, 3).unwrap();
    let (token, error) = node.connect_failed();
    assert_eq!(
        (token, error.kind()),
        (3, ErrorKind::SelfConnect),
        "{error}"
    );
}

#[test]
fn networks_of_different_names_do_not_connect() {
    let mut a = Node::new(listening().network_name("one"));
    let mut b = Node::new(
        Config::new()
            .no_listen()
            .network_name("two")
            .handshake_timeout(Duration::from_millis(300))
            .connect_timeout(Duration::from_secs(2)),
    );
    b.service.connect_endpoint(&a.endpoint(), 4).unwrap();
    let (token, error) = b.connect_failed();
    assert_eq!(
        (token, error.kind()),
        (4, ErrorKind::NetworkName),
        "{error}"
    );
    assert!(error.to_string().contains("network name"), "{error}");
    assert!(a.service.peers().unwrap().is_empty());
}

#[test]
fn malformed_info_is_refused_at_once() {
    let mut node = Node::new(listening());
    node.service.prepare_connection_info(1).unwrap();
    let info = node.wait("connection info", |event| match event {
        Event::ConnectionInfo { info, .. } => Some(info.to_vec()),
        _ => None,
    });
    let other = Node::new(Config::new().no_listen());
    for cut in [0, 1, info.len() / 2, info.len() - 1] {
        let error = other.service.connect(&info[..cut], 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BadInfo, "{error}");
        assert_eq!(
            crust::connection_info_peer(&info[..cut])
                .unwrap_err()
                .kind(),
            ErrorKind::BadInfo
        );
    }
    let mut forged = info;
    *forged.last_mut().unwrap() ^= 1;
    let error = other.service.connect(&forged, 2).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInfo, "{error}");
}

#[test]
fn nobody_else_than_the_expected_peer_is_accepted() {
    let mut a = Node::new(listening());
    let mut b = Node::new(Config::new().no_listen());
    let expected = Seed::generate().unwrap().1;
    let contact = format!("{}#{expected}", a.endpoint());
    b.service.connect_endpoint(&contact, 6).unwrap();
    let (token, error) = b.connect_failed();
    assert_eq!((token, error.kind()), (6, ErrorKind::WrongPeer), "{error}");
}

#[test]
fn a_service_that_does_not_accept_says_so() {
    let mut a = Node::new(listening().no_accept());
    let endpoint = a.endpoint();
    let mut b = Node::new(Config::new().no_listen());
    b.service.connect_endpoint(&endpoint, 1).unwrap();
    let (_, error) = b.connect_failed();
    assert_eq!(error.kind(), ErrorKind::NotAllowed, "{error}");
    a.service.set_accept(true).unwrap();
    b.service.connect_endpoint(&endpoint, 2).unwrap();
    assert_eq!(b.connected(), a.id());
}

#[test]
fn nothing_listening_is_told_with_the_endpoint() {
    let mut a = Node::new(listening());
    let endpoint = a.endpoint();
    a.service.stop_listening(&endpoint).unwrap();
    let mut b = Node::new(
        Config::new()
            .no_listen()
            .connect_timeout(Duration::from_secs(5)),
    );
    b.service.connect_endpoint(&endpoint, 8).unwrap();
    let (token, error) = b.connect_failed();
    assert_eq!((token, error.kind()), (8, ErrorKind::Refused), "{error}");
    assert!(error.to_string().contains(&endpoint), "{error}");
}

#[test]
fn malformed_endpoints_are_refused_at_once() {
    let node = Node::new(Config::new().no_listen());
    for text in [
        "",
        "nonsense",
        "tcp://127.0.0.1",
        "tcp://127.0.0.1:99999",
        "tcp://\0",
    ] {
        for result in [
            node.service.connect_endpoint(text, 1),
            node.service.listen(text),
            node.service.stop_listening(text),
        ] {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text:?}: {error}");
        }
    }
}

#[test]
fn bootstrapping_without_contacts_fails() {
    let mut node = Node::new(Config::new().no_listen());
    node.service.bootstrap(3).unwrap();
    let (token, error) = node.wait("the answer", |event| match event {
        Event::BootstrapFailed { token, error, .. } => Some((token, error)),
        _ => None,
    });
    assert_eq!((token, error.kind()), (3, ErrorKind::NoEndpoint), "{error}");
}

#[test]
fn a_busy_port_is_an_event_or_an_error_that_names_it() {
    let mut first = Node::new(listening());
    let endpoint = first.endpoint();
    let mut second = Node::new(Config::new().listen(endpoint.clone()));
    let (at, error) = second.wait("the failure", |event| match event {
        Event::ListenerFailed {
            endpoint, error, ..
        } => Some((endpoint, error)),
        Event::ListenerStarted { endpoint, .. } => panic!("two listen at {endpoint}"),
        _ => None,
    });
    assert_eq!((&at, error.kind()), (&endpoint, ErrorKind::AddressInUse));
    assert!(error.to_string().contains(&endpoint), "{error}");
    let error = second.service.listen(&endpoint).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AddressInUse, "{error}");
    assert!(error.to_string().contains(&endpoint), "{error}");
}

#[test]
fn a_cache_that_cannot_be_used_is_an_event() {
    let directory = std::env::temp_dir();
    let config = Config::new().no_listen().cache(&directory).cache_peers(20);
    let mut node = Node::new(config);
    let error = node.wait("the trouble", |event| match event {
        Event::CacheTrouble { error, .. } => Some(error),
        _ => None,
    });
    assert!(error.to_string().contains("it is a directory"), "{error}");
}

#[test]
fn a_closed_service_says_that_it_is_closed() {
    let (a, mut b) = couple();
    let to = a.id();
    b.service.close();
    b.wait("the end", |event| {
        matches!(event, Event::Stopped { error: None, .. }).then_some(())
    });
    let service = &b.service;
    let calls = [
        service.send(&to, "late", 0),
        service.send_wait(&to, "late", 0, None),
        service.prepare_connection_info(1),
        service.connect_endpoint("tcp://127.0.0.1:1", 1),
        service.connect_peer(&to, 1),
        service.listen("tcp://127.0.0.1:0"),
        service.bootstrap(1),
        b.events.try_next().map(drop),
        b.events.next_batch(None).map(drop),
    ];
    for result in calls {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert!(error.to_string().contains("closed"), "{error}");
    }
    assert!(b.events.next().is_none());
    assert!(b.events.next().is_none());
    assert_eq!(b.events.error(), None, "an end in order");
    service.close(); // again: nothing happens
}

#[test]
fn a_handle_without_its_service_is_stale() {
    let (service, events) = Service::new(Config::new().no_listen()).unwrap();
    let handle = service.handle();
    let id = service.id();
    drop((service, events));
    let error = handle.peers().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadHandle, "{error}");
    assert_eq!(handle.id(), id);
    handle.close(); // of what is gone: nothing happens
    let peer = PeerId::from_bytes([1; 32]);
    assert_eq!(
        handle.send(&peer, "", 0).unwrap_err().kind(),
        ErrorKind::BadHandle
    );
}

#[test]
fn features_and_version_are_told() {
    assert!(crust::has("tcp"));
    assert!(!crust::has("telepathy") && !crust::has("t\0cp"));
    assert_eq!(crust::version().split('.').count(), 3);
}
