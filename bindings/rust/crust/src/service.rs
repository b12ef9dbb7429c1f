use std::fmt;
use std::iter::FusedIterator;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crust_sys as sys;

use crate::check_abi;
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result, check};
use crate::event::{Batch, Event};
use crate::handle::{Handle, timeout_ms};
use crate::handler::{self, Ending};

/// A service of the library, freed when nobody uses it any more.
pub(crate) struct Inner(Handle);

impl Inner {
    pub(crate) fn handle(&self) -> Handle {
        self.0
    }

    /// Takes the events that wait together; `None` when there was none in time
    /// or somebody called for attention.
    pub(crate) fn poll(&self, timeout: Option<Duration>) -> Result<Option<Batch>> {
        poll(self.0, timeout)
    }
}

fn poll(service: Handle, timeout: Option<Duration>) -> Result<Option<Batch>> {
    let mut batch = ptr::null_mut();
    // SAFETY: room for the pointer.
    check(unsafe { sys::crust_poll(service.raw(), timeout_ms(timeout), 0, &mut batch) })?;
    if batch.is_null() {
        return Ok(None);
    }
    // SAFETY: crust_poll has just given us this batch.
    Ok(Some(unsafe { Batch::from_raw(batch) }))
}

/// Closes a service, waits for its end and frees it.
fn free(service: Handle) -> sys::crust_result {
    service.close();
    // Nobody can read its events any more. Unread ones would hold up peers that
    // still send, and the end with them. The library says when there are no
    // more, and at once when there is nothing to read: with a handler, inside
    // one, in a child of a fork.
    while poll(service, None).is_ok() {}
    // SAFETY: the library checks the handle.
    unsafe { sys::crust_service_free(service.raw()) }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let service = self.0;
        // Failing otherwise means that there is nothing to free: the process is
        // a child of a fork.
        if free(service) == sys::CRUST_ERR_WOULD_DEADLOCK {
            // Dropped inside a handler, whose end is what freeing waits for: a
            // thread that may wait does it. Without a thread the closed service
            // keeps its place in a table.
            let thread = thread::Builder::new().name("crust-free".into());
            drop(thread.spawn(move || free(service)));
        }
    }
}

/// A share in a service that closes it when dropped. Freeing, which waits, is
/// left to the last user of [`Inner`].
pub(crate) struct Closing(pub(crate) Arc<Inner>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.handle().close();
    }
}

/// One node: an identity, its listeners, its peers and one queue of events.
///
/// A service is cheap to clone; clones are the same service. Its calls are
/// those of [`Handle`], to which it derefs. When the last clone is dropped, the
/// service closes in order, as by [`close`](Handle::close), and its [`Events`]
/// give what remains up to [`Stopped`](Event::Stopped). The last of services and
/// events to be dropped waits until everything of the service is gone, at most
/// about [`close_timeout`](Config::close_timeout), and discards events that
/// nobody has read; inside a handler it does not wait.
///
/// Several services may live in one process. A child made by `fork` cannot use
/// those of its parent.
///
/// ```
/// use crust::{Config, Event, Service};
///
/// let (alice, mut alice_events) = Service::new(Config::new().listen("tcp://127.0.0.1:0"))?;
/// let (bob, bob_events) = Service::new(Config::new().no_listen())?;
///
/// for event in &mut alice_events {
///     if let Event::ListenerStarted { endpoint, .. } = event {
///         // Bob accepts nobody but Alice there.
///         bob.connect_endpoint(&format!("{endpoint}#{}", alice.id()), 1)?;
///         break;
///     }
/// }
/// for event in bob_events {
///     if let Event::Connected { peer, token, .. } = event {
///         assert_eq!((peer, token), (alice.id(), 1));
///         bob.send(&peer, "hello Alice", 0)?;
///         break;
///     }
/// }
/// let message = alice_events.find_map(|event| match event {
///     Event::Message(message) => Some(message),
///     _ => None,
/// });
/// let message = message.expect("a message before the end");
/// assert_eq!((message.peer, &*message), (bob.id(), &b"hello Alice"[..]));
/// # Ok::<(), crust::Error>(())
/// ```
#[derive(Clone)]
pub struct Service {
    // Everything below is Send and Sync by itself: a handle is a number, and
    // the library allows every call from any thread at any time.
    closing: Arc<Closing>,
    ending: Option<Arc<Ending>>,
    handle: Handle,
}

impl Service {
    /// Makes a service and starts its listeners. Its events come by the
    /// [`Events`] beside it, which want to be read: when their queue is full,
    /// reading from the network stops, and when they are dropped, the service
    /// closes.
    ///
    /// Errors: [`Invalid`](ErrorKind::Invalid) when something in the
    /// configuration is out of bounds; [`Io`](ErrorKind::Io),
    /// [`Permission`](ErrorKind::Permission) for the identity file;
    /// [`Abi`](ErrorKind::Abi), [`Forked`](ErrorKind::Forked),
    /// [`Internal`](ErrorKind::Internal).
    pub fn new(config: Config) -> Result<(Self, Events)> {
        let inner = Arc::new(start(&config, ptr::null())?);
        let events = Events {
            closing: Closing(Arc::clone(&inner)),
            batch: None,
            end: None,
        };
        Ok((Self::from_inner(inner, None), events))
    }

