//! What the tests share: services on loopback, and waiting for events.

#![allow(dead_code)] // each test program uses a part

use std::time::{Duration, Instant};

use crust::{Config, Event, Events, Message, PeerId, Service};

/// Bounds each wait. It is long because the machine may be busy with other work.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration of a service that listens on loopback.
pub fn listening() -> Config {
    Config::new().listen("tcp://127.0.0.1:0")
}

/// A service and its events.
#[derive(Debug)]
pub struct Node {
    pub service: Service,
    pub events: Events,
}

impl Node {
    pub fn new(config: Config) -> Self {
        Self::try_new(config).expect("a service")
    }

    pub fn try_new(config: Config) -> crust::Result<Self> {
        let (service, events) = Service::new(config)?;
        Ok(Self { service, events })
    }

    pub fn id(&self) -> PeerId {
        self.service.id()
    }

    /// Waits for an event that `pick` wants; others are passed over.
    pub fn wait<T>(&mut self, what: &str, pick: impl FnMut(Event) -> Option<T>) -> T {
        wait(&mut self.events, what, pick)
    }

    /// Waits for the listener and says where it is.
    pub fn endpoint(&mut self) -> String {
        self.wait("the listener", |event| match event {
            Event::ListenerStarted { endpoint, .. } => Some(endpoint),
            _ => None,
        })
    }

    pub fn connected(&mut self) -> PeerId {
        self.wait("a session", |event| match event {
            Event::Connected { peer, .. } => Some(peer),
            Event::ConnectFailed { error, .. } => panic!("{error}"),
            _ => None,
        })
    }

    pub fn message(&mut self) -> Message {
        self.wait("a message", |event| match event {
            Event::Message(message) => Some(message),
            _ => None,
        })
    }

    /// Waits for the loss of a session and says why.
    pub fn lost(&mut self) -> (PeerId, crust::Error) {
        self.wait("a loss", |event| match event {
            Event::Lost { peer, error, .. } => Some((peer, error)),
            _ => None,
        })
    }

    /// Waits for the failure of a connect and says its token and why.
    pub fn connect_failed(&mut self) -> (u64, crust::Error) {
        self.wait("a failed connect", |event| match event {
            Event::ConnectFailed { token, error, .. } => Some((token, error)),
            Event::Connected { peer, .. } => panic!("connected to {peer}"),
            _ => None,
        })
    }
}

/// Waits for an event that `pick` wants; others are passed over, and named when
/// the wait is in vain.
pub fn wait<T>(events: &mut Events, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.next_timeout(left) {
            Ok(Some(event)) => {
                let name = format!("{event:?}");
                if let Some(found) = pick(event) {
                    return found;
                }
                seen.push(name);
            }
            Ok(None) if left.is_zero() => panic!("no {what} within {PATIENCE:?}, but {seen:#?}"),
            Ok(None) => {}
            Err(error) => panic!("no {what}: {error}; before came {seen:#?}"),
        }
    }
}

/// Two connected services: the first accepted, the second dialled.
pub fn pair(first: Config, second: Config) -> (Node, Node) {
    let (mut a, mut b) = (Node::new(first), Node::new(second));
    let contact = format!("{}#{}", a.endpoint(), a.id());
    b.service.connect_endpoint(&contact, 7).expect("a connect");
    assert_eq!(b.connected(), a.id());
    assert_eq!(a.connected(), b.id());
    (a, b)
}

/// Two connected services with defaults.
pub fn couple() -> (Node, Node) {
    pair(listening(), Config::new().no_listen())
}
