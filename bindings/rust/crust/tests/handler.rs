//! Services with handlers.

mod common;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};

use common::{Node, PATIENCE, listening};
use crust::{Config, ErrorKind, Event, Handle, Result, Service};

/// A service that hands what its closure tells to a receiver, which ends when
/// the closure is dropped.
fn telling<T: Send + 'static>(
    config: Config,
    mut handler: impl FnMut(Handle, &Event, &Sender<T>) + Send + 'static,
) -> (Service, Receiver<T>) {
    let (tell, told) = mpsc::channel();
    let handler = move |handle, event: &Event| handler(handle, event, &tell);
    (Service::with_responder(config, handler).unwrap(), told)
}

/// Waits until the closure that told is dropped.
fn assert_dropped<T>(told: &Receiver<T>) {
    loop {
        match told.recv_timeout(PATIENCE) {
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => panic!("the handler was not dropped"),
        }
    }
}

/// A node that is connected to a service with a handler.
fn client_of(service: &Service) -> Node {
    let mut node = Node::new(listening());
    let contact = format!("{}#{}", node.endpoint(), node.id());
    service.connect_endpoint(&contact, 1).unwrap();
    assert_eq!(node.connected(), service.id());
    node
}

#[test]
fn a_handler_sees_everything_in_order() {
    let (service, told) = telling(Config::new().no_listen(), |handle, event, tell| {
        tell.send((handle, event.clone())).unwrap();
    });
    let mut client = client_of(&service);
    for i in 0..100u8 {
        client.service.send(&service.id(), [i; 50], 1).unwrap();
    }
    client.service.disconnect(&service.id()).unwrap();
    assert_eq!(client.lost().0, service.id());
    let next = || {
        let (handle, event) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(handle, service.handle());
        event
    };
    assert!(matches!(next(), Event::Connected { token: 1, .. }));
    for i in 0..100u8 {
        // The clones outlive the events that were lent.
        let Event::Message(message) = next() else {
            panic!("message {i} is missing")
        };
        assert_eq!(*message, [i; 50]);
    }
    assert!(matches!(next(), Event::Lost { peer, .. } if peer == client.id()));
    service.close();
    assert!(matches!(next(), Event::Stopped { error: None, .. }));
    assert_eq!(service.join(), Ok(()));
    assert_dropped(&told);
}

#[test]
fn dropping_a_service_waits_for_its_handler() {
    let (tell, told) = mpsc::channel();
    let service = Service::with_handler(listening(), move |event| {
        tell.send(event.clone()).unwrap();
    })
    .unwrap();
    drop(service);
    let events: Vec<Event> = told.try_iter().collect();
    assert!(
        matches!(events.last(), Some(Event::Stopped { error: None, .. })),
        "{events:?}"
    );
    // The handler is gone already, without waiting for it.
    assert_eq!(
        told.try_recv().unwrap_err(),
        mpsc::TryRecvError::Disconnected
    );
}

#[test]
fn a_panicking_handler_ends_its_service_and_nothing_else() {
    let (service, told) = telling(Config::new().no_listen(), |_, event, tell: &Sender<()>| {
        if let Event::Message(message) = event {
            tell.send(()).unwrap();
            panic!("cannot bear {:?}", message.payload);
        }
    });
    let mut client = client_of(&service);
    client.service.send(&service.id(), "this", 1).unwrap();
    client.service.send(&service.id(), "or that", 1).unwrap();
    let (peer, error) = client.lost();
    assert_eq!(
        (peer, error.kind()),
        (service.id(), ErrorKind::Disconnected),
        "{error}"
    );
    let error = service.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Panicked);
    assert_eq!(
        error.to_string(),
        "the handler panicked: cannot bear b\"this\""
    );
    assert_eq!(told.try_iter().count(), 1, "it is not called after a panic");
    assert_dropped(&told);
    let error = service.prepare_connection_info(1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    // The client goes on.
    let other = Node::new(listening());
    let contact = other.service.listeners().unwrap()[0].clone();
    client.service.connect_endpoint(&contact, 2).unwrap();
    assert_eq!(client.connected(), other.id());
}

