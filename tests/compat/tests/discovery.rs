//! Finding peers on the LAN. These run where whoever runs them says that the network is a
//! machine's own (`CRUST_COMPAT_LAN`): they broadcast.

use crust::CrustUser;
use crust_0_31_program::*;

use std::net::UdpSocket;
use std::time::Duration;
use unwrap::unwrap;

fn may_broadcast() -> bool {
    let may = std::env::var_os("CRUST_COMPAT_LAN").is_some();
    if !may {
        println!("not run: there is no network of its own to broadcast on");
    }
    may
}

#[test]
fn a_service_that_lets_itself_be_found_is_found() {
    if !may_broadcast() {
        return;
    }
    let network = network();
    let mut with = config(&network);
    with.service_discovery_port = Some(25_484);
    let mut seeker = Node::new(with.clone());
    assert!(!seeker.service.has_peers_on_lan());
    seeker.service.start_service_discovery();
    assert!(!seeker.service.has_peers_on_lan(), "it has found itself");

    let (mut hub, _) = Node::listening(with.clone());
    hub.service.start_service_discovery();
    assert!(
        !seeker.service.has_peers_on_lan(),
        "who does not listen was found"
    );
    let (mut foreign, _) = Node::listening({
        let mut with = config(&crust_0_31_program::network());
        with.service_discovery_port = Some(25_484);
        with
    });
    foreign.service.start_service_discovery();
    foreign.service.set_service_discovery_listen(true);
    assert!(
        !seeker.service.has_peers_on_lan(),
        "who is of another network was found"
    );

    hub.service.set_service_discovery_listen(true);
    assert!(seeker.service.has_peers_on_lan());
    assert!(!foreign.service.has_peers_on_lan());
    seeker.bootstrap(CrustUser::Client);
    assert_eq!(seeker.expect_bootstrap().0, hub.id);
    hub.expect_accept(seeker.id, CrustUser::Client);

    // Two on one host seek at once.
    let mut second = Node::new(with);
    second.service.start_service_discovery();
    assert!(second.service.has_peers_on_lan());
    hub.service.set_service_discovery_listen(false);
    std::thread::sleep(Duration::from_millis(300));
    assert!(
        !second.service.has_peers_on_lan(),
        "who does not listen any more was found"
    );
}

#[test]
fn garbage_gets_no_answer() {
    if !may_broadcast() {
        return;
    }
    let mut with = config(&network());
    with.service_discovery_port = Some(25_485);
    let (mut hub, _) = Node::listening(with);
    hub.service.start_service_discovery();
    hub.service.set_service_discovery_listen(true);
    let socket = unwrap!(UdpSocket::bind("127.0.0.1:0"));
    unwrap!(socket.set_read_timeout(Some(Duration::from_millis(500))));
    for len in 0..600 {
        unwrap!(socket.send_to(&vec![len as u8; len], "127.0.0.1:25485"));
    }
    assert!(socket.recv(&mut [0; 2048]).is_err());
}
