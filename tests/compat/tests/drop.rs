//! What a dropped service leaves behind. It is alone in its process, whose descriptors it
//! counts.

use crust::CrustUser;
use crust_0_31_program::*;
use std::fs;
use std::time::{Duration, Instant};
use unwrap::unwrap;

fn descriptors() -> usize {
    unwrap!(fs::read_dir("/proc/self/fd")).count()
}

#[test]
fn a_dropped_service_frees_everything_and_another_one_takes_its_place() {
    let network = network();
    let (mut peer, at) = Node::listening(config(&network));
    let mut with = config(&network);
    with.hard_coded_contacts = vec![at];
    let mut before = 0;
    let mut port = None;
    for round in 0..5 {
        with.tcp_acceptor_port = port;
        let mut node = Node::new(with.clone());
        port = Some(node.listen());
        node.bootstrap(CrustUser::Node);
        node.expect_bootstrap();
        peer.expect_accept(node.id, CrustUser::Node);
        let Node { service, id, .. } = node;
        let began = Instant::now();
        drop(service);
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
        peer.expect_lost(id);
        if round == 0 {
            before = descriptors();
        }
    }
    assert!(
        descriptors() <= before + 2,
        "{} descriptors, before {}",
        descriptors(),
        before
    );
}
