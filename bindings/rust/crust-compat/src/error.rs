use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::mpsc;

use libcrust::ErrorKind;
use maidsafe_utilities::serialisation::SerialisationError;

macro_rules! text_errors {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name(pub(crate) String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl StdError for $name {}
    )*};
}

text_errors! {
    /// Why service discovery failed.
    ServiceDiscoveryError;
    /// Why NAT traversal failed.
    NatError;
    /// Why something else inside failed.
    CommonError;
    /// The service has stopped.
    Stopped;
}

/// What can go wrong.
#[derive(Debug)]
pub enum CrustError {
    /// Nobody sends to a channel any more.
    ChannelRecv(mpsc::RecvError),
    /// The configuration file cannot be read.
    ConfigFileHandler(config_file_handler::Error),
    /// The system, or the network. Its text is a sentence of libcrust that names what was
    /// tried.
    Io(io::Error),
    /// Service discovery has not been started.
    ServiceDiscNotEnabled,
    /// Service discovery failed.
    ServiceDisc(ServiceDiscoveryError),
    /// There is nothing to connect to.
    InsufficientConnectionInfo,
    /// NAT traversal failed.
    Nat(NatError),
    /// Anything else: a configuration out of bounds for instance.
    Common(CommonError),
    /// The service has stopped.
    CoreMsgTx(Stopped),
    /// No such peer is connected.
    PeerNotFound,
    /// A UID, or what a peer sent, cannot be serialised or parsed.
    Serialisation(SerialisationError),
    /// The peer is this service itself.
    RequestedConnectToSelf,
    /// There is no listener yet.
    ListenerNotIntialised,
}

impl fmt::Display for CrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ChannelRecv(e) => write!(f, "Channel receive error: {e}"),
            Self::ConfigFileHandler(e) => write!(f, "Config file handling error: {e}"),
            Self::Io(e) => write!(f, "IO error: {e}"),
            Self::ServiceDiscNotEnabled => {
                f.write_str("ServiceDiscovery is not yet enabled or registered")
            }
            Self::ServiceDisc(e) => write!(f, "ServiceDiscovery error: {e}"),
            Self::InsufficientConnectionInfo => {
                f.write_str("Not enough information to initiate connection to peer")
            }
            Self::Nat(e) => write!(f, "Nat Traversal error: {e}"),
            Self::Common(e) => write!(f, "Common error: {e}"),
            Self::CoreMsgTx(e) => write!(f, "The service has stopped: {e}"),
            Self::PeerNotFound => f.write_str("Peer not found"),
            Self::Serialisation(e) => write!(f, "Serialisation error: {e}"),
            Self::RequestedConnectToSelf => f.write_str("Requested connection to self"),
            Self::ListenerNotIntialised => f.write_str("Listener is not initialised yet"),
        }
    }
}

impl StdError for CrustError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::ChannelRecv(e) => Some(e),
            Self::ConfigFileHandler(e) => Some(e),
            Self::Io(e) => Some(e),
            Self::ServiceDisc(e) => Some(e),
            Self::Nat(e) => Some(e),
            Self::Common(e) => Some(e),
            Self::CoreMsgTx(e) => Some(e),
            Self::Serialisation(e) => Some(e),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($type:ty => $variant:ident,)*) => {$(
        impl From<$type> for CrustError {
            fn from(e: $type) -> Self {
                Self::$variant(e)
            }
        }
    )*};
}

from! {
    mpsc::RecvError => ChannelRecv,
    config_file_handler::Error => ConfigFileHandler,
    io::Error => Io,
    ServiceDiscoveryError => ServiceDisc,
    NatError => Nat,
    CommonError => Common,
    SerialisationError => Serialisation,
}

impl From<libcrust::Error> for CrustError {
    fn from(e: libcrust::Error) -> Self {
        let kind = match e.kind() {
            ErrorKind::UnknownPeer => return Self::PeerNotFound,
            ErrorKind::SelfConnect => return Self::RequestedConnectToSelf,
            ErrorKind::NoEndpoint => return Self::InsufficientConnectionInfo,
            ErrorKind::Closed | ErrorKind::BadHandle => {
                return Self::CoreMsgTx(Stopped(e.to_string()));
            }
            ErrorKind::WouldBlock => io::ErrorKind::WouldBlock,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::AddressInUse => io::ErrorKind::AddrInUse,
            ErrorKind::Address => io::ErrorKind::AddrNotAvailable,
            ErrorKind::Refused => io::ErrorKind::ConnectionRefused,
            ErrorKind::Reset => io::ErrorKind::ConnectionReset,
            ErrorKind::Permission => io::ErrorKind::PermissionDenied,
            ErrorKind::Io | ErrorKind::Unreachable => io::ErrorKind::Other,
            _ => return Self::Common(CommonError(e.to_string())),
        };
        Self::Io(io::Error::new(kind, e.to_string()))
    }
}
