//! Services, their configuration and their listeners.

use crust::{read_config_file, Config, CrustError, CrustUser, Event, Service};
use crust_0_31_program::*;

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use unwrap::unwrap;

/// Tests that use the configuration file take turns.
static FILE: Mutex<()> = Mutex::new(());

fn config_file() -> PathBuf {
    let mut path = unwrap!(std::env::current_exe());
    let name = format!(
        "{}.crust.config",
        unwrap!(unwrap!(path.file_stem()).to_str())
    );
    path.set_file_name(name);
    path
}

fn threads() -> usize {
    unwrap!(fs::read_dir("/proc/self/task")).count()
}

#[test]
fn without_a_file_there_are_defaults_and_one_is_made() {
    let _turn = FILE.lock();
    let _ = fs::remove_file(config_file());
    assert_eq!(unwrap!(read_config_file()), Config::default());
    let text = unwrap!(fs::read_to_string(config_file()));
    for key in &[
        "hard_coded_contacts",
        "tcp_acceptor_port",
        "service_discovery_port",
        "network_name",
        "dev",
    ] {
        assert!(text.contains(key), "{}", text);
    }
    let (sender, _events, _categories) = channel();
    let service = unwrap!(Service::new(sender, Id::new()));
    drop(service);
    unwrap!(fs::remove_file(config_file()));
}

#[test]
fn a_file_of_0_31_is_read_as_it_is_and_stays_so() {
    let _turn = FILE.lock();
    let text = r#"{
        "hard_coded_contacts": ["203.0.113.5:5483", "[2001:db8::1]:5483"],
        "tcp_acceptor_port": 5483, "force_acceptor_port_in_ext_ep": true, "service_discovery_port": null,
        "bootstrap_cache_name": "x.cache", "whitelisted_node_ips": ["10.0.0.1"], "whitelisted_client_ips": null,
        "network_name": "old", "of a later version": {"a": [1, null]},
        "dev": {"disable_external_reachability_requirement": true}
    }"#;
    unwrap!(fs::write(config_file(), text));
    let config = unwrap!(read_config_file());
    assert_eq!(config.hard_coded_contacts.len(), 2);
    assert_eq!(config.tcp_acceptor_port, Some(5483));
    assert_eq!(config.service_discovery_port, None);
    assert_eq!(
        config.network_name.as_ref().map(String::as_str),
        Some("old")
    );
    assert!(unwrap!(config.whitelisted_node_ips.as_ref()).contains(&unwrap!("10.0.0.1".parse())));
    assert!(unwrap!(config.dev).disable_external_reachability_requirement);
    assert_eq!(unwrap!(fs::read_to_string(config_file())), text);

    unwrap!(fs::write(config_file(), "{ no json"));
    match read_config_file() {
        Err(CrustError::ConfigFileHandler(_)) => {}
        result => panic!("{:?}", result),
    }
    unwrap!(fs::remove_file(config_file()));
}

#[test]
fn a_listener_gets_a_port_that_accepts() {
    let mut node = Node::new(config(&network()));
    match node.service.set_accept_bootstrap(true) {
        Err(CrustError::ListenerNotIntialised) => {}
        result => panic!("{:?}", result),
    }
    let port = node.listen();
    assert_ne!(port, 0);
    unwrap!(node.service.set_accept_bootstrap(true));
    unwrap!(TcpStream::connect(("127.0.0.1", port)));
    unwrap!(node.service.stop_tcp_listener());
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        assert!(Instant::now() < deadline, "it still accepts");
    }
    assert_ne!(node.listen(), 0);
}

#[test]
fn a_port_that_is_asked_for_is_got_or_the_listener_fails() {
    let taken = unwrap!(TcpListener::bind("0.0.0.0:0"));
    let mut with = config(&network());
    with.tcp_acceptor_port = Some(unwrap!(taken.local_addr()).port());
    let mut node = Node::new(with.clone());
    unwrap!(node.service.start_listening_tcp());
    match node.next() {
        Event::ListenerFailed => {}
        event => panic!("{:?}", event),
    }
    drop(taken);
    assert_eq!(Some(node.listen()), with.tcp_acceptor_port);
}

