use std::iter::FusedIterator;
use std::sync::Arc;

use crust_sys as sys;

use super::Event;
use crate::logs::forward;

/// A run of events that came together: the fast way to receive. Iterate it.
///
/// Its memory stays until the batch and every message of it are dropped.
#[derive(Debug)]
pub struct Batch {
    raw: Arc<RawBatch>,
    next: usize,
}

impl Batch {
    /// # Safety
    ///
    /// `raw` came from crust_poll and is owned by the caller, who gives it away.
    pub(crate) unsafe fn from_raw(raw: *mut sys::crust_batch) -> Self {
        let mut len = 0;
        // SAFETY: a batch, and room for the number.
        let events = unsafe { sys::crust_batch_events(raw, &mut len) };
        let len = if events.is_null() { 0 } else { len };
        Self {
            raw: Arc::new(RawBatch { raw, events, len }),
            next: 0,
        }
    }
}

impl Iterator for Batch {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        if self.next == self.raw.len {
            return None;
        }
        // SAFETY: the index is below the number of events in the array, which
        // lives as long as the batch.
        let raw = unsafe { &*self.raw.events.add(self.next) };
        self.next += 1;
        // SAFETY: the pointers of the event lead into the batch, which the
        // event keeps.
        Some(forward(unsafe { Event::from_raw(raw, Some(&self.raw)) }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.raw.len - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Batch {}
impl FusedIterator for Batch {}

/// A batch of the library, freed when the last user is gone.
#[derive(Debug)]
pub(crate) struct RawBatch {
    raw: *mut sys::crust_batch,
    events: *const sys::crust_event,
    len: usize,
}

// SAFETY: the library hands a batch over whole and never touches it again, we
// only read it, and crust_batch_free may be called from any thread.
unsafe impl Send for RawBatch {}
// SAFETY: as above: all access is reading.
unsafe impl Sync for RawBatch {}

impl Drop for RawBatch {
    fn drop(&mut self) {
        // SAFETY: owned, and freed once: this is the last user.
        unsafe { sys::crust_batch_free(self.raw) };
    }
}
