use std::fmt;
use std::ops::Deref;
use std::slice;
use std::sync::Arc;

use super::batch::RawBatch;
use crate::peer_id::PeerId;

/// A message from a peer. It derefs to its bytes.
///
/// The bytes lie in the memory of the [`Batch`](crate::Batch) that the message came in, which
/// stays as long as one of its messages does: nothing is copied, but whoever
/// keeps a small message for long does better to keep `message.to_vec()`.
#[derive(Clone)]
#[non_exhaustive]
pub struct Message {
    /// From whom.
    pub peer: PeerId,
    /// As the sender gave it; 0 is the most urgent.
    pub priority: u8,
    /// The bytes.
    pub payload: Payload,
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.payload
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("peer", &self.peer)
            .field("priority", &self.priority)
            .field("payload", &self.payload)
            .finish()
    }
}

/// Bytes of an event, without copying: they keep the memory of the [`Batch`](crate::Batch) that
/// the event came in. It derefs to the bytes.
pub struct Payload {
    bytes: Bytes,
}

enum Bytes {
    /// In the memory of a batch, which is kept.
    Kept {
        _owner: Arc<RawBatch>,
        start: *const u8,
        len: usize,
    },
    /// In memory of our own.
    Own(Arc<[u8]>),
    /// In memory of the library that outlives this value and all borrows of it:
    /// events of handlers, which are only ever lent.
    Lent { start: *const u8, len: usize },
}

// SAFETY: the pointers lead to memory that nobody changes while this value
// lives, so they are like `&[u8]`: readable from any thread. The owner is Send
// and Sync itself.
unsafe impl Send for Payload {}
// SAFETY: as above.
unsafe impl Sync for Payload {}

impl Payload {
    pub(super) fn from_raw(start: *const u8, len: u64, owner: Option<&Arc<RawBatch>>) -> Self {
        let bytes = match (usize::try_from(len), owner) {
            (Err(_) | Ok(0), _) => Bytes::Own(Arc::default()),
            (Ok(_), _) if start.is_null() => Bytes::Own(Arc::default()),
            (Ok(len), Some(owner)) => Bytes::Kept {
                _owner: Arc::clone(owner),
                start,
                len,
            },
            (Ok(len), None) => Bytes::Lent { start, len },
        };
        Self { bytes }
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Own(bytes) => bytes,
            Bytes::Kept { start, len, .. } | Bytes::Lent { start, len } => {
                // SAFETY: not NULL and not empty (see from_raw); `len` bytes
                // that the batch, or the library for a lent event, keeps
                // unchanged for as long as `self` lives.
                unsafe { slice::from_raw_parts(*start, *len) }
            }
        }
    }
}

impl AsRef<[u8]> for Payload {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Payload {
    fn clone(&self) -> Self {
        let bytes = match &self.bytes {
            Bytes::Kept { _owner, start, len } => Bytes::Kept {
                _owner: Arc::clone(_owner),
                start: *start,
                len: *len,
            },
            Bytes::Own(bytes) => Bytes::Own(Arc::clone(bytes)),
            // A clone may outlive the loan.
            Bytes::Lent { .. } => Bytes::Own(Arc::from(&**self)),
        };
        Self { bytes }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

/// Shows text as text, other bytes as numbers, and of both no more than a line.
impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 64;
        let bytes: &[u8] = self;
        write!(f, "b\"{}\"", bytes[..bytes.len().min(SHOWN)].escape_ascii())?;
        if bytes.len() > SHOWN {
            write!(f, ".. ({} bytes)", bytes.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_payloads_are_shown_in_part() {
        let bytes = [b'a'; 1000];
        let payload = Payload::from_raw(bytes.as_ptr(), 1000, None);
        let shown = format!("{payload:?}");
        assert!(
            shown.ends_with("a\".. (1000 bytes)") && shown.len() < 100,
            "{shown}"
        );
    }
}
