use std::borrow::Cow;
use std::ffi::CStr;
use std::fmt;
use std::io;

use crust_sys as sys;

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong: a code that has the same number in Go, C, Rust and Python,
/// and one sentence that names the operation, the peer or endpoint, and the cause.
///
/// [`Display`](fmt::Display) gives the sentence. Test the [`kind`](Error::kind),
/// never the text.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    code: i32,
    message: Cow<'static, str>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $code:ident,)*) => {
        /// The reasons of an [`Error`]. More may be added.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $($(#[$doc])* $kind,)*
        }

        impl ErrorKind {
            /// The number that stands for this kind in every language.
            pub fn code(self) -> i32 {
                match self {
                    $(ErrorKind::$kind => sys::$code,)*
                }
            }

            /// The kind that a number stands for. A number that this crate does
            /// not know counts as [`Internal`](ErrorKind::Internal).
            pub(crate) fn from_code(code: i32) -> Self {
                match code {
                    $(sys::$code => ErrorKind::$kind,)*
                    _ => ErrorKind::Internal,
                }
            }
        }

        #[cfg(test)]
        const ALL_KINDS: &[ErrorKind] = &[$(ErrorKind::$kind,)*];
    };
}

kinds! {
    /// An argument is malformed or out of bounds.
    Invalid = CRUST_ERR_INVALID,
    /// The service was dropped.
    BadHandle = CRUST_ERR_BAD_HANDLE,
    /// Not possible now, for instance when a bootstrap is running already.
    State = CRUST_ERR_STATE,
    /// Out of memory.
    NoMemory = CRUST_ERR_NO_MEMORY,
    /// The send queue is full; an [`Event::Writable`](crate::Event::Writable) will follow.
    WouldBlock = CRUST_ERR_WOULD_BLOCK,
    /// No answer in time.
    Timeout = CRUST_ERR_TIMEOUT,
    /// Given up by the program, or by closing the service.
    Canceled = CRUST_ERR_CANCELED,
    /// The service is closed.
    Closed = CRUST_ERR_CLOSED,
    /// A buffer was too small. This crate sizes its buffers itself.
    BufferTooSmall = CRUST_ERR_BUFFER_TOO_SMALL,
    /// The message is over [`MAX_MESSAGE`](crate::MAX_MESSAGE).
    TooBig = CRUST_ERR_TOO_BIG,
    /// This build or platform cannot.
    Unsupported = CRUST_ERR_UNSUPPORTED,
    /// A blocking call inside a handler.
    WouldDeadlock = CRUST_ERR_WOULD_DEADLOCK,
    /// The process is a child made by `fork` after the library was loaded.
    Forked = CRUST_ERR_FORKED,
    /// A panic was caught: in the library, or in a handler.
    Panicked = CRUST_ERR_PANICKED,
    /// A fault inside the library, or a code newer than this crate.
    Internal = CRUST_ERR_INTERNAL,
    /// The library in use speaks another ABI than this crate was built for.
    Abi = CRUST_ERR_ABI,
    /// The operating system refused for another reason.
    Io = CRUST_ERR_IO,
    /// Another program listens there.
    AddressInUse = CRUST_ERR_ADDRESS_IN_USE,
    /// The address does not exist on this machine or is malformed.
    Address = CRUST_ERR_ADDRESS,
    /// No route to the address.
    Unreachable = CRUST_ERR_UNREACHABLE,
    /// Nothing listens there.
    Refused = CRUST_ERR_REFUSED,
    /// The connection broke.
    Reset = CRUST_ERR_RESET,
    /// The operating system forbids it.
    Permission = CRUST_ERR_PERMISSION,
    /// A limit on connections, handshakes or descriptors.
    Limit = CRUST_ERR_LIMIT,
    /// The peer is this service itself.
    SelfConnect = CRUST_ERR_SELF,
    /// Not connected to that peer.
    UnknownPeer = CRUST_ERR_UNKNOWN_PEER,
    /// Already connected to that peer.
    Connected = CRUST_ERR_CONNECTED,
    /// The peer or its address is blacklisted.
    Banned = CRUST_ERR_BANNED,
    /// The peer does not accept us.
    NotAllowed = CRUST_ERR_NOT_ALLOWED,
    /// Connection info that is malformed, forged or expired.
    BadInfo = CRUST_ERR_BAD_INFO,
    /// The other end did not complete the handshake.
    Handshake = CRUST_ERR_HANDSHAKE,
    /// Data that fails authentication.
    Crypto = CRUST_ERR_CRYPTO,
    /// No answer: another network name, or no libcrust there.
    NetworkName = CRUST_ERR_NETWORK_NAME,
    /// Somebody else than the expected peer answered.
    WrongPeer = CRUST_ERR_WRONG_PEER,
    /// Nothing to try: no endpoint or contact was given.
    NoEndpoint = CRUST_ERR_NO_ENDPOINT,
    /// The connection was closed in order by either side.
    Disconnected = CRUST_ERR_DISCONNECTED,
    /// Nothing heard from the peer for the whole timeout.
    PeerSilent = CRUST_ERR_PEER_SILENT,
    /// The peer broke the protocol.
    Protocol = CRUST_ERR_PROTOCOL,
    /// The peer restarted and came back as a new session.
    Replaced = CRUST_ERR_REPLACED,
    /// A message grew too old in the queue and was dropped.
    Expired = CRUST_ERR_EXPIRED,
}

