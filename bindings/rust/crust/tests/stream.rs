//! Events as a stream, in a runtime of thirty lines.
#![cfg(feature = "stream")]

mod common;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use common::{PATIENCE, couple};
use crust::{Config, ErrorKind, Event, EventStream, Service};
use futures_core::Stream;
use futures_core::stream::FusedStream;

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park_timeout(PATIENCE),
        }
    }
}

async fn next(stream: &mut EventStream) -> Option<Event> {
    poll_fn(|cx| Pin::new(&mut *stream).poll_next(cx)).await
}

async fn next_message(stream: &mut EventStream) -> Vec<u8> {
    loop {
        match next(stream).await.expect("not the end") {
            Event::Message(message) => return message.to_vec(),
            Event::Lost { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

#[test]
fn two_services_talk_in_one_task() {
    let (a, b) = couple();
    let mut a_events = a.events.into_stream().unwrap();
    let mut b_events = b.events.into_stream().unwrap();
    let (a_id, b_id) = (a.service.id(), b.service.id());
    block_on(async {
        for i in 0..200u8 {
            a.service.send(&b_id, [i], 0).unwrap();
            assert_eq!(next_message(&mut b_events).await, [i]);
            b.service.send(&a_id, [i, i], 0).unwrap();
            assert_eq!(next_message(&mut a_events).await, [i, i]);
        }
        b.service.close();
        let mut last = None;
        while let Some(event) = next(&mut b_events).await {
            last = Some(event);
        }
        assert!(
            matches!(last, Some(Event::Stopped { error: None, .. })),
            "{last:?}"
        );
        assert!(b_events.is_terminated() && !a_events.is_terminated());
        assert!(next(&mut b_events).await.is_none());
        assert_eq!(b_events.error(), None);
    });
}

#[test]
fn nothing_is_lost_between_iterating_and_streaming() {
    let (a, mut b) = couple();
    for i in 0..1000u32 {
        a.service
            .send_wait(&b.id(), i.to_be_bytes(), 1, PATIENCE)
            .unwrap();
    }
    assert_eq!(*b.message(), 0u32.to_be_bytes());
    let mut stream = b.events.into_stream().unwrap();
    block_on(async {
        for i in 1..1000u32 {
            assert_eq!(next_message(&mut stream).await, i.to_be_bytes());
        }
    });
}

#[test]
fn dropping_a_stream_closes_the_service() {
    let (mut a, b) = couple();
    let id = b.id();
    drop(b.events.into_stream().unwrap());
    assert_eq!(a.lost().0, id);
    let error = b.service.prepare_connection_info(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn a_stream_that_is_not_polled_can_be_dropped() {
    let (a, b) = couple();
    let to = b.id();
    // The thread holds one batch in its hand and a second before it.
    let stream = b.events.into_stream().unwrap();
    for _ in 0..100 {
        a.service.send(&to, [0; 1000], 1).unwrap();
    }
    drop(stream);
    drop(b.service);
}

#[test]
fn only_the_last_waker_is_woken() {
    struct Count(AtomicUsize);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let (service, events) = Service::new(Config::new().no_listen()).unwrap();
    let mut stream = events.into_stream().unwrap();
    let earlier = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&earlier));
    let polled = Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    block_on(async {
        let mut closed = false;
        let event = poll_fn(|cx| {
            let polled = Pin::new(&mut stream).poll_next(cx);
            if !std::mem::replace(&mut closed, true) {
                assert!(polled.is_pending());
                service.close();
            }
            polled
        })
        .await;
        assert!(matches!(event, Some(Event::Stopped { .. })), "{event:?}");
    });
    assert_eq!(earlier.0.load(Ordering::SeqCst), 0);
}