    /// Makes a service that calls `handler` with each event, on one thread of the
    /// library and never at once with itself. A handler that takes long holds up
    /// its own service and no other. Inside it everything may be called but
    /// [`send_wait`](Handle::send_wait), [`join`](Service::join) and the calls
    /// that wait for another service's events. Events are lent to it; it may
    /// clone what it wants to keep.
    ///
    /// When the handler panics, the panic goes no further: it is not called
    /// again, the service closes, and [`join`](Service::join) tells. In every
    /// case the handler is dropped after its last call.
    ///
    /// ```
    /// use crust::{Config, Event, Service};
    /// use std::sync::mpsc;
    ///
    /// let (tell, told) = mpsc::channel();
    /// let service = Service::with_handler(
    ///     Config::new().listen("tcp://127.0.0.1:0"),
    ///     move |event| {
    ///         if let Event::ListenerStarted { endpoint, .. } = event {
    ///             let _ = tell.send(endpoint.clone());
    ///         }
    ///     },
    /// )?;
    /// let endpoint = told.recv().expect("the listener starts");
    /// assert_eq!(service.listeners()?, [endpoint]);
    /// service.close();
    /// service.join()?;
    /// assert!(told.recv().is_err(), "the handler, and the sender in it, are gone");
    /// # Ok::<(), crust::Error>(())
    /// ```
    ///
    /// Errors: as [`new`](Service::new). The handler is dropped then.
    pub fn with_handler<F>(config: Config, mut handler: F) -> Result<Self>
    where
        F: FnMut(&Event) + Send + 'static,
    {
        Self::with_responder(config, move |_, event| handler(event))
    }

    /// [`with_handler`](Service::with_handler) for handlers that answer: they are
    /// given the service's handle too, from the first event on.
    ///
    /// ```
    /// use crust::{Config, Event, Service};
    ///
    /// let echo = Service::with_responder(
    ///     Config::new().listen("tcp://127.0.0.1:0"),
    ///     |service, event| {
    ///         if let Event::Message(message) = event {
    ///             // A full queue here would mean a peer that does not read.
    ///             let _ = service.send(&message.peer, message, message.priority);
    ///         }
    ///     },
    /// )?;
    /// let (client, events) = Service::new(Config::new().no_listen())?;
    /// # // A client that is not told when the listener stands asks until it does.
    /// # let endpoint = loop {
    /// #     if let Some(endpoint) = echo.listeners()?.pop() { break endpoint }
    /// # };
    /// client.connect_endpoint(&endpoint, 1)?;
    /// for event in events {
    ///     match event {
    ///         Event::Connected { peer, .. } => client.send(&peer, "anyone there?", 0)?,
    ///         Event::Message(message) => {
    ///             assert_eq!(&*message, b"anyone there?");
    ///             break;
    ///         }
    ///         _ => {}
    ///     }
    /// }
    /// # Ok::<(), crust::Error>(())
    /// ```
    ///
    /// Errors: as [`new`](Service::new). The handler is dropped then.
    pub fn with_responder<F>(config: Config, handler: F) -> Result<Self>
    where
        F: FnMut(Handle, &Event) + Send + 'static,
    {
        let ending = Arc::new(Ending::default());
        let lent = handler::Lent::new(Box::new(handler), Arc::clone(&ending));
        let inner = start(&config, &lent.callbacks())?;
        // From here on the library owns the handler, and releases it.
        lent.keep();
        Ok(Self::from_inner(Arc::new(inner), Some(ending)))
    }

    fn from_inner(inner: Arc<Inner>, ending: Option<Arc<Ending>>) -> Self {
        Self {
            handle: inner.handle(),
            closing: Arc::new(Closing(inner)),
            ending,
        }
    }

    /// A handle: the service's calls, without keeping it alive.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Waits until a service with a handler has stopped and its handler is
    /// dropped. It does not close the service.
    ///
    /// Errors: [`Panicked`](ErrorKind::Panicked) with the panic's text when the
    /// handler panicked; [`State`](ErrorKind::State) for a service of
    /// [`new`](Service::new), whose end is the end of its [`Events`];
    /// [`WouldDeadlock`](ErrorKind::WouldDeadlock) inside a handler.
    pub fn join(&self) -> Result<()> {
        match &self.ending {
            Some(ending) => ending.wait(),
            None => Err(Error::new(
                ErrorKind::State,
                "join: the service has no handler; its events end when it has stopped",
            )),
        }
    }
}

impl Deref for Service {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("id", &self.handle.id())
            .field("users", &Arc::strong_count(&self.closing))
            .finish_non_exhaustive()
    }
}