impl ErrorKind {
    /// The kind's name in snake_case, such as `"would_block"`, the same in every
    /// language.
    pub fn name(self) -> &'static str {
        name_of(self.code())
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Error {
    /// The number, also when this crate has no [`ErrorKind`] for it.
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The reason.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::from_code(self.code)
    }

    /// The code's name in snake_case, such as `"would_block"`. It comes from the
    /// library, so it is right for codes newer than this crate too.
    pub fn name(&self) -> &'static str {
        name_of(self.code)
    }

    /// The sentence.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// An error that this crate itself found.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code: kind.code(),
            message: message.into(),
        }
    }

    /// An error that an event tells of. Without a text the code speaks.
    pub(crate) fn from_event(code: i32, text: Option<String>) -> Self {
        match text {
            Some(text) if !text.is_empty() => Self {
                code,
                message: text.into(),
            },
            _ => Self {
                code,
                message: sentence_of(code).into(),
            },
        }
    }

    /// The error of the call that this thread has just made.
    pub(crate) fn last(code: i32) -> Self {
        // SAFETY: a pure function; the text is NUL-terminated and stays until
        // this thread's next failing call, and it is copied here.
        let text = unsafe { text_at(sys::crust_last_error()) };
        Self::from_event(code, text)
    }
}

/// Turns a result of the library into a [`Result`]. It must be called on the
/// thread that made the call, before that thread makes another.
pub(crate) fn check(code: sys::crust_result) -> Result<i32> {
    if code < 0 {
        Err(Error::last(code))
    } else {
        Ok(code)
    }
}

/// Copies a C string; NULL gives `None`. Bytes that are no UTF-8 are replaced.
///
/// # Safety
///
/// `text` is NULL or points to a NUL-terminated string that stays unchanged
/// during the call.
pub(crate) unsafe fn text_at(text: *const std::ffi::c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

fn name_of(code: i32) -> &'static str {
    // SAFETY: a pure function that answers for every number with a text in
    // static storage.
    unsafe { static_text(sys::crust_error_name(code)) }
}

fn sentence_of(code: i32) -> &'static str {
    // SAFETY: as in name_of.
    unsafe { static_text(sys::crust_strerror(code)) }
}

/// # Safety
///
/// `text` is NULL or points to a NUL-terminated string in static storage.
pub(crate) unsafe fn static_text(text: *const std::ffi::c_char) -> &'static str {
    if text.is_null() {
        return "";
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    unsafe { CStr::from_ptr(text) }.to_str().unwrap_or_default()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Error({} {}: {:?})",
            self.name(),
            self.code,
            self.message
        )
    }
}

impl std::error::Error for Error {}

/// For programs whose own errors are [`io::Error`]s. The kind is the nearest of
/// the standard library's, and the error itself is kept inside.
impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Invalid | ErrorKind::TooBig => io::ErrorKind::InvalidInput,
            ErrorKind::BadInfo | ErrorKind::Crypto | ErrorKind::Protocol => {
                io::ErrorKind::InvalidData
            }
            ErrorKind::NoMemory => io::ErrorKind::OutOfMemory,
            ErrorKind::WouldBlock => io::ErrorKind::WouldBlock,
            ErrorKind::Timeout | ErrorKind::PeerSilent => io::ErrorKind::TimedOut,
            ErrorKind::Canceled => io::ErrorKind::Interrupted,
            ErrorKind::Closed | ErrorKind::BadHandle => io::ErrorKind::BrokenPipe,
            ErrorKind::Unsupported => io::ErrorKind::Unsupported,
            ErrorKind::AddressInUse => io::ErrorKind::AddrInUse,
            ErrorKind::Address => io::ErrorKind::AddrNotAvailable,
            ErrorKind::Unreachable => io::ErrorKind::HostUnreachable,
            ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            ErrorKind::Reset => io::ErrorKind::ConnectionReset,
            ErrorKind::Disconnected | ErrorKind::Replaced => io::ErrorKind::ConnectionAborted,
            ErrorKind::Permission | ErrorKind::NotAllowed => io::ErrorKind::PermissionDenied,
            ErrorKind::UnknownPeer => io::ErrorKind::NotConnected,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_the_abi_has_a_kind_with_a_name() {
        let codes = (sys::CRUST_ERR_EXPIRED..0).filter(|&code| name_of(code) != name_of(-999));
        let known: Vec<i32> = codes.collect();
        assert!(known.len() > 35, "the library names only {known:?}");
        for code in &known {
            assert_eq!(ErrorKind::from_code(*code).code(), *code);
        }
        assert_eq!(known.len(), ALL_KINDS.len());
    }

    #[test]
    fn a_code_of_the_future_counts_as_internal_and_keeps_its_number() {
        let error = Error::from_event(-999, Some("send: too new".into()));
        assert_eq!((error.kind(), error.code()), (ErrorKind::Internal, -999));
        assert_eq!(error.to_string(), "send: too new");
    }

    #[test]
    fn an_error_without_text_says_its_code() {
        let error = Error::from_event(sys::CRUST_ERR_REFUSED, None);
        assert!(!error.message().is_empty());
        assert_eq!(error.name(), "refused");
    }

    #[test]
    fn io_errors_keep_the_error_inside() {
        let error = io::Error::from(Error::new(ErrorKind::AddressInUse, "listen: taken"));
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(error.to_string(), "listen: taken");
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<Error>());
        assert_eq!(inner.map(Error::kind), Some(ErrorKind::AddressInUse));
    }
}