#[test]
fn fifty_services_live_in_one_process() {
    let network = network();
    let before = threads();
    let (hub, at) = Node::listening(config(&network));
    let mut hub = hub;
    let mut nodes = Vec::new();
    for _ in 0..50 {
        let mut with = config(&network);
        with.hard_coded_contacts = vec![at];
        let mut node = Node::new(with);
        node.bootstrap(CrustUser::Client);
        assert_eq!(node.expect_bootstrap().0, hub.id);
        hub.expect_accept(node.id, CrustUser::Client);
        nodes.push(node);
    }
    // Two of each service, and some of the library; none of a connection.
    assert!(
        threads() - before < 2 * 51 + 60,
        "{} threads",
        threads() - before
    );
    for node in &nodes {
        unwrap!(hub.service.send(&node.id, vec![1], 0));
    }
    for node in &mut nodes {
        let id = hub.id;
        assert_eq!(node.expect_message(id).1, [1]);
    }
}

#[test]
fn nothing_comes_from_a_service_that_was_dropped() {
    let (a, mut b) = pair();
    let (id, of_b) = (a.id, b.id);
    let (sender, events, categories) = channel();
    let mut with = config(&network());
    with.tcp_acceptor_port = None;
    let mut service = unwrap!(Service::with_config(sender, with, Id::new()));
    unwrap!(service.start_listening_tcp());
    drop(service);
    let told = events.iter().count();
    assert_eq!(categories.iter().count(), told);
    assert!(told <= 1);
    unwrap!(a.service.send(&of_b, vec![7], 0));
    drop(a);
    assert_eq!(b.expect_message(id).1, [7]);
    b.expect_lost(id);
    b.expect_nothing();
}

#[test]
fn whitelists_say_who_may_come() {
    let network = network();
    let there: IpAddr = unwrap!("127.0.0.1".parse());
    let elsewhere: IpAddr = unwrap!("192.0.2.1".parse());
    let mut with = config(&network);
    with.whitelisted_node_ips = Some(vec![there].into_iter().collect());
    with.whitelisted_client_ips = Some(vec![elsewhere].into_iter().collect());
    let (mut node, at) = Node::listening(with);
    let mut with = config(&network);
    with.hard_coded_contacts = vec![at];
    let mut other = Node::new(with);
    other.bootstrap(CrustUser::Client);
    other.expect_bootstrap_failed();
    other.bootstrap(CrustUser::Node);
    assert_eq!(other.expect_bootstrap().0, node.id);
    node.expect_accept(other.id, CrustUser::Node);
}

#[test]
fn who_is_taken_from_the_whitelist_of_the_file_is_dropped() {
    let _turn = FILE.lock();
    let network = network();
    let write = |ip: &str| {
        let cache = unwrap!(temporary("cache").into_os_string().into_string());
        let text = format!(
            r#"{{ "network_name": "{}", "whitelisted_client_ips": ["{}"], "bootstrap_cache_name": "{}" }}"#,
            network, ip, cache
        );
        unwrap!(fs::write(config_file(), text));
    };
    write("127.0.0.1");
    let (sender, events, _categories) = channel();
    let mut service = unwrap!(Service::new(sender, Id::new()));
    unwrap!(service.start_listening_tcp());
    let port = match unwrap!(events.recv_timeout(PATIENCE)) {
        Event::ListenerStarted(port) => port,
        event => panic!("{:?}", event),
    };
    unwrap!(service.set_accept_bootstrap(true));
    let mut with = config(&network);
    with.hard_coded_contacts = vec![SocketAddr::from(([127, 0, 0, 1], port))];
    let mut client = Node::new(with);
    client.bootstrap(CrustUser::Client);
    let (id, _) = client.expect_bootstrap();
    write("192.0.2.1");
    let began = Instant::now();
    match client.within(Duration::from_secs(40)) {
        Some(Event::LostPeer(lost)) => assert_eq!(lost, id),
        event => panic!("{:?}", event),
    }
    assert!(
        began.elapsed() < Duration::from_secs(35),
        "{:?}",
        began.elapsed()
    );
    unwrap!(fs::remove_file(config_file()));
}
