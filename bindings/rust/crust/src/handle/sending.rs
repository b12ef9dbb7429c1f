use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use crust_sys as sys;

use super::Handle;
use crate::error::{Error, Result, check};
use crate::peer_id::PeerId;

impl Handle {
    /// Queues one message, copying it. Priority 0 is the most urgent and
    /// overtakes; within a priority order is kept; 0 and 1 are never dropped. An
    /// accepted message arrives, also when the link breaks and another takes its
    /// place, or [`MessagesDropped`](crate::Event::MessagesDropped) or
    /// [`Lost`](crate::Event::Lost) tells of it.
    ///
    /// Errors: [`UnknownPeer`](crate::ErrorKind::UnknownPeer);
    /// [`TooBig`](crate::ErrorKind::TooBig) over
    /// [`MAX_MESSAGE`](crate::MAX_MESSAGE), which leaves the session unharmed;
    /// [`WouldBlock`](crate::ErrorKind::WouldBlock) when the queue is full, after
    /// which one [`Writable`](crate::Event::Writable) follows.
    pub fn send(&self, peer: &PeerId, data: impl AsRef<[u8]>, priority: u8) -> Result<()> {
        let data = data.as_ref();
        // SAFETY: an id, and a buffer with its length, which the library copies.
        check(unsafe {
            sys::crust_send(
                self.service,
                peer.as_raw(),
                data.as_ptr().cast(),
                data.len(),
                priority,
            )
        })
        .map(drop)
    }

