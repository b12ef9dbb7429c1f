use std::any::Any;
use std::cell::Cell;
use std::ffi::c_void;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crust_sys as sys;

use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::handle::Handle;
use crate::logs::forward;

/// A program's closure.
pub(crate) type Handler = Box<dyn FnMut(Handle, &Event) + Send>;

thread_local! {
    /// Whether this thread is inside a handler.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// How the life of a handler ends.
#[derive(Default)]
pub(crate) struct Ending {
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    released: bool,
    /// The text of the handler's panic.
    panic: Option<String>,
}

impl Ending {
    /// Waits until the handler is dropped.
    pub(crate) fn wait(&self) -> Result<()> {
        if INSIDE.get() {
            return Err(Error::new(
                ErrorKind::WouldDeadlock,
                "join: called inside a handler, which it would wait for",
            ));
        }
        let mut state = self.lock();
        while !state.released {
            state = self
                .released
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        match &state.panic {
            None => Ok(()),
            Some(text) => Err(Error::new(
                ErrorKind::Panicked,
                format!("the handler panicked: {text}"),
            )),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is locked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the library's user pointer points to.
struct User {
    handler: Handler,
    ending: Arc<Ending>,
    /// Learnt at the first event: the service has no handle before it is made.
    handle: Option<Handle>,
    panicked: bool,
}

/// A handler on its way to the library, which frees it when making the service
/// fails.
pub(crate) struct Lent(*mut User);

impl Lent {
    pub(crate) fn new(handler: Handler, ending: Arc<Ending>) -> Self {
        Self(Box::into_raw(Box::new(User {
            handler,
            ending,
            handle: None,
            panicked: false,
        })))
    }

    pub(crate) fn callbacks(&self) -> sys::crust_callbacks {
        sys::crust_callbacks {
            struct_size: size_of::<sys::crust_callbacks>() as u32,
            reserved: 0,
            user: self.0.cast(),
            on_events: Some(on_events),
            on_release: Some(on_release),
        }
    }

    /// Leaves the handler to the library.
    pub(crate) fn keep(self) {
        mem::forget(self);
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: from Box::into_raw, and the library, which did not make the
        // service, does not use it.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// # Safety
///
/// For the library only: `user` is what [`Lent::callbacks`] gave it, before
/// [`on_release`], never at once with itself; `events` are `n` events.
unsafe extern "C" fn on_events(
    user: *mut c_void,
    service: sys::crust_service,
    events: *const sys::crust_event,
    n: usize,
) {
    // SAFETY: the caller vouches that it is ours alone during this call.
    let user = unsafe { &mut *user.cast::<User>() };
    if user.panicked || events.is_null() {
        return;
    }
    // SAFETY: not NULL, and the caller vouches for the number.
    let events = unsafe { slice::from_raw_parts(events, n) };
    // A panic must not cross the C frames above. After one the closure is never
    // called again, so that nobody sees what it may have left half done.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        INSIDE.set(true);
        let handle = match user.handle {
            Some(handle) => handle,
            None => match Handle::of(service) {
                Ok(handle) => *user.handle.insert(handle),
                // Only a service that is gone has no id, and it has no events.
                Err(_) => return,
            },
        };
        for raw in events {
            // SAFETY: the pointers of an event hold until this call returns, and
            // the handler gets no more than a borrow.
            let event = forward(unsafe { Event::from_raw(raw, None) });
            (user.handler)(handle, &event);
        }
    }));
    INSIDE.set(false);
    if let Err(panic) = outcome {
        user.panicked = true;
        user.ending.lock().panic = Some(text_of(panic));
        // SAFETY: the library checks the handle; closing is allowed here.
        unsafe { sys::crust_service_close(service) };
    }
}

/// # Safety
///
/// For the library only: once, after the last [`on_events`], with the same `user`.
unsafe extern "C" fn on_release(user: *mut c_void) {
    // SAFETY: from Box::into_raw; the caller vouches that this is its last use.
    let user = unsafe { Box::from_raw(user.cast::<User>()) };
    let ending = Arc::clone(&user.ending);
    INSIDE.set(true);
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(user)));
    INSIDE.set(false);
    let mut state = ending.lock();
    if let Err(panic) = dropped {
        state.panic.get_or_insert(text_of(panic));
    }
    state.released = true;
    drop(state);
    ending.released.notify_all();
}

/// What a panic says. Its payload may be anything, even something that panics
/// when dropped; what that throws is forgotten.
pub(crate) fn text_of(panic: Box<dyn Any + Send>) -> String {
    if let Some(text) = panic.downcast_ref::<&str>() {
        return (*text).to_owned();
    }
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => {
            if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(other))) {
                mem::forget(again);
            }
            "with a value that is no text".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    #[test]
    fn panics_of_every_kind_have_a_text() {
        let text = |f: fn()| text_of(catch_unwind(f).unwrap_err());
        assert_eq!(text(|| panic!("plain")), "plain");
        assert_eq!(text(|| panic!("with {}", 1)), "with 1");
        assert_eq!(text(|| panic_any(7)), "with a value that is no text");
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("tick");
            }
        }
        assert_eq!(text(|| panic_any(Bomb)), "with a value that is no text");
    }

    #[test]
    fn a_handler_that_no_service_takes_is_dropped() {
        let witness = Arc::new(());
        let inside = Arc::clone(&witness);
        let handler: Handler = Box::new(move |_, _| drop(Arc::clone(&inside)));
        drop(Lent::new(handler, Arc::default()));
        assert_eq!(Arc::strong_count(&witness), 1);
    }
}
