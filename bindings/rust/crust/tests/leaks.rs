//! What services leave behind: nothing. This is a program of its own, so that no
//! other test opens or closes anything meanwhile.
#![cfg(target_os = "linux")]

mod common;

use std::fs;

use common::{couple, listening};
use crust::{Event, Service};

/// Descriptors and threads of this process.
fn owned() -> (usize, usize) {
    let count = |what| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    (count("fd"), count("task"))
}

/// Services of every kind, used and dropped in several orders.
fn live() {
    let (mut a, b) = couple();
    b.service.send(&a.id(), vec![1; 100_000], 0).unwrap();
    let kept = a.message();
    drop(b);
    a.lost();
    #[cfg(feature = "stream")]
    drop(a.events.into_stream().unwrap());
    drop(a.service);
    assert_eq!(kept.len(), 100_000);

    let echo = Service::with_responder(listening(), |handle, event| {
        if let Event::Message(message) = event {
            handle.send(&message.peer, message, 0).unwrap();
        }
    })
    .unwrap();
    drop(echo.clone());
    drop(echo);
    assert!(Service::new(listening().json("{")).is_err());
}

#[test]
fn services_leave_nothing_behind() {
    const ROUNDS: usize = 100;
    // The first rounds bring up the library's own threads and descriptors.
    for _ in 0..20 {
        live();
    }
    let before = owned();
    for _ in 0..ROUNDS {
        live();
    }
    let after = owned();
    assert_eq!(after.0, before.0, "descriptors");
    // The library's pool of threads may still grow by a few; one thread left by
    // every round would be ROUNDS.
    assert!(
        after.1 < before.1 + ROUNDS / 10,
        "{before:?} {after:?} threads"
    );
}