    /// [`send`](Handle::send) that waits while the queue is full: for ever with
    /// `None`. It ends early when the session does.
    ///
    /// Errors: those of `send` but `WouldBlock`;
    /// [`Timeout`](crate::ErrorKind::Timeout);
    /// [`WouldDeadlock`](crate::ErrorKind::WouldDeadlock) inside a handler.
    pub fn send_wait(
        &self,
        peer: &PeerId,
        data: impl AsRef<[u8]>,
        priority: u8,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<()> {
        let data = data.as_ref();
        // SAFETY: as in send.
        check(unsafe {
            sys::crust_send_wait(
                self.service,
                peer.as_raw(),
                data.as_ptr().cast(),
                data.len(),
                priority,
                timeout_ms(timeout.into()),
            )
        })
        .map(drop)
    }

    /// Queues messages in order until one is refused. It is cheaper than as many
    /// calls of [`send`](Handle::send), most of all when neighbours go to the
    /// same peer.
    ///
    /// ```
    /// # use crust::{Config, Event, Outgoing, Service};
    /// # let (alice, alice_events) = Service::new(Config::new().listen("tcp://127.0.0.1:0"))?;
    /// # let (bob, bob_events) = Service::new(Config::new().no_listen())?;
    /// # for event in alice_events {
    /// #     if let Event::ListenerStarted { endpoint, .. } = &event {
    /// #         bob.connect_endpoint(endpoint, 1)?;
    /// #     }
    /// #     if let Event::Connected { peer, .. } = event {
    /// let messages: Vec<Outgoing> = ["one", "two", "three"]
    ///     .iter()
    ///     .map(|text| Outgoing::new(&peer, text.as_bytes(), 2))
    ///     .collect();
    /// let sent = alice.send_batch(&messages)?;
    /// assert_eq!((sent.accepted, sent.refused), (3, None));
    /// #         break;
    /// #     }
    /// # }
    /// # Ok::<(), crust::Error>(())
    /// ```
    ///
    /// Errors: those of every call, when no message was looked at. Why a message
    /// was refused stands in the answer.
    pub fn send_batch(&self, messages: &[Outgoing<'_>]) -> Result<Sent> {
        // The answer is a 32-bit number.
        let n = messages.len().min(i32::MAX as usize);
        let mut why = sys::CRUST_OK;
        // SAFETY: Outgoing is a crust_message in memory, each made of a live id
        // and buffer, which the library copies; `n` of them are there.
        let accepted = check(unsafe {
            sys::crust_send_batch(self.service, messages.as_ptr().cast(), n, &mut why)
        })?;
        Ok(Sent {
            accepted: accepted as usize,
            refused: (why != sys::CRUST_OK).then(|| Error::from_event(why, None)),
        })
    }

    /// [`send`](Handle::send) for a message whose sender wants to know when it has
    /// arrived. Final event: [`Delivered`](crate::Event::Delivered), without an
    /// error when the peer's library has the message and all that was sent before
    /// it at its priority, in order, and will hand them to its program unless its
    /// service stops first.
    ///
    /// ```
    /// # use crust::{Config, Event, Service};
    /// # let (alice, mut alice_events) = Service::new(Config::new().listen("tcp://127.0.0.1:0"))?;
    /// # let (bob, _bob_events) = Service::new(Config::new().no_listen())?;
    /// # let mut met = None;
    /// # while met.is_none() {
    /// #     match alice_events.next().unwrap() {
    /// #         Event::ListenerStarted { endpoint, .. } => bob.connect_endpoint(&endpoint, 1)?,
    /// #         Event::Connected { peer, .. } => met = Some(peer),
    /// #         _ => {}
    /// #     }
    /// # }
    /// # let peer = met.unwrap();
    /// alice.send_receipt(&peer, "keep this", 1, 7)?;
    /// for event in alice_events {
    ///     if let Event::Delivered { token: 7, error, .. } = event {
    ///         assert_eq!(error, None);
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), crust::Error>(())
    /// ```
    ///
    /// Errors: those of `send`; [`WouldBlock`](crate::ErrorKind::WouldBlock) also
    /// while 4,096 receipts of this peer are outstanding.
    pub fn send_receipt(
        &self,
        peer: &PeerId,
        data: impl AsRef<[u8]>,
        priority: u8,
        token: u64,
    ) -> Result<()> {
        let data = data.as_ref();
        // SAFETY: as in send.
        check(unsafe {
            sys::crust_send_receipt(
                self.service,
                peer.as_raw(),
                data.as_ptr().cast(),
                data.len(),
                priority,
                token,
            )
        })
        .map(drop)
    }

    /// Sends one datagram, copying it, at once: at most once, in no order, never
    /// behind messages that are queued, encrypted and authenticated as they are. It
    /// may be lost on the way, when too many wait to be sent or to be taken, and
    /// while the session is suspended. Over TCP it goes into the stream and may come
    /// late instead. It arrives as [`Datagram`](crate::Event::Datagram).
    ///
    /// ```
    /// # use crust::{Config, ErrorKind, Event, Service};
    /// # let (alice, alice_events) = Service::new(Config::new().listen("utp://127.0.0.1:0"))?;
    /// # let (bob, _bob_events) = Service::new(Config::new().no_listen())?;
    /// # for event in alice_events {
    /// #     if let Event::ListenerStarted { endpoint, .. } = &event {
    /// #         bob.connect_endpoint(endpoint, 1)?;
    /// #     }
    /// #     if let Event::Connected { peer, .. } = event {
    /// alice.send_datagram(&peer, "where I am now: 12, 7")?;
    ///
    /// let large = vec![0; alice.max_datagram(&peer)? + 1];
    /// let error = alice.send_datagram(&peer, &large).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::TooBig);
    /// #         break;
    /// #     }
    /// # }
    /// # Ok::<(), crust::Error>(())
    /// ```
    ///
    /// Errors: [`UnknownPeer`](crate::ErrorKind::UnknownPeer);
    /// [`TooBig`](crate::ErrorKind::TooBig) over
    /// [`max_datagram`](Handle::max_datagram).
    pub fn send_datagram(&self, peer: &PeerId, data: impl AsRef<[u8]>) -> Result<()> {
        let data = data.as_ref();
        // SAFETY: an id, and a buffer with its length, which the library copies.
        check(unsafe {
            sys::crust_send_datagram(
                self.service,
                peer.as_raw(),
                data.as_ptr().cast(),
                data.len(),
            )
        })
        .map(drop)
    }

    /// How many bytes [`send_datagram`](Handle::send_datagram) takes now for a
    /// peer: at least 1,100, more over uTP when the path turns out to be wider.
    ///
    /// Errors: [`UnknownPeer`](crate::ErrorKind::UnknownPeer).
    pub fn max_datagram(&self, peer: &PeerId) -> Result<usize> {
        // SAFETY: an id.
        check(unsafe { sys::crust_max_datagram(self.service, peer.as_raw()) })
            .map(|bytes| bytes as usize)
    }
}

/// A timeout for the library: rounded up to milliseconds, for ever when `None`.
/// Times beyond 24 days, which its numbers cannot hold, count as 24 days.
pub(crate) fn timeout_ms(timeout: Option<Duration>) -> i32 {
    match timeout {
        None => -1,
        Some(time) => i32::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
    }
}

/// One message of [`send_batch`](Handle::send_batch). It borrows the id and the
/// bytes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Outgoing<'a> {
    raw: sys::crust_message,
    borrows: PhantomData<(&'a PeerId, &'a [u8])>,
}

// SAFETY: it is two shared references and a number, and these may be sent to
// and used by other threads.
unsafe impl Send for Outgoing<'_> {}
// SAFETY: as above.
unsafe impl Sync for Outgoing<'_> {}

impl<'a> Outgoing<'a> {
    /// A message to `peer`. Priority 0 is the most urgent.
    pub fn new(peer: &'a PeerId, data: &'a [u8], priority: u8) -> Self {
        Self {
            raw: sys::crust_message {
                peer: peer.as_raw(),
                data: data.as_ptr().cast(),
                len: data.len() as u64,
                priority,
                reserved: [0; 7],
            },
            borrows: PhantomData,
        }
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("len", &self.raw.len)
            .field("priority", &self.raw.priority)
            .finish_non_exhaustive()
    }
}

/// What [`send_batch`](Handle::send_batch) did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "messages after the accepted ones were not sent"]
#[non_exhaustive]
pub struct Sent {
    /// How many messages, from the first, were accepted.
    pub accepted: usize,
    /// Why the next one was not; `None` when all were.
    pub refused: Option<Error>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up_and_never_wrap() {
        assert_eq!(timeout_ms(None), -1);
        assert_eq!(timeout_ms(Some(Duration::ZERO)), 0);
        assert_eq!(timeout_ms(Some(Duration::from_micros(1))), 1);
        assert_eq!(timeout_ms(Some(Duration::MAX)), i32::MAX);
    }
}
