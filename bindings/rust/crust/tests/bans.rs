//! The blacklist and the whitelists.

mod common;

use std::time::Duration;

use std::sync::mpsc;
use std::time::Instant;

use common::{Node, couple, listening};
use crust::{Config, ErrorKind, Role, Service};

#[test]
fn who_is_banned_is_lost_and_listed() {
    let (mut one, mut other) = couple();
    let id = other.id().to_string();
    let hour = Duration::from_secs(3600);
    one.service
        .ban([id.as_str(), "192.0.2.77/24"], Some(hour), "spam")
        .unwrap();
    one.service
        .ban([std::net::Ipv6Addr::LOCALHOST], None, "")
        .unwrap();
    assert_eq!(one.lost().1.kind(), ErrorKind::Banned);
    assert_eq!(other.lost().1.kind(), ErrorKind::Banned);
    let refused = one.service.connect_peer(&other.id(), 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Banned);
    let bans = one.service.bans().unwrap();
    let who: Vec<_> = bans.iter().map(|ban| ban.who.as_str()).collect();
    assert_eq!(who, [id.as_str(), "192.0.2.0/24", "::1"]);
    assert_eq!((bans[0].reason.as_str(), bans[2].left), ("spam", None));
    assert!(bans[0].left.unwrap() <= hour);
    assert_eq!(
        one.service.unban(["192.0.2.0/24", "::1", "::2"]).unwrap(),
        2
    );
    assert_eq!(one.service.bans().unwrap().len(), 1);
    assert_eq!(one.service.unban([other.id()]).unwrap(), 1);
    assert!(one.service.bans().unwrap().is_empty());
}

#[test]
fn whoever_is_on_no_whitelist_is_lost() {
    let (mut one, _other) = couple();
    one.service.set_allowed(["127.0.0.0/8"], ["::1"]).unwrap();
    one.service.set_allowed(["192.0.2.1"], ["::1"]).unwrap();
    assert_eq!(one.lost().1.kind(), ErrorKind::NotAllowed);
}

#[test]
fn malformed_ones_are_refused() {
    let node = Node::new(
        listening()
            .ban("192.0.2.1")
            .max_bans(2)
            .allow(Role::Client, "::1"),
    );
    for who in ["", "x", "1.2.3.4:5", "1.2.3.4/33", "a\0"] {
        let error = node.service.ban([who], None, "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{who}");
    }
    let kind = |result: crust::Result<()>| result.unwrap_err().kind();
    assert_eq!(
        kind(node.service.ban([node.id()], None, "")),
        ErrorKind::SelfConnect
    );
    assert_eq!(
        kind(node.service.ban(["1.2.3.4", "::2"], None, "")),
        ErrorKind::Limit
    );
    assert_eq!(
        kind(node.service.ban(["::2"], None, &"x".repeat(257))),
        ErrorKind::Invalid
    );
    for config in [Config::new().ban("x"), Config::new().allow(Role::Node, "x")] {
        assert_eq!(Service::new(config).unwrap_err().kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_gate_decides() {
    let (tell, told) = mpsc::channel();
    let alive = std::sync::Arc::new(());
    let weak = std::sync::Arc::downgrade(&alive);
    let gate = move |request: &crust::GateRequest<'_>| {
        let _ = &alive;
        tell.send((request.peer, request.app_id.to_vec(), request.outbound))
            .unwrap();
        request.app_id == b"friend"
    };
    let mut one = Node::new(listening().gate(gate));
    let at = format!("{}#{}", one.endpoint(), one.id());
    for (app_id, token) in [("friend", 1), ("foe", 2)] {
        let mut other = Node::new(Config::new().no_listen().app_id(app_id));
        other.service.connect_endpoint(&at, token).unwrap();
        if token == 1 {
            other.connected();
        } else {
            assert_eq!(other.connect_failed().1.kind(), ErrorKind::NotAllowed);
        }
        let asked = told.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(asked, (other.id(), app_id.as_bytes().to_vec(), false));
    }
    drop(one);
    assert!(weak.upgrade().is_none(), "the closure is not dropped");
}

#[test]
fn a_gate_that_stalls_or_panics_refuses() {
    let (go, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let stalls = listening()
        .gate_timeout(Duration::from_millis(50))
        .gate(move |_| wait.lock().unwrap().recv().is_ok());
    for config in [stalls, listening().gate(|_| panic!("policy"))] {
        let mut one = Node::new(config);
        let at = format!("{}#{}", one.endpoint(), one.id());
        let mut other = Node::new(Config::new().no_listen());
        other.service.connect_endpoint(&at, 1).unwrap();
        assert_eq!(other.connect_failed().1.kind(), ErrorKind::NotAllowed);
        let began = Instant::now();
        drop(one);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
    drop(go);
}