/// Makes the service of the library. `callbacks` NULL means poll mode.
fn start(config: &Config, callbacks: *const sys::crust_callbacks) -> Result<Inner> {
    check_abi()?;
    let config = config.to_raw()?;
    let mut service = 0;
    // SAFETY: a live configuration that only this thread uses, NULL or live
    // callbacks whose user pointer stays valid until on_release, room for the
    // handle.
    check(unsafe { sys::crust_service_new(config.0, callbacks, &mut service) })?;
    match Handle::of(service) {
        Ok(handle) => Ok(Inner(handle)),
        Err(error) => {
            // SAFETY: as in Inner's drop.
            unsafe { sys::crust_service_free(service) };
            Err(error)
        }
    }
}

/// The events of a service: an [`Iterator`] that waits for the next one and ends
/// after [`Stopped`](Event::Stopped).
///
/// There is one for each service, so events come in order. With the feature
/// `stream` it becomes a `Stream`. Dropping it closes the service: nobody could
/// read its events any more.
pub struct Events {
    closing: Closing,
    batch: Option<Batch>,
    end: Option<Error>,
}

impl Events {
    /// The next event if one waits, else `None`.
    ///
    /// Errors: [`Closed`](ErrorKind::Closed) after the last event;
    /// [`WouldDeadlock`](ErrorKind::WouldDeadlock) inside a handler;
    /// [`Forked`](ErrorKind::Forked).
    pub fn try_next(&mut self) -> Result<Option<Event>> {
        self.next_timeout(Duration::ZERO)
    }

    /// The next event, or `None` when none came in time or
    /// [`wakeup`](Handle::wakeup) was called. Errors: as
    /// [`try_next`](Events::try_next).
    pub fn next_timeout(&mut self, timeout: Duration) -> Result<Option<Event>> {
        if let Some(event) = self.take_fetched() {
            return Ok(Some(event));
        }
        // A batch holds at least one event.
        self.batch = self.poll(Some(timeout))?;
        Ok(self.take_fetched())
    }

    /// The events that come together, or `None` when none came in time or
    /// [`wakeup`](Handle::wakeup) was called. Without a timeout it waits for
    /// ever. Errors: as [`try_next`](Events::try_next).
    ///
    /// ```
    /// use crust::{Config, Event, Service};
    ///
    /// let (service, mut events) = Service::new(Config::new().no_listen())?;
    /// service.close();
    /// let batch = events.next_batch(None)?.expect("nobody calls wakeup");
    /// assert!(matches!(batch.last(), Some(Event::Stopped { error: None, .. })));
    /// # Ok::<(), crust::Error>(())
    /// ```
    pub fn next_batch(&mut self, timeout: impl Into<Option<Duration>>) -> Result<Option<Batch>> {
        match self.batch.take() {
            Some(rest) if rest.len() > 0 => Ok(Some(rest)),
            _ => self.poll(timeout.into()),
        }
    }

    /// Why iterating ended: `None` before the end and after an end in order.
    pub fn error(&self) -> Option<&Error> {
        self.end
            .as_ref()
            .filter(|error| error.kind() != ErrorKind::Closed)
    }

    /// A descriptor that is readable while events wait, for poll, epoll and
    /// kqueue. Watch it, level-triggered, and do nothing else with it; take
    /// events with [`try_next`](Events::try_next) until it gives `None`, as some
    /// may have been fetched already.
    ///
    /// Errors: those of every call.
    #[cfg(unix)]
    pub fn fd(&self) -> Result<std::os::fd::BorrowedFd<'_>> {
        let mut fd = 0;
        // SAFETY: room for the number.
        check(unsafe { sys::crust_service_fd(self.closing.0.handle().raw(), &mut fd) })?;
        let fd = std::os::fd::RawFd::try_from(fd)
            .map_err(|_| Error::new(ErrorKind::Internal, "fd: the descriptor is out of bounds"))?;
        // SAFETY: the library keeps it open until the service is freed, which
        // is after `self`.
        Ok(unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) })
    }

    fn take_fetched(&mut self) -> Option<Event> {
        let event = self.batch.as_mut()?.next();
        if event.is_none() {
            self.batch = None;
        }
        event
    }

    fn poll(&self, timeout: Option<Duration>) -> Result<Option<Batch>> {
        self.closing.0.poll(timeout)
    }

    /// Takes it apart for the stream.
    #[cfg(feature = "stream")]
    pub(crate) fn into_parts(self) -> (Closing, Option<Batch>) {
        (self.closing, self.batch)
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while self.end.is_none() {
            if let Some(event) = self.take_fetched() {
                return Some(event);
            }
            match self.poll(None) {
                Ok(batch) => self.batch = batch,
                Err(error) => self.end = Some(error),
            }
        }
        None
    }
}

impl FusedIterator for Events {}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("service", &self.closing.0.handle().id())
            .field("fetched", &self.batch.as_ref().map_or(0, Batch::len))
            .field("end", &self.end)
            .finish()
    }
}