#[test]
fn a_closure_that_panics_when_dropped_is_told() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("tick");
        }
    }
    let bomb = Bomb;
    let service = Service::with_handler(Config::new().no_listen(), move |_| {
        let _ = &bomb;
    })
    .unwrap();
    service.close();
    let error = service.join().unwrap_err();
    assert_eq!(error.to_string(), "the handler panicked: tick");
}

#[test]
fn the_last_service_may_be_dropped_inside_its_handler() {
    let held: Arc<Mutex<Option<Service>>> = Arc::default();
    let inside = Arc::clone(&held);
    let (service, told) = telling(Config::new().no_listen(), move |_, event, tell| {
        if let Event::Message(_) = event {
            drop(inside.lock().unwrap().take());
            tell.send("dropped").unwrap();
        }
    });
    let handle = service.handle();
    let mut client = client_of(&service);
    *held.lock().unwrap() = Some(service);
    client.service.send(&handle.id(), "go", 1).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok("dropped"));
    assert_eq!(client.lost().0, handle.id());
    assert_dropped(&told);
}

#[test]
fn a_handler_may_own_its_service() {
    // A circle, which closing opens: the handler, and the service in it, are
    // dropped after the last event.
    let held: Arc<Mutex<Option<Service>>> = Arc::default();
    let inside = Arc::clone(&held);
    let (service, told) = telling(listening(), move |_, event, _: &Sender<()>| {
        if let (Event::ListenerStarted { .. }, Some(service)) = (event, &*inside.lock().unwrap()) {
            service.close();
        }
    });
    let handle = service.handle();
    *held.lock().unwrap() = Some(service);
    drop(held);
    handle.close();
    assert_dropped(&told);
}

#[test]
fn what_would_wait_for_the_handler_is_refused_inside_it() {
    let (tell, told) = mpsc::channel();
    let slot: Arc<Mutex<Option<Service>>> = Arc::default();
    let other = Mutex::new(Service::new(Config::new().no_listen()).unwrap());
    let inside = Arc::clone(&slot);
    let service = Service::with_responder(Config::new().no_listen(), move |handle, event| {
        if let (Event::ConnectionInfo { .. }, Some(service)) = (event, &*inside.lock().unwrap()) {
            let events = &mut other.lock().unwrap().1;
            let outcomes: [Result<()>; 3] = [
                service.join(),
                handle.send_wait(&handle.id(), "x", 0, None),
                events.try_next().map(drop),
            ];
            tell.send(outcomes.map(|outcome| outcome.unwrap_err().kind()))
                .unwrap();
        }
    })
    .unwrap();
    *slot.lock().unwrap() = Some(service.clone());
    service.prepare_connection_info(1).unwrap();
    assert_eq!(
        told.recv_timeout(PATIENCE),
        Ok([ErrorKind::WouldDeadlock; 3])
    );
    drop(slot.lock().unwrap().take());
}

#[test]
fn a_handler_for_a_service_that_cannot_be_made_is_dropped() {
    let (tell, told) = mpsc::channel::<()>();
    let error = Service::with_handler(Config::new().listen("nonsense"), move |_| {
        let _ = &tell;
    })
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        told.try_recv().unwrap_err(),
        mpsc::TryRecvError::Disconnected
    );
}

#[test]
fn join_is_for_services_with_a_handler() {
    let (service, _events) = Service::new(Config::new().no_listen()).unwrap();
    let error = service.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
    assert_eq!(error.to_string().lines().count(), 1);
}

#[test]
fn wakeup_is_for_services_whose_events_are_read() {
    let service = Service::with_handler(Config::new().no_listen(), |_| {}).unwrap();
    assert_eq!(service.wakeup().unwrap_err().kind(), ErrorKind::State);
}
