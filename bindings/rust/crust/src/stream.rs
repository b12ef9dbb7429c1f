use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread::{self, JoinHandle};

use futures_core::Stream;
use futures_core::stream::FusedStream;

use crate::error::{Error, ErrorKind, Result};
use crate::event::{Batch, Event};
use crate::service::{Closing, Events, Inner};

/// The events of a service as a [`Stream`], in any runtime. It ends after
/// [`Stopped`](Event::Stopped).
///
/// A thread of its own waits for the library and hands over whole batches, one
/// at a time: a program that does not poll is a slow reader, as with [`Events`].
/// Dropping the stream closes the service and ends the thread.
///
/// ```
/// use crust::{Config, Event, Service};
/// use std::pin::pin;
/// # use std::{future::{Future, poll_fn}, sync::Arc, task, thread};
/// # struct Unpark(thread::Thread);
/// # impl task::Wake for Unpark { fn wake(self: Arc<Self>) { self.0.unpark() } }
/// # fn block_on<T>(future: impl Future<Output = T>) -> T {
/// #     let waker = Arc::new(Unpark(thread::current())).into();
/// #     let mut future = pin!(future);
/// #     loop {
/// #         match future.as_mut().poll(&mut task::Context::from_waker(&waker)) {
/// #             task::Poll::Ready(value) => return value,
/// #             task::Poll::Pending => thread::park(),
/// #         }
/// #     }
/// # }
/// # trait Next { async fn next(&mut self) -> Option<Event>; }
/// # impl Next for crust::EventStream {
/// #     async fn next(&mut self) -> Option<Event> {
/// #         use futures_core::Stream;
/// #         poll_fn(|cx| std::pin::Pin::new(&mut *self).poll_next(cx)).await
/// #     }
/// # }
///
/// let (service, events) = Service::new(Config::new().listen("tcp://127.0.0.1:0"))?;
/// let mut events = events.into_stream()?;
/// block_on(async {
///     // `next` is StreamExt's, of the futures or tokio-stream crate.
///     while let Some(event) = events.next().await {
///         match event {
///             Event::ListenerStarted { endpoint, .. } => {
///                 println!("listening at {endpoint}");
///                 service.close();
///             }
///             Event::Stopped { error, .. } => assert_eq!(error, None),
///             _ => {}
///         }
///     }
/// });
/// # Ok::<(), crust::Error>(())
/// ```
pub struct EventStream {
    closing: Closing,
    batch: Option<Batch>,
    hand: Arc<Hand>,
    thread: Option<JoinHandle<()>>,
    end: Option<Error>,
}

/// Where the thread hands batches to the stream.
#[derive(Default)]
struct Hand {
    state: Mutex<State>,
    /// The batch was taken, or the stream is gone.
    taken: Condvar,
}

#[derive(Default)]
struct State {
    batch: Option<Batch>,
    waker: Option<Waker>,
    /// Why no more batches come.
    end: Option<Error>,
    /// The stream is gone.
    dropped: bool,
}

impl Hand {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A waker that panics does so after the lock is given back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's work: until the service's last event or the stream's end.
    fn work(&self, service: &Inner) {
        loop {
            let polled = service.poll(None);
            let mut state = self.lock();
            while state.batch.is_some() && !state.dropped {
                state = self
                    .taken
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            if state.dropped {
                return;
            }
            match polled {
                Ok(None) => continue,
                Ok(batch) => state.batch = batch,
                Err(error) => state.end = Some(error),
            }
            let ended = state.end.is_some();
            let waker = state.waker.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
            if ended {
                return;
            }
        }
    }
}

impl Events {
    /// Makes a [`Stream`] of the events. It starts a thread; when that fails,
    /// which is [`Io`](ErrorKind::Io) or [`Limit`](ErrorKind::Limit), the
    /// service closes.
    pub fn into_stream(self) -> Result<EventStream> {
        let (closing, batch) = self.into_parts();
        let hand = Arc::new(Hand::default());
        let (service, ours) = (Arc::clone(&closing.0), Arc::clone(&hand));
        let thread = thread::Builder::new()
            .name("crust-events".into())
            .spawn(move || ours.work(&service))
            .map_err(|why| {
                let kind = match why.kind() {
                    io::ErrorKind::WouldBlock => ErrorKind::Limit,
                    _ => ErrorKind::Io,
                };
                Error::new(kind, format!("stream: no thread could be started: {why}"))
            })?;
        Ok(EventStream {
            closing,
            batch,
            hand,
            thread: Some(thread),
            end: None,
        })
    }
}

impl EventStream {
    /// Why the stream ended: `None` before the end and after an end in order.
    pub fn error(&self) -> Option<&Error> {
        self.end
            .as_ref()
            .filter(|error| error.kind() != ErrorKind::Closed)
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = self.get_mut();
        loop {
            if let Some(event) = this.batch.as_mut().and_then(Iterator::next) {
                return Poll::Ready(Some(event));
            }
            if this.end.is_some() {
                return Poll::Ready(None);
            }
            let mut state = this.hand.lock();
            this.batch = state.batch.take();
            if this.batch.is_some() {
                drop(state);
                this.hand.taken.notify_one();
            } else if let Some(error) = state.end.take() {
                this.end = Some(error);
            } else {
                match &mut state.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
        }
    }
}

impl FusedStream for EventStream {
    fn is_terminated(&self) -> bool {
        self.end.is_some()
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let handle = self.closing.0.handle();
        let mut state = self.hand.lock();
        state.dropped = true;
        let waker = state.waker.take();
        drop(state);
        drop(waker);
        self.hand.taken.notify_one();
        // The thread waits for the library or for the hand, and now for neither;
        // but a child made by fork has no such thread to wait for.
        let forked = matches!(handle.wakeup(), Err(error) if error.kind() == ErrorKind::Forked);
        if let (false, Some(thread)) = (forked, self.thread.take()) {
            // It panics only where a waker did, which is not ours to tell.
            drop(thread.join());
        }
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream")
            .field("service", &self.closing.0.handle().id())
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
