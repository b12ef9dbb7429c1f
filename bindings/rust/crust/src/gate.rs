//! The program's own policy about peers.

use std::any::Any;
use std::ffi::{CStr, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::slice;
use std::sync::Arc;

use crust_sys as sys;

use crate::config::Role;
use crate::event::How;
use crate::handler::text_of;
use crate::peer_id::PeerId;

/// A peer that has proved its key, and with which there is no session: what
/// [`Config::gate`](crate::Config::gate) is asked about.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct GateRequest<'a> {
    /// Who.
    pub peer: PeerId,
    /// What the peer's service hands to every peer.
    pub app_id: &'a [u8],
    /// What it is to the network.
    pub role: Role,
    /// The peer's end of the link, or of the link to its relay.
    pub endpoint: &'a str,
    /// How the link came about.
    pub how: How,
    /// Whether we have dialled.
    pub outbound: bool,
}

type Policy = dyn Fn(&GateRequest<'_>) -> bool + Send + Sync;

/// A program's closure.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Box<Policy>>);

impl Gate {
    pub(crate) fn new(gate: impl Fn(&GateRequest<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(Box::new(gate)))
    }

    /// Gives the closure to a configuration, which the caller vouches for.
    pub(crate) fn set(&self, config: *mut sys::crust_config) -> sys::crust_result {
        let user = Arc::into_raw(Arc::clone(&self.0)).cast_mut().cast();
        // SAFETY: user is what ask and release expect, and release takes it back.
        let code = unsafe { sys::crust_config_set_gate(config, Some(ask), user, Some(release)) };
        if code < 0 {
            // SAFETY: from Arc::into_raw, and the library has not taken it.
            drop(unsafe { Arc::from_raw(user.cast::<Box<Policy>>().cast_const()) });
        }
        code
    }
}

unsafe extern "C" fn ask(user: *mut c_void, request: *const sys::crust_gate_request) -> c_int {
    // A panic must not cross the C frames above.
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the library calls release after the last call of this, and the request
        // and what it points to hold until this returns.
        let (gate, raw) = unsafe { (&*user.cast::<Box<Policy>>(), &*request) };
        let app_id = if raw.app_id_len == 0 {
            &[]
        } else {
            // SAFETY: see above.
            unsafe { slice::from_raw_parts(raw.app_id.cast::<u8>(), raw.app_id_len) }
        };
        // SAFETY: see above; it is NUL-terminated.
        let endpoint = unsafe { CStr::from_ptr(raw.endpoint) };
        gate(&GateRequest {
            peer: PeerId::from_raw(raw.peer),
            app_id,
            role: Role::from_raw(raw.role),
            endpoint: endpoint.to_str().unwrap_or_default(),
            how: How::from_raw(raw.how),
            outbound: raw.outbound == 1,
        })
    }));
    c_int::from(outcome.unwrap_or_else(refuse))
}

unsafe extern "C" fn release(user: *mut c_void) {
    // SAFETY: from Arc::into_raw, and this is its last use.
    let gate = unsafe { Arc::from_raw(user.cast::<Box<Policy>>().cast_const()) };
    // A panic must not cross the C frames above.
    catch_unwind(AssertUnwindSafe(|| drop(gate))).unwrap_or_else(|panic| drop(text_of(panic)));
}

/// Who cannot be judged is not let in. What the closure has thrown may itself panic when dropped.
fn refuse(panic: Box<dyn Any + Send>) -> bool {
    drop(text_of(panic));
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;
    use std::ptr;

    /// Panics when dropped, once nobody unwinds any more.
    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("tick");
            }
        }
    }

    #[test]
    fn what_a_gate_throws_goes_no_further() {
        let bomb = Bomb;
        let gate = Gate::new(move |_| {
            let _kept = &bomb;
            panic_any(Bomb)
        });
        let user = Arc::into_raw(gate.0).cast_mut().cast();
        let request = sys::crust_gate_request {
            struct_size: size_of::<sys::crust_gate_request>() as u32,
            how: 0,
            role: 0,
            outbound: 0,
            reserved: 0,
            peer: sys::crust_peer_id::default(),
            app_id: ptr::null(),
            app_id_len: 0,
            endpoint: c"tcp://127.0.0.1:1".as_ptr(),
        };
        // SAFETY: a closure of Gate::new and a request, whose pointers hold; release is last.
        unsafe {
            assert_eq!(ask(user, &request), 0);
            release(user);
        }
    }
}
